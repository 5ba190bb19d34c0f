"""How ``recbole.config.Config`` becomes this package's for its models."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from logging import getLogger
from pathlib import Path
from typing import Any

import yaml
from recbole.config import Config as RecBoleConfig

from ksr_recbole import registry
from ksr_recbole.config import Config
from ksr_recbole.config.config import merged, nest
from ksr_recbole.config.decisions import refuse
from ksr_recbole.config.keys import TEXTS, check_keys
from ksr_recbole.config.literals import LONGEST_FILE, literal, literals, read_yaml
from ksr_recbole.errors import UserError, shown
from ksr_recbole.files import read_text
from ksr_recbole.invocation import TRAIN


class StockConfig(RecBoleConfig):
    """RecBole's configuration of its own KSR, which looks its defaults up by that name."""

    def _load_internal_config_dict(self, model: str, model_class: type, dataset: str) -> None:
        super()._load_internal_config_dict("KSR", model_class, dataset)


def keep_words(_: RecBoleConfig, config_dict: dict[str, Any]) -> dict[str, Any]:
    """In place of ``Config._convert_config_dict``, which evaluates strings: leave them for later.

    RecBole and this package read the words in different ways. Which one applies is clear only when
    the model is known.
    """
    return dict(config_dict)


def keep_files(load: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """In place of ``Config._load_config_files``, whose loader makes objects: the model's name.

    The rest is read once it is known whose way of reading it is.

    Args:
        load: RecBole's, for classes over its ``Config``, which cannot be of our models.
    """

    def _load_config_files(self: RecBoleConfig, file_list: list[str] | None) -> dict[str, Any]:
        if type(self) is not RecBoleConfig:
            return load(self, file_list)
        self._files = list(file_list or [])
        names = list(filter(None, map(_model_named_in, self._files)))
        return {"model": names[-1]} if names else {}

    return _load_config_files


def _model_named_in(file: str) -> str | None:
    """What a YAML file has as ``model``; no value is made of it."""
    try:
        text = read_text(file, LONGEST_FILE)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None  # who reads it for its values says what is wrong
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    named = [value for key, value in pairs if key.value == "model"]
    return named[-1].value if named and isinstance(named[-1], yaml.ScalarNode) else None


def literals_of(_: RecBoleConfig, config_dict: dict[str, Any]) -> dict[str, Any]:
    """Strings as literals."""
    return literals(config_dict, TEXTS)


def choices(text: str) -> Any:
    """In place of ``eval`` in RecBole's ``HyperTuning``: the list of a ``choice`` in its file.

    Raises:
        UserError: it is no list of plain values.
    """
    values = literal(text)
    if not isinstance(values, list | tuple):
        raise UserError(
            f"{shown(text)} is not a list of choices such as [0.1,0.2] or ['BPR','CE']."
        )
    return values


def _convert_words(config: RecBoleConfig, convert: Callable[..., dict[str, Any]]) -> None:
    """Read the words of the command line and of ``config_dict``."""
    config.variable_config_dict = convert(config, config.variable_config_dict)
    config.cmd_config_dict = convert(config, config.cmd_config_dict)
    config._merge_external_config_dict()


def choose_config(
    original: Callable[..., tuple[str, type, str]],
    convert: Callable[..., dict[str, Any]],
    load: Callable[..., dict[str, Any]],
    classes: dict[str, type],
) -> Callable[..., Any]:
    """The method that makes a ``Config`` one of this package's, if its model is.

    By then RecBole has read the user's files, dict and command line.  From here on the object
    is of the class :class:`~ksr_recbole.config.Config`, a subclass, whose methods add the
    defaults of ``configs/`` and the data folder.

    Args:
        original: ``recbole.config.Config._get_model_and_dataset``.
        convert: ``recbole.config.Config._convert_config_dict``, for RecBole's own models.
        load: ``recbole.config.Config._load_config_files``, for the same.
        classes: where users' own classes are kept by name, for who looks them up later.
    """

    def _get_model_and_dataset(self: RecBoleConfig, model: Any, dataset: str | None) -> Any:
        given = self.external_config_dict.get("model") if model is None else model
        name = _name_of(given)
        if isinstance(self, Config | StockConfig):
            return original(self, model, dataset)
        ours = name in (*registry.own_models(), registry.STOCK_KSR)
        if type(self) is RecBoleConfig:
            files = self._files
            self.file_config_dict = _plain_files(files) if ours else load(self, files)
        _convert_words(self, literals_of if ours else convert)
        if not ours:
            _keep_class(classes, given)
            return original(self, model, dataset)
        if type(self) is not RecBoleConfig:
            raise UserError(
                f"{type(self).__name__} is a subclass of RecBole's Config, which cannot configure "
                f"the registered model {name}; use recbole.config.Config."
            )
        if name == registry.STOCK_KSR:
            self.__class__ = StockConfig
        else:
            _become_ours(self, name)
        return self._get_model_and_dataset(name, dataset)

    return _get_model_and_dataset


def _plain_files(files: Iterable[str]) -> dict[str, Any]:
    """Config files as plain values; the later file wins."""
    return {key: value for f in files for key, value in read_yaml(Path(f), TEXTS).items()}


def _name_of(model: Any) -> Any:
    """The registered name of a class that was given as model; everything else as it is."""
    return (registry.name_of_class(model) or model) if isinstance(model, type) else model


def _keep_class(classes: dict[str, type], model: Any) -> None:
    """Keep a class that was given as model; a name stands for RecBole's own class again."""
    if isinstance(model, type):
        classes[model.__name__] = model
    else:
        classes.pop(model, None)


def _become_ours(config: RecBoleConfig, name: str) -> None:
    external = config.external_config_dict
    refuse(name, external)
    if "local_rank" in external:
        raise UserError(
            "RecBole's run with nproc or world_size does not start the registered models of "
            f"ksr_recbole; run them with `{TRAIN}` of this project."
        )
    if external.get("resume"):
        raise UserError(
            f"Config key resume is {shown(external['resume'])}, but RecBole's run_recbole cannot "
            f"resume {name}; give it to `{TRAIN}` of this project."
        )
    _warn_of_unknown(name, external)
    given = [read_yaml(Path(file), TEXTS) for file in config._files]
    given += [config.variable_config_dict, config.cmd_config_dict]
    config.external_config_dict = {}
    for values in given:
        config.external_config_dict = merged(config.external_config_dict, nest(values))
    config.__class__ = Config


def _warn_of_unknown(model: str, keys: Iterable[str]) -> None:
    """Warn of unknown keys: RecBole takes them, for a user's own code may read them."""
    for key in keys:
        try:
            check_keys([key], "config_file_list or config_dict")
        except UserError as error:
            getLogger().warning(f"{error} It has no effect on {model}.")
