"""Recommendations from a saved model: for users, for lists of items, and event by event."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import cached_property
from numbers import Integral
from typing import NamedTuple

import numpy as np
import torch
from safetensors.numpy import save as to_safetensors
from torch import Tensor

from ksr_recbole.dataset.sequences import ragged_positions
from ksr_recbole.errors import UserError, shown
from ksr_recbole.evaluation.scorer import PAIRS, SCORES_AT_ONCE, STATE_NUMBERS_AT_ONCE
from ksr_recbole.explanation.explain import (
    About,
    AskedItems,
    check_numbers,
    check_read,
    explanation,
    is_read,
    with_memory,
)
from ksr_recbole.explanation.knowledge import Knowledge
from ksr_recbole.explanation.parts import Explanation
from ksr_recbole.explanation.trace import History, Trace
from ksr_recbole.files import replacing
from ksr_recbole.inference.building import build
from ksr_recbole.inference.content import SavedModel
from ksr_recbole.inference.directory import path_of, read_directory
from ksr_recbole.inference.user_state import Seen, UserState
from ksr_recbole.model.ksr import KSR
from ksr_recbole.model.sequence_recommender import SequenceState

USERS_AT_ONCE = 1024
"""Queries of a batch that are read in one forward pass, so that memory stays bounded."""

Query = str | Sequence[str] | np.ndarray | UserState
"""Whom to recommend to: a user token, a history of item tokens (an array of texts ``[T]`` too), or
a state."""


class _Reading(NamedTuple):
    """A state and the item ids, ``int64 [n]``, still to be read from there."""

    state: UserState
    unread: np.ndarray


class Recommender:
    """A trained sequence model that answers in the dataset's own tokens.

    Sizes: ``d`` size of a user vector, ``n`` number of items.

    Users known from training are named by their token (a string); the model directory knows
    all their interactions, the ones held out for validation and test included.  Everyone else
    is a list of item tokens, the oldest first.  RUM has learned an embedding for known users
    only; for others it scores by its memory alone.

    Args:
        saved: what a model directory holds; see :meth:`load`.
        device: where to run.

    Raises:
        UserError: the model is none of this package's, or the device cannot be used.
    """

    def __init__(self, saved: SavedModel, device: str | torch.device = "cpu") -> None:
        self.device = _device(device)
        self.model = build(saved.model, saved.settings, saved.tokens, saved.weights, self.device)
        self.model_name, self.about = saved.model, saved.about
        self._item_tokens = saved.tokens["item"]
        self._user_tokens = saved.tokens["user"]
        self._items = {token: k for k, token in enumerate(self._item_tokens) if k}
        self._users = {token: k for k, token in enumerate(self._user_tokens) if k}
        self._histories = saved.histories
        self._saved = saved
        self._blank = self.model.initial_state(1)
        self._mark = saved.digest

    @classmethod
    def load(
        cls, directory: str | os.PathLike[str], device: str | torch.device = "cpu"
    ) -> Recommender:
        """Load a model directory; no atomic files, pretraining or dataset are needed.

        Raises:
            UserError: there is none, it is of another format, or a file is missing or altered.
        """
        return cls(read_directory(directory), device)

    @property
    def items(self) -> list[str]:
        """Tokens of all ``n`` items, in the order of :meth:`item_vectors`."""
        return self._item_tokens[1:]

    @property
    def users(self) -> list[str]:
        """Tokens of the users of the dataset, in the order of :meth:`export_vectors`."""
        return self._user_tokens[1:]

    @cached_property
    def titles(self) -> dict[str, str]:
        """Title of every item by its token; the token where an item has no title."""
        titles = self._saved.names["item"]
        return dict(zip(self._item_tokens[1:], titles[1:], strict=True))

    @cached_property
    def popularity(self) -> np.ndarray:
        """How often each item occurs in the histories, ``int64 [n]``, in the order of items.

        It is kept, so it cannot be changed; take a copy to do so.
        """
        counts = np.bincount(self._histories.items, minlength=len(self._item_tokens))[1:]
        counts.flags.writeable = False
        return counts

    @property
    def can_explain(self) -> bool:
        """Whether :meth:`explain` has reasons to give: a KSR whose memory is read."""
        return isinstance(self.model, KSR) and is_read(self.model)

    @cached_property
    def _knowledge(self) -> Knowledge:
        """What items have, for reasons.

        Raises:
            UserError: the model has no memory.
        """
        saved = self._saved
        with_memory(type(self.model), self.model_name)
        assert isinstance(self.model, KSR)
        attributes = self.model.attributes.cpu().numpy()
        return Knowledge.of_facts(saved.facts, saved.tokens, saved.names, attributes)

    # Recommending ---------------------------------------------------------------------------

    def recommend(
        self,
        user_or_items: Query,
        k: int = 10,
        exclude_history: bool = True,
        *,
        titles: bool = False,
    ) -> list[tuple[str, float]]:
        """The ``k`` items with the highest scores, the best first.

        Args:
            user_or_items: a user token, a list or an array of item tokens (the oldest first), or
                a state.  No item is allowed where the model's start state tells items apart.
            k: how many; fewer are given where fewer are left.
            exclude_history: leave out items of the history.
            titles: give items by their titles instead of their tokens.

        Returns:
            Pairs of item token (or title) and score (Eq. 10).

        Raises:
            UserError: an unknown user or item, a state of another model, ``k`` is not positive,
                or nothing is known of the user that the model could use.
        """
        _check_switch("titles", titles)
        found = self.recommend_batch([user_or_items], k, exclude_history)[0]
        return [(self.titles[item], score) for item, score in found] if titles else found

    @torch.no_grad()
    def recommend_batch(
        self, queries: Sequence[Query], k: int = 10, exclude_history: bool = True
    ) -> list[list[tuple[str, float]]]:
        """:meth:`recommend` for many at once: one forward pass for up to 1,024 of them.

        Raises:
            UserError: see :meth:`recommend`.
        """
        _check_count("k", k, 1)
        _check_switch("exclude_history", exclude_history)
        _check_listed("queries", queries)
        readings = [self._reading(query) for query in queries]
        self._check_something_known(readings)
        at_once, rows = self._users_at_once(), self._rows_at_once()
        found = []
        for start in range(0, len(readings), at_once):
            some = readings[start : start + at_once]
            users, memory = self._advanced(some)
            for first in range(0, len(some), rows):
                part = slice(first, first + rows)
                scores = self._scores(users[part], memory.of_users(part))
                excluded = [r.state.seen.all() for r in some[part]] if exclude_history else []
                found += self._best(scores, excluded, k)
        return found

    def n_seen(self, query: Query) -> int:
        """How many items the history of a user, a list or a state has; nothing is computed.

        Raises:
            UserError: an unknown user or item.
        """
        return len(self._reading(query).state.seen.all())

    def _users_at_once(self) -> int:
        """Queries read in one forward pass, fewer where a memory is large."""
        size = max(1, self._blank.values.numel())
        return max(1, min(USERS_AT_ONCE, STATE_NUMBERS_AT_ONCE // size))

    def _rows_at_once(self) -> int:
        """Users scored at a time; without vectors each score is made of one for each slot."""
        n_items = len(self._item_tokens)
        if self.model.INNER_PRODUCT:
            return max(1, SCORES_AT_ONCE // n_items)
        return max(1, PAIRS // (n_items * max(1, self._blank.values.shape[1])))

    # Explaining -----------------------------------------------------------------------------

    @torch.no_grad()
    def explain(
        self,
        user_or_items: Query,
        k: int = 10,
        exclude_history: bool = True,
        *,
        steps: int = 20,
        top: int = 5,
        items: Sequence[str] | None = None,
    ) -> Explanation:
        """Recommendations with their reasons, and the memory after the last steps.

        Args:
            user_or_items: as in :meth:`recommend`; of a state the items read so far.
            k: how many recommendations.
            exclude_history: leave out items of the history.
            steps: after how many of the last items the memory is shown; 0 for none, which is
                quicker.
            top: how many value entities to show of each attribute after a step.
            items: explain these items, in this order, instead of the ``k`` best; their ranks are
                among all items, or all but the history's.

        Returns:
            What :func:`ksr_recbole.explain` returns.

        Raises:
            UserError: the model has no memory, or one with weights of 0 only
                (:attr:`can_explain`); or as :meth:`recommend`.
        """
        knowledge = self._knowledge
        assert isinstance(self.model, KSR)
        check_read(self.model)
        _check_count("k", k, 1)
        _check_count("steps", steps, 0)
        _check_count("top", top, 1)
        _check_switch("exclude_history", exclude_history)
        if items is not None:
            _check_listed("items", items)
        state = self.start(user_or_items)
        if items is None:
            asked = self._recommended(state, k, exclude_history)
        else:
            asked = self._ranked(self._item_ids(items), state, exclude_history)
        read = state.seen.all()[self._unread(state) :]
        history = History(read, np.empty(0), read)
        known = self._user_tokens[state.user] if state.user else ""
        about = About(self.model_name, str(self.about.get("dataset", "")), known)
        trace = Trace.at(self.model, state.memory)
        if steps and len(read):
            trace = Trace.of(self.model, torch.from_numpy(read).to(self.device), steps)
        return explanation(self.model, knowledge, about, history, trace, asked, top)

    def _recommended(self, state: UserState, k: int, exclude_history: bool) -> AskedItems:
        """The ``k`` best items with their scores."""
        found = self.recommend(state, k, exclude_history)
        tokens, scores = [token for token, _ in found], [score for _, score in found]
        return AskedItems(self._item_ids(tokens), np.array(scores))

    def _ranked(self, items: np.ndarray, state: UserState, exclude_history: bool) -> AskedItems:
        """Items with their scores and ranks; equal scores count as ranked above."""
        users = torch.zeros(1, dtype=torch.long, device=self.device)
        scores = self._scores(users, state.memory)[0]
        check_numbers(bool(scores[1:].isfinite().all()))
        excluded = np.append(state.seen.all() if exclude_history else [], 0).astype(np.int64)
        rivals = scores.index_fill(0, torch.from_numpy(excluded).to(self.device), -torch.inf)
        own = scores[torch.from_numpy(items).to(self.device)]
        as_good = len(rivals) - torch.searchsorted(rivals.sort().values, own).cpu().numpy()
        ranks = as_good + np.isin(items, excluded)  # else it is among the rivals itself
        return AskedItems(items, own.double().cpu().numpy(), ranks)

    def _unread(self, state: UserState) -> int:
        """How many of the items seen were never read (``train_ratio`` left them out)."""
        return int(self._histories.starts[state.user]) if state.user else 0

    def _scores(self, users: Tensor, memory: SequenceState) -> Tensor:
        """Scores of every item, padding included, ``[B, n + 1]``."""
        read = self.model.read_state(users, memory)
        if self.model.INNER_PRODUCT:
            return read @ self._vectors.T  # Eq. 2 and 10
        return self.model.all_scores(read, self._vectors)

    @cached_property
    @torch.no_grad()
    def _vectors(self) -> Tensor:
        """Item side of Eq. 10 for every item, ``[n + 1, d]``; it is the same for all users."""
        return self.model.item_vectors()

    def _best(
        self, scores: Tensor, excluded: list[np.ndarray], k: int
    ) -> list[list[tuple[str, float]]]:
        """The ``k`` best items of every row, without those excluded.

        Raises:
            UserError: a score is not finite.
        """
        scores[:, 0] = -torch.inf
        if excluded:
            rows, _ = ragged_positions(np.array([len(items) for items in excluded]))
            columns = torch.from_numpy(np.concatenate(excluded)).to(self.device)
            scores[torch.from_numpy(rows).to(self.device), columns] = -torch.inf
        best, items = scores.topk(min(k, scores.shape[1]))
        check_numbers(bool((best < torch.inf).all()))  # NaN, which is no less, comes first
        return [
            [
                (self._item_tokens[item], score)
                for item, score in zip(*row, strict=True)
                if score > -torch.inf
            ]
            for row in zip(items.tolist(), best.tolist(), strict=True)
        ]

    # Event by event -------------------------------------------------------------------------

    def start(self, user_or_items: Query = ()) -> UserState:
        """A state that :meth:`update` continues.

        Args:
            user_or_items: the history so far, as in :meth:`recommend`; by default there is none.

        Raises:
            UserError: an unknown user or item, or a state of another model.
        """
        return self._after(self._reading(user_or_items))

    def update(self, state: UserState, item: str) -> UserState:
        """The state after one more item, at the same cost however long the history is.

        Args:
            state: a state of this recommender; it stays valid as it is.
            item: the item's token.

        Raises:
            UserError: an unknown item, or no state of this model.
        """
        if not isinstance(state, UserState):
            raise UserError(
                f"A {type(state).__name__} is no state; give what start() or update() returned."
            )
        self._check_state(state)
        new = self._item_ids([item])
        seen = self._state(state.user, state.memory, Seen(new, state.seen))
        return self._after(_Reading(seen, new))

    @torch.no_grad()
    def _after(self, reading: _Reading) -> UserState:
        _, memory = self._advanced([reading])
        return self._state(reading.state.user, memory, reading.state.seen)

    def _state(self, user: int, memory: SequenceState, seen: Seen) -> UserState:
        return UserState(user, memory, seen, self._mark)

    # Vectors for nearest-neighbour search ---------------------------------------------------

    def item_vectors(self) -> tuple[list[str], np.ndarray]:
        """The item side of Eq. 10: item tokens and their vectors, ``float32 [n, d]``.

        The score of an item for a user is the inner product of its vector with
        :meth:`user_vector`.

        Raises:
            UserError: the model's score is no inner product.
        """
        self._check_inner_product()
        # A copy: the vectors themselves give every score, and a caller may normalise these.
        return self.items, self._vectors[1:].float().cpu().numpy().copy()

    def user_vector(self, user_or_items: Query) -> np.ndarray:
        """The user side of Eq. 10, ``float32 [d]``.

        Raises:
            UserError: the model's score is no inner product, or an unknown user or item.
        """
        return self.user_vectors([user_or_items])[0]

    @torch.no_grad()
    def user_vectors(self, queries: Sequence[Query]) -> np.ndarray:
        """:meth:`user_vector` for many at once, ``float32 [len(queries), d]``.

        Raises:
            UserError: see :meth:`user_vector`.
        """
        self._check_inner_product()
        _check_listed("queries", queries)
        readings = [self._reading(query) for query in queries]
        parts = [np.empty((0, self._vectors.shape[1]), np.float32)]
        at_once = self._users_at_once()
        for start in range(0, len(readings), at_once):
            read = self.model.read_state(*self._advanced(readings[start : start + at_once]))
            parts.append(read.float().cpu().numpy())
        return np.concatenate(parts)

    def export_vectors(self, path: str | os.PathLike[str]) -> None:
        """Write the vectors of all items, and of all users after their last interaction.

        Args:
            path: ends in ``.npz`` (arrays ``items``, ``item_vectors``, ``users``,
                ``user_vectors``) or ``.safetensors`` (the two arrays of vectors, and the tokens
                as JSON in the header's ``items`` and ``users``).

        Raises:
            UserError: another ending, the file cannot be written, or the model's score is no
                inner product.
        """
        path = path_of(path, "file of vectors")
        suffix = path.suffix
        if suffix not in (".npz", ".safetensors"):
            raise UserError(f"Vectors are written as .npz or .safetensors; {path} ends in neither.")
        items, item_vectors = self.item_vectors()
        arrays = {"item_vectors": item_vectors, "user_vectors": self.user_vectors(self.users)}
        with replacing(path) as (temporary,):
            if suffix == ".npz":
                with temporary.open("wb") as file:  # NumPy would add .npz to a name
                    named = {"items": np.array(items), "users": np.array(self.users), **arrays}
                    np.savez(file, **named)  # type: ignore[arg-type]  # a flag of NumPy 2
            else:
                tokens = {"items": json.dumps(items), "users": json.dumps(self.users)}
                temporary.write_bytes(to_safetensors(arrays, tokens))

    def _check_inner_product(self) -> None:
        if not self.model.INNER_PRODUCT:
            raise UserError(
                f"{self.model_name} has no item and user vectors to search in: what it reads from "
                "a user's memory depends on the item that is scored, so its score is no inner "
                "product of two fixed vectors; use recommend."
            )

    # From tokens to ids, and through the model ----------------------------------------------

    def _reading(self, query: Query) -> _Reading:
        if isinstance(query, UserState):
            self._check_state(query)
            return _Reading(query, np.empty(0, np.int64))
        if isinstance(query, str):
            user = self._users.get(query)
            if user is None:
                raise UserError(
                    f"There is no user {query!r:.200} among the {len(self._users):,} users the "
                    "model was saved with; give a list of item tokens for someone new."
                )
            items, start = self._histories.of(user), self._histories.starts[user]
            return _Reading(self._state(user, self._blank, Seen(items)), items[start:])
        if not _is_list(query) or (isinstance(query, np.ndarray) and not _holds_texts(query)):
            raise UserError(
                f"Cannot recommend to {shown(query)}; give a user token (a string), a list of item "
                "tokens, or a state."
            )
        items = self._item_ids(query.tolist() if isinstance(query, np.ndarray) else query)
        return _Reading(self._state(0, self._blank, Seen(items)), items)

    def _item_ids(self, tokens: Sequence[str]) -> np.ndarray:
        try:
            return np.array([self._items[token] for token in tokens], dtype=np.int64)
        except (KeyError, TypeError) as error:
            unknown = next(t for t in tokens if not (isinstance(t, str) and t in self._items))
            hint = "" if isinstance(unknown, str) else " (tokens are strings)"
            raise UserError(
                f"There is no item {unknown!r}{hint} among the {len(self._items):,} items the "
                "model was trained with; leave it out, or train again with it."
            ) from error

    @cached_property
    @torch.no_grad()
    def _start_tells_items_apart(self) -> bool:
        """Whether items have different scores for someone new; RUM's and GRU's are all 0."""
        users = torch.zeros(1, dtype=torch.long, device=self.device)
        scores = self._scores(users, self._blank)[0, 1:]
        return len(scores) == 1 or bool((scores != scores[0]).any())

    def _check_something_known(self, readings: Sequence[_Reading]) -> None:
        """Refuse queries whose items would all have one score, so that any order is as good."""
        if self._start_tells_items_apart:
            return
        learned = hasattr(self.model, "user_embedding")
        for number, (state, _) in enumerate(readings):
            seen = state.seen
            nothing_read = seen.before is None and len(seen.items) <= self._unread(state)
            if nothing_read and not (learned and state.user):
                raise UserError(
                    f"Query {number + 1} has neither a user whom {self.model_name} has learned nor "
                    "an item that it reads, so all items have the same score; give a user token or "
                    "at least one item."
                )

    def _check_state(self, state: UserState) -> None:
        if state.of != self._mark:  # equal shapes say nothing: its ids are of other tokens
            raise UserError("The state is of another model; begin with this one's start().")

    def _advanced(self, readings: Sequence[_Reading]) -> tuple[Tensor, SequenceState]:
        """Users ``int64 [B]`` and their states after what was unread, in one forward pass."""
        users = torch.tensor([r.state.user for r in readings], device=self.device)
        memory = SequenceState.cat([r.state.memory.to(self.device) for r in readings])
        lengths = np.array([len(r.unread) for r in readings])
        if lengths.any():
            items = np.zeros((len(readings), int(lengths.max())), np.int64)
            items[ragged_positions(lengths)] = np.concatenate([r.unread for r in readings])
            sequences = torch.from_numpy(items).to(self.device)
            ends = torch.from_numpy(lengths).to(self.device)
            memory = self.model.advance(sequences, ends, memory)
        return users, memory


def _check_count(name: str, count: object, least: int) -> None:
    # NumPy's whole numbers are Integral too, and so is bool.
    if not isinstance(count, Integral) or isinstance(count, bool) or int(count) < least:
        raise UserError(f"{name} is {shown(count)}; it must be a whole number from {least} up.")


def _check_listed(name: str, given: object) -> None:
    """Refuse what is no list: one string, which Python reads as its letters, and what ends."""
    if isinstance(given, str):
        raise UserError(f"{name} is {given!r}; give a list, such as [{given!r}].")
    if not _is_list(given):
        raise UserError(f"{name} is {shown(given)}; give a list.")


def _is_list(given: object) -> bool:
    """Whether it is a list or an array, not what Python merely reads as one: texts and ranges."""
    if isinstance(given, np.ndarray):
        return given.ndim > 0
    others = str | bytes | bytearray | memoryview | range
    return isinstance(given, Sequence) and not isinstance(given, others)


def _holds_texts(array: np.ndarray) -> bool:
    """Whether it is one row that can be of texts; each is looked up later."""
    return array.ndim == 1 and array.dtype.kind in "UOT"


def _check_switch(name: str, given: object) -> None:
    if not isinstance(given, bool | np.bool_):
        raise UserError(f"{name} is {shown(repr(given))}; it must be True or False.")


def _device(device: str | torch.device) -> torch.device:
    try:
        wanted = torch.device(device)
        if wanted.type not in ("cpu", "cuda"):
            raise RuntimeError("it is neither cpu nor cuda")
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(
            f"The device {shown(repr(device))} cannot be used ({reason}); give cpu, or cuda where "
            "there is a GPU."
        ) from error
    return wanted
