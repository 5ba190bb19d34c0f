"""Reasons: how many recommendations have one, and whether the items they name matter.

The deletion test leaves the items that have the best fact out of the history and looks at the item
that was recommended: its score must fall, and its rank grow, more than without as many others at
the same positions in time.  It is a test of single facts, a value on one attribute each.  A reason
in words can join several ("Nora Ephron (director, writer)") and then names more items.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from ksr_recbole.evaluation.paired_test import paired_p_value
from ksr_recbole.explanation.knowledge import Knowledge
from ksr_recbole.explanation.reasons import COMMON_SHARE, Candidates, SharedFacts
from ksr_recbole.explanation.value_entities import ValueEntities
from ksr_recbole.interpretability.attribute_level import agreement, training_agreement
from ksr_recbole.interpretability.cases import Cases, items_before
from ksr_recbole.model.ksr import KSR

TOP = 10
"""Recommendations of a user that are looked at; the first is that of the deletion test."""
WINDOW = 10
"""Latest items that an item may agree with."""
KINDS = ("reason", "chance")
"""Which shared fact's items are left out: that of the best one which is the model's and not common,
or of one drawn at random among all that are not common, whether the model's or not."""


class ReasonLevel:
    """Reasons, batch after batch of users.

    Args:
        knowledge: what items have.
        cases: the items explained.
        model: whose recommendations are explained.
    """

    def __init__(self, knowledge: Knowledge, cases: Cases, model: KSR) -> None:
        self._knowledge, self._cases, self._model = knowledge, cases, model
        n_users = len(cases.users)
        self._chance = np.random.default_rng(0).random(n_users)  # so no batch decides what is drawn
        self._readable = np.zeros(n_users)
        self._strength = np.zeros((n_users, len(knowledge.attributes)))
        # By kind: what the score loses, and log2 of the rank, without the named and the others.
        self._lost = {kind: np.full((n_users, 2), np.nan) for kind in KINDS}
        self._rank = {kind: np.full((n_users, 2), np.nan) for kind in KINDS}

    def read(self, batch: slice, items: Tensor, lengths: Tensor) -> Tensor:
        """Explain the recommendations of the users ``batch``.

        Args:
            batch: the users.
            items: their histories, ``int64 [B, T]``, padded at the end.
            lengths: how long they are, ``int64 [B]``.

        Returns:
            The scores of all items after the histories, ``[B, n_items]``.
        """
        scores = _all_scores(self._model, items, lengths)
        seen = torch.from_numpy(self._cases.seen(batch)).to(scores.device)
        rest = scores.scatter(1, seen, -torch.inf)
        rest[:, 0] = -torch.inf
        told, best = rest.topk(min(TOP, rest.shape[1]))
        asked = self._asked(items, lengths, best, told)
        histories = self._cases.histories[batch]
        left = (told > -torch.inf).cpu().numpy()  # false where a user has had nearly all items
        found = SharedFacts.of(self._knowledge, histories, asked).of_rows(left.ravel())
        first = found.first_readable(left.size).reshape(left.shape)
        self._readable[batch] = (first >= 0).sum(axis=1) / np.maximum(left.sum(axis=1), 1)
        self._add_strength(batch, found, left.shape[1])
        drawn = self._drawn(batch, found, left.shape[1])
        for kind, chosen in zip(KINDS, (first[:, 0], drawn), strict=True):
            some = np.flatnonzero(chosen >= 0)
            facts = found.facts[chosen[some]]
            self._delete(kind, batch.start + some, items[some], facts, rest[some], best[some, 0])
        return scores

    def _asked(self, items: Tensor, lengths: Tensor, best: Tensor, scores: Tensor) -> Candidates:
        """The recommendations of a batch, with what speaks for them."""
        state, told = self._model.advance(items, lengths), scores.double().cpu().numpy()
        of = self._model, self._knowledge
        return Candidates.of(*of, (items, lengths), state, best, told)

    def _add_strength(self, batch: slice, found: SharedFacts, n_best: int) -> None:
        """By attribute, weight times rarity of all readable facts that a user's top shares."""
        good = found.by_model & ~found.common
        gain = (found.weight * self._knowledge.rarity[found.facts])[good]
        users = batch.start + found.rows[good] // n_best
        np.add.at(self._strength, (users, self._knowledge.attribute_of[found.facts[good]]), gain)

    def _drawn(self, batch: slice, found: SharedFacts, n_best: int) -> np.ndarray:
        """For each user a shared fact of the first item that is not common, at random, or -1."""
        mine = np.flatnonzero(~found.common & (found.rows % n_best == 0))
        mine = mine[np.lexsort((found.facts[mine], found.rows[mine]))]  # weights decide nothing
        users, first, counts = np.unique(
            found.rows[mine] // n_best, return_index=True, return_counts=True
        )
        drawn = np.full(batch.stop - batch.start, -1)
        drawn[users] = mine[first + (self._chance[batch][users] * counts).astype(np.int64)]
        return drawn

    def _delete(
        self,
        kind: str,
        users: np.ndarray,
        items: Tensor,
        facts: np.ndarray,
        rest: Tensor,
        best: Tensor,
    ) -> None:
        """Leave out what has ``facts [S]``, and as many others; ``rest`` are the scores before."""
        histories = items.cpu().numpy()
        named = self._having(facts, histories)
        others = _others(named, histories > 0)
        some = np.flatnonzero(others.any(axis=1))
        if not len(some):
            return
        users, histories, named, others = (x[some] for x in (users, histories, named, others))
        rest, best = rest[some], best[some]
        own = rest.gather(1, best[:, None])
        for side, left_out in enumerate((named, others)):
            scores = _all_scores(self._model, *_without(histories, left_out, items.device))
            scores = torch.where(rest > -torch.inf, scores, -torch.inf)
            now = scores.gather(1, best[:, None])
            rank = 1 + (scores > now).sum(1)
            self._lost[kind][users, side] = (own - now)[:, 0].double().cpu().numpy()
            self._rank[kind][users, side] = rank.double().log2().cpu().numpy()

    def _having(self, facts: np.ndarray, histories: np.ndarray) -> np.ndarray:
        """Where ``histories [S, T]`` have ``facts [S]``, ``bool [S, T]``."""
        columns = self._knowledge.of_items[:, facts].tocsc()
        rows = np.repeat(np.arange(len(facts)), np.diff(columns.indptr))
        has = np.zeros((len(facts), self._knowledge.of_items.shape[0]), dtype=bool)
        has[rows, columns.indices] = True
        return np.take_along_axis(has, histories, axis=1)

    def summary(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The figures as JSON values, and every user's by name."""
        told: dict[str, Any] = {"readable": float(self._readable.mean())}
        arrays = {"reasons/users": self._cases.users, "reasons/readable": self._readable}
        for kind in KINDS:
            told[kind] = {}
            for name, values in (("loss", self._lost[kind]), ("log2_rank", self._rank[kind])):
                some = values[~np.isnan(values[:, 0])]
                told[kind][name] = paired(some[:, 0], some[:, 1])
                arrays[f"reasons/{kind}/{name}"] = values[:, 0] - values[:, 1]
        told["strongest"] = self._strongest(arrays)
        return told, arrays

    def _strongest(self, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
        """How often the next item agrees with the latest ones on a value that few items have.

        On the attribute that is strongest over all readable facts that the user's recommendations
        share with the history, on the one that agrees most often in training, and on one at random.
        """
        knowledge, cases = self._knowledge, self._cases
        rare = without_common(knowledge)
        begin = np.maximum(cases.starts, cases.ends - WINDOW)
        before = items_before(cases.sequences, cases.users, begin, cases.ends)
        agrees = agreement(rare, cases.items, before[cases.owners])
        training = training_agreement(rare, cases.sequences, cases.split, WINDOW)
        chosen = self._strength.argmax(axis=1)[cases.owners]
        of_items = {
            "strongest": agrees[np.arange(len(chosen)), chosen],
            "majority": agrees[:, training.argmax()],
            "random": agrees.mean(axis=1),
        }
        users = {name: cases.per_user(values) for name, values in of_items.items()}
        arrays |= {f"reasons/agreement/{name}": values for name, values in users.items()}
        labels = [attribute.label for attribute in knowledge.attributes]
        return {
            "agreement": {name: float(values.mean()) for name, values in users.items()},
            "majority": labels[int(training.argmax())],
            "against": {n: paired(users["strongest"], users[n]) for n in ("majority", "random")},
        }


def without_common(knowledge: Knowledge) -> ValueEntities:
    """The value entities but those that more than a fifth of the items have."""
    values, n_items = knowledge.values, len(knowledge.item_tokens) - 1
    kept = []
    for of in values.of_items:
        rare = np.bincount(of.indices, minlength=of.shape[1]) <= COMMON_SHARE * n_items
        kept.append(csr_matrix(of.multiply(rare[None].astype(np.float64))))
        kept[-1].eliminate_zeros()
    return ValueEntities(values.attributes, values.ranges, tuple(kept))


def paired(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Two means over the same users, their difference, and the p-value of the paired t-test.

    Args:
        first: a value of each user, ``float64 [U]``.
        second: the same of the other, ``float64 [U]``.
    """
    difference = first - second
    means = [float(each.mean()) if len(each) else 0.0 for each in (first, second, difference)]
    return {
        **dict(zip(("first", "second", "difference"), means, strict=True)),
        "p_value": paired_p_value(first, second),
        "users": len(first),
    }


def _all_scores(model: KSR, items: Tensor, lengths: Tensor) -> Tensor:
    nobody = torch.zeros(len(items), dtype=torch.long, device=items.device)
    return model.all_scores(model.read_state(nobody, model.advance(items, lengths)))


def _without(
    histories: np.ndarray, left_out: np.ndarray, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Histories ``[S, T]`` without some of their items, and their lengths."""
    kept = (histories > 0) & ~left_out
    order = np.argsort(~kept, axis=1, kind="stable")
    items = np.take_along_axis(histories * kept, order, axis=1)
    return torch.from_numpy(items).to(device), torch.from_numpy(kept.sum(axis=1)).to(device)


def _others(named: np.ndarray, present: np.ndarray) -> np.ndarray:
    """As many positions as are named, each the nearest to one of them, ``bool [S, T]``.

    None in a row of which more than half is named: there are not as many others.
    """
    chosen = np.zeros_like(named)
    free = present & ~named
    enough = free.sum(axis=1) >= named.sum(axis=1)
    for row in np.flatnonzero(enough):  # a matching of one user's positions is no array operation
        steps = np.flatnonzero(free[row])
        left = steps.astype(np.float64)
        for position in np.flatnonzero(named[row])[::-1]:
            nearest = int(np.argmin(np.abs(left - position)))
            left[nearest] = np.inf
            chosen[row, steps[nearest]] = True
    return chosen
