"""Ctrl-C, SIGTERM and a terminal that closes end a command in one way, whenever they come.

While a command works they raise :class:`KeyboardInterrupt`.  Before that, while modules are
imported, and after it, while Python clears up, there is nothing to be left in order: the process
ends at once, without a traceback.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from types import FrameType
from typing import Any, NoReturn

EXIT_STATUS = 130
"""Exit status after Ctrl-C, as shells have it, and after the other signals."""

SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
"""Of Ctrl-C; of schedulers and ``timeout``; of a terminal or connection that is closed."""

OF_THE_TERMINAL = [number for number in SIGNALS if number != signal.SIGTERM]
"""Signals that reach every process of a terminal; SIGTERM is how a parent ends a worker."""

Handler = Callable[[int, FrameType | None], Any] | signal.Handlers

_SAME_SECONDS = 1.0
"""Signals within this time are one: a key pressed twice, or one sent to a process and its group."""

NOTHING_LEFT = "Interrupted; nothing is left half-written. Type the same command again."


def start(module: str) -> NoReturn:
    """Be the command that a module's ``main`` runs, and end this process with its exit status.

    Args:
        module: imported here, since that takes a second in which Ctrl-C may come.
    """
    ended_with: list[int] = []

    def end(*_: object) -> None:
        if not ended_with:
            with suppress(OSError):  # the terminal may be closed
                os.write(2, f"\n{NOTHING_LEFT}\n".encode())
        os._exit(ended_with[0] if ended_with else EXIT_STATUS)

    _handle(end)
    status = 1
    try:
        status = import_module(module).main()
    finally:
        ended_with.append(status)
    sys.exit(status)


class Interruptions:
    """What has come of signals in a block of :func:`interruptible`.

    Attributes:
        came: whether any has; an exception may then be the interruption in another's words.
        over: set once nothing is to be interrupted any more.
    """

    def __init__(self) -> None:
        self.came = self.over = False
        self._last = 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Raise the interruption, of signals that come together only once."""
        before, self._last = self._last, time.monotonic()
        if self.over or (self.came and self._last - before < _SAME_SECONDS):
            return
        self.came = True
        raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[Interruptions]:
    """Inside the block each of the signals acts as Ctrl-C; two that come together are one."""
    found = Interruptions()
    with handled(found):
        yield found


@contextmanager
def handled(handler: Handler, numbers: Iterable[int] = SIGNALS) -> Iterator[None]:
    """Inside the block the signals do what ``handler`` says, but those that are ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = _handle(handler, numbers)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def naming_checkpoint(file: Callable[[], str | None]) -> Iterator[None]:
    """What leaves the block by an interruption says from which file the command can resume.

    Libraries turn an interruption into errors of their own, so any error says it.

    Args:
        file: gives the checkpoint, ``None`` if the run can only be started anew.
    """
    try:
        yield
    except BaseException as error:
        vars(error)["checkpoint"] = file()
        raise


def _handle(handler: Handler, numbers: Iterable[int] = SIGNALS) -> dict[int, Any]:
    """Have the signals handled but those that are ignored, as under ``nohup``; what did before."""
    before = {number: signal.getsignal(number) for number in numbers}
    taken = {n: each for n, each in before.items() if each not in (signal.SIG_IGN, None)}
    for number in taken:
        signal.signal(number, handler)
    return taken
