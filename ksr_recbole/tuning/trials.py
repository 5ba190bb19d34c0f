"""Finished trials, kept one JSON line each so that none is run twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ksr_recbole.errors import UserError
from ksr_recbole.files import replacing
from ksr_recbole.locks import locked


@dataclass(frozen=True)
class Trial:
    """How one combination of settings fared on validation.

    Attributes:
        key: from :meth:`~ksr_recbole.tuning.plan.Plan.trial_key`.
        params: the settings.
        score: the best value of the metric that selects; ``None`` if the trial failed.
        metrics: all validation metrics of that epoch.
        best_epoch: that epoch, from 0.
        epochs_trained: epochs trained.
        seconds: wall-clock seconds.
        notes: where its pretrained vectors came from.
        error: why it failed, in one line.
    """

    key: str
    params: Mapping[str, Any]
    score: float | None = None
    metrics: Mapping[str, float] | None = None
    best_epoch: int | None = None
    epochs_trained: int | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    error: str | None = None


class TrialLog:
    """The file of finished trials; it is replaced as a whole, so no line is ever cut.

    Searches that run side by side share it: each keeps what the others have added.

    Args:
        path: the file; it need not be there yet.

    Raises:
        UserError: a line is not a trial's.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[str, str] = {}
        self._trials: dict[str, Trial] = {}
        self._read_file()

    def _read_file(self) -> None:
        if self._path.is_file():
            lines = self._path.read_text(encoding="utf-8").splitlines()
            for number, line in enumerate(lines, start=1):
                self._read(line, number)

    def _read(self, line: str, number: int) -> None:
        try:
            content = json.loads(line)
            trial = Trial(**{**content, "notes": tuple(content["notes"])})
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{self._path}, line {number} is not a trial; delete the line (its trial is run "
                "again), or the file to start anew."
            ) from error
        self._lines[trial.key], self._trials[trial.key] = line, trial

    def find(self, key: str) -> Trial | None:
        """The finished trial of a key."""
        return self._trials.get(key)

    def add(self, trial: Trial) -> None:
        """Keep a finished trial.

        Raises:
            UserError: the file cannot be written.
        """
        with locked(self._path.with_name(f".{self._path.name}.lock")):
            self._read_file()
            self._lines[trial.key] = json.dumps(asdict(trial))
            self._trials[trial.key] = trial
            with replacing(self._path) as (temporary,):
                text = "".join(f"{line}\n" for line in self._lines.values())
                temporary.write_text(text, encoding="utf-8")


def best_of(trials: list[Trial], bigger: bool) -> Trial | None:
    """The trial with the best score, the earliest of equals; ``None`` if all failed."""
    scored = [(trial.score, trial) for trial in trials if trial.score is not None]
    choose = max if bigger else min
    return choose(scored, key=lambda pair: pair[0])[1] if scored else None
