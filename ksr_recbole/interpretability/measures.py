"""How far the explanations of Sec. 5.4 are right, over all users with a test item.

Value level: each entity that a test item has on an attribute (a true entity) is ranked among
the entities of the attribute's range that the item does not have, by L1 distance to the user's
value vector before the item.  Attribute level: whether the test item agrees with the user's
history on the attribute that had the largest attention before it.  ``docs/interpretability.md``
defines every figure.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ksr_recbole.dataset.dataloader import SequenceEvalData
from ksr_recbole.dataset.sequence_datasets import KGSequenceDataset
from ksr_recbole.errors import UserError
from ksr_recbole.evaluation.scorer import ModelScorer
from ksr_recbole.explanation.value_entities import ValueEntities, batches
from ksr_recbole.interpretability.attribute_level import attribute_level
from ksr_recbole.interpretability.cases import Cases
from ksr_recbole.interpretability.value_level import ValueLevel
from ksr_recbole.model.ksr import KSR
from ksr_recbole.trainer.trainer import SequenceTrainer


def measure_explanations(
    trainer: SequenceTrainer, data: SequenceEvalData
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Measure both levels of explanation of a trained KSR (Sec. 5.4).

    Args:
        trainer: holds the model.
        data: the phase whose items are explained; the model reads up to where it begins.

    Returns:
        The figures as JSON values, as ``docs/interpretability.md`` lists them, and the same for
        every user, by ``values/<ranking>/<metric>`` and ``attention/<choice>/agreement@<window>``
        (``float64 [U]``; the users are ``values/users`` and ``attention/users``).

    Raises:
        UserError: the model has no memory, or no attribute can be ranked.
    """
    model, dataset = trainer.model, cast(KGSequenceDataset, data.dataset)
    if not isinstance(model, KSR):
        raise UserError(
            f"The model {type(model).__name__} has no value vectors over attributes to explain "
            "with; choose KSR or KSR-paper."
        )
    entities = ValueEntities.of(dataset)
    cases = Cases.of(dataset.sequences, dataset.split, data)
    names = [str(dataset.field2id_token[dataset.relation_field][a]) for a in entities.attributes]
    scorer = ModelScorer(model, trainer.config, dataset.sequences, dataset.split)
    ranking = ValueLevel(entities, cases, model)
    weights = np.empty((len(cases.users), len(names)))
    model.eval()
    with torch.no_grad():
        for batch in batches(len(cases.users), max(cases.ends - cases.starts)):
            values, weights[batch] = _read(model, scorer, cases, batch)
            ranking.rank(batch, values)
    value_level, value_arrays = ranking.summary(names)
    attention_level, attention_arrays = attribute_level(entities, cases, weights, names)
    counts = {"users": len(cases.users), "positives": len(cases.items)}
    told = {**counts, "attributes": names, "values": value_level, "attention": attention_level}
    return told, value_arrays | attention_arrays


def _read(model: KSR, scorer: ModelScorer, cases: Cases, batch: slice) -> tuple[Tensor, np.ndarray]:
    """Value matrices ``[B, A, E]`` and attention ``[B, A]`` before the items of these users."""
    history = scorer.history(cases.users[batch], cases.ends[batch])
    state = model.advance(history[model.ITEM_SEQ], history[model.ITEM_SEQ_LEN])
    return model.value_matrices(state), model.attention(state.hidden[-1]).cpu().numpy()  # Eq. 6
