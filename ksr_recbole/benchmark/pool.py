"""Runs jobs in worker processes that are used again and replaced when they die."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from typing import Protocol

from ksr_recbole.benchmark import worker
from ksr_recbole.benchmark.worker import Job, Report
from ksr_recbole.processes import threads_per_worker

_TICK_SECONDS = 0.5


class Observer(Protocol):
    """Who is told what the pool does."""

    def started(self, job: Job) -> None:
        """``job`` was given to a worker."""

    def ended(self, job: Job, report: Report) -> None:
        """``job`` is done with."""

    def tick(self) -> None:
        """Time has passed."""


def run_jobs(jobs: Sequence[Job], workers: int, observer: Observer) -> None:
    """Run every job once.

    A worker that dies fails its own job only: each is an executor of one process, because a
    larger one could not tell which of its jobs was the cause.  If this is interrupted, the
    workers are ended; their cells go on from their checkpoints next time.

    Args:
        jobs: in the order wanted.
        workers: jobs run at a time.
        observer: told about starts and ends.
    """
    waiting = deque(jobs)
    idle = [_Worker(threads_per_worker(workers)) for _ in range(min(workers, len(jobs)))]
    busy: dict[Future[Report], tuple[_Worker, Job]] = {}
    try:
        while waiting or busy:
            while waiting and idle:
                process, job = idle.pop(), waiting.popleft()
                busy[process.submit(job)] = (process, job)
                observer.started(job)
            done, _ = wait(busy, timeout=_TICK_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                process, job = busy.pop(future)
                observer.ended(job, process.report(future))
                idle.append(process)
            observer.tick()
    finally:
        interrupted = [process for process, _ in busy.values()]
        for process in interrupted:
            process.kill()
        for process in [*interrupted, *idle]:
            process.close()


class _Worker:
    """A process that runs one job at a time.

    Args:
        threads: threads its libraries may use.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._start()

    def _start(self) -> None:
        self._executor = ProcessPoolExecutor(
            max_workers=1,
            mp_context=get_context("spawn"),
            initializer=worker.initialise,
            initargs=(self._threads,),
        )
        self._process_id = self._executor.submit(os.getpid)

    def submit(self, job: Job) -> Future[Report]:
        try:
            return self._executor.submit(worker.run_cell, job)
        except BrokenProcessPool:  # it died between two jobs
            self._start()
            return self._executor.submit(worker.run_cell, job)

    def report(self, future: Future[Report]) -> Report:
        """What became of a job; a dead process is replaced."""
        try:
            return future.result()
        except BrokenProcessPool:
            self.close()
            self._start()
            return Report("its process died (killed, or out of memory)")
        except Exception as error:
            return Report(f"{type(error).__name__}: {error}")

    def kill(self) -> None:
        """End the process in the middle of its job."""
        with suppress(BrokenProcessPool, ProcessLookupError):
            os.kill(self._process_id.result(), signal.SIGTERM)

    def close(self) -> None:
        """End the process, once its job is done."""
        self._executor.shutdown(wait=True, cancel_futures=True)
