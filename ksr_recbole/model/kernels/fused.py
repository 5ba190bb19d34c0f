"""Finding the fused kernels, which need packages that may be absent."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from logging import getLogger
from types import ModuleType

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
def _tell(package: str, problem: str) -> None:
    logger.warning(
        f"The fused kernels cannot be used ({problem}), so training runs in plain PyTorch: the "
        f"same results, several times slower; `pip install {package}` for speed."
    )
