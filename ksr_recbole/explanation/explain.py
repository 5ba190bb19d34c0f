"""Explaining what KSR recommends to one user (Sec. 5.4 and Fig. 5)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ksr_recbole.dataset.sequence_datasets import KGSequenceDataset
from ksr_recbole.errors import UserError
from ksr_recbole.explanation.parts import Explanation
from ksr_recbole.explanation.trace import History, Trace, rank_values
from ksr_recbole.explanation.value_entities import ValueEntities
from ksr_recbole.explanation.writer import Writer
from ksr_recbole.model.ksr import KSR


def explain(
    model: KSR,
    dataset: KGSequenceDataset,
    user: str,
    *,
    steps: int = 20,
    top: int = 5,
    recommendations: int = 10,
) -> Explanation:
    """Explain a user's recommendations by the attention over attributes and the value entities.

    The model reads the user's whole history, as a recommender in use would, held-out
    interactions too.

    Args:
        model: a trained KSR.
        dataset: the built dataset it was trained on.
        user: the user's id in the ``.inter`` file.
        steps: how many of the last interactions to show.
        top: how many value entities to show of each attribute.
        recommendations: how many items to recommend.

    Raises:
        UserError: a model without a memory or of other data, an unknown user, a count below 1,
            or a malformed file of names.
    """
    counts = {"steps": steps, "top": top, "recommendations": recommendations}
    for name, count in counts.items():
        if count < 1:
            raise UserError(f"The number of {name} is {count}; it must be at least 1.")
    _check_fit(model, dataset)
    history = History.of(dataset, user)
    found = ValueEntities.of(dataset)
    with _reading(model):
        items = torch.from_numpy(history.items).to(model.item_embedding.weight.device)
        trace = Trace.of(model, items, steps)
        shown = len(trace.attention)
        next_items = np.append(history.items[len(items) - shown + 1 :], 0)
        rankings = rank_values(model, found, trace.values, next_items, top)
        best, scores = _recommend(model, trace, history.seen, recommendations)
    attention = trace.attention.double().cpu().numpy()
    writer = Writer(dataset, found, history, attention, rankings, best, scores)
    return writer.explanation(str(user), model.options.value_matrix)


def _check_fit(model: Any, dataset: Any) -> None:
    if not isinstance(model, KSR):
        raise UserError(
            f"The model {type(model).__name__} has no memory of attributes to explain; "
            "give a KSR model."
        )
    same = model.n_items == dataset.item_num and np.array_equal(
        model.attributes.cpu().numpy(), dataset.attributes
    )
    if not same or len(model.entity_embedding.weight) != dataset.entity_num:
        raise UserError(
            f"The model was not made for this {dataset.dataset_name}: its items, entities or "
            "attributes are others; give the dataset it was trained on."
        )


@contextmanager
def _reading(model: KSR) -> Iterator[None]:
    """Without dropout and gradients; the model is left as it was."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def _recommend(model: KSR, trace: Trace, seen: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The best items after the last step, padding and items seen excluded, and their scores."""
    preference = model.last_preference(trace.state)
    scores = model.all_scores(model.user_mlp(preference))[0]  # Eq. 10
    scores[0] = scores[torch.from_numpy(seen).to(scores.device)] = -torch.inf
    left = int((scores > -torch.inf).sum())
    best = scores.topk(min(k, left))
    return best.indices.cpu().numpy(), best.values.cpu().numpy()
