"""Runs cells in worker processes that are used again and replaced when they die."""

from __future__ import annotations

import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle
from logging import getLogger
from multiprocessing import active_children, get_context
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Protocol, TextIO

from ksr_recbole import gpus
from ksr_recbole.comparison.cells import Cell
from ksr_recbole.comparison.store import Store
from ksr_recbole.compat import silence_upstream_warnings
from ksr_recbole.errors import UnusableCheckpointError, UserError, cannot_write, one_line
from ksr_recbole.locks import locked
from ksr_recbole.one_step import check_place
from ksr_recbole.processes import leaving_interruptions, serve_parent, threads_per_worker
from ksr_recbole.text import print_nowhere, printing
from ksr_recbole.threads import THREAD_VARIABLES, number_in

_TICK_SECONDS = 0.5


@dataclass(frozen=True)
class Job:
    """A cell to be run.

    Attributes:
        cell: the cell.
        store: where its result goes.
        config_files: YAML files.
        values: config values of every cell.
        keep_checkpoints: leave the trained model on disk.
    """

    cell: Cell
    store: Store
    config_files: tuple[str, ...]
    values: Mapping[str, Any]
    keep_checkpoints: bool


@dataclass(frozen=True)
class Report:
    """How a job ended.

    Attributes:
        error: why it failed, in one line; ``None`` if its result is in the store.
        warning: what a user should know of a job that did not fail.
        passing: whether the same job may succeed another time: the machine failed, or the files
            were changed, and the settings are not to blame.
        spoilt: whether its process can run no other job: an error of a GPU lasts as long as it.
    """

    error: str | None = None
    warning: str | None = None
    passing: bool = False
    spoilt: bool = False


class InputsChangedError(UserError):
    """Files were changed while a cell was trained on them."""


class Observer(Protocol):
    """Receives what the pool does."""

    def started(self, job: Job) -> None:
        """``job`` was given to a worker."""

    def ended(self, job: Job, report: Report) -> None:
        """``job`` is done with."""

    def tick(self) -> None:
        """Time has passed."""


def run_jobs(
    jobs: Iterable[Job], workers: int, observer: Observer, own_gpus: Sequence[str] = ()
) -> None:
    """Run every job once.

    A job is taken from ``jobs`` only when a worker is free, so that it may depend on how earlier
    ones ended.  A worker that dies fails its own job only: each is an executor of one process,
    because a larger one could not tell which of its jobs was the cause.  If this is interrupted,
    the workers are ended; their cells continue from their checkpoints next time.

    Args:
        jobs: in the order wanted.
        workers: jobs run at a time.
        observer: hears of starts and ends.
        own_gpus: the workers take one each, in turn; without any, the one that their jobs name.
    """
    source, of_workers = iter(jobs), cycle(own_gpus or [None])
    made: list[_Worker] = []
    idle: list[_Worker] = []
    busy: dict[Future[Report], tuple[_Worker, Job]] = {}
    try:
        while True:
            while len(busy) < workers and (job := next(source, None)):
                if not idle:
                    idle.append(_Worker(workers, next(of_workers)))
                    made += idle
                process = idle.pop()
                busy[process.submit(job)] = (process, job)
                observer.started(job)
            if not busy:
                break
            done, _ = wait(busy, timeout=_TICK_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                process, job = busy.pop(future)
                idle.append(process)
                observer.ended(job, process.report(future))
            observer.tick()
    except BaseException:
        for process in made:
            process.kill()
        raise
    finally:
        for process in made:
            process.close()


class _Worker:
    """A process that runs one job at a time.

    Args:
        workers: how many share the machine's cores.
        gpu: its own GPU; ``None``: that of its jobs.
    """

    def __init__(self, workers: int, gpu: str | None = None) -> None:
        self._threads, self._gpu = threads_per_worker(workers), gpu
        self._start()

    def _start(self) -> None:
        self._executor = ProcessPoolExecutor(
            max_workers=1,
            mp_context=get_context("spawn"),
            initializer=initialise,
            initargs=(self._threads, gpus.of_the_user()),
        )
        before = set(active_children())
        with leaving_interruptions():
            self._executor.submit(os.getpid)  # the first job starts the process
        self._processes = set(active_children()) - before

    def submit(self, job: Job) -> Future[Report]:
        if self._gpu is not None:
            job = replace(job, values={**job.values, "gpu_id": self._gpu})
        try:
            return self._executor.submit(run_cell, job)
        except BrokenProcessPool:  # it died between two jobs
            self._start()
            return self._executor.submit(run_cell, job)

    def report(self, future: Future[Report]) -> Report:
        """What became of a job; a dead process is replaced."""
        try:
            found = future.result()
        except BrokenProcessPool:
            found = Report("its process died (killed, or out of memory)", spoilt=True)
        except Exception as error:
            found = Report(f"{type(error).__name__}: {error}")
        if found.spoilt:
            self.close()
            self._start()
        return found

    def kill(self) -> None:
        """End the process in the middle of its job, or of what it imports before."""
        for process in self._processes:
            process.terminate()

    def close(self) -> None:
        """End the process, once its job is done."""
        self._executor.shutdown(wait=True, cancel_futures=True)


# In a worker -----------------------------------------------------------------------------------


def initialise(threads: int, visible_gpus: str | None) -> None:
    """Prepare a worker process: its share of the cores, and an end with its parent's.

    Args:
        threads: threads of each library; fewer stay fewer where the environment says so.
        visible_gpus: see :func:`~ksr_recbole.gpus.of_the_user`.
    """
    gpus.begin_with(visible_gpus)
    for name in THREAD_VARIABLES:
        os.environ[name] = str(min(number_in(name) or threads, threads))
    serve_parent()


def run_cell(job: Job) -> Report:
    """Run a cell and keep its result; whatever goes wrong is reported, not raised.

    All output goes to the cell's log file, and so does the traceback of an error.
    """
    log = job.store.log_file(job.cell)
    try:
        with _output_to(log) as lost, printing():
            report = _reported(job, log)
    except OSError as error:
        return Report(one_line(cannot_write(log, error)), passing=True)
    if lost and report.error is None and report.warning is None:
        report = replace(report, warning=f"The end of the log {log} is lost: {lost[0]}.")
    return report


def _reported(job: Job, log: Path) -> Report:
    try:
        return Report(warning=_run(job))
    except UserError as error:
        traceback.print_exc()
        passing = isinstance(error, InputsChangedError) or isinstance(error.__cause__, OSError)
        return Report(one_line(error), passing=passing)
    except Exception as error:
        traceback.print_exc()
        spoilt = isinstance(error, RuntimeError) and "CUDA error" in str(error)
        text = f"{type(error).__name__}: {one_line(error)} (see {log})"
        return Report(text, passing=spoilt, spoilt=spoilt)


@contextmanager
def _output_to(path: Path) -> Iterator[list[str]]:
    """Append everything this process prints, from native code too, to a file.

    The block gets a list that has, after it, why the last lines could not be written.  A cell
    whose result is kept has not failed for want of them.

    Raises:
        OSError: something else stands there, or it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    check_place(path)  # a named pipe would keep this waiting
    streams = (sys.stdout, sys.stderr)
    with path.open("ab", buffering=0) as file:
        saved = [os.dup(number) for number in (1, 2)]
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    lost: list[str] = []
    try:
        yield lost
    finally:
        try:
            for stream in streams:
                lost += _flushed(stream)
        finally:
            for number, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, number)
                os.close(copy)


def _flushed(stream: TextIO) -> list[str]:
    """Write out what a stream holds; why that failed, if it did."""
    try:
        stream.flush()
    except OSError as error:
        # Else it would be written later, wherever the stream leads then.
        print_nowhere(stream)
        stream.flush()
        return [error.strerror or str(error)]
    return []


def _run(job: Job) -> str | None:
    """Run the cell unless another command does so meanwhile; return what a user should know."""
    silence_upstream_warnings()
    folder = job.store.checkpoint_folder(job.cell)
    with locked(job.store.checkpoint_lock(job.cell)):
        if job.store.load(job.cell):  # another command ran it meanwhile, and may keep its state
            return None
        warning = _train(job, folder)
        if not job.keep_checkpoints:
            shutil.rmtree(folder, ignore_errors=True)
    return warning


def _train(job: Job, folder: Path) -> str | None:
    """Train the cell, from its checkpoint if there is one; return what a user should know."""
    from ksr_recbole.trainer import checkpoint  # late, as in _call

    newest = checkpoint.latest(folder.glob("*.pth"))
    resume = None if newest is None else str(newest)
    warning = None
    start = time.perf_counter()
    try:
        result = _call(job, folder, resume)
    except UnusableCheckpointError as error:
        if resume is None:
            raise
        warning = f"{job.cell.name} starts anew: {one_line(error)}"
        getLogger().warning(warning)  # in the log at once, on the screen at the end
        resume = None
        result = _call(job, folder, resume)
    seconds = time.perf_counter() - start
    if not job.keep_checkpoints:
        result |= {"checkpoint": None, "result_file": None}  # they go with the folder
    _check_same_inputs(job)
    job.store.save(job.cell, result, wall_seconds=seconds, resumed=resume is not None)
    return warning


def _check_same_inputs(job: Job) -> None:
    """Refuse a result of other files than those that its cell was named after.

    Raises:
        InputsChangedError: a file of the dataset or of the configuration was changed meanwhile.
    """
    # Imported late, as in _call.
    from ksr_recbole.comparison.plan import key_of, values_of
    from ksr_recbole.config import Config

    cell = job.cell
    values = values_of(job.values, cell.overrides, cell.task)
    config = Config(cell.model, cell.dataset, list(job.config_files), values)
    if key_of(config, cell.seed) != cell.key:
        raise InputsChangedError(
            f"A file of {cell.dataset} or of the configuration was changed while {cell.name} was "
            "trained; run the command again."
        )


def _call(job: Job, folder: Path, resume: str | None) -> dict[str, Any]:
    # Imported late: a worker must be there at once, to be counted and stopped.
    from ksr_recbole.comparison.plan import values_of
    from ksr_recbole.quick_start import run

    cell = job.cell
    own = {
        "seed": cell.seed,
        "checkpoint_dir": str(folder),
        "results_dir": str(folder),  # the cell's file holds the run's result
        "show_progress": False,
        "resume": resume or False,
    }
    values = values_of(job.values, cell.overrides, cell.task) | own
    measure = resolve_name(cell.measure) if cell.measure else None
    return run(cell.model, cell.dataset, list(job.config_files), values, measure=measure)
