"""What the service does, without HTTP: questions of clients answered by a recommender."""

from __future__ import annotations

import secrets
import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from ksr_recbole.errors import UserError
from ksr_recbole.explanation.parts import Explanation, Item, Recommendation
from ksr_recbole.inference.recommender import Query, Recommender
from ksr_recbole.inference.user_state import UserState

_KEPT_BYTES = 1 << 28
"""Bytes of the states that are kept; those that were not asked for longest are forgotten."""

_MOST_TOLD = 1 << 18
"""Recommendations of a request, each counted as often as the history has items, all of which each
of its reasons can name."""


class Forgotten(UserError):
    """A state that is not kept, or never was."""


class States:
    """States by names that cannot be guessed; thread-safe.

    Args:
        most: how many bytes of them are kept; the latest one in any case.
    """

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, threading.Lock()
        self._kept: OrderedDict[str, tuple[UserState, int]] = OrderedDict()
        self._bytes = 0

    def put(self, state: UserState) -> str:
        """Keep a state; its name."""
        name, size = secrets.token_urlsafe(12), _bytes_of(state)
        with self._lock:
            self._kept[name] = state, size
            self._bytes += size
            while self._bytes > self._most and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1][1]
        return name

    def get(self, name: str) -> UserState:
        """The state of a name.

        Raises:
            Forgotten: there is none.
        """
        with self._lock:
            found = self._kept.get(name)
            if found is None:
                raise Forgotten(
                    f"There is no state {name!r} (the service was started again, or keeps newer "
                    "ones); give the items again."
                )
            self._kept.move_to_end(name)
            return found[0]


_OF_OBJECTS = 2_000
"""Bytes of the objects of a state around its numbers, about."""


def _bytes_of(state: UserState) -> int:
    """What a state takes, the items that it knows included, though states can share these."""
    numbers = sum(part.numel() * part.element_size() for part in state.memory)
    return numbers + state.seen.nbytes() + _OF_OBJECTS


class Service:
    """Answers in titles and reasons.

    The model is asked by one thread at a time: it uses all cores itself, and its kernels must not
    run twice at once.

    Args:
        recommender: the model.
    """

    def __init__(self, recommender: Recommender) -> None:
        self.recommender = recommender
        self._model_lock = threading.Lock()
        self.states = States(_KEPT_BYTES)
        self.items = [Item(token, title) for token, title in recommender.titles.items()]
        self._searched = [_plain(each.title) for each in self.items]
        self._by_popularity = np.argsort(-recommender.popularity, kind="stable").tolist()

    @property
    def explains(self) -> bool:
        """Whether the model has reasons to give."""
        return self.recommender.can_explain

    def query(self, user: str | None, items: Sequence[str] | None, state: str | None) -> Query:
        """What one of the three names.

        Raises:
            UserError: not exactly one is given, or the state is forgotten.
        """
        if sum(each is not None for each in (user, items, state)) != 1:
            raise UserError("Give exactly one of user, items and state.")
        if state is not None:
            return self.states.get(state)
        return user if user is not None else list(items or ())

    def find(self, text: str, most: int) -> list[Item]:
        """Items whose titles have all words of a text in them, popular ones first."""
        words = _plain(text).split()
        found: list[Item] = []
        for k in self._by_popularity:
            if all(word in self._searched[k] for word in words):
                found.append(self.items[k])
                if len(found) == most:
                    break
        return found

    def recommend(
        self, query: Query, k: int, exclude_history: bool, reasons: bool
    ) -> tuple[Recommendation, ...]:
        """Recommendations with titles, and with reasons where they are wanted and there are any."""
        return self.recommend_batch([query], k, exclude_history, reasons)[0]

    def recommend_batch(
        self, queries: Sequence[Query], k: int, exclude_history: bool, reasons: bool
    ) -> list[tuple[Recommendation, ...]]:
        """The same for many queries.

        Raises:
            UserError: the answer would be too large.
        """
        rec = self.recommender
        self._check_amount(k, queries, reasons and self.explains)
        if reasons and self.explains:
            told = []
            for query in queries:  # others get their turn between two of them
                with self._model_lock:
                    told.append(rec.explain(query, k, exclude_history, steps=0).recommendations)
            return told
        with self._model_lock:
            found = rec.recommend_batch(queries, k, exclude_history)
        return [
            tuple(
                Recommendation(rank, Item(token, rec.titles[token]), score, "", (), (), ())
                for rank, (token, score) in enumerate(each, start=1)
            )
            for each in found
        ]

    def update(self, query: Query, item: str | None) -> str:
        """The name of the state after one more item, or of the query's own state."""
        with self._model_lock:
            state = self.recommender.start(query)
            if item is not None:
                state = self.recommender.update(state, item)
        return self.states.put(state)

    def explain(self, query: Query, k: int, steps: int, items: list[str] | None) -> Explanation:
        """Everything that the model can say, see :meth:`Recommender.explain`."""
        self._check_amount(len(items or ()) or k, [query], reasons=True)
        with self._model_lock:
            return self.recommender.explain(query, k, steps=steps, items=items)

    def _check_amount(self, k: int, queries: Sequence[Query], reasons: bool) -> None:
        """Refuse a small request whose answer would take all memory."""
        rec = self.recommender
        lengths = (max(1, rec.n_seen(query)) if reasons else 1 for query in queries)
        if min(k, len(rec.items)) * sum(lengths) > _MOST_TOLD:
            raise UserError(
                "That is too much for one request; ask for fewer recommendations, or with "
                "shorter histories."
            )


def _plain(text: str) -> str:
    """A text for comparison: small letters without accents."""
    apart = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in apart if not unicodedata.combining(letter))
