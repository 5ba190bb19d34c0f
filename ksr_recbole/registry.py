"""The one table of models this package adds to RecBole."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from ksr_recbole.errors import UserError

MODELS: dict[str, str] = {
    "KSR": "ksr_recbole.model.ksr:KSR",
}
"""Model name to ``module:class``; these take precedence over RecBole's models of that name."""

_RECBOLE_FAMILIES = (
    "general_recommender",
    "context_aware_recommender",
    "sequential_recommender",
    "knowledge_aware_recommender",
    "exlib_recommender",
)


def nearest(word: str, known: Iterable[str]) -> str:
    """``"; did you mean X?"`` for the known word closest to ``word``, or an empty string."""

    def likeness(name: str) -> float:
        if sorted(name.lower()) == sorted(word.lower()):
            return 1.0  # letters in another order are the commonest slip
        return difflib.SequenceMatcher(None, word.lower(), name.lower()).ratio()

    best = max(known, key=likeness, default="")
    return f"; did you mean {best}?" if best and likeness(best) >= 0.6 else ""


def recbole_models() -> list[str]:
    """Names of RecBole's built-in models, read from its packages' import lines.

    Reading instead of importing: the external ones need LightGBM or XGBoost to be installed.
    """
    names = []
    for family in _RECBOLE_FAMILIES:
        source = Path(find_spec(f"recbole.model.{family}").origin).read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom):
                names += [alias.name for alias in node.names]
    return sorted(set(names), key=str.lower)


def is_ours(model: str) -> bool:
    """Whether ``model`` is one of this package's models."""
    return model in MODELS


def model_class(name: str) -> type:
    """The class of one of this package's models or of RecBole's.

    Raises:
        UserError: no such model; the sentence lists the known ones.
    """
    if is_ours(name):
        module, attribute = MODELS[name].split(":")
        return getattr(import_module(module), attribute)
    from recbole.utils import get_model

    builtin = recbole_models()
    if name not in builtin:
        raise UserError(
            f"There is no model named '{name}'{nearest(name, [*MODELS, *builtin])} "
            f"Known models: {', '.join(MODELS)} (this project); {', '.join(builtin)} (RecBole)."
        )
    return get_model(name)
