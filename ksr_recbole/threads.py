"""How many threads the libraries use.

The number is the smallest of ``OMP_NUM_THREADS``, the cores this process may run on and the CPU
quota of its container; the config key ``num_threads`` overrides it.  More threads than that wait
for each other instead of computing.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from logging import getLogger
from pathlib import Path

from ksr_recbole.errors import UserError, shown
from ksr_recbole.text import say

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS",
)
"""Environment variables that libraries read, when they are loaded, as their number of threads."""

_set_here: dict[str, str] = {}
"""Variables that :func:`limit_libraries` set, which the user had not given, and their values."""


def available_threads(root: Path = Path("/")) -> int:
    """The smallest of ``OMP_NUM_THREADS``, the CPU affinity and the CPU quota, at least one.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    limits = [usable_cores(), cpu_quota(root)]
    if "OMP_NUM_THREADS" not in _given_here():
        limits.append(number_in("OMP_NUM_THREADS"))
    return min(limit for limit in limits if limit is not None)


def usable_cores() -> int:
    """Cores that this process may run on, at least one."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def number_in(variable: str) -> int | None:
    """The positive whole number that begins an environment variable, if there is one.

    OpenMP admits a list, a number for each level of nesting; the first is the one that counts.
    """
    text = os.environ.get(variable, "").split(",")[0].strip()
    whole = text.isascii() and text.isdecimal() and len(text) < 10
    return int(text) if whole and int(text) > 0 else None


def _given_here() -> set[str]:
    """The variables that still are as :func:`limit_libraries` set them."""
    return {name for name, value in _set_here.items() if os.environ.get(name) == value}


def given_variables() -> set[str]:
    """The variables of :data:`THREAD_VARIABLES` that the user gave."""
    return {name for name in THREAD_VARIABLES if name in os.environ} - _given_here()


# The container's quota ------------------------------------------------------------------------


def cpu_quota(root: Path = Path("/")) -> int | None:
    """Whole cores that the control groups of this process allow, at least one; ``None``: all.

    A quota of two and a half cores counts as two: a third thread would be stopped half the time,
    and the others would wait for it.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    quotas = [quota for folder in _groups(root) if (quota := _quota_of(folder)) is not None]
    return max(1, int(min(quotas))) if quotas else None


def _groups(root: Path) -> Iterator[Path]:
    """Folders of this process's control groups, each with all those it lies in."""
    mounted = root / "sys" / "fs" / "cgroup"
    for line in _text_of(root / "proc" / "self" / "cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            tops = [mounted, mounted / "unified"]
        elif "cpu" in controllers.split(","):
            tops = [mounted / controllers, mounted / "cpu"]
        else:
            continue
        parts = [part for part in path.split("/") if part]
        if ".." in parts:  # a group outside of what this process can see
            parts = []
        for top in tops:
            for depth in range(len(parts), -1, -1):
                yield top.joinpath(*parts[:depth])


def _quota_of(folder: Path) -> float | None:
    """Cores a control group may use, by ``cpu.max`` (v2) or ``cpu.cfs_quota_us`` (v1)."""
    words = _text_of(folder / "cpu.max").split()
    if not words:
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        words = [word for name in names for word in _text_of(folder / name).split()[:1]]
    if len(words) != 2 or not all(word.isascii() and word.isdecimal() for word in words):
        return None  # "max", -1 or no such file: no quota
    quota, period = map(int, words)
    return quota / period if quota > 0 and period > 0 else None


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


# Telling the libraries ------------------------------------------------------------------------


def limit_libraries() -> None:
    """Set the variables that libraries read when they are loaded, before they are.

    A variable with a smaller number keeps it: it is for one library.  Numba's stays as it is once
    Numba is loaded, which compiles nothing more when the variable changes.
    """
    wanted = available_threads()
    for name in THREAD_VARIABLES:
        if name == "NUMBA_NUM_THREADS" and "numba" in sys.modules:
            continue
        value, number = os.environ.get(name), number_in(name)
        if number is not None and number <= wanted:
            continue
        if value and number is None:
            told = f"{name} is '{value}', which is no positive whole number"
            say(f"{told}; {wanted} is taken.", sys.stderr)
        os.environ[name] = str(wanted)
        if value is None:
            _set_here[name] = str(wanted)


def checked_threads(key: str, value: object) -> int | None:
    """The value of the config key ``num_threads``.

    Raises:
        UserError: it is no number of threads that this machine has cores for.
    """
    if value is None:
        return None
    cores = os.cpu_count() or 1
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= cores:
        raise UserError(
            f"Config key {key} is {shown(value, 120)}; it must be a whole number from 1 to "
            f"{cores}, the cores of this machine, or be left out."
        )
    return value


def use_threads(number: int | None) -> None:
    """Make PyTorch use ``number`` threads in this process, and Numba once it is loaded.

    Args:
        number: the value of ``num_threads``; ``None``: :func:`available_threads`, or fewer where
            a library's own variable says so.
    """
    import torch

    global _of_numba
    torch.set_num_threads(number or _default_of("MKL_NUM_THREADS"))
    wanted = _of_numba = number or _default_of("NUMBA_NUM_THREADS")
    if "numba" in sys.modules:
        limit_numba(again=True)
    elif "NUMBA_NUM_THREADS" not in given_variables() or number:
        # It reads the variable when it is loaded.
        os.environ["NUMBA_NUM_THREADS"] = _set_here["NUMBA_NUM_THREADS"] = str(wanted)


def _default_of(variable: str) -> int:
    own = number_in(variable) if variable in given_variables() else None
    return min(available_threads(), own or sys.maxsize)


_of_numba: int | None = None
"""Threads that Numba is to use; ``None`` until somebody says so."""

_numba_here = threading.local()
"""``wanted``: what :func:`limit_numba` last did in this thread of Python; each has its number."""


def limit_numba(again: bool = False) -> None:
    """Make Numba use the threads that :func:`use_threads` said, and PyTorch keep those it has.

    This holds in the thread of Python that calls it.  Numba starts its threads here instead of in
    the first parallel kernel: with OpenMP it then resets the number of threads of PyTorch, which
    shares the pool.

    Args:
        again: do it even if nothing has changed since the last time in this thread.
    """
    import numba
    import torch

    if not again and getattr(_numba_here, "wanted", 0) == _of_numba:
        return
    _numba_here.wanted = _of_numba
    before, most = torch.get_num_threads(), _most_of_numba()
    wanted = _of_numba or numba.get_num_threads()
    numba.set_num_threads(min(wanted, most))
    torch.set_num_threads(before)
    if wanted > most:
        getLogger(__name__).warning(
            f"Numba has started with {most} threads before and cannot use {wanted}; set "
            "num_threads in the first run of a process."
        )


def _most_of_numba() -> int:
    """Threads that Numba has started, or would start."""
    from numba.core import config

    return vars(config)["NUMBA_NUM_THREADS"]  # set when Numba is loaded, unknown to a type checker


def used_threads() -> dict[str, int | None]:
    """Threads that PyTorch and Numba really use; ``None`` for Numba if nothing runs on it."""
    import torch

    numba = sys.modules.get("numba")
    return {
        "threads": torch.get_num_threads(),
        "numba_threads": numba.get_num_threads() if numba else None,
    }
