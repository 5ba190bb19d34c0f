"""What kind of value each config key has.

The keys of this project are declared with their options (:mod:`ksr_recbole.config.shared` and each
model's ``Options``), RecBole's here.  :func:`checked` looks at the values a user gave before
anything else happens, so that an odd one is a sentence and not a traceback in the middle of a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from ksr_recbole.config import shared
from ksr_recbole.config.checks import (
    any_plain,
    columns,
    device,
    dict_of,
    encoding,
    field,
    gpu_id,
    interval_or_tokens,
    intervals,
    level,
    list_of,
    name,
    names,
    path,
    separator,
    text,
    wandb,
)
from ksr_recbole.config.keys import FIELDS, checkpoint_keys
from ksr_recbole.config.options import Check, Options, Value, optional
from ksr_recbole.config_types import Configuration
from ksr_recbole.errors import UserError, shown
from ksr_recbole.registry import MODELS, model_class, own_models

_FLAG = Value(bool)
_DECIMALS = Value(int, 0, 16)

FOR_ALL: dict[str, Check] = {
    # What runs where, and what it leaves
    "dataset": name, "seed": Value(int, 0, 2**32), "gpu_id": gpu_id, "device": device,
    "use_gpu": _FLAG, "worker": Value(int, 0, 129), "reproducibility": _FLAG,
    "show_progress": _FLAG, "shuffle": _FLAG, "state": level,
    "data_path": path, "checkpoint_dir": path, "dataset_save_path": optional(path),
    "dataloaders_save_path": optional(path), "save_dataset": _FLAG, "save_dataloaders": _FLAG,
    "log_wandb": wandb, "wandb_project": text,
    # Training
    **shared.TrainingOptions.checks(), **shared.SampleOptions.checks(),
    "epochs": Value(int, 0), "learner": text,
    "loss_decimal_place": _DECIMALS, "require_pow": _FLAG,
    "enable_amp": _FLAG, "enable_scaler": _FLAG,
    "transform": Value(
        str, optional=True, choices=(
            "mask_itemseq", "inverse_itemseq", "crop_itemseq", "reorder_itemseq", "user_defined",
        ),
    ),
    # Evaluation
    "repeatable": _FLAG, "valid_metric_bigger": _FLAG,
    # Data
    "field_separator": separator, "seq_separator": separator, "encoding": optional(encoding),
    **dict.fromkeys(FIELDS, field), "NEG_PREFIX": field, "LIST_SUFFIX": field,
    "MAX_ITEM_LIST_LENGTH": Value(int, 1, 100_001),
    "seq_len": optional(dict_of(Value(int, 1))), "threshold": optional(dict_of(Value(float))),
    "numerical_features": list_of(field),
    "load_col": optional(dict_of(optional(columns))),
    "unload_col": optional(dict_of(optional(columns))),
    "unused_col": optional(dict_of(optional(columns))),
    "additional_feat_suffix": optional(names), "benchmark_filename": optional(names),
    "rm_dup_inter": Value(str, choices=("first", "last"), optional=True),
    "val_interval": optional(dict_of(interval_or_tokens)),
    "filter_inter_by_user_or_item": _FLAG,
    "user_inter_num_interval": optional(intervals),
    "item_inter_num_interval": optional(intervals),
    "entity_kg_num_interval": optional(intervals),
    "relation_kg_num_interval": optional(intervals),
    "alias_of_user_id": optional(list_of(field)),
    "alias_of_item_id": optional(list_of(field)),
    "alias_of_entity_id": optional(list_of(field)),
    "alias_of_relation_id": optional(list_of(field)),
    "preload_weight": optional(dict_of(field)),
    "normalize_field": optional(list_of(field)),
    "discretization": optional(dict_of(any_plain)), "kg_reverse_r": _FLAG,
    **{key: check for each in shared.SHARED_OPTIONS for key, check in each.checks().items()},
    # RecBole's KD_DAGFM evaluates this one.
    "teacher": Value(str, choices=("CrossNet", "CIN")),
}  # fmt: skip
"""Keys that mean the same whatever the model."""


def options_of(model: str) -> type[Options]:
    """The class of the options of a model of :data:`~ksr_recbole.registry.MODELS`."""
    if model in shared.OF_RECBOLES_MODELS:
        return shared.OF_RECBOLES_MODELS[model]
    entry = MODELS[model]
    own, base = _declared_by(model, entry.target), entry.based_on
    return own if own is not None or base is None else options_of(base)


def compared_keys(config: Configuration) -> frozenset[str]:
    """Keys that a checkpoint must agree on with the run that loads it: all that its model reads."""
    model, keys = config["model"], checkpoint_keys(config["model"], config["task"])
    return keys.union(options_of(model).of_effect(config)) if model in own_models() else keys


@cache
def _declared_by(model: str, target: str | type) -> Any:
    """What the class of a model, which is ``target``, declares as its options."""
    return getattr(model_class(model), "Options", None)


def of_models(model: str | None = None) -> dict[str, Check]:
    """The kinds of the options of the models compared here, by key.

    A model of RecBole may give the name another meaning.

    Args:
        model: the one whose kinds are taken where two models differ.
    """
    kinds = {**shared.PretrainingOptions.checks()}
    for each in (*MODELS, *([model] if model else [])):
        kinds |= options_of(each).checks()
    return {**kinds, **shared.TrainingOptions.checks()}


def checked(values: Mapping[str, Any], model: str | None = None) -> dict[str, Any]:
    """Config values that a user gave, each of the kind that its key has.

    Args:
        values: by key.
        model: the model they are for; for one that is not compared here the options of the others
            mean nothing.

    Returns:
        The values as they are used: a number that must be a float is one, a tuple is a list.

    Raises:
        UserError: naming the first key whose value is of another kind.
    """
    kinds = {**FOR_ALL, **of_models(model)} if model in MODELS else FOR_ALL
    return {key: kinds.get(key, any_plain)(key, value) for key, value in values.items()}


def check_fields(values: Mapping[str, Any]) -> None:
    """Refuse two columns of one name.

    Raises:
        UserError: naming the keys.
    """
    by_name: dict[str, str] = {}
    for key in FIELDS:
        name = values.get(key)
        if name is not None and (other := by_name.setdefault(name, key)) != key:
            raise UserError(
                f"Config keys {other} and {key} are both {shown(name)}; they name different "
                "columns, so give them different names."
            )
