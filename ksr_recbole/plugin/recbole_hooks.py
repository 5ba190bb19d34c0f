"""The functions that this package replaces in RecBole, and where RecBole looks them up.

Each hook stands before one look-up by name; a model that is not this package's is passed to
RecBole's own code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import recbole.config
import recbole.data.dataset
import recbole.data.utils
import recbole.trainer
import recbole.trainer.hyper_tuning
import recbole.utils

from ksr_recbole import registry
from ksr_recbole.compat import (
    import_recboles_quick_start,
    recbole_on_new_libraries,
    silent_loading,
    without_pickles,
)
from ksr_recbole.config_types import Configuration
from ksr_recbole.dataset.repaired_loading import fill_missing, strings_as_objects
from ksr_recbole.plugin.checkpoints import load_data_and_model
from ksr_recbole.plugin.configuration import (
    choices,
    choose_config,
    keep_files,
    keep_words,
)
from ksr_recbole.plugin.hooks import Function, Hooks
from ksr_recbole.plugin.loaders import dataset_of, loader_of
from ksr_recbole.plugin.registered_trainer import RegisteredTrainer


def put_in_place() -> Hooks:
    """Put all hooks in place; if one fails, none is."""
    hooks = Hooks()
    classes: dict[str, type] = {}
    try:
        for name in registry.own_models():
            _add_model(hooks, name, **{name: registry.model_class(name)})
            _add_dataset_and_trainer(hooks, name)
        _add_stock(hooks)
        _repair(hooks)
        _add_config(hooks, classes)
        hooks.replace_functions(
            {
                **_repaired_look_up(classes),
                **_without_pickles(),
                **_with_loaders(),
                **_with_checkpoints(),
            }
        )
    except BaseException:
        hooks.undo()
        raise
    recbole_on_new_libraries()  # load_data_and_model may be called before any Config is made
    return hooks


def _add_model(hooks: Hooks, name: str, **content: Any) -> None:
    """Before ``recbole.utils.get_model``, and so ``Config`` and ``run_recbole``.

    It imports ``recbole.model.<family>.<name in lower case>``, the general family first, and
    takes the attribute ``<name>``.  A module there comes before RecBole's own
    ``sequential_recommender.ksr``, which is left alone.
    """
    module = f"recbole.model.general_recommender.{name.lower()}"
    hooks.add_module(module, **content)


def _add_dataset_and_trainer(hooks: Hooks, name: str) -> None:
    """Before ``create_dataset`` and ``get_trainer``.

    They take ``<name>Dataset`` of ``recbole.data.dataset`` and ``<name>Trainer`` of
    ``recbole.trainer`` where there is one.  RecBole's ``KSRDataset`` stays in
    ``recbole.data.dataset.customized_dataset``.
    """
    hooks.set_attribute(recbole.data.dataset, f"{name}Dataset", dataset_of)
    hooks.set_attribute(recbole.trainer, f"{name}Trainer", RegisteredTrainer)


def _add_stock(hooks: Hooks) -> None:
    """RecBole's own KSR under another name, for comparison.

    It is imported when asked for: importing RecBole's sequential models turns on PyTorch's
    anomaly detection for the whole process (``sine.py``), which slows every training.
    """
    name = registry.STOCK_KSR

    def imported(attribute: str) -> type:
        if attribute != name:
            raise AttributeError(attribute)
        return registry.model_class(name)

    _add_model(hooks, name, __getattr__=imported)
    stock = recbole.data.dataset.customized_dataset.KSRDataset
    hooks.set_attribute(recbole.data.dataset, f"{name}Dataset", stock)


def _repair(hooks: Hooks) -> None:
    """Let RecBole's own configuration, models and loading run on newer libraries too."""

    def compatibility_settings(_: Any) -> None:
        recbole_on_new_libraries()

    hooks.set_attribute(recbole.config.Config, "compatibility_settings", compatibility_settings)
    base = recbole.data.dataset.Dataset
    load, fill, convert = base._from_scratch, base._fill_nan, base._dataframe_to_interaction

    def _from_scratch(self: Any) -> None:
        with strings_as_objects():
            load(self)

    def _fill_nan(self: Any) -> None:
        fill_missing(self)
        with silent_loading():
            fill(self)

    def _dataframe_to_interaction(self: Any, data: Any) -> Any:
        with silent_loading():
            return convert(self, data)

    hooks.set_attribute(base, "_from_scratch", _from_scratch)
    hooks.set_attribute(base, "_fill_nan", _fill_nan)
    hooks.set_attribute(base, "_dataframe_to_interaction", _dataframe_to_interaction)


def _repaired_look_up(classes: Mapping[str, type]) -> dict[Function, Function]:
    """Models that RecBole imports when they are named are repaired too.

    Args:
        classes: users' own, by name.  ``run_recbole`` looks a model up again that a ``Config`` was
            given as a class, and would look for it among RecBole's modules.
    """
    get_model = recbole.utils.get_model

    def get_repaired_model(name: str) -> type:
        found = classes.get(name) or get_model(name)
        recbole_on_new_libraries()
        return found

    return {get_model: get_repaired_model}


def _without_pickles() -> dict[Function, Function]:
    """Before ``create_dataset`` and ``data_preparation``, which unpickle what they find saved.

    For the models of this package they refuse to; RecBole's own models keep their ways.
    """

    def without(original: Function) -> Function:
        def replacement(config: Configuration, *rest: Any) -> Any:
            if config["model"] not in registry.own_models():
                return original(config, *rest)
            with without_pickles(config):
                return original(config, *rest)

        return replacement

    originals = (recbole.data.utils.create_dataset, recbole.data.utils.data_preparation)
    return {original: without(original) for original in originals}


def _with_loaders() -> dict[Function, Function]:
    """Before ``recbole.data.utils.get_dataloader``, which ``data_preparation`` calls.

    Its table of models with loaders of their own is a local variable, so the function itself
    is replaced.
    """
    original = recbole.data.utils.get_dataloader

    def get_dataloader(config: Configuration, phase: str) -> Callable[..., Any]:
        return loader_of(config, phase) or original(config, phase)

    return {original: get_dataloader}


def _add_config(hooks: Hooks, classes: dict[str, type]) -> None:
    """Before ``Config._get_model_and_dataset``: the first step that knows the model's name.

    Defaults come from YAML files that ``Config`` looks for in RecBole's own folder, so that
    they cannot be put where it looks.  The steps that evaluate strings and that make objects of
    YAML come before it, so that this one makes up for them.
    """
    config = recbole.config.Config
    convert, load = config._convert_config_dict, config._load_config_files
    chosen = choose_config(config._get_model_and_dataset, convert, load, classes)
    hooks.set_attribute(config, "_convert_config_dict", keep_words)
    hooks.set_attribute(config, "_load_config_files", keep_files(load))
    hooks.set_attribute(config, "_get_model_and_dataset", chosen)
    # HyperTuning evaluates the choices in its file, by a name that is looked up here first.
    hooks.set_attribute(recbole.trainer.hyper_tuning, "eval", choices)


def _with_checkpoints() -> dict[Function, Function]:
    """Before ``load_data_and_model``, which unpickles a ``Config`` that ours do not hold."""
    original = import_recboles_quick_start().load_data_and_model
    return {original: load_data_and_model(original)}
