"""Reasons in plain words: the same fact said once, with the items of the history that share it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import csc_matrix, csr_matrix

from ksr_recbole.explanation.knowledge import Knowledge
from ksr_recbole.explanation.parts import Chosen, Often, Reason, Recommendation
from ksr_recbole.explanation.reasons import COMMON_SHARE, SharedFacts

MOST = 8
"""Reasons of one kind that a recommendation has at most."""

_LOOKED_AT = 40
"""Facts of one kind among which those are found: several facts may be one reason."""

_NAMED = 2
"""Items of the history that a sentence names at most."""

_PLAIN = {
    "starring": "actor", "directed by": "director", "written by": "writer",
    "produced by": "producer", "edited by": "editor", "editing": "editor",
    "music by": "composer", "music composer": "composer", "music": "composer",
    "cinematography": "cinematographer", "subject": "category", "rated": "rating",
    "production companies": "production company",
}  # fmt: skip
"""Labels of relations by other words for the same."""

_PHRASES = {
    "director": "directed by {}", "writer": "written by {}", "producer": "produced by {}",
    "actor": "with {}", "composer": "music by {}", "editor": "edited by {}",
    "cinematographer": "filmed by {}", "production company": "made by {}",
    "distributor": "distributed by {}", "country": "from {}", "decade": "from the {}",
    "artist": "by {}", "author": "by {}", "engineer": "recorded by {}",
    "category": "“{}”", "genre": "{} (genre)", "rating": "rated {}",
}  # fmt: skip
"""Phrases for a value of an attribute; all others read "label: value"."""

NOT_THE_MODELS = "Shares with your history (not the model's reason)"
"""What stands before facts that do not speak for an item."""

FOR_SOMEBODY_NEW = "This is what the model recommends to somebody new."
"""Of one of the best items, where there is no history."""

RANK_FOR_SOMEBODY_NEW = "It has rank {:,} for somebody new."
"""Of an item that was asked for there."""


def plain_label(label: str) -> str:
    """An attribute's label without what tells it from one of the same name elsewhere."""
    bare = label.partition(" (")[0]
    return _PLAIN.get(bare, bare)


def phrase_of(labels: Sequence[str], value: str) -> str:
    """A value in words, such as "directed by Nora Ephron"."""
    if len(labels) > 1:
        return f"{value} ({', '.join(labels)})"
    if value.startswith(f"{labels[0]} "):  # "price 10 to 20"
        return value
    phrase = _PHRASES.get(labels[0])
    return f"{labels[0]}: {value}" if phrase is None else phrase.replace("{}", value)


def sentence_of(phrase: str, chosen: Sequence[Chosen], named: Sequence[Chosen]) -> str:
    """A phrase with some of the items of the history that share it.

    Args:
        phrase: what they share.
        chosen: all of them.
        named: those that the sentence names, each once.
    """
    titles = [each.item.title for each in named]
    if more := len(_once(chosen)) - len(named):
        titles.append(f"{more:,} more")
    ago = _listed([f"{each.ago:,}" for each in named])
    choices = "choice" if len(named) == 1 and named[0].ago == 1 else "choices"
    those = "," if not more else ", the first" if len(named) == 1 else ", the first two"
    return f"{phrase}: you chose {_listed(titles)}{those} {ago} {choices} ago"


def _once(chosen: Sequence[Chosen]) -> list[Chosen]:
    """The latest time of every item, as a song is played again; the latest first, as given.

    Items of one title are one to a reader, as films that a catalogue has twice.
    """
    latest: dict[str, Chosen] = {}
    for each in chosen:
        latest.setdefault(each.item.title, each)
    return list(latest.values())


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


@dataclass
class _Fact:
    """One fact, or several that say the same."""

    value: str
    entity: int
    steps: frozenset[int]
    weights: dict[int, tuple[float, float]]
    n_items: int
    rarity: float
    words: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.words = frozenset(self.value.casefold().split())

    def says(self, other: _Fact) -> bool:
        """Whether the other says nothing new.

        It has the same name; or it points to the same items of the history, and is of the same
        attribute or a longer name of the same ("Films directed by Nora Ephron").
        """
        if self.words == other.words:
            return True
        if self.steps != other.steps:
            return False
        shorter, longer = sorted((self.words, other.words), key=len)
        return bool(self.weights.keys() & other.weights) or (len(shorter) > 1 and shorter <= longer)

    def add(self, other: _Fact) -> None:
        """Take in what says the same."""
        if self.words == other.words:
            for a, (weight, attention) in other.weights.items():
                before, _ = self.weights.get(a, (0.0, attention))
                self.weights[a] = before + weight, attention
            self.n_items = max(self.n_items, other.n_items)
            self.rarity = min(self.rarity, other.rarity)
        self.steps |= other.steps


@dataclass(frozen=True, eq=False)
class Wording:
    """Puts the reasons of one history's recommendations into words.

    Attributes:
        knowledge: names everything.
        history: item ids, the latest last, ``int64 [T]``.
        items: ids of the recommended items, ``int64 [K]``.
        found: what they share with it; row ``k`` is recommendation ``k``.
        influence: what each item of the history weighs, where weights are that, ``[K, n]``.
    """

    knowledge: Knowledge
    history: np.ndarray
    items: np.ndarray
    found: SharedFacts
    influence: csr_matrix | None = None

    def recommendations(
        self, scores: np.ndarray, ranks: np.ndarray | None = None
    ) -> tuple[Recommendation, ...]:
        """The items with their reasons.

        Args:
            scores: their scores, ``[K]``.
            ranks: their ranks, ``int64 [K]``; by default they are the best ones, in order.
        """
        had = csc_matrix(self.knowledge.of_items[self.history])
        return tuple(
            self._recommendation(had, row, score, None if ranks is None else int(ranks[row]))
            for row, score in enumerate(scores.tolist())
        )

    def _recommendation(
        self, had: csc_matrix, row: int, score: float, rank: int | None
    ) -> Recommendation:
        found = self.found
        mine = np.arange(*np.searchsorted(found.rows, [row, row + 1]))
        by_model, common = found.by_model[mine], found.common[mine]
        reasons, folded, shared = (
            self._reasons(had, mine[kind])
            for kind in (by_model & ~common, by_model & common, ~by_model & ~common)
        )
        if len(self.history):
            sentence = self._why(row, reasons, folded, shared)
        else:
            sentence = FOR_SOMEBODY_NEW if rank is None else RANK_FOR_SOMEBODY_NEW.format(rank)
        item, place = self.knowledge.item(int(self.items[row])), rank or row + 1
        return Recommendation(place, item, score, sentence, reasons, folded, shared)

    def _why(
        self,
        row: int,
        reasons: Sequence[Reason],
        common: Sequence[Reason],
        shared: Sequence[Reason],
    ) -> str:
        """One sentence for a recommendation."""
        if reasons or common:
            first = (*reasons, *common)[0]
            titles = [each.item.title for each in self._named(row, first.chosen)]
            return f"{first.phrase[0].upper()}{first.phrase[1:]}, like {_listed(titles)}."
        if shared:
            return f"{NOT_THE_MODELS}: {shared[0].phrase}."
        return "It shares nothing that is known of it with your history."

    def _named(self, row: int, chosen: Sequence[Chosen]) -> list[Chosen]:
        """Which items a sentence names: the latest of those that share the fact.

        Where an item of the history has a weight of its own, those with the largest one instead,
        and none that speaks against the recommendation unless all do.
        """
        different = _once(chosen)
        if self.influence is not None:
            steps = len(self.history) - np.array([each.ago for each in different])
            weights = self.influence[row, self.history[steps]].toarray().ravel()
            order = np.argsort(-weights, kind="stable")  # of equal ones the latest first
            different = [different[k] for k in order if weights[k] > 0] or different
        return different[:_NAMED]

    def _reasons(self, had: csc_matrix, rows: np.ndarray) -> tuple[Reason, ...]:
        different: list[_Fact] = []
        for row in rows[:_LOOKED_AT].tolist():
            fact = self._fact(had, row)
            same = next((each for each in different if each.says(fact)), None)
            if same is None:
                different.append(fact)
            else:
                same.add(fact)
        if not different:
            return ()
        of = int(self.found.rows[rows[0]])
        # Once more, because a reason of several facts weighs more than the first of them.
        different.sort(key=lambda fact: -max(self._weight(fact, of), 0.0) * fact.rarity)
        return tuple(self._reason(of, fact) for fact in different[:MOST])

    def _weight(self, fact: _Fact, row: int) -> float:
        """What speaks for the item: the parts of what it names, or each of its items once."""
        if self.influence is None:
            return sum(weight for weight, _ in fact.weights.values())
        items = np.unique(self.history[sorted(fact.steps)])
        return float(self.influence[row, items].sum())

    def _fact(self, had: csc_matrix, row: int) -> _Fact:
        fact = int(self.found.facts[row])
        steps = had.indices[had.indptr[fact] : had.indptr[fact + 1]]
        steps = steps[self.history[steps] != self.items[self.found.rows[row]]]  # not itself
        weight, attention = float(self.found.weight[row]), float(self.found.attention[row])
        knowledge = self.knowledge
        return _Fact(
            knowledge.name_of(fact),
            int(knowledge.entity_of[fact]),
            frozenset(steps.tolist()),
            {int(knowledge.attribute_of[fact]): (weight, attention)},
            int(knowledge.n_items_with[fact]),
            float(knowledge.rarity[fact]),
        )

    def _reason(self, row: int, fact: _Fact) -> Reason:
        attributes = tuple(fact.weights)
        named = (plain_label(self.knowledge.attributes[a].label) for a in attributes)
        labels = tuple(dict.fromkeys(named))
        n = len(self.history)
        chosen = tuple(
            Chosen(self.knowledge.item(int(self.history[step])), n - step)
            for step in sorted(fact.steps, reverse=True)
        )
        phrase = phrase_of(labels, fact.value)
        return Reason(
            phrase,
            sentence_of(phrase, chosen, self._named(row, chosen)),
            attributes,
            labels,
            self.knowledge.entity_tokens[fact.entity],
            fact.value,
            sum(attention for _, attention in fact.weights.values()),
            self._weight(fact, row),
            fact.rarity,
            fact.n_items,
            chosen,
        )


def often_chosen(knowledge: Knowledge, history: np.ndarray) -> tuple[Often, ...]:
    """What most tells the history ``int64 [T]`` from others: values by times and rarity."""
    times = np.bincount(knowledge.of_items[history].indices, minlength=len(knowledge.rarity))
    times[knowledge.n_items_with > COMMON_SHARE * (len(knowledge.item_tokens) - 1)] = 0
    best = np.argsort(-times * knowledge.rarity, kind="stable")[: 3 * MOST]
    told: dict[str, Often] = {}
    for fact in best[times[best] > 1].tolist():
        label = plain_label(knowledge.attributes[knowledge.attribute_of[fact]].label)
        name = knowledge.name_of(fact)
        told.setdefault(name.casefold(), Often(phrase_of([label], name), int(times[fact])))
    return tuple(told.values())[:MOST]
