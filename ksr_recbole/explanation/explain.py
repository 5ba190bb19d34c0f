"""Explaining what KSR recommends to one user (Sec. 5.4 and Fig. 5)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from ksr_recbole.dataset.sequence_datasets import KGSequenceDataset
from ksr_recbole.errors import UserError
from ksr_recbole.explanation.knowledge import Knowledge
from ksr_recbole.explanation.parts import Explanation, Recommendation, Step
from ksr_recbole.explanation.reasons import Candidates, SharedFacts, among_covered, attention_now
from ksr_recbole.explanation.steps import LastSteps
from ksr_recbole.explanation.trace import History, Trace, rank_values
from ksr_recbole.explanation.wording import Wording, often_chosen
from ksr_recbole.model.ksr import KSR
from ksr_recbole.model.sequence_recommender import SequenceState


class AskedItems(NamedTuple):
    """Items to explain.

    Attributes:
        items: item ids, ``int64 [K]``.
        scores: their scores, ``[K]``.
        ranks: their ranks, ``int64 [K]``; ``None`` where they are the best ones in order.
    """

    items: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray | None = None


class About(NamedTuple):
    """What is explained to whom.

    Attributes:
        model: name of the model.
        dataset: name of the dataset.
        user: the user's id; empty for somebody whom the dataset does not have.
    """

    model: str
    dataset: str
    user: str


def explain(
    model: KSR,
    dataset: KGSequenceDataset,
    user: str,
    *,
    steps: int = 20,
    top: int = 5,
    recommendations: int = 10,
) -> Explanation:
    """Explain a user's recommendations by what they share with the user's own history.

    The model reads the user's whole history, as a recommender in use would, held-out
    interactions too.

    Args:
        model: a trained KSR.
        dataset: the built dataset it was trained on.
        user: the user's id in the ``.inter`` file.
        steps: how many of the last interactions to show.
        top: how many value entities to show of each attribute.
        recommendations: how many items to recommend.

    Returns:
        Recommendations with reasons, and the memory after each of the last ``steps`` interactions.

    Raises:
        UserError: a model without a memory, of other data, or whose memory has weights of 0 only
            (:func:`is_read`); an unknown user, a count below 1, or a malformed file of names; an
            attention or a score that is not finite.
    """
    counts = {"steps": steps, "top": top, "recommendations": recommendations}
    for name, count in counts.items():
        if count < 1:
            raise UserError(f"The number of {name} is {count}; it must be at least 1.")
    _check_fit(model, dataset)
    check_read(model)
    history = History.of(dataset, user)
    with reading(model):
        items = torch.from_numpy(history.items).to(model.item_embedding.weight.device)
        trace = Trace.of(model, items, steps)
        best = _recommend(model, trace.state, history.seen, recommendations)
        about = About(str(dataset.config["model"]), str(dataset.dataset_name), str(user))
        knowledge = Knowledge.of(dataset)
        return explanation(model, knowledge, about, history, trace, best, top)


_LOOKED_AT = 20
"""Users among whom a telling one is chosen."""

_NAMED = 3
"""Items of the history beyond which more of them make a reason no better."""

_LONG = 30
"""Interactions of a history that is long enough to tell something, and short enough to be read."""


def telling_user(model: KSR, dataset: KGSequenceDataset) -> str:
    """A user with clear reasons: rare, well-founded and different ones.

    A value counts once, by how rare it is and by how many items of the history have it.  Looked
    at are users whose histories are about 30 interactions long.

    Raises:
        UserError: see :func:`explain`.
    """
    _check_fit(model, dataset)
    check_read(model)
    lengths = np.diff(dataset.sequences.offsets)[1:]
    users = 1 + np.argsort(np.abs(lengths - _LONG), kind="stable")[:_LOOKED_AT]
    knowledge, told = Knowledge.of(dataset), []
    tokens = dataset.field2id_token[dataset.uid_field]
    for user in users:
        history = History.of(dataset, str(tokens[user]))
        with reading(model):
            items = torch.from_numpy(history.items).to(model.item_embedding.weight.device)
            state = Trace.of(model, items, 0).state
            best = _recommend(model, state, history.seen, 10)
            found = recommendations_of(model, knowledge, history.items, state, best)
        reasons = {each.reasons[0].entity: each.reasons[0] for each in found if each.reasons}
        told.append(sum(r.rarity * min(len(r.chosen), _NAMED) for r in reasons.values()))
    return str(tokens[users[int(np.argmax(told))]])


def explanation(
    model: KSR,
    knowledge: Knowledge,
    about: About,
    history: History,
    trace: Trace,
    asked: AskedItems,
    top: int,
) -> Explanation:
    """Everything about one history.

    Args:
        model: reads without dropout and gradients.
        knowledge: names everything.
        about: what is explained to whom.
        history: what the model read.
        trace: the memory after its last steps, of which there may be none.
        asked: the items to explain.
        top: how many value entities to show of each attribute.

    Raises:
        UserError: an attention or a score is not finite.
    """
    now = attention_now(model, trace.state)
    check_numbers(bool(np.isfinite(now).all() and np.isfinite(asked.scores).all()))
    return Explanation(
        *about,
        n_interactions=len(history.items),
        value_matrix=model.options.value_matrix,
        split="exact" if model.splits_score else "left out",
        attributes=knowledge.attributes,
        attention=tuple(among_covered(knowledge, now)[0].tolist()),
        history=tuple(knowledge.item(item) for item in history.items.tolist()),
        often=often_chosen(knowledge, history.items),
        steps=_steps(model, knowledge, history, trace, top),
        recommendations=recommendations_of(model, knowledge, history.items, trace.state, asked),
        notes=knowledge.notes,
    )


def _steps(
    model: KSR, knowledge: Knowledge, history: History, trace: Trace, top: int
) -> tuple[Step, ...]:
    shown = len(trace.attention)
    if not shown:
        return ()
    next_items = np.append(history.items[len(history.items) - shown + 1 :], 0)
    rankings = rank_values(model, knowledge.values, trace.values, next_items, top)
    attention = among_covered(knowledge, trace.attention.double().cpu().numpy())
    return LastSteps(knowledge, history, attention, rankings).named()


def recommendations_of(
    model: KSR,
    knowledge: Knowledge,
    history: np.ndarray,
    state: SequenceState,
    asked: AskedItems,
) -> tuple[Recommendation, ...]:
    """Items with their reasons.

    Args:
        model: a KSR.
        knowledge: what items have.
        history: item ids, the latest last, ``int64 [T]``.
        state: the state after it, of one user.
        asked: the items.
    """
    shape = (1, len(knowledge.item_tokens))
    cells = np.zeros(len(history), np.int64), history
    histories = csr_matrix((np.ones(len(history)), cells), shape=shape)
    items, chosen = (
        torch.from_numpy(each).to(state.hidden.device)[None] for each in (asked.items, history)
    )
    length = torch.tensor([len(history)], device=items.device)
    scores = np.asarray(asked.scores, dtype=np.float64)
    weighed = Candidates.of(model, knowledge, (chosen, length), state, items, scores[None])
    shared = SharedFacts.of(knowledge, histories, weighed)
    wording = Wording(knowledge, history, asked.items, shared, weighed.influence)
    return wording.recommendations(scores, asked.ranks)


def check_numbers(finite: bool) -> None:
    """Raise an error if a score or an attention is not finite.

    Very large weights cause this.

    Raises:
        UserError: not all numbers are finite.
    """
    if not finite:
        raise UserError("The model's numbers are not finite; train again, or save it again.")


def with_memory(kind: type[Any], name: str) -> type[KSR]:
    """The class of a model, once it is one that explanations can be of.

    Args:
        kind: the class.
        name: what the user calls the model.

    Raises:
        UserError: it has no memory of attributes.
    """
    if not issubclass(kind, KSR):
        raise UserError(
            f"The model {name} has no memory of attributes to explain; give KSR, KSR-paper or "
            "KSR-exact."
        )
    return kind


def is_read(model: KSR) -> bool:
    """Whether scores depend on a model's memory: not if an exact one is read with weights of 0."""
    return model.exact is None or bool(model.exact.weights.any())


def check_read(model: KSR) -> None:
    """Refuse a memory that no score depends on.

    Raises:
        UserError: see :func:`is_read`.
    """
    if not is_read(model):
        raise UserError(
            "This model gives no reasons: all weights of its memory are 0. Train it; if it is "
            "trained, train it with --memory_fit=training, or explain another model."
        )


def _check_fit(model: Any, dataset: Any) -> None:
    with_memory(type(model), type(model).__name__)
    same = model.n_items == dataset.item_num and np.array_equal(
        model.attributes.cpu().numpy(), dataset.attributes
    )
    if not same or len(model.entity_embedding.weight) != dataset.entity_num:
        raise UserError(
            f"The model was not made for this {dataset.dataset_name}: its items, entities or "
            "attributes are others; give the dataset it was trained on."
        )


@contextmanager
def reading(model: KSR) -> Iterator[None]:
    """Without dropout and gradients; the model is left as it was."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def _recommend(model: KSR, state: SequenceState, seen: np.ndarray, k: int) -> AskedItems:
    """The best items in a state, padding and items seen excluded, with their scores."""
    nobody = torch.zeros(1, dtype=torch.long, device=state.hidden.device)
    scores: Tensor = model.all_scores(model.read_state(nobody, state))[0]
    check_numbers(bool(scores[1:].isfinite().all()))
    scores[0] = scores[torch.from_numpy(seen).to(scores.device)] = -torch.inf
    left = int((scores > -torch.inf).sum())
    best = scores.topk(min(k, left))
    return AskedItems(best.indices.cpu().numpy(), best.values.cpu().numpy())
