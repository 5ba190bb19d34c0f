"""Finding the fused kernels, which need packages that may be absent."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from logging import getLogger
from types import ModuleType

import torch

from ksr_recbole.errors import shown
from ksr_recbole.threads import limit_numba

logger = getLogger(__name__)


@cache
def fused(name: str, package: str = "numba") -> ModuleType | None:
    """The module ``<name>_<package>`` of this folder, or ``None`` without ``package``.

    A missing package gives one line, once.
    """
    try:
        module = import_module(f"{__package__}.{name}_{package}")
        if package == "numba":
            limit_numba()
        return module
    except ImportError as error:
        _tell(package, str(error))
        return None


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
