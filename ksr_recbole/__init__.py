"""KSR, the Knowledge-enhanced Sequential Recommender, for RecBole."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ksr_recbole.explanation.explain import explain as explain
    from ksr_recbole.explanation.trained import load_trained as load_trained
    from ksr_recbole.inference.recommender import Recommender as Recommender
    from ksr_recbole.inference.saving import save_model as save_model
    from ksr_recbole.interpretability.measures import measure_explanations as measure_explanations
    from ksr_recbole.plugin import register as register
    from ksr_recbole.plugin import unregister as unregister
    from ksr_recbole.registry import add_model as add_model

_HOMES: dict[str, str] = {
    "Recommender": "ksr_recbole.inference.recommender",
    "save_model": "ksr_recbole.inference.saving",
    "explain": "ksr_recbole.explanation.explain",
    "load_trained": "ksr_recbole.explanation.trained",
    "register": "ksr_recbole.plugin",
    "unregister": "ksr_recbole.plugin",
    "add_model": "ksr_recbole.registry",
    "measure_explanations": "ksr_recbole.interpretability.measures",
}
"""Public name to the module it lives in.  They are imported when first asked for: RecBole and
PyTorch take seconds, and the command lines check versions before them."""

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
