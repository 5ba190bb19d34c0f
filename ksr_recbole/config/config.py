"""RecBole's ``Config``, extended by subclassing."""

from __future__ import annotations

import traceback
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from recbole.config import Config as RecBoleConfig
from recbole.data import transform as transforms
from recbole.utils import InputType, ModelType

from dataset_atomic.layout import Layout
from dataset_atomic.own_graph import OwnGraph
from ksr_recbole import registry
from ksr_recbole.compat import recbole_on_new_libraries
from ksr_recbole.config import checks, idle
from ksr_recbole.config.decisions import refuse
from ksr_recbole.config.evaluation_keys import (
    canonical_mode,
    check_recboles_labels,
    check_recboles_mode,
    check_selecting,
    metric_keys,
    parse_mode,
    puts_in_order,
)
from ksr_recbole.config.keys import (
    KEYS_WITH_PARTS,
    TEXTS,
    added_options,
    check_keys,
    chosen_options,
    known_tasks,
    model_options,
    names_of,
    recboles_defaults,
    uses_of,
)
from ksr_recbole.config.kinds import check_fields, checked, options_of
from ksr_recbole.config.literals import RecBoleLoader, literals, read_yaml, without_numpy
from ksr_recbole.config.shared import SHARED_SAMPLE
from ksr_recbole.distributed.group import this_process
from ksr_recbole.errors import UserError, shown
from ksr_recbole.gpus import check_first, ids_in, of_the_user
from ksr_recbole.names import check_name, first_name
from ksr_recbole.paths import CONFIGS, DATASETS
from ksr_recbole.threads import use_threads

_DEFAULT_TASK = "next-item"

_REFUSALS = (
    ValueError, TypeError, NotImplementedError, RuntimeError, LookupError, AttributeError,
    AssertionError,
)  # fmt: skip
"""What RecBole raises on values it cannot use."""

_OF_VALUES = ("auc", "gauc", "mae", "rmse", "logloss")
"""RecBole's metrics without a cut-off."""

_OF_TRANSFORMS = {"crop_itemseq": "eta", "reorder_itemseq": "beta", "mask_itemseq": "mask_ratio"}
"""By RecBole's transform of sequences, the option that says how much of them it changes."""

_OF_THE_PROTOCOL = ("task", "train_ratio", "ema_decay", "matmul_precision", "resume")
"""Keys that only this package's loaders and trainer read."""


class Config(RecBoleConfig):
    """RecBole's configuration with this project's models, YAML files and data folder.

    Priority, lowest first: RecBole's defaults, ``configs/overall.yaml``,
    ``configs/model/<model>.yaml``, ``configs/dataset/default.yaml`` and ``<dataset>.yaml``,
    ``configs/task/<task>.yaml``, what suits the model on the dataset and the task
    (``configs/model/<dataset>/<model>.yaml`` and ``configs/model/<task>/<model>.yaml``), the
    user's config files, ``config_dict`` (which also carries the command line).  ``eval_args`` and
    ``train_neg_sample_args`` given in part keep the other parts.

    Unlike RecBole's, this class never reads ``sys.argv`` itself: the command line does
    (:mod:`ksr_recbole.cli`), so that a host program's own flags are not taken for config keys.

    No text is ever evaluated, see :mod:`ksr_recbole.config.literals`.

    Args:
        model: name or class.
        dataset: name.
        config_file_list: YAML files.
        config_dict: config values.
        words: whether strings in ``config_dict`` may be words of a command line, which stand for
            numbers, lists and so on; otherwise they are strings.

    Attributes:
        under_protocol: whether the model runs on our split, candidates and metrics.
        own_graph: the graph that was given instead of the dataset's own, if one was.

    Raises:
        UserError: unknown model, key or evaluation mode; an unreadable config file.
    """

    external_config_dict: dict[str, Any]
    under_protocol: bool
    own_graph: OwnGraph | None

    def __init__(
        self,
        model: str | type | None = None,
        dataset: str | None = None,
        config_file_list: list[str] | None = None,
        config_dict: dict[str, Any] | None = None,
        words: bool = True,
    ) -> None:
        self._words = words
        try:
            super().__init__(model, dataset, config_file_list, config_dict)
        except _REFUSALS as error:
            raise UserError(
                f"RecBole refuses the configuration: {shown(_reason_of(error), 300)}"
            ) from error
        ours = self.model in registry.own_models()
        refuse(self.model, self.external_config_dict, sequential=ours)
        if not self.under_protocol:
            self._check_within_reach()
        if not registry.is_compared(self.model):
            self._check_negatives()
            self._check_transform()

    def _check_negatives(self) -> None:
        """Refuse a loss on pairs without negatives, on which RecBole's models stop."""
        negatives = self["train_neg_sample_args"]
        drawn = negatives["distribution"]
        if self["MODEL_INPUT_TYPE"] is None:
            raise UserError(
                f"Config key loss_type is {shown(self['loss_type'])}, which RecBole's {self.model} "
                "does not have; it must be BPR or CE."
            )
        if drawn != "none" and negatives["dynamic"] and negatives["candidate_num"] < 1:
            raise UserError(
                "Config key train_neg_sample_args.dynamic is True, which chooses a negative among "
                "candidates, but candidate_num is 0; give a candidate_num of at least 1."
            )
        # SINE says that it reads pairs whatever its loss is.
        on_pairs = self["MODEL_INPUT_TYPE"] == InputType.PAIRWISE and self["loss_type"] != "CE"
        if on_pairs and drawn == "none":
            raise checks.no_negatives(self.model)

    def _check_transform(self) -> None:
        """Refuse a ``transform`` without the option or the code that it needs, or sequences."""
        transform = self["transform"]
        if transform is None:
            return
        if transform == "user_defined":
            _check_written()
            return
        if self["MODEL_TYPE"] != ModelType.SEQUENTIAL:
            raise UserError(
                f"Config key transform is {transform}, but {self.model} reads no sequences that it "
                "could change; leave it out."
            )
        option = _OF_TRANSFORMS.get(transform)
        if option is not None and self[option] is None:
            raise UserError(
                f"Config key transform is {transform}, which needs {option}, a share from 0 to 1 "
                f"such as 0.2; give --{option}=0.2."
            )

    def compatibility_settings(self) -> None:
        """Let RecBole run on new libraries.

        RecBole's method changes NumPy for the whole process.  This method changes only RecBole's
        modules.
        """
        recbole_on_new_libraries()

    def _check_within_reach(self) -> None:
        """Refuse what is set but does nothing where RecBole's own trainer and loaders run."""
        defaults = {"task": _DEFAULT_TASK, **self.internal_config_dict}
        for key in _OF_THE_PROTOCOL:
            given = self.external_config_dict.get(key, defaults[key])
            if given != defaults[key]:
                raise UserError(
                    f"Config key {key} is {shown(given)}, but it has no effect on {self.model}, "
                    "which runs as in RecBole; leave it out, add --protocol=paper, or choose a "
                    f"model that is compared here: {', '.join(registry.MODELS)}."
                )

    def remarks(self) -> list[str]:
        """A sentence on each key that was given and that does nothing here."""
        return idle.remarks(self)

    def _build_yaml_loader(self) -> type[yaml.SafeLoader]:
        return RecBoleLoader

    def _convert_config_dict(self, config_dict: dict[str, Any]) -> dict[str, Any]:
        """Words as literals; RecBole's would evaluate them."""
        return literals(config_dict, TEXTS) if self._words else dict(config_dict)

    def _update_internal_config_dict(self, file: str) -> dict[str, Any]:
        values = read_yaml(Path(file))
        self.internal_config_dict.update(values)
        return values

    def _load_config_files(self, file_list: list[str] | None) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for file in file_list or []:
            given = read_yaml(Path(file), TEXTS)
            given = nest(given)
            check_keys(names_of(given), file)
            _check_no_files(given, file)
            content = merged(content, given)
        return content

    def _load_variable_config_dict(self, config_dict: dict[str, Any] | None) -> dict[str, Any]:
        plain = without_numpy(dict(config_dict or {}))
        given = nest(super()._load_variable_config_dict(plain))
        check_keys(names_of(given), "the command line or config_dict")
        _check_no_files(given, "config_dict")
        return given

    def _load_cmd_line(self) -> dict[str, Any]:
        return {}

    def _merge_external_config_dict(self) -> None:
        """Merge the config files with the other given values.

        RecBole's method loses the parts that a file gives.
        """
        self.external_config_dict = merged(self.file_config_dict, self.variable_config_dict)

    def _get_model_and_dataset(self, model: Any, dataset: Any) -> tuple[str, type, str]:
        model = model or self.external_config_dict.get("model", "KSR")
        if not isinstance(model, str | type):
            raise UserError(f"The model is {shown(model)}; give its name or its class.")
        dataset = dataset or self.external_config_dict.get("dataset", "ml-100k")
        check_name(dataset, "dataset")
        if isinstance(model, type):
            model = registry.name_of_class(model) or _recboles(model)
        model_class = registry.model_class(model) if isinstance(model, str) else model
        name, model_class, dataset = super()._get_model_and_dataset(model_class, dataset)
        # GRU, GRU++ and GRU_F are one class: a model's name here is that of its options.
        name = model if isinstance(model, str) else name
        compared = registry.is_compared(name)
        self.external_config_dict = checked(self.external_config_dict, name)
        if "local_rank" in self.external_config_dict:
            raise UserError("Config key local_rank is set for each process by nproc; leave it out.")
        protocol = self.external_config_dict.get("protocol")
        if compared and protocol == "recbole":
            raise UserError(
                f"Config key protocol is recbole, but {name} is compared here and runs under the "
                "paper's protocol; leave it out."
            )
        self.under_protocol = compared or protocol == "paper"
        return name, model_class, dataset

    def _load_internal_config_dict(self, model: str, model_class: type, dataset: str) -> None:
        # RecBole has defaults for ml-100k, which it knows by that name only.
        names = registry.recboles_name(model), model_class, first_name(dataset)
        super()._load_internal_config_dict(*names)
        task = self.external_config_dict.get("task", _DEFAULT_TASK)
        self._default_to(CONFIGS / "overall.yaml")
        if self.under_protocol:
            if task not in known_tasks():
                known = ", ".join(known_tasks())
                raise UserError(f"There is no task '{shown(task)}'; the tasks are: {known}.")
            compared = registry.is_compared(model)
            if compared or model in registry.WITH_VECTORS:
                self._default_to(CONFIGS / "pretraining.yaml")
            if compared:
                self.internal_config_dict.update(model_options(model))
            self._default_to(CONFIGS / "dataset" / "default.yaml")
            self._default_to(CONFIGS / "dataset" / f"{dataset}.yaml")
            if not compared:  # a dataset's file says how our models are trained on it
                self.internal_config_dict.update(recboles_defaults())
            self._default_to(CONFIGS / "task" / f"{task}.yaml")
            for use in uses_of(dataset, task):
                self.internal_config_dict.update(chosen_options(model, use))
            if compared:
                self.internal_config_dict.update(added_options(model))
            else:
                self._load_what_it_reads()

    def _load_what_it_reads(self) -> None:
        """Set which files the model reads, as under the paper's protocol."""
        # Vectors come from pretraining, unless the user names their files.
        self.internal_config_dict["additional_feat_suffix"] = None
        features = self.external_config_dict.get(
            "selected_features", self.internal_config_dict.get("selected_features")
        )
        if isinstance(features, list):
            self.internal_config_dict["load_col"]["item"] = ["item_id", *features]

    def _default_to(self, file: Path) -> None:
        """Take the values of a YAML file of this project, if there is one, as defaults."""
        if file.is_file():
            self.internal_config_dict.update(read_yaml(file))

    def _get_final_config_dict(self) -> dict[str, Any]:
        final = merged(self.internal_config_dict, super()._get_final_config_dict())
        final["MODEL_TYPE"] = self.internal_config_dict["MODEL_TYPE"]  # whatever a user says
        if self.model in registry.WITH_VECTORS and self.under_protocol:
            # Vectors that are not given are pretrained here, in the size that the model reads.
            final["kb_input"] = True
            if "kg_embedding_size" not in model_options(self.model):
                final["kg_embedding_size"] = final["embedding_size"]
        if self.model in registry.own_models():
            self._complete(final)
        if (final["train_neg_sample_args"] or {}).get("distribution") in ("none", "None"):
            final["train_neg_sample_args"] = None  # as RecBole itself writes None later
        sequential = final["MODEL_TYPE"] == ModelType.SEQUENTIAL
        given = "train_neg_sample_args" in self.external_config_dict
        has_loss = "loss_type" in self.internal_config_dict
        if self.under_protocol and has_loss and final["loss_type"] in ("CE", *SHARED_SAMPLE):
            final["train_neg_sample_args"] = None  # no position has negatives of its own
        elif sequential and final.get("loss_type") == "CE" and not given:
            final["train_neg_sample_args"] = None  # RecBole refuses its own default
        if sequential and registry.is_compared(self.model):
            final["repeatable"] = True  # RecBole refuses False, which means nothing here
        check_fields(final)
        if final["load_col"] and "load_col" not in self.external_config_dict:
            final["load_col"] = _default_columns(final)
        return final

    def _complete(self, final: dict[str, Any]) -> None:
        """Set options that mean nothing with the values of the model's YAML file, and do here.

        The file has none of them, such as those of the KB embeddings for a GRU with kb_score.
        """
        options = options_of(self.model)
        defaults = options.defaults()
        for key in options.of_effect({**defaults, **final}):
            if key not in self.internal_config_dict:
                self.internal_config_dict[key] = defaults[key]
                final.setdefault(key, defaults[key])

    def _set_default_parameters(self) -> None:
        data_path = self.external_config_dict.get("data_path") or DATASETS
        self.own_graph = OwnGraph.of(self.external_config_dict)
        if self.own_graph is not None:
            data_path = self.own_graph.data_folder()
        if self.under_protocol:
            self._check_metrics()
        super()._set_default_parameters()
        if not self.under_protocol:
            self._check_recboles_metrics()
            check_recboles_labels(self.final_config_dict)
            self._check_split_by_time()
            self._load_times()
        # RecBole sends ml-100k to its bundled files, whose link is wrong.
        self.final_config_dict["data_path"] = str(Path(data_path) / self.dataset)

    def _init_device(self) -> None:
        """RecBole's for one process, then this process's own GPU if there are several.

        RecBole's for several starts NCCL by itself, which works on GPUs only.
        """
        here, final = this_process(), self.final_config_dict
        final["gpu_id"] = ",".join(self._gpus())  # RecBole asks only whether the text is empty
        super()._init_device()
        use_threads(final["num_threads"])
        self._check_device()
        if here.size == 1:
            return
        final["local_rank"] = here.local_rank
        if final["device"].type == "cuda":
            final["device"] = torch.device("cuda", here.local_rank)
        if not here.main:
            final.update(state="error", show_progress=False, log_wandb=False)

    def _gpus(self) -> tuple[str, ...]:
        if "gpu_id" in self.external_config_dict or (visible := of_the_user()) is None:
            return ids_in(self.final_config_dict["gpu_id"])  # checked with the other keys
        return ids_in(checks.gpu_id("gpu_id (from CUDA_VISIBLE_DEVICES)", visible))

    def _check_device(self) -> None:
        """Take ``device`` for what it says; RecBole's goes by ``gpu_id`` alone."""
        given, final = self.external_config_dict.get("device"), self.final_config_dict
        if given == "cuda" and final["device"].type != "cuda":
            raise UserError(
                f"Config key device is cuda, but with gpu_id '{final['gpu_id']}' PyTorch finds no "
                "GPU here; leave device out to compute on the CPU."
            )
        if final["use_gpu"] is False and given == "cuda":
            raise UserError(
                "Config key device is cuda, but use_gpu is False; leave one of them out."
            )
        if given == "cpu" or final["use_gpu"] is False:
            final["device"] = torch.device("cpu")
        if final["device"].type == "cpu":
            final["use_gpu"] = False  # RecBole's trainer asks the GPU for its memory by it
        else:
            check_first(final["gpu_id"])

    def _check_metrics(self) -> None:
        final = self.final_config_dict
        final["report_modes"] = _listed(final["report_modes"])
        for mode in final["report_modes"]:
            parse_mode(mode)
        final["report_modes"] = [*dict.fromkeys(map(canonical_mode, final["report_modes"]))]
        self._check_valid_metric(metric_keys(final["metrics"], final["topk"]))

    def _check_split_by_time(self) -> None:
        """Refuse RecBole's ``TS`` on rows in another order than by time, which it mixes up."""
        evaluation = self.final_config_dict["eval_args"]
        if "TS" in evaluation["split"] and evaluation["order"] != "TO":
            raise UserError(
                f"Config key eval_args has the split TS and the order "
                f"{shown(evaluation['order'])}; by TS RecBole splits rows that are in the order of "
                "time, so give the order TO."
            )

    def _load_times(self) -> None:
        """Add the times that RecBole's default columns lack, where the order needs them."""
        final = self.final_config_dict
        columns = (final["load_col"] or {}).get("inter")
        if not isinstance(columns, list) or final["TIME_FIELD"] in columns:
            return
        if puts_in_order(final) and "load_col" not in self.external_config_dict:
            final["load_col"] = {**final["load_col"], "inter": [*columns, final["TIME_FIELD"]]}

    def _check_recboles_metrics(self) -> None:
        """Refuse a selecting metric that RecBole would miss after the first epoch."""
        final = self.final_config_dict
        names, cuts = [str(name).lower() for name in final["metrics"]], final["topk"]
        known = [
            each
            for name in names
            for each in ([name] if name in _OF_VALUES else [f"{name}@{cut}" for cut in cuts])
        ]
        if final["eval_step"] > 0:
            self._check_valid_metric(known)

    def _check_valid_metric(self, known: Collection[str]) -> None:
        selecting = self.final_config_dict["valid_metric"]
        if str(selecting).lower() not in known:
            raise UserError(
                f"Config key valid_metric is {shown(selecting)}; with these metrics and topk it "
                f"must be one of: {', '.join(known)}."
            )

    def _set_eval_neg_sample_args(self, phase: str) -> None:
        modes = self.final_config_dict["eval_args"]["mode"]
        if not self.under_protocol:
            check_recboles_mode(modes[phase])
            super()._set_eval_neg_sample_args(phase)
            return
        # Our evaluation draws its own candidates; RecBole's samplers draw none.
        check_selecting(modes[phase])
        modes[phase] = canonical_mode(modes[phase])
        self.final_config_dict[f"{phase}_neg_sample_args"] = {
            "distribution": "none",
            "sample_num": "none",
        }


def _check_written() -> None:
    """Refuse ``transform: user_defined`` where the class for it is still RecBole's empty one.

    It returns no batch, on which RecBole stops in the first step of training.
    """
    code = getattr(transforms.UserDefinedTransform.__call__, "__code__", None)
    if code is not None and code.co_code == _nothing.__code__.co_code:
        raise UserError(
            "Config key transform is user_defined, but recbole.data.transform.UserDefinedTransform "
            "does nothing; write its method __call__, which returns the batch, or leave the key "
            "out."
        )


def _nothing(*_: object) -> None:
    pass


def _recboles(model: type) -> type:
    """A class of RecBole's, as it is.

    Raises:
        UserError: it is a user's, which no later step of a run would find by its name.
    """
    if registry.is_recboles(model):
        return model
    raise UserError(
        f"The class {model.__name__} is no model of this package or of RecBole, and a run here "
        "finds models by their names; call ksr_recbole.register() and train it with RecBole's "
        f"run_recbole(model={model.__name__}), or make it a subclass of a model of this package "
        "and call ksr_recbole.add_model."
    )


def _default_columns(final: dict[str, Any]) -> dict[str, Any]:
    """The columns read by default under the user's names, without those of ``unload_col``."""
    names = Layout.from_values(final).renamed()
    loaded = {
        suffix: [names.get(column, column) for column in columns]
        if isinstance(columns, list)
        else columns
        for suffix, columns in final["load_col"].items()
    }
    return {**loaded, **dict.fromkeys(final.get("unload_col") or (), "*")}


def _reason_of(error: Exception) -> str:
    """What an error says; RecBole's assertions say nothing, so theirs is what they assert."""
    return str(error) or traceback.extract_tb(error.__traceback__)[-1].line or repr(error)


def _listed(modes: Any) -> Any:
    """Modes as a list; on the command line they can be written as ``full,uni50pop50``."""
    if not isinstance(modes, str):
        return modes
    names = (name.strip(" '\"") for name in modes.strip("[] ").split(","))
    return [name for name in names if name]


class _InParts(dict[str, Any]):
    """A key's value that was given by its parts, as ``val_interval.rating``."""


def nest(flat: dict[str, Any]) -> dict[str, Any]:
    """Turn ``{"eval_args.mode": "full"}`` into ``{"eval_args": {"mode": "full"}}``.

    :func:`merged` keeps the parts that an earlier source gave of such a key.

    Raises:
        UserError: a key is no text, or is given as a whole that is no dict and in parts.
    """
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        if not isinstance(key, str):
            raise UserError(f"The config key {shown(key)} is not a string.")
        head, _, tail = key.partition(".")
        if not tail:
            nested = merged(nested, {head: value})
            continue
        whole = nested.get(head) or {}
        if not isinstance(whole, dict):
            raise UserError(
                f"Config key {shown(head)} is given whole ({shown(whole)}) and in parts "
                f"({shown(key)}); give one of the two."
            )
        of_parts = _InParts if isinstance(whole, _InParts) or head not in nested else dict
        nested[head] = of_parts({**whole, tail: value})
    return nested


def _check_no_files(given: Mapping[str, Any], source: str) -> None:
    if "config_files" in given:
        raise UserError(
            f"Config key config_files in {source} has no effect there; name the files with "
            "--config_files, or as config_file_list."
        )


def merged(values: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """Config values and later ones over them.

    A key with parts, or one whose parts the later ones give, keeps the parts not given again.
    """
    parts = {
        key: type(values[key])({**values[key], **given})
        for key, given in later.items()
        if isinstance(values.get(key), dict)
        and (isinstance(given, _InParts) or (key in KEYS_WITH_PARTS and isinstance(given, dict)))
    }
    return {**values, **later, **parts}
