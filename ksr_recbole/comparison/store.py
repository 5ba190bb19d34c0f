"""The folder of finished cells.

A finished one is a JSON file and the ranks it was computed from, or a part of a packed file.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np

from ksr_recbole.cache import array_bytes, compact, read_arrays, widened
from ksr_recbole.comparison import packed
from ksr_recbole.comparison.cells import (
    TABLE3_METRICS,
    Cell,
    environment_without_places,
    without_places,
)
from ksr_recbole.comparison.significance import PerUser
from ksr_recbole.config.evaluation_keys import metric_keys, uncalibrated
from ksr_recbole.digests import unsealed
from ksr_recbole.errors import DamagedFileError, UserError, shown
from ksr_recbole.evaluation.metrics import per_user_metrics
from ksr_recbole.files import replacing
from ksr_recbole.locks import locked_if_free
from ksr_recbole.names import first_name
from ksr_recbole.one_step import finish_steps, read_steadily
from ksr_recbole.records import (
    Each,
    Either,
    Number,
    Whole,
    check_shape,
    read_record,
    record_text,
    write_record,
)
from ksr_recbole.text import clean_line

logger = getLogger(__name__)

MEASURED = "measured/"
"""What names of a measure's arrays begin with; the others are ``mode/phase/...``."""

_KINDS = list(dict.fromkeys(name.partition("@")[0] for name in TABLE3_METRICS.values()))
"""RecBole's names of the metrics of Table 3, without cuts."""

_METRICS = Each(Each(Each(Number())))

_SHAPE = {
    "key": str,
    "wall_seconds": Number(),
    "resumed": bool,
    "result": {
        "metrics": _METRICS,
        "best_epoch": Whole(),
        "best_valid_score": Either(Number()),
        "epochs_trained": Whole(1),
        "pretraining": Each(str, list),
        "seconds": {"training": Number()},
        "candidates": Each(str),
        "config": dict,
    },
}
"""What is read of a cell's JSON file."""

_MOST_RANKED = 1 << 30
"""More than the users and items of any dataset; differences of more could not be packed."""

_SAME = 1e-9
"""Largest difference between a metric and the one of the ranks that counts as rounding."""

_SAME_MODEL = 1e-4
"""Largest difference between two validations of one model that counts as rounding, where it is
more than one user's first and second place changing sides twice."""


@dataclass(frozen=True, eq=False)
class Finished:
    """A cell's result.

    Attributes:
        record: the content of the cell's JSON file: the cell, ``wall_seconds``, ``resumed`` and
            ``result``, which is what the run returned.
        ranks: users and ranks of the positives, ``int64 [P]`` each, by mode and phase.
        measured: arrays of the cell's measure, by name; empty without one.
    """

    record: Mapping[str, Any]
    ranks: Mapping[tuple[str, str], tuple[np.ndarray, np.ndarray]]
    measured: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def result(self) -> Mapping[str, Any]:
        """What the run returned."""
        return self.record["result"]

    def fewer_candidates(self, mode: str, phase: str) -> str:
        """What a small catalogue has instead of the mode's candidates; empty if it has them."""
        found = self.result.get("fewer_candidates", {})
        return clean_line(found.get(f"{phase}/{uncalibrated(mode)}", ""))

    def metrics(
        self, mode: str, phase: str, names: Collection[str] = TABLE3_METRICS.values()
    ) -> dict[str, float]:
        """Metrics by RecBole's name, those of Table 3 unless others are wanted.

        Raises:
            UserError: the cell has no such metric, which only a changed one lacks.
        """
        values = self.every_metric(mode, phase)
        if missing := [name for name in names if name not in values]:
            raise self.damaged(f"no {missing[0]} of {mode}, {phase}")
        return {name: values[name] for name in names}

    def every_metric(self, mode: str, phase: str) -> Mapping[str, float]:
        """All metrics that were computed.

        Raises:
            UserError: there are none of that mode and phase.
        """
        values = self.result["metrics"].get(mode, {}).get(phase)
        if values is None:
            raise self.damaged(f"no metrics of {mode}, {phase}")
        return dict(values)

    def damaged(self, what: str) -> UserError:
        """The error for a stored result that somebody has changed.

        Args:
            what: what it has that no right one has, such as ``"no metrics of full, test"``.
        """
        key = str(self.record.get("key", ""))[:16]
        return UserError(
            f"The finished cell {shown(key)} has {what}; delete the files of cells/ with that name "
            "in them to run it again."
        )

    def per_user(self, mode: str, phase: str) -> dict[str, PerUser]:
        """The metrics of Table 3 of every user, by RecBole's name; values are ``float64 [U]``.

        Raises:
            UserError: there are no ranks of that mode and phase.
        """
        if (mode, phase) not in self.ranks:
            raise UserError(
                f"The cell has no ranks of {mode}, {phase}; packed cells have none of validation."
            )
        users, ranks = self.ranks[mode, phase]
        unique, values = per_user_metrics(users, ranks, _KINDS, [10])
        return {name: PerUser(unique, values[name]) for name in TABLE3_METRICS.values()}


@dataclass(frozen=True)
class Failed:
    """A cell that gave no result.

    Attributes:
        error: why, in one line.
        seconds: wall-clock seconds until then, where they were counted.
    """

    error: str
    seconds: float = 0.0


Outcome = Finished | Failed
"""What became of a cell."""


def is_of_cells(name: str) -> bool:
    """Whether a name in the folder of finished cells is one that is written there."""
    return name == packed.FILE or name.endswith((".json", ".safetensors"))


@dataclass(frozen=True)
class Store:
    """The benchmark's folder of one dataset.

    Attributes:
        folder: ``<results_dir>/benchmark/<dataset>``.
    """

    folder: Path

    @classmethod
    def of(cls, results_dir: str | Path, dataset: str) -> Store:
        """The folder of a dataset."""
        return cls(Path(results_dir) / "benchmark" / first_name(dataset))

    def result_file(self, cell: Cell) -> Path:
        """The cell's JSON file; it is there if and only if the cell is finished."""
        return self.folder / "cells" / f"{cell.name}.json"

    def ranks_file(self, cell: Cell) -> Path:
        """The cell's users and ranks."""
        return self.folder / "cells" / f"{cell.name}.safetensors"

    @property
    def pack_file(self) -> Path:
        """The cells that were packed (:mod:`ksr_recbole.comparison.packed`)."""
        return self.folder / "cells" / packed.FILE

    def failure_file(self, cell: Cell) -> Path:
        """How the cell's run failed, for those who do not want it run again."""
        return self.folder / "failures" / f"{cell.name}.json"

    def log_file(self, cell: Cell) -> Path:
        """What the cell's run printed, attempt after attempt."""
        return self.folder / "logs" / f"{cell.name}.log"

    def checkpoint_folder(self, cell: Cell) -> Path:
        """Where the cell's run keeps its state until it is finished."""
        return self.folder / "checkpoints" / cell.name

    def checkpoint_lock(self, cell: Cell) -> Path:
        """Held while the cell is run; it lies next to the folder, which is removed."""
        return self.folder / "checkpoints" / f".{cell.name}.lock"

    def remove_leftovers(self, cell: Cell) -> None:
        """Remove the state of a finished cell whose run was killed before it could do so.

        A state that is newer than the cell is of a run that measures more of it, and stays, as
        does one that another process holds.
        """
        folder = self.checkpoint_folder(cell)
        if not folder.is_dir():
            return
        with (
            suppress(OSError, NotImplementedError),  # the cell is packed, or nothing can be changed
            locked_if_free(self.checkpoint_lock(cell)) as free,
        ):
            finished = self.result_file(cell).stat().st_mtime_ns
            if free and all(path.stat().st_mtime_ns <= finished for path in folder.iterdir()):
                shutil.rmtree(folder, ignore_errors=True)

    def save(
        self, cell: Cell, run_result: Mapping[str, Any], wall_seconds: float, resumed: bool
    ) -> None:
        """Keep a finished cell, both files in one step.

        Args:
            cell: the cell.
            run_result: what :func:`ksr_recbole.quick_start.run` returned.
            wall_seconds: what this took, from the last resumption on.
            resumed: whether it was resumed from a checkpoint, so that the seconds are not all.

        Raises:
            UserError: the folder cannot be written.
        """
        result = dict(run_result)
        result["config"] = without_places(result["config"])
        result["environment"] = environment_without_places(result["environment"])
        measured = result.pop("measured_arrays", {})
        ranks = {
            (mode, phase): (ranked.users, ranked.ranks)
            for mode, phases in result.pop("eval_results").items()
            for phase, ranked in phases.items()
        }
        arrays = arrays_of(ranks, measured)
        about = {
            "key": cell.key,
            "model": cell.model,
            "dataset": cell.dataset,
            "task": cell.task,
            "seed": cell.seed,
            "overrides": dict(cell.overrides),
            "measure": cell.measure,
        }
        record = {**about, "wall_seconds": wall_seconds, "resumed": resumed, "result": result}
        # A reader looks for the JSON file first, so the ranks are moved first.
        files = self.ranks_file(cell), self.result_file(cell)
        with replacing(*files, owned=is_of_cells) as (ranks_file, result_file):
            ranks_file.write_bytes(array_bytes(cell.key, arrays, about))
            result_file.write_text(record_text(record), encoding="utf-8")

    def load(self, cell: Cell) -> Finished | None:
        """A finished cell, or ``None``; damaged files give one warning.

        A cell that lacks the measure it is asked for is not finished.

        Raises:
            UserError: a command was killed while it wrote cells, and this cannot be mended.
        """
        path = self.result_file(cell)
        finish_steps(path.parent, is_of_cells)
        try:
            # Another process may save the cell again between the two files.
            return read_steadily([path, self.ranks_file(cell)], lambda: self._load_single(cell))
        except FileNotFoundError:
            return self._load_packed(cell)
        except OSError as error:
            reason = f"{path.name} cannot be read: {error.strerror}"
        except DamagedFileError as error:
            if not path.exists():  # another process packed it meanwhile
                return self._load_packed(cell)
            reason = str(error)
        logger.warning(f"Running {cell.name} again, its files cannot be used: {reason}.")
        return None

    def _load_single(self, cell: Cell) -> Finished | None:
        """As :meth:`load`, of the files that a cell has of its own.

        Raises:
            OSError: there are none, or they cannot be read.
            DamagedFileError: they are damaged.
        """
        record = read_record(self.result_file(cell))
        if not _answers(record, cell):
            return None
        return _finished(record, read_arrays(self.ranks_file(cell), cell.key))

    def _load_packed(self, cell: Cell) -> Finished | None:
        """As :meth:`load`, of a cell without files of its own."""
        try:
            found = packed.read_packed(self.pack_file, cell.name)
            if found is None:
                return None
            record, arrays = found
            record = unsealed(record)
            return _finished(record, arrays, packed.LEFT_OUT) if _answers(record, cell) else None
        except DamagedFileError as error:
            logger.warning(f"Running {cell.name} again, as packed it cannot be used: {error}.")
            return None

    def outcome(self, cell: Cell, error: str | None) -> Outcome:
        """How a cell's run ended.

        Args:
            cell: the cell.
            error: why the run failed; ``None`` if it has saved a result.

        Raises:
            UserError: as :meth:`load`.
        """
        finished = None if error else self.load(cell)
        return finished or Failed(error or "its result cannot be read again")

    def save_failure(self, cell: Cell, failed: Failed) -> None:
        """Keep how a cell's run failed.

        Raises:
            UserError: the folder cannot be written.
        """
        record = {"key": cell.key, "error": failed.error, "seconds": failed.seconds}
        write_record(self.failure_file(cell), record)

    def load_failure(self, cell: Cell) -> Failed | None:
        """How a cell's run failed; ``None`` if it did not, or if that cannot be read."""
        try:
            record = read_record(self.failure_file(cell))
            check_shape(record, {"key": str, "error": str, "seconds": Number()})
        except (DamagedFileError, OSError):
            return None
        if record["key"] != cell.key:
            return None
        return Failed(record["error"], float(record["seconds"]))


def _answers(record: Mapping[str, Any], cell: Cell) -> bool:
    """Whether a record has the measure that its cell is asked for, if it is asked for one.

    Raises:
        DamagedFileError: it is of another cell, or not what it must be.
    """
    if record.get("key") != cell.key:
        raise DamagedFileError("it was made from other data, settings or seed")
    check_shape(record, _SHAPE)
    check_shape(record["result"].get("fewer_candidates", {}), Each(str))
    return cell.measure in (None, record.get("measure"))


_SCORES_AT_RANDOM = ("KTUP", "Random", "DiffRec", "LDiffRec", "ADMMSLIM", "KGIN", "MCCLK")
"""Models of RecBole that draw noise, or edges, while they score: no evaluation gives the same
again."""


def _check_score(result: Mapping[str, Any], n_users: int) -> None:
    """Make sure that trials are chosen by the metric that the result shows.

    Args:
        result: what the run returned.
        n_users: how many users were ranked.  A run that was resumed with another number of threads
            validates its best model with other rounding, which can change a rank.

    Raises:
        DamagedFileError: the best score is another number than that metric on validation.
    """
    score, metric = result["best_valid_score"], result["config"].get("valid_metric")
    if score is None or metric is None:
        return
    if result["config"].get("model") in _SCORES_AT_RANDOM:
        return
    check_shape(result, {"eval_mode": str, "config": {"valid_metric": str}})
    shown_metrics = result["metrics"].get(result["eval_mode"], {}).get("valid", {})
    value = shown_metrics.get(metric.lower())
    if value is None or not abs(score - value) <= max(_SAME_MODEL, 1 / n_users):
        raise DamagedFileError("its best_valid_score is not its metric on validation")


def _finished(
    record: Mapping[str, Any], arrays: Mapping[str, np.ndarray], left_out: str | None = None
) -> Finished:
    """A cell of its two files.

    Args:
        record: the content of its JSON file.
        arrays: its arrays, by the names of :func:`arrays_of`.
        left_out: a phase that may have no ranks.

    Raises:
        DamagedFileError: they do not belong together.
    """
    ranks: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}
    evaluated = {
        (m, phase) for m, phases in record["result"]["metrics"].items() for phase in phases
    }
    ranked = _ranked_in(arrays)
    missing = evaluated - ranked
    if not evaluated or not ranked <= evaluated or any(phase != left_out for _, phase in missing):
        raise DamagedFileError("its metrics are not those that it has ranks of")
    for mode, phases in record["result"]["metrics"].items():
        for phase, metrics in phases.items():
            if (mode, phase) in missing:
                continue
            name = ascii(f"{mode}/{phase}")[1:-1]
            users, of_positives = ranks[mode, phase] = ranks_of(arrays, mode, phase)
            given = _given_by(users, of_positives, record["result"]["config"], metrics)
            for metric, value in given.items():
                if not abs(metrics[metric] - value) <= _SAME:  # nor is it NaN
                    raise DamagedFileError(f"its {metric} of {name} is not the one of its ranks")
    if not ranks:
        raise DamagedFileError("it has no ranks")
    users, _ = next(iter(ranks.values()))  # nearly the same in all modes and phases
    _check_score(record["result"], len(np.unique(users)))
    return Finished(record, ranks, _measured_in(arrays))


# The names of a cell's arrays -----------------------------------------------------------------


def arrays_of(
    ranks: Mapping[tuple[str, str], tuple[np.ndarray, np.ndarray]],
    measured: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """A cell's arrays, by the names under which they are kept.

    Args:
        ranks: users and ranks of the positives, ``int64 [P]`` each, by mode and phase.
        measured: arrays of the cell's measure, by name.
    """
    arrays = {MEASURED + name: array for name, array in measured.items()}
    for (mode, phase), (users, of_positives) in ranks.items():
        arrays[f"{mode}/{phase}/users"] = compact(users)
        arrays[f"{mode}/{phase}/ranks"] = compact(of_positives)
    return arrays


def _ranked_in(arrays: Iterable[str]) -> set[tuple[str, ...]]:
    """Mode and phase of all ranks, read from the names of arrays; odd names give odd tuples."""
    return {tuple(name.split("/")[:2]) for name in arrays if not name.startswith(MEASURED)}


def _measured_in(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of the cell's measure, by name."""
    return {
        name.removeprefix(MEASURED): array
        for name, array in arrays.items()
        if name.startswith(MEASURED)
    }


def ranks_of(
    arrays: Mapping[str, np.ndarray], mode: str, phase: str
) -> tuple[np.ndarray, np.ndarray]:
    """Users and ranks of a mode and phase, ``int64 [P]`` each.

    Raises:
        DamagedFileError: they are missing, or no users and ranks.
    """
    name = ascii(f"{mode}/{phase}")[1:-1]
    found = [arrays.get(f"{mode}/{phase}/{part}") for part in ("users", "ranks")]
    users, ranks = (np.zeros(0) if each is None else each for each in found)
    whole = users.dtype.kind in "iu" and ranks.dtype.kind in "iu"
    if not whole or users.ndim != 1 or users.shape != ranks.shape or len(users) == 0:
        raise DamagedFileError(f"its ranks of {name} are missing or of another shape")
    users, ranks = widened(users), widened(ranks)  # first, for the largest numbers turn negative
    if users.min() < 0 or ranks.min() < 1:
        raise DamagedFileError(f"its ranks of {name} begin below 1")
    if max(users.max(), ranks.max()) >= _MOST_RANKED:
        raise DamagedFileError(f"its ranks of {name} go beyond {_MOST_RANKED:,}")
    if len(np.unique(users * _MOST_RANKED + ranks)) < len(ranks):
        raise DamagedFileError(f"its ranks of {name} have two of a user at one place")
    return users, ranks


def _given_by(
    users: np.ndarray, ranks: np.ndarray, config: Mapping[str, Any], names: Iterable[str]
) -> dict[str, float]:
    """The metrics that ranks give; those of Table 3 unless the run had others.

    Args:
        users: user of each positive, ``int64 [P]``.
        ranks: its rank, from 1, ``int64 [P]``.
        config: of the run.
        names: the metrics that it must give, neither more nor fewer.

    Raises:
        DamagedFileError: it gives others, or none.
    """
    metrics, topk = config.get("metrics", _KINDS), config.get("topk", [10])
    try:
        wanted = metric_keys(metrics, topk)
        if set(wanted) != set(names):  # before any is computed, for there may be thousands
            raise DamagedFileError("its metrics are not those of its configuration")
        _, values = per_user_metrics(users, ranks, metrics, topk)
    except (UserError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise DamagedFileError("its configuration has no metrics") from error
    return {name: float(each.mean()) for name, each in values.items()}
