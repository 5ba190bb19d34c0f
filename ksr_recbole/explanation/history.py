"""What a model reads of one user."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset_atomic.raw.timestamps import SECONDS_BELOW, UNITS
from ksr_recbole.dataset.kg_sequence_dataset import KGSequenceDataset
from ksr_recbole.errors import UserError


@dataclass(frozen=True, eq=False)
class History:
    """A user's interactions, held-out ones too.

    Attributes:
        items: item ids in the order of time, ``int64 [T]``.
        timestamps: as in the ``.inter`` file, ``float64 [T]``.
        seen: item ids of these and of what ``train_ratio`` leaves out before them.
    """

    items: np.ndarray
    timestamps: np.ndarray
    seen: np.ndarray

    @classmethod
    def of(cls, dataset: KGSequenceDataset, user: str) -> History:
        """The history of a user of a built dataset.

        Raises:
            UserError: there is no such user.
        """
        known = dataset.field2token_id[dataset.uid_field]
        number = known.get(str(user), 0)
        if number == 0:
            path = Path(dataset.dataset_path) / f"{dataset.dataset_name}.inter"
            examples = ", ".join(map(str, dataset.field2id_token[dataset.uid_field][1:4]))
            raise UserError(
                f"There is no user '{user}' with linked items in {path}; its "
                f"{dataset.user_num - 1:,} users are called {examples}, and so on."
            )
        sequences = dataset.sequences
        # What train_ratio leaves out at the beginning is not read here either.
        first, end = sequences.offsets[number], sequences.offsets[number + 1]
        span = slice(first + dataset.split.train_start[number], end)
        return cls(sequences.items[span], sequences.timestamps[span], sequences.items[first:end])

    def times(self) -> list[str | None]:
        """UTC times as ``YYYY-MM-DD HH:MM``, each ``None`` if the numbers are no dates."""
        largest = np.abs(self.timestamps).max()
        scale = next((n for n in UNITS.values() if largest < SECONDS_BELOW * n), None)
        # Before 1973: positions or normalised numbers, as RecBole's files may have them.
        if scale is None or largest < SECONDS_BELOW // 1000:
            return [None] * len(self.timestamps)
        seconds = (self.timestamps / scale).astype("datetime64[s]")
        return [text.replace("T", " ") for text in np.datetime_as_string(seconds, unit="m")]
