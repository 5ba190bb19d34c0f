"""Compiling kernels once for all processes: Numba's cache, which may be lost and does no harm.

And calling them from several threads of Python, which not all of Numba's threads can bear.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache as once
from functools import wraps
from logging import getLogger
from pathlib import Path
from threading import Lock
from typing import Any

from numba import get_num_threads, njit, set_num_threads, threading_layer
from numba.core.caching import FunctionCache

from ksr_recbole import digests

logger = getLogger(__name__)


def cached_njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit(cache=True, ...)`` that compiles anew whatever is wrong with the cache.

    Numba's own ends a run where no folder can be written, where the disk is full, where a file of
    the cache is damaged, and now and then where several processes start at once.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        dispatcher = njit(**options)(function)
        try:
            dispatcher._cache = _Cache(function)  # as Numba's enable_caching() with its own
        except (RuntimeError, OSError) as error:  # no folder that can be written
            _say_lost(error)
        return _in_turn(dispatcher) if options.get("parallel") else dispatcher

    return compiled


class _Cache(FunctionCache):
    """Numba's cache of one kernel, without its errors."""

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        """What a kept kernel must agree in.

        Numba's own is outdated by a change of the kernel's file.  But functions of other files are
        compiled into a kernel too.
        """
        folder = Path(self._py_func.__code__.co_filename).parent
        return (*super()._index_key(sig, codegen), _sources(folder))

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled kernel, or ``None`` to compile it."""
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # pickle raises whatever a damaged file makes it
            with suppress(Exception):
                self.flush()  # so that it can be kept again
            _say_lost(error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled kernel if that is possible."""
        try:
            super().save_overload(sig, data)
        except Exception as error:
            _say_lost(error)


@once
def _sources(folder: Path) -> str:
    """Digest of a folder's Python files."""
    files = sorted(folder.glob("*.py"))
    return digests.of_values({file.name: digests.of_bytes(file.read_bytes()) for file in files})


def _in_turn(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel on all threads that threads of Python call one after the other if they must."""

    @wraps(kernel)
    def called(*arguments: Any) -> Any:
        if not _only_one_may_call():
            return kernel(*arguments)
        with _turn:
            return kernel(*arguments)

    return called


_turn = Lock()


@once
def _only_one_may_call() -> bool:
    """Whether Numba ends the process when two threads of Python use its threads at a time."""
    set_num_threads(get_num_threads())  # they start here, if they have not
    return threading_layer() == "workqueue"


def _say_lost(error: Exception) -> None:
    _say(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


@once
def _say(problem: str) -> None:
    logger.warning(
        f"Numba's cache cannot be used ({problem}), so kernels are compiled anew: the same "
        "results after a slower start."
    )
