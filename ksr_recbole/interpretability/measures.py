"""How far the explanations of Sec. 5.4 are right, over all users with a test item.

Value level: each entity that a test item has on an attribute (a true entity) is ranked among
the entities of the attribute's range that the item does not have, by L1 distance to the user's
value vector before the item.  Attribute level: whether the test item agrees with the user's
history on the attribute that had the largest attention before it.  ``docs/interpretability.md``
defines every figure.
"""

from __future__ import annotations

from logging import getLogger
from typing import Any, cast

import numpy as np
import torch

from ksr_recbole.bars import Bar
from ksr_recbole.dataset.dataloader import SequenceEvalData
from ksr_recbole.dataset.sequence_datasets import KGSequenceDataset
from ksr_recbole.evaluation.scorer import ModelScorer
from ksr_recbole.explanation.explain import with_memory
from ksr_recbole.explanation.knowledge import Knowledge
from ksr_recbole.explanation.value_entities import ValueEntities, batches
from ksr_recbole.interpretability.attribute_level import attribute_level
from ksr_recbole.interpretability.cases import Cases
from ksr_recbole.interpretability.reason_level import ReasonLevel, paired
from ksr_recbole.interpretability.value_level import EXPECTED, ValueLevel
from ksr_recbole.model.ksr import KSR
from ksr_recbole.trainer.sequence_trainer import SequenceTrainer


def measure_explanations(
    trainer: SequenceTrainer, data: SequenceEvalData
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Measure the explanations of a trained KSR: values, attention and reasons (Sec. 5.4).

    Args:
        trainer: holds the model.
        data: the phase whose items are explained; the model reads up to where it begins.

    Returns:
        The figures as JSON values, as ``docs/interpretability.md`` lists them, and the same for
        every user, by ``values/<ranking>/<metric>`` and ``attention/<choice>/agreement@<window>``
        (``float64 [U]``; the users are ``values/users`` and ``attention/users``), by
        ``reasons/readable``, ``reasons/<kind>/<name>`` and ``reasons/agreement/<name>`` (the users
        are ``reasons/users``).

    Raises:
        UserError: the model has no memory, or no attribute can be ranked.
    """
    model, dataset = trainer.model, cast(KGSequenceDataset, data.dataset)
    with_memory(type(model), type(model).__name__)
    assert isinstance(model, KSR)
    entities = ValueEntities.of(dataset)
    cases = Cases.of(dataset.sequences, dataset.split, data)
    names = [str(dataset.field2id_token[dataset.relation_field][a]) for a in entities.attributes]
    scorer = ModelScorer(model, trainer.config, dataset.sequences, dataset.split)
    ranking = ValueLevel(entities, cases, model)
    reasons = ReasonLevel(Knowledge.of(dataset), cases, model)
    weights = np.empty((len(cases.users), len(names)))
    model.eval()
    # Of a user are held at once the scores of all items, the history and the memory.
    memory = model.initial_state(1).values.numel()
    widest = max(dataset.item_num, int(cases.ends.max()), memory)
    users = list(batches(len(cases.users), widest))
    getLogger().info(f"Measuring the explanations of {len(cases.users):,} users.")
    with torch.no_grad():
        for batch in Bar(users, desc="Explain    ", disable=not trainer.config["show_progress"]):
            history = scorer.history(cases.users[batch], cases.ends[batch])
            items, lengths = history[model.ITEM_SEQ], history[model.ITEM_SEQ_LEN]
            state = model.advance(items, lengths)
            weights[batch] = model.attention(state.hidden[-1]).cpu().numpy()  # Eq. 6
            scores = reasons.read(batch, items, lengths)
            ranking.rank(batch, model.value_matrices(state), scores)
    value_level, value_arrays = ranking.summary(names)
    attention_level, attention_arrays = attribute_level(entities, cases, weights, names)
    counts = {"users": len(cases.users), "positives": len(cases.items)}
    reason_level, reason_arrays = reasons.summary()
    reason_level["expected"] = _expected(value_arrays)
    told = {**counts, "attributes": names, "values": value_level, "attention": attention_level}
    told["reasons"] = reason_level
    return told, value_arrays | attention_arrays | reason_arrays


def _expected(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """MRR of the values that the model expects against rules that need no model."""
    rivals = ("frequency", "frequency-popularity", "popularity")
    own = arrays[f"values/{EXPECTED}/mrr"]
    return {rival: paired(own, arrays[f"values/{rival}/mrr"]) for rival in rivals}
