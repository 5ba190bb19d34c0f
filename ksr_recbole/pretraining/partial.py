"""Resuming a pretraining after an interruption."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from logging import getLogger
from pathlib import Path
from time import monotonic

import numpy as np

from ksr_recbole.cache import read_arrays, write_arrays
from ksr_recbole.errors import DamagedFileError

SAVE_SECONDS = 10.0
"""A partial result is kept this often, so an interruption costs at most this and one epoch."""


ArrayKind = tuple[np.dtype, tuple[int, ...]]
"""Type and shape of an array."""


class PartialTraining:
    """Keeps the state at the end of an epoch in a file, to resume from after Ctrl-C.

    The file is a cache file (no pickle), written in one step.

    Args:
        path: the file, or ``None`` to keep nothing.
        key: made of data, settings and seed; a file of another key is not gone on from.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self.path = path
        self.key = key
        self._last_save = monotonic()

    def load(
        self, wanted: Callable[[int], Mapping[str, ArrayKind]]
    ) -> dict[str, np.ndarray] | None:
        """State kept by an earlier run, or ``None`` to start anew.

        Args:
            wanted: gives type and shape of every array of a state after so many epochs, by name.
        """
        if self.path is None or not self.path.exists():
            return None
        try:
            state = read_arrays(self.path, self.key)
            _check_state(state, wanted)
        except DamagedFileError as error:
            logger = getLogger(__name__)
            logger.warning(
                f"Starting again from the beginning, since {self.path} cannot be used: {error}."
            )
            return None
        getLogger(__name__).info(f"Continuing after {int(state['epoch'])} epochs, from {self.path}")
        return state

    def due(self) -> bool:
        """Whether it is time to keep a state again."""
        return self.path is not None and monotonic() - self._last_save >= SAVE_SECONDS

    def save(self, epoch: int, state: Mapping[str, np.ndarray]) -> None:
        """Keep the state after ``epoch`` epochs.

        Raises:
            UserError: the file cannot be written.
        """
        if self.path is not None:
            content = {**state, "epoch": np.array(epoch)}
            write_arrays(self.path, self.key, content, {"epoch": epoch})
            self._last_save = monotonic()


def _check_state(
    state: Mapping[str, np.ndarray], wanted: Callable[[int], Mapping[str, ArrayKind]]
) -> None:
    epoch = state.get("epoch")
    if epoch is None or epoch.shape or epoch.dtype != np.int64 or not 0 < epoch < 1 << 30:
        raise DamagedFileError("it does not say which epoch it is from")
    found = {name: (array.dtype, array.shape) for name, array in state.items() if name != "epoch"}
    if found != dict(wanted(int(epoch))):
        raise DamagedFileError("it is the state of another kind of training")
    if any(array.dtype.kind == "f" and not np.isfinite(array).all() for array in state.values()):
        raise DamagedFileError("it holds numbers that are not finite")
