"""What every process that this project starts needs: its share of the cores, and a parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from contextlib import AbstractContextManager

from tqdm import tqdm

from ksr_recbole.interruptions import OF_THE_TERMINAL, handled
from ksr_recbole.threads import available_threads


def threads_per_worker(jobs: int) -> int:
    """Each worker's share of the threads this process may use, at least one."""
    return max(1, available_threads() // jobs)


def leaving_interruptions() -> AbstractContextManager[None]:
    """Processes started in the block ignore Ctrl-C while they import, and print no traceback."""
    return handled(signal.SIG_IGN, OF_THE_TERMINAL)


def serve_parent() -> None:
    """Leave Ctrl-C and the end of the terminal to the parent process, and end when it does.

    They reach every process of the terminal; the parent decides what becomes of workers.
    A parent that was killed cannot stop its workers, which would keep writing files.
    """
    for number in OF_THE_TERMINAL:
        signal.signal(number, signal.SIG_IGN)
    # tqdm's own lock is a semaphore of the system, which a worker that is ended leaves behind.
    tqdm.set_lock(threading.RLock())
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "only processes that were started serve a parent"
    parent.join()
    os._exit(1)
