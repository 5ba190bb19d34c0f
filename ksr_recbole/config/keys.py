"""Which config keys exist, so that a misspelt one is an error instead of being ignored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from recbole.utils import (
    dataset_arguments,
    evaluation_arguments,
    general_arguments,
    training_arguments,
)

from ksr_recbole.choices import choose_from, nearest
from ksr_recbole.config.decisions import (
    DECISIONS,
    READ_BY_RECBOLES_MODELS,
    READ_BY_SEQUENCE_MODELS,
)
from ksr_recbole.config.literals import keys_in, read_yaml
from ksr_recbole.errors import UnknownKeyError, UserError, shown
from ksr_recbole.paths import CONFIGS, recbole_properties
from ksr_recbole.registry import MODELS, recboles_name

TRIALS = CONFIGS / "tuning"
"""Folder of the trials of every model, a file a task, and a folder for each dataset that has its
own; their keys are models, not config keys."""

# Keys that RecBole's code reads and none of its YAML files or argument lists names.
_READ_BY_RECBOLE = {
    "model", "dataset", "config_files", "config_file", "encoding", "token_num_threshold",
    "tail_ratio", "xgb_early_stopping_rounds", "wandb_project", "device",
}  # fmt: skip

_OF_TRAINING = {
    "ema_decay", "seed", "weight_decay", "clip_grad_norm", "shuffle", "enable_amp",
    "enable_scaler", "eval_step", "matmul_precision",
}  # fmt: skip
"""Keys of RecBole and of ``overall.yaml`` that change what is trained."""

_OF_RECBOLES_TRAINING = (
    frozenset(training_arguments) | READ_BY_RECBOLES_MODELS | READ_BY_SEQUENCE_MODELS
) - {"loss_decimal_place"}
"""Keys that change what is trained of RecBole's own models."""

FIELDS = (
    "USER_ID_FIELD", "ITEM_ID_FIELD", "RATING_FIELD", "TIME_FIELD", "LABEL_FIELD",
    "ITEM_LIST_LENGTH_FIELD", "POSITION_FIELD", "HEAD_ENTITY_ID_FIELD", "TAIL_ENTITY_ID_FIELD",
    "RELATION_ID_FIELD", "ENTITY_ID_FIELD",
)  # fmt: skip
"""Keys that name columns; two of them never name the same."""

TEXTS = frozenset(FIELDS) | {
    "model", "dataset", "task", "data_path", "checkpoint_dir", "results_dir", "data_cache_dir",
    "kg", "link", "names", "pretrain_dir", "pretrain_path", "pretrain_export_path",
    "dataset_save_path",
    "dataloaders_save_path", "wandb_project", "encoding", "field_separator", "seq_separator",
    "NEG_PREFIX", "LIST_SUFFIX", "ip", "gpu_id", "device",
    "user_inter_num_interval", "item_inter_num_interval", "entity_kg_num_interval",
    "relation_kg_num_interval", "resume",
}  # fmt: skip
"""Keys whose values are text, such as names and paths: ``12`` there is no number."""

_BASED_ON = "based_on"
"""In a model's YAML file: the model whose values it has where it gives none itself."""


def _keys_below(folder: Path) -> set[str]:
    files = (
        file
        for file in folder.rglob("*.yaml")
        # Trials name models, and RecBole's lists of addresses datasets, in the place of keys.
        if TRIALS not in file.parents and not file.stem.endswith("url")
    )
    return set().union(*map(_keys_of, files))


def _keys_of(file: Path) -> set[str]:
    return keys_in(file) - {_BASED_ON}


def model_options(name: str) -> dict[str, Any]:
    """The options of a model of :data:`~ksr_recbole.registry.MODELS`, and their default values.

    Those of RecBole's other models are in RecBole's YAML files.
    """
    if name not in MODELS:
        properties = recbole_properties() / "model"
        file = properties / f"{recboles_name(name)}.yaml"
        return read_yaml(file) if file.is_file() else {}
    return {**_shipped_options(_shipped_base(name)), **added_options(name)}


def _shipped_options(name: str) -> dict[str, Any]:
    """The values of ``configs/model/<name>.yaml`` and those of the file it is based on."""
    values = read_yaml(CONFIGS / "model" / f"{name}.yaml")
    base = values.pop(_BASED_ON, None)
    return values if base is None else {**_shipped_options(base), **values}


def _shipped_base(name: str) -> str:
    """The model of this project that an added one is based on in the end; others are their own."""
    base = MODELS[name].based_on
    return name if base is None else _shipped_base(base)


def chosen_options(name: str, use: str) -> dict[str, Any]:
    """What was chosen for a model on a dataset or for a task: ``configs/model/<use>/<name>.yaml``.

    An added model has what was chosen for the one it is based on.
    """
    base = _shipped_base(name) if name in MODELS else name
    file = CONFIGS / "model" / use / f"{base}.yaml"
    return read_yaml(file) if file.is_file() else {}


def added_options(name: str) -> Mapping[str, Any]:
    """The values that an added model sets itself, which nothing chosen for its base replaces."""
    entry = MODELS[name]
    if entry.based_on is None:
        return {}
    return {**added_options(entry.based_on), **entry.options}


def uses_of(dataset: str, task: str) -> tuple[str, str, str]:
    """What values are chosen for, see :func:`chosen_options`; a later one replaces an earlier."""
    return dataset, task, f"{dataset}/{task}"


def trials_of(dataset: str, task: str) -> Path:
    """The file of trials of a task: the dataset's own, ``configs/tuning/<dataset>/``, if any."""
    own = TRIALS / dataset / f"{task}.yaml"
    return own if own.is_file() else TRIALS / f"{task}.yaml"


def before_choice(name: str, dataset: str, task: str) -> dict[str, Any]:
    """The values that a model's options had before others were chosen for a dataset or a task."""
    chosen = {key for use in uses_of(dataset, task) for key in chosen_options(name, use)}
    above = {} if name in MODELS else _of_recboles_models()
    values = {**above, **model_options(name)}
    return {key: value for key, value in values.items() if key in chosen}


def recboles_defaults() -> dict[str, Any]:
    """What all models of RecBole have under the protocol: ``configs/recbole.yaml``."""
    return read_yaml(CONFIGS / "recbole.yaml")


def _of_recboles_models() -> dict[str, Any]:
    """What a model of RecBole has where its own YAML file gives no value."""
    overall = recbole_properties() / "overall.yaml"
    return {**read_yaml(overall), **recboles_defaults()}


def known_tasks() -> list[str]:
    """The tasks of the paper's protocol, those of ``configs/task/``."""
    files = (CONFIGS / "task").glob("*.yaml")
    return sorted({file.stem for file in files})


def checkpoint_keys(model: str, task: str) -> frozenset[str]:
    """Keys that every checkpoint of a model must agree on with the run that loads it."""
    files = (CONFIGS / "task" / f"{task}.yaml", CONFIGS / "pretraining.yaml")
    # The YAML files of RecBole's models lack what all of them have; ours name it.
    more = frozenset() if model in MODELS else _OF_RECBOLES_TRAINING
    return more.union(_OF_TRAINING, model_options(model), *map(_keys_of, files))


def known_keys() -> frozenset[str]:
    """Every key that RecBole's or this project's YAML files or argument lists name.

    The options of models that were added (:func:`ksr_recbole.registry.add_model`) are among them.
    """
    return _shipped_keys().union(*(entry.options for entry in MODELS.values()))


@cache
def _shipped_keys() -> frozenset[str]:
    properties = recbole_properties()
    return read_for_all() | _keys_below(properties) | _keys_below(CONFIGS)


def read_for_all() -> frozenset[str]:
    """Keys that RecBole reads whatever the model, though no YAML file need give them a value."""
    lists = general_arguments + training_arguments + evaluation_arguments + dataset_arguments
    return frozenset(_READ_BY_RECBOLE | set(lists) | DECISIONS.keys())


KEYS_WITH_PARTS = ("eval_args", "train_neg_sample_args")
"""Keys whose value is a dict, of which a part can be given: ``eval_args.mode``."""


@cache
def _parts(key: str) -> frozenset[str]:
    properties = recbole_properties()
    return frozenset(read_yaml(properties / "overall.yaml")[key])


_OF_USERS = "user_inter_num_interval, such as [5,inf)"
_OF_ITEMS = "item_inter_num_interval, such as [5,inf)"
_OF_VALUES = "val_interval, such as {rating: '[3,inf)'}"
_OF_SPLITS = "eval_args, such as {split: {LS: valid_and_test}, order: TO, mode: full}"
_OF_LOADED = "data_cache_dir, which keeps what was loaded"

FORMER_KEYS = {
    **dict.fromkeys(("min_user_inter_num", "max_user_inter_num"), _OF_USERS),
    **dict.fromkeys(("min_item_inter_num", "max_item_inter_num"), _OF_ITEMS),
    **dict.fromkeys(("lowest_val", "highest_val", "equal_val", "not_equal_val"), _OF_VALUES),
    **dict.fromkeys(("eval_setting", "group_by_user", "split_ratio", "leave_one_num"), _OF_SPLITS),
    "training_neg_sample_distribution": "train_neg_sample_args.distribution",
    "drop_filter_field": "unused_col",
    "fields_in_same_space": "alias_of_entity_id and the like",
    **dict.fromkeys(("save_split_dataloaders", "load_split_dataloaders"), _OF_LOADED),
    "split_dataloaders_path": _OF_LOADED,
    "SESSION_ID_FIELD": "USER_ID_FIELD, since a session stands in a user's place",
}
"""Keys that many YAML files still have, and what says the same today."""


def is_known(key: str) -> bool:
    """Whether a key is one of today, for some model."""
    return key in known_keys() and key not in FORMER_KEYS


def names_of(content: Mapping[str, Any]) -> Iterator[str]:
    """The keys of config values, those with parts by their parts: ``eval_args.mode``."""
    for key, value in content.items():
        if key in KEYS_WITH_PARTS and isinstance(value, dict):
            yield from (f"{key}.{part}" for part in value)
        else:
            yield key


def check_keys(keys: Iterable[str], source: str | Path) -> None:
    """Refuse an unknown key.

    Args:
        keys: the keys given, of config values those of :func:`names_of`.
        source: where they were given, for the sentence.

    Raises:
        UserError: naming the key and the nearest known one.
    """
    for key in keys:
        name, _, part = key.partition(".")
        if name in FORMER_KEYS:
            raise UserError(
                f"Config key '{name}' in {source} is of an earlier RecBole, and nothing reads it; "
                f"use {FORMER_KEYS[name]}."
            )
        if name not in known_keys():
            raise UnknownKeyError(
                f"Unknown config key '{shown(key)}' in {source}"
                f"{nearest(key, known_keys()) or '; see configs/ for the keys there are.'}",
                key,
                known_keys(),
            )
        if name in KEYS_WITH_PARTS and part and part not in _parts(name):
            told = choose_from(part, sorted(_parts(name)), f"the parts of {name} are")
            raise UserError(f"Unknown config key '{shown(key)}' in {source}{told}")
