"""The one table of models that are compared here, and the names RecBole knows."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from ksr_recbole.choices import choose_from, nearest
from ksr_recbole.compat import keeping_anomaly_mode, recbole_on_new_libraries
from ksr_recbole.errors import UserError, shown
from ksr_recbole.names import check_name
from ksr_recbole.paths import source_of


@dataclass(frozen=True)
class Entry:
    """A model that runs under the paper's protocol.

    Attributes:
        target: ``module:class``, or the class.
        needs_kg: whether it reads the knowledge graph (Table 2).
        based_on: the model whose options it has; by default those in
            ``configs/model/<name>.yaml``.
        options: further options, and other values of those of ``based_on``.
        divisible: whether the loss of a batch is a sum or mean of its rows' losses, so that
            several processes can each take a part of the batch.
    """

    target: str | type
    needs_kg: bool = True
    based_on: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    divisible: bool = True


_GRU = "ksr_recbole.model.gru_recommender:GRU"
_KSR = "ksr_recbole.model.ksr:KSR"
_GENERAL = "recbole.model.general_recommender"

MODELS: dict[str, Entry] = {
    "BPR": Entry(f"{_GENERAL}.bpr:BPR", needs_kg=False),
    "NeuMF": Entry(f"{_GENERAL}.neumf:NeuMF", needs_kg=False),
    "CKE": Entry("recbole.model.knowledge_aware_recommender.cke:CKE", divisible=False),
    "FPMC": Entry("recbole.model.sequential_recommender.fpmc:FPMC", needs_kg=False),
    "RUM_I": Entry("ksr_recbole.model.rum:RUMItem"),
    "RUM_F": Entry("ksr_recbole.model.rum:RUMFeature"),
    "GRU": Entry(_GRU, needs_kg=False),
    "GRU++": Entry(_GRU, needs_kg=False),
    "GRU_F": Entry(_GRU),
    "KSR": Entry(_KSR),
    "KSR-paper": Entry(_KSR),
    "GRU++-trained": Entry(_GRU, needs_kg=False),
    "GRU_F-trained": Entry(_GRU),
    "GRU++-paper": Entry(_GRU, needs_kg=False),
    "GRU_F-paper": Entry(_GRU),
    "KSR-exact": Entry(_KSR),
}
"""Model name to entry; these take precedence over RecBole's models of that name."""

PAPER_MODELS = ("BPR", "NeuMF", "CKE", "FPMC", "RUM_I", "RUM_F", "GRU", "GRU++", "GRU_F", "KSR")
"""The ten methods of Table 3, in its order (NeuMF is RecBole's name of NCF)."""

VARIANTS = ("KSR-paper", "GRU++-trained", "GRU_F-trained")
"""KSR in exactly the paper's setting, and baselines with the freedom that KSR's default has.

GRU++-paper and GRU_F-paper are GRU++ and GRU_F as the paper describes them, and KSR-exact has
another memory; they are rows where they are named.
"""

_RECBOLE_FAMILIES = (
    "general_recommender",
    "context_aware_recommender",
    "sequential_recommender",
    "knowledge_aware_recommender",
    "exlib_recommender",
)


def recbole_models() -> list[str]:
    """Names of RecBole's built-in models, read from its packages' import lines.

    Reading instead of importing: the external ones need LightGBM or XGBoost to be installed.
    """
    names = {name for family in _RECBOLE_FAMILIES for name in _of_family(family)}
    return sorted(names, key=str.lower)


def _of_family(family: str) -> list[str]:
    source = source_of(f"recbole.model.{family}").read_text(encoding="utf-8")
    imports = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom))
    return [alias.name for node in imports for alias in node.names]


GROUPS = {
    "recbole-general": "general_recommender",
    "recbole-sequential": "sequential_recommender",
    "recbole-knowledge": "knowledge_aware_recommender",
}
"""Names of groups of RecBole's models, and the packages they are in."""


RECBOLE_ROWS = ("GRU4Rec", "SASRec", "GRU4RecKG")
"""RecBole's models that have trials, as the ten methods have: the group ``recbole``."""


def group_of(name: str) -> list[str]:
    """RecBole's models of one of :data:`GROUPS`, in order; its KSR is ``StockKSR`` here."""
    models = sorted(set(_of_family(GROUPS[name])), key=str.lower)
    return [STOCK_KSR if model == "KSR" else model for model in models]


def comparable() -> list[str]:
    """Every model that can be a row: those compared here, then RecBole's others."""
    others = (name for group in GROUPS for name in group_of(group) if name not in MODELS)
    return [*MODELS, *others]


def own_models() -> list[str]:
    """The models of :data:`MODELS` that are not RecBole's."""
    return [
        name
        for name, entry in MODELS.items()
        if isinstance(entry.target, type) or not entry.target.startswith("recbole.")
    ]


def name_of_class(model: type) -> str | None:
    """The name of a class of :func:`own_models` or of RecBole's KSR; ``None`` for any other.

    Raises:
        UserError: it is a subclass of one of this package's that was not added, or has the name
            of one of them.
    """
    for name in own_models():
        if model_class(name) is model:
            return name
    if (model.__module__, model.__name__) == (STOCK_MODULE, recboles_name(STOCK_KSR)):
        return STOCK_KSR
    if any(base.__module__.startswith("ksr_recbole.model.") for base in model.__mro__):
        raise UserError(
            f"The class {model.__name__} is no model with options yet; call ksr_recbole.add_model("
            f"'{model.__name__}', {model.__name__}, based_on='KSR') first, or name another model "
            "that it is based on."
        )
    if model.__name__ in own_models():  # whatever is looked up by that name would be another's
        raise UserError(
            f"The class {model.__name__} of {shown(model.__module__)} has the name of a model of "
            "ksr_recbole; give it another."
        )
    return None


def is_recboles(model: type) -> bool:
    """Whether a class is one of RecBole's models, so that its name finds it."""
    return model.__module__.startswith("recbole.model.") and model.__name__ in recbole_models()


def add_model(name: str, model: type, based_on: str, **options: Any) -> None:
    """Add a model of your own, which then runs like any of :data:`MODELS`.

    Args:
        name: its name, for ``model``; one added before under this name is replaced.
        model: a subclass of one of this package's, such as
            :class:`~ksr_recbole.model.ksr.KSR`.
        based_on: the model whose options and values it takes over.  If ``model.Options``
            declares one of these options with another default than the class of ``based_on``,
            that default counts.
        **options: other values of the keys of ``based_on`` and of the fields that the class
            ``model.Options`` adds to them, and further config keys with their default values.

    Raises:
        UserError: ``based_on`` is unknown, the name is taken or cannot be part of a file name, or
            ``model`` or its ``Options`` is no class of a recommender or of options.
    """
    if based_on not in MODELS:
        raise UserError(
            f"There is no model '{based_on}' to base {name} on"
            f"{choose_from(based_on, MODELS, 'the models are')}"
        )
    others = [each for each in MODELS if MODELS[each].based_on is None or each != name]
    alike = {each.lower(): each for each in (*recbole_models(), *others)}  # as RecBole looks it up
    if (taken := alike.get(name.lower())) is not None:
        raise UserError(
            f"The name {name} is taken by the model {taken}, since RecBole finds models whether "
            "letters are capital or not; choose another."
        )
    if not re.fullmatch(r"[\w+-]+", name):
        raise UserError(
            f"A model's name has only letters, digits, _, + and -; choose another than '{name}'."
        )
    check_name(name, "model")
    base, inherited = MODELS[based_on], _defaults(model_class(based_on))
    _check_class(name, model)
    defaults = _defaults(model)
    changed = {key: v for key, v in defaults.items() if key not in inherited or v != inherited[key]}
    options = {**changed, **options}
    MODELS[name] = Entry(model, base.needs_kg, based_on, options, base.divisible)


def _check_class(name: str, model: object) -> None:
    """Refuse what would fail only when the model is run, or go without a word.

    Raises:
        UserError: see :func:`add_model`.
    """
    from recbole.model.abstract_recommender import AbstractRecommender  # late: it takes seconds

    if not (isinstance(model, type) and issubclass(model, AbstractRecommender)):
        raise UserError(
            f"The model {name} must be a class of recommenders, as `class Mine(KSR)` makes one; "
            f"{shown(repr(model))} is not."
        )
    declared = getattr(model, "Options", None)
    if declared is None:
        return
    name = f"{model.__name__}.Options"
    if not hasattr(declared, "check_declared"):
        raise UserError(f"{name} must be a subclass of an Options class, such as KSROptions.")
    declared.check_declared(name)


def _defaults(model: type) -> dict[str, Any]:
    """The options that a model's class declares, with their default values."""
    declared = getattr(model, "Options", None)
    return {} if declared is None else declared.defaults()


def added_models() -> dict[str, Entry]:
    """The models that :func:`add_model` added, which other processes do not know."""
    return {name: entry for name, entry in MODELS.items() if entry.based_on is not None}


def is_compared(model: str) -> bool:
    """Whether ``model`` is one of :data:`MODELS`; others run under the protocol if asked to."""
    return model in MODELS


STOCK_KSR = "StockKSR"
"""RecBole's own KSR, whose name this package's has taken."""

STOCK_MODULE = "recbole.model.sequential_recommender.ksr"
"""Where it is."""

WITH_VECTORS = ("GRU4RecKG", STOCK_KSR)
"""Models of RecBole that start from vectors of entities, which RecBole wants to be given."""


def recboles_name(model: str) -> str:
    """What RecBole calls a model of its own."""
    return "KSR" if model == STOCK_KSR else model


def needs_kg(model: str) -> bool:
    """Whether a model of :data:`MODELS` reads the knowledge graph."""
    return MODELS[model].needs_kg


def model_class(name: str) -> type:
    """The class of a model of :data:`MODELS` or of one of RecBole's.

    Raises:
        UserError: no such model; the sentence lists the known ones.
    """
    with keeping_anomaly_mode():
        found = _found(name)
    recbole_on_new_libraries()  # its module may have been imported just now
    return found


def _found(name: str) -> type:
    if is_compared(name):
        target = MODELS[name].target
        if isinstance(target, type):
            return target
        module, attribute = target.split(":")
        return getattr(import_module(module), attribute)
    from recbole.utils import get_model

    if name == STOCK_KSR:
        return import_module(STOCK_MODULE).KSR
    builtin = [each for each in recbole_models() if each not in MODELS]
    if name not in builtin:
        near = nearest(name, [*MODELS, *builtin]) or "."
        raise UserError(
            f"There is no model named '{shown(name)}'{near} "
            f"Known models: {', '.join(MODELS)} (compared here); {', '.join(builtin)} (RecBole)."
        )
    try:
        return get_model(name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"RecBole's {name} needs the package {error.name}, which is not installed; install it "
            "or choose another model."
        ) from error
