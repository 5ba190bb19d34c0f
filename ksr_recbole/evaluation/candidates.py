"""The sampled items each positive is ranked against (Sec. 5.1, "Task Settings").

"For each positive item in the test set, we pair it with 100 sampled items that the user has
not interacted with [...], 50 items are sampled randomly, while the rest 50 items are sampled
according to the popularity."
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ksr_recbole import digests
from ksr_recbole.dataset.sequences import EvalPhase, Split, UserSequences, ragged_positions
from ksr_recbole.errors import UserError, shown
from ksr_recbole.text import counted

# Rows drawn at once, if the items are not so many that fewer must do.  The result does not depend
# on it.
_BLOCK_ROWS = 2048
# Rows times items marked at once; bounds the memory at 64 MiB of booleans.
_BLOCK_CELLS = 1 << 26
# Rows given a random key for every item at once, and rows times items (8 bytes a key: 64 MiB).
_KEY_ROWS = 256
_KEY_CELLS = 1 << 23
# Items proposed per item wanted, before falling back on a key for every item.
_PROPOSALS = 3


@dataclass(frozen=True, eq=False)
class CandidateSets:
    """Every positive of a phase with the negatives it is ranked against.

    A user with several positives (next-session) has several rows, each with negatives of its
    own; rows are in user order and, within a user, in time order.

    Attributes:
        users: ``int64 [P]``.
        positives: item ids, ``int64 [P]``.
        negatives: item ids, ``int64 [P, n_uniform + n_popular]``: first the uniform ones, then
            the popular ones, each in the order drawn.
    """

    users: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray

    @property
    def lists(self) -> np.ndarray:
        """Each positive, in column 0, and its negatives, ``int64 [P, 1 + N]``."""
        return np.concatenate([self.positives[:, None], self.negatives], axis=1)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the three arrays in hexadecimal: equal if and only if the sets are."""
        arrays = (self.users, self.positives, self.negatives)
        pieces = (np.ascontiguousarray(array, dtype="<i8").tobytes() for array in arrays)
        return digests.of_bytes(repr(self.negatives.shape).encode(), *pieces)


def phase_targets(
    sequences: UserSequences, split: Split, phase: EvalPhase
) -> tuple[np.ndarray, np.ndarray]:
    """The positives of ``phase``: ``(users, items)``, each ``int64 [P]``, users ascending.

    An item a user has twice among the targets is one positive: the ground truth is a set.
    """
    start, end = split.target_range(phase, sequences)
    users = np.arange(sequences.n_users)
    items = sequences.items[sequences.spans(users, start, end)]
    owners = np.repeat(users, np.maximum(end - start, 0))
    _, first = np.unique(owners * sequences.n_items + items, return_index=True)
    first.sort()  # back to time order within each user
    return owners[first], items[first]


def training_popularity(sequences: UserSequences, split: Split) -> np.ndarray:
    """Training interactions of every item over all users, ``int64 [n_items]``.

    Those that ``train_ratio`` leaves out count too, so that models trained on different shares of
    the data are ranked against the same candidates.
    """
    users = np.arange(sequences.n_users)
    spans = sequences.spans(users, np.zeros_like(users), split.train_end)
    return np.bincount(sequences.items[spans], minlength=sequences.n_items)


def draw_candidates(
    sequences: UserSequences,
    split: Split,
    phase: EvalPhase,
    seed: int,
    n_uniform: int,
    n_popular: int,
) -> CandidateSets:
    """Draw the negatives of every positive of ``phase``, the same for every model.

    The negatives of a row are all different, and the user has interacted with none of them in
    any phase.  First the uniform ones are drawn without replacement; then the popular ones,
    without replacement from the items that remain, each with probability proportional to its
    number of training interactions (validation and test are not looked at).  Where fewer
    items with a training interaction remain than are wanted, all of them are drawn and the
    rest comes uniformly from the items without one.

    The draw depends on the data, the split's name, the phase and ``seed`` only.

    Args:
        sequences: all users' sequences.
        split: the split.
        phase: the phase.
        seed: of the draw.
        n_uniform: uniform negatives of each of the ``P`` positives.
        n_popular: popular negatives of each.

    Returns:
        The sets, of ``P`` rows and ``n_uniform + n_popular`` negatives in each.

    Raises:
        UserError: a user has too few items he or she never interacted with.
    """
    check_enough_items(sequences, split, phase, n_uniform + n_popular)
    users, positives = phase_targets(sequences, split, phase)
    uniform_weights = np.ones(sequences.n_items, dtype=np.int64)
    uniform_weights[0] = 0  # padding
    text = f"{split.name}/{phase}/{seed}"
    entropy = int(digests.of_bytes(text.encode()), 16)
    seeds = np.random.SeedSequence(entropy).spawn(2)
    uniform = _Urn(uniform_weights, n_uniform, seeds[0])
    popular = _Urn(training_popularity(sequences, split), n_popular, seeds[1])

    negatives = np.empty((len(users), n_uniform + n_popular), dtype=np.int64)
    for rows, taken in _blocks(sequences, users):
        negatives[rows, :n_uniform] = uniform.draw(taken)
        negatives[rows, n_uniform:] = popular.draw(taken)
    return CandidateSets(users=users, positives=positives, negatives=negatives)


def fitting_counts(
    sequences: UserSequences,
    split: Split,
    phase: EvalPhase,
    counts: tuple[int, int],
    user_tokens: Sequence[str] | np.ndarray | None = None,
) -> tuple[int, int]:
    """How many uniform and popular negatives each positive gets.

    These are the wanted numbers, or fewer in a small catalogue, where a user may not have enough
    unseen items.  Then all positives get equally many, divided in the same way; a catalogue is
    small if it has less than twice as many items as are wanted.

    Args:
        sequences: all users' sequences.
        split: the split.
        phase: the phase.
        counts: of uniform and popular negatives asked for.
        user_tokens: as for :func:`check_enough_items`.

    Raises:
        UserError: a user of a larger catalogue has too few items left, or fewer than two.
    """
    wanted, available = sum(counts), fewest_negatives(sequences, split, phase)
    if available >= wanted:
        return counts
    if sequences.n_items - 1 >= 2 * wanted:  # no small catalogue: refused, naming the user
        check_enough_items(sequences, split, phase, wanted, user_tokens)
    if available < 2 and len(phase_targets(sequences, split, phase)[0]):
        raise _too_few_left(sequences, split, phase, user_tokens)
    n_uniform = round(available * counts[0] / wanted)
    return n_uniform, available - n_uniform


def _too_few_left(
    sequences: UserSequences,
    split: Split,
    phase: EvalPhase,
    user_tokens: Sequence[str] | np.ndarray | None,
) -> UserError:
    """The sentence for a small catalogue, where all get as many candidates as one user has left."""
    tested, _ = phase_targets(sequences, split, phase)
    n_items = sequences.n_items - 1
    left = n_items - sequences.distinct_items[tested]
    row = int(left.argmin())
    took = "all" if left[row] == 0 else "all but one"
    others = len(np.unique(tested[left < 2])) - 1
    also = f", and {counted(others, 'more user')} at least all but one" if others else ""
    return UserError(
        f"User {_name_of(int(tested[row]), user_tokens)} has interacted with {took} of the "
        f"{n_items} items of the catalogue{also}, so too few are left as candidates. Add "
        "--eval_args.mode=full --report_modes=full to rank all items, or remove users with so many "
        "interactions from the .inter file."
    )


def _name_of(user: int, tokens: Sequence[str] | np.ndarray | None) -> str:
    """A user in a sentence."""
    if tokens is None:
        return f"number {user} (RecBole's internal id)"
    return f"'{shown(str(tokens[user]))}'"


def fewest_negatives(sequences: UserSequences, split: Split, phase: EvalPhase) -> int:
    """The smallest number of unseen items over the users of a phase."""
    users, _ = phase_targets(sequences, split, phase)
    n_items = sequences.n_items - 1
    return int((n_items - sequences.distinct_items[users]).min(initial=n_items))


def check_enough_items(
    sequences: UserSequences,
    split: Split,
    phase: EvalPhase,
    wanted: int,
    user_tokens: Sequence[str] | np.ndarray | None = None,
) -> None:
    """Make sure that so many negatives can be drawn for every positive.

    Args:
        sequences: all users' sequences.
        split: the split.
        phase: the phase.
        wanted: negatives per positive.
        user_tokens: the users' ids in the ``.inter`` file by RecBole's, for the sentence.

    Raises:
        UserError: a user has too few items he or she never interacted with.
    """
    users, _ = phase_targets(sequences, split, phase)
    available = sequences.n_items - 1 - sequences.distinct_items[users]
    if len(users) and available.min() < wanted:
        row = int(available.argmin())
        name = _name_of(int(users[row]), user_tokens)
        half = min(10, int(available[row]) // 2)
        few = f"uni{half}pop{half}"
        fewer = f", or draw fewer with --eval_args.mode={few} --report_modes={few},full"
        raise UserError(
            f"User {name} has too few items left: {available[row]} of {sequences.n_items - 1} are "
            f"without an interaction, and {wanted} negatives per positive are needed. "
            "Add --eval_args.mode=full --report_modes=full to rank all items"
            f"{fewer if half else ''}."
        )


def _blocks(sequences: UserSequences, users: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Blocks of rows, each with ``taken``: items not to draw, ``bool [rows, n_items]``."""
    step = _rows_at_once(_BLOCK_ROWS, _BLOCK_CELLS, sequences.n_items)
    for begin in range(0, len(users), step):
        block = users[begin : begin + step]
        lengths = sequences.lengths[block]
        taken = np.zeros((len(block), sequences.n_items), dtype=bool)
        taken[:, 0] = True  # padding
        rows, _ = ragged_positions(lengths)
        taken[rows, sequences.items[sequences.spans(block, np.zeros_like(lengths), lengths)]] = True
        yield slice(begin, begin + len(block)), taken


def _rows_at_once(most: int, cells: int, n_items: int) -> int:
    """How many rows of a cell for each item are held at once: at least 1, at most ``most``."""
    return max(1, min(most, cells // n_items))


class _Urn:
    """Draws ``n`` different items per row, one after another, by weight and exactly.

    Drawing with replacement and passing over what was already drawn, or is ``taken``, is
    drawing without replacement.  A fixed number of proposals serves nearly every row; a row
    they leave short continues with the items it has left, by exponential keys (Efraimidis and
    Spirakis 2006: the smallest of ``Exp(1) / weight`` are such a draw), which needs a key per
    item but always ends.  Both generators are read row after row, so that how rows are cut
    into blocks does not show.

    Args:
        weights: ``int64 [n_items]``; items of weight 0 come last, uniformly.
        n: items per row.
        seed: where the randomness comes from.
    """

    def __init__(self, weights: np.ndarray, n: int, seed: np.random.SeedSequence) -> None:
        proposals, keys = seed.spawn(2)
        self._proposal_rng = np.random.default_rng(proposals)
        self._key_rng = np.random.default_rng(keys)
        self._weights = weights
        self._cumulative = np.cumsum(weights)
        self._n = n

    def draw(self, taken: np.ndarray) -> np.ndarray:
        """Items drawn, ``int64 [rows, n]``; they are marked in ``taken`` ``[rows, n_items]``."""
        chosen = np.zeros((len(taken), self._n), dtype=np.int64)
        filled = self._propose(taken, chosen)
        short = np.flatnonzero(filled < self._n)
        step = _rows_at_once(_KEY_ROWS, _KEY_CELLS, taken.shape[1])
        for begin in range(0, len(short), step):
            rows = short[begin : begin + step]
            drawn = self._smallest_keys(taken[rows])
            wanted = np.arange(self._n) >= filled[rows, None]
            row, column = np.nonzero(wanted)
            chosen[rows[row], column] = drawn[row, column - filled[rows][row]]
        taken[np.arange(len(taken))[:, None], chosen] = True
        return chosen

    def _propose(self, taken: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Fill ``chosen`` from the left; return how many items each row got, ``[rows]``."""
        total = self._cumulative[-1]
        if total == 0 or self._n == 0:
            return np.zeros(len(taken), dtype=np.int64)
        uniform = self._proposal_rng.random((len(taken), _PROPOSALS * self._n))
        # total is far below 2**53, hence uniform * total < total and an item is always found
        items = np.searchsorted(self._cumulative, uniform * total, side="right")
        rows = np.arange(len(taken))[:, None]
        accepted = ~taken[rows, items] & _first_in_row(items)
        position = np.cumsum(accepted, axis=1)
        row, column = np.nonzero(accepted & (position <= self._n))
        chosen[row, position[row, column] - 1] = items[row, column]
        taken[row, items[row, column]] = True
        return np.minimum(position[:, -1], self._n)

    def _smallest_keys(self, taken: np.ndarray) -> np.ndarray:
        """The ``n`` items of smallest key, in order of their keys, ``int64 [rows, n]``."""
        keys = self._key_rng.standard_exponential(taken.shape)
        keys /= np.maximum(self._weights, 1)
        keys[:, self._weights == 0] += 1e6  # behind every item with a weight
        keys[taken] = np.inf
        smallest = np.argpartition(keys, self._n - 1, axis=1)[:, : self._n]
        order = np.argsort(np.take_along_axis(keys, smallest, axis=1), axis=1)
        return np.take_along_axis(smallest, order, axis=1)


def _first_in_row(items: np.ndarray) -> np.ndarray:
    """Whether a cell's item does not occur further left in its row, ``bool [rows, columns]``."""
    order = np.argsort(items, axis=1, kind="stable")
    ordered = np.take_along_axis(items, order, axis=1)
    new = np.ones(items.shape, dtype=bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.empty_like(new)
    np.put_along_axis(first, order, new, axis=1)
    return first
