"""Compiling kernels once for all processes: Numba's cache, which may be lost and does no harm."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache as once
from logging import getLogger
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache

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
        return dispatcher

    return compiled


class _Cache(FunctionCache):
    """Numba's cache of one kernel, without its errors."""

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


def _say_lost(error: Exception) -> None:
    _say(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


@once
def _say(problem: str) -> None:
    logger.warning(
        f"Numba's cache cannot be used ({problem}), so kernels are compiled anew: the same "
        "results after a slower start."
    )
