"""Sharing the cores with other processes.

Threads of OpenMP that wait for each other spin: alone that is fastest, since the next piece of
work comes within microseconds.  Where another process wants the same core it is the worst there
is, because a thread spins away the time in which the one it waits for could run.  So during
a run, its test too, a thread looks twice a second whether others use the cores.  As long as they
do, waiting threads go to sleep, and a GRU that comes back to Python after each step computes it
on one thread (:func:`crowded`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import psutil

from ksr_recbole.threads import usable_cores

LOOK_SECONDS = 0.5
"""Time between two looks."""

SPARE = 0.25
"""Cores that others may use beyond what is left to them."""

_crowded = threading.Event()


def crowded() -> bool:
    """Whether others were using the cores of this process at the last look."""
    return _crowded.is_set()


@contextmanager
def sharing_cores() -> Iterator[None]:
    """Inside the block the cores are shared with those who want them, see above."""
    import torch

    threads = torch.get_num_threads()
    if threads == 1 or _watched.locked():  # nobody waits, or somebody looks already
        yield
        return
    with _watched:
        end = threading.Event()
        watcher = threading.Thread(target=_watch, args=(threads, end), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            end.set()
            watcher.join()


_watched = threading.Lock()


def _watch(threads: int, end: threading.Event) -> None:
    usage, sleepers = _Usage(threads), _Sleepers(threads)
    try:
        while not end.wait(LOOK_SECONDS):
            if usage.others_wait() == crowded():
                continue
            if crowded():
                _crowded.clear()
                sleepers.stop()
            else:
                _crowded.set()
                sleepers.start()
    finally:
        _crowded.clear()
        sleepers.stop()


class _Usage:
    """What others use of the machine's cores, from one look to the next.

    Args:
        threads: those of this process that compute.
    """

    def __init__(self, threads: int) -> None:
        self._process = psutil.Process()
        self._left = max(0, usable_cores() - threads)
        self._last = self._now()

    def _now(self) -> tuple[float, float, float]:
        """Seconds on the clock, of work on the usable cores, and of work of this process."""
        cores = psutil.cpu_times(percpu=True)
        mine = self._process.cpu_affinity() if hasattr(psutil.Process, "cpu_affinity") else None
        used = [cores[k] for k in mine if k < len(cores)] if mine else cores
        worked = sum(c.user + c.system + getattr(c, "nice", 0.0) for c in used)
        own = self._process.cpu_times()
        return perf_counter(), worked, own.user + own.system

    def others_wait(self) -> bool:
        """Whether others used more since the last look than what this process leaves to them."""
        now = self._now()
        clock, worked, own = (new - old for new, old in zip(now, self._last, strict=True))
        self._last = now
        return (worked - own) / clock > self._left + SPARE


class _Sleepers:
    """While it is started, this process has more threads of OpenMP than it may use cores.

    GNU's OpenMP, PyTorch's on Linux, then lets a waiting thread spin a hundred times instead of
    300,000 before it sleeps (its manual, GOMP_SPINCOUNT), whatever the order in which libraries
    were loaded.  These threads themselves do nothing but sleep.  Elsewhere this has no effect.

    Args:
        threads: those of this process that compute.
    """

    def __init__(self, threads: int) -> None:
        # Each one brings a team of `threads`, itself among them, of which OpenMP counts the rest.
        self._teams = -(-(usable_cores() - threads + 1) // (threads - 1))
        self._end = threading.Event()
        self._running: list[threading.Thread] = []

    def start(self) -> None:
        self._end.clear()
        for _ in range(min(self._teams, _MOST_TEAMS)):
            thread = threading.Thread(target=self._hold, daemon=True)
            thread.start()
            self._running.append(thread)

    def _hold(self) -> None:
        import torch

        # On all threads: this makes a new team, which lives as long as this thread.
        torch.zeros(_LARGE).add_(1)
        self._end.wait()

    def stop(self) -> None:
        self._end.set()
        while self._running:
            self._running.pop().join()


_LARGE = 1 << 20
"""Numbers of which PyTorch leaves a part to each thread."""

_MOST_TEAMS = 4
