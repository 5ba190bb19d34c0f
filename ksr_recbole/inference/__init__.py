"""A trained model in one directory without pickle, and what it can do."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ksr_recbole.inference.recommender import Recommender as Recommender
    from ksr_recbole.inference.recommender import UserState as UserState
    from ksr_recbole.inference.saving import save_model as save_model

_HOMES = {"Recommender": "recommender", "UserState": "recommender", "save_model": "saving"}
"""Public name to its module, imported when first asked for: the command line must not wait."""

__all__ = ["Recommender", "UserState", "save_model"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
