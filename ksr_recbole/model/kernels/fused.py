"""Finding the fused kernels, which need packages that may be absent."""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib import import_module
from logging import getLogger
from types import ModuleType

import torch

from ksr_recbole.errors import shown
from ksr_recbole.threads import limit_numba

logger = getLogger(__name__)


def fused(name: str, package: str = "numba") -> ModuleType | None:
    """The module ``<name>_<package>`` of this folder, or ``None`` without ``package``.

    A missing package gives one line, once; so does a process that was forked from one in which
    Numba had its threads: they are not in it, and Numba would wait for them, or end it.
    """
    if package == "numba" and _lost["threads"]:
        _tell_forked()
        return None
    found = _found(name, package)
    if package == "numba" and found is not None:
        limit_numba()
    return found


_lost = {"threads": False}


def _after_fork() -> None:
    numba_threads = sys.modules.get("numba.np.ufunc.parallel")
    if getattr(numba_threads, "_is_initialized", False):
        _lost["threads"] = True
        torch.set_num_threads(1)  # PyTorch's are not in it either


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)


@cache
def _tell_forked() -> None:
    logger.warning(
        "This process was forked after the model was used, so it runs slower, on one thread. "
        'Results are the same. Use multiprocessing\'s "spawn", or load the model in each process.'
    )


@cache
def _found(name: str, package: str) -> ModuleType | None:
    try:
        if package == "numba":
            _check_that_numba_compiles()
        return import_module(f"{__package__}.{name}_{package}")
    except ImportError as error:
        _tell(package, str(error))
        return None


def _check_that_numba_compiles() -> None:
    """Make sure that it does; functions that stay Python's are no kernels.

    Raises:
        ImportError: it does not.
    """
    from numba.core import config

    if vars(config)["DISABLE_JIT"]:  # set when Numba is loaded, unknown to a type checker
        raise ImportError("NUMBA_DISABLE_JIT is set")


@cache
def compiles() -> bool:
    """Whether Triton can compile here, which needs a C compiler and Python's headers.

    If it cannot, one line says so, once.
    """
    if not torch.cuda.is_available():
        return True  # nothing is launched, unless by Triton's interpreter
    try:
        from triton.runtime import driver

        _ = driver.active.utils
    except Exception as error:  # whatever the compiler says
        reason = shown(str(error).strip().partition("\n")[0], 200)
        logger.warning(
            f"Triton cannot compile here ({reason}), so the memory runs in plain PyTorch: the same "
            "results, slower; install gcc and Python's headers (python3-dev) for speed."
        )
        return False
    return True


@cache
def _tell(package: str, problem: str) -> None:
    logger.warning(
        f"The fused kernels cannot be used ({problem}), so training runs in plain PyTorch: the "
        f"same results, several times slower; `pip install {package}` for speed."
    )
