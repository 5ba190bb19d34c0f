"""KSR, the Knowledge-enhanced Sequential Recommender, for RecBole."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES: dict[str, str] = {
    "Recommender": "ksr_recbole.inference.recommender",
    "save_model": "ksr_recbole.inference.saving",
    "explain": "ksr_recbole.explanation.explain",
    "load_trained": "ksr_recbole.explanation.loading",
    "register": "ksr_recbole.plugin",
    "unregister": "ksr_recbole.plugin",
    "measure_explanations": "ksr_recbole.explanation.measures",
}
"""Public name to the module it lives in.  They are imported when first asked for: RecBole and
PyTorch take seconds, and the command lines check versions before them."""

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
