"""What every process that this project starts needs: its share of the cores, and a parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading

from tqdm import tqdm

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS",
)
"""Environment variables that libraries read, when they are loaded, as their number of threads."""


def threads_per_worker(jobs: int) -> int:
    """Each worker's share of the cores this process may use, at least one."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, cores // jobs)


def serve_parent() -> None:
    """Leave Ctrl-C to the parent process, and end when it does.

    Ctrl-C reaches every process of the terminal; the parent decides what becomes of workers.
    A parent that was killed cannot stop its workers, which would go on writing files.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # tqdm's own lock is a semaphore of the system, which a worker that is ended leaves behind.
    tqdm.set_lock(threading.RLock())
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "only processes that were started serve a parent"
    parent.join()
    os._exit(1)
