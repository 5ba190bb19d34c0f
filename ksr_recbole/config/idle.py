"""What a user gave and what does nothing: a sentence on each key."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import torch
from recbole.utils import ModelType

from dataset_atomic.atomic import atomic_path
from dataset_atomic.table1 import has_graph
from ksr_recbole import registry
from ksr_recbole.choices import choose_from
from ksr_recbole.config import decisions
from ksr_recbole.config.keys import is_known, model_options, read_for_all
from ksr_recbole.config.kinds import options_of
from ksr_recbole.config.shared import (
    MANY_ITEMS,
    SHARED_SAMPLE,
    PretrainingOptions,
    SampleOptions,
)
from ksr_recbole.config_types import Configuration
from ksr_recbole.errors import shown

_ON_GPUS = ("gpu_id", "use_gpu", "enable_scaler")
"""Keys that mean something where there is a GPU."""

_FILES = ("inter", "user", "item", "kg", "link")
_SOCIAL = "net"
_OPTIONAL = ("user", "item")
_FIELDS_OF_USERS = ("user", None)
_OF_VALIDATION = ("stopping_step", "valid_metric")
_KEYS_OF_SEVERAL_PROCESSES = ("ip", "port", "group_offset")
_OF_OUR_RUN = ("results_dir", "pretrain_path", "pretrain_export_path")
_PRETRAINING_OF = {"kge_": "of a knowledge graph", "bpr_": "of BPR"}
_FILES_INSTEAD = {"kge_": ("ent", "rel"), "bpr_": ("bpr",)}
"""The files of ``pretrain_path`` in place of what these keys' options train."""

_OF_THE_TASK = {"session_length": "only the task next-session has sessions"}

_OF_A_GRAPH = (
    *("kg_reverse_r", "entity_kg_num_interval", "relation_kg_num_interval"),
    *("HEAD_ENTITY_ID_FIELD", "TAIL_ENTITY_ID_FIELD", "RELATION_ID_FIELD", "ENTITY_ID_FIELD"),
)
"""Keys that say how a knowledge graph is read."""

_ALIASES = ("alias_of_entity_id", "alias_of_relation_id", "alias_of_item_id")

_TRANSFORMED = {"mask_itemseq": "BERT4Rec", "inverse_itemseq": "SHAN"}
"""By RecBole's transform of sequences, its one model that reads the column that it adds."""

_SAMPLED_CE = "sampled_CE"
_OF_SAMPLES = {
    **dict.fromkeys(SampleOptions.checks(), SHARED_SAMPLE),
    "sampled_popularity": (_SAMPLED_CE,),
    "gbce_calibration": ("gBCE",),
}
"""By key, the losses that read it."""


def remarks(config: Configuration) -> list[str]:
    """One sentence for each given key that has no effect with the other values.

    Args:
        config: a :class:`~ksr_recbole.config.Config`.
    """
    model, given = config.model, config.external_config_dict
    said = []
    for key in sorted(_of_others(config)):
        reason = _OF_THE_TASK.get(key, "it is no option of it")
        said.append(f"Config key {shown(key)} has no effect on {model}: {reason}.")
    ours = model in registry.own_models()
    said += decisions.remarks(model, given, _honoured_in(config), sequential=ours)
    if (
        config.under_protocol
        and (given.get("eval_args") or {}).get("group_by") not in _FIELDS_OF_USERS
    ):
        said.append(
            f"Config key eval_args.group_by has no effect on {model}: users are split one by one."
        )
    if registry.is_compared(model):
        said += _on_options(config)
    if config.under_protocol:
        said += [*_on_data(config), *_on_the_loss(config), *_on_pretraining(config)]
    else:
        said += _on_our_run(config)
    if not registry.is_compared(model):
        said += _on_transforms(config)
    said += _on_files(config)
    return [*said, *on_the_machine(given, config["device"]), *_on_company(config)]


def _of_others(config: Configuration) -> Set[str]:
    """Given keys that this run's model does not have.

    Only RecBole's own functions take unknown keys, of which
    :mod:`ksr_recbole.plugin.configuration` has warned already.
    """
    known = {key for key in config.external_config_dict if is_known(key)}
    # Of these a run under the protocol says more, in _on_pretraining.
    of_vectors = PretrainingOptions.checks() if config.under_protocol else {}
    return known - read_for_all() - set(config.internal_config_dict) - set(of_vectors)


def _honoured_in(config: Configuration) -> Set[str]:
    """Keys of no effect on most of our models that this run's honours."""
    if not config.under_protocol:  # RecBole decides of all but what it sets itself
        return decisions.DECISIONS.keys() - decisions.SET_BY_RECBOLE
    options = frozenset(model_options(config.model))
    if config.model in registry.MODELS:
        return options
    sequential = config["MODEL_TYPE"] == ModelType.SEQUENTIAL
    of_sequences = decisions.READ_BY_SEQUENCE_MODELS if sequential else frozenset()
    return options | decisions.READ_BY_RECBOLES_MODELS | of_sequences


def _on_options(config: Configuration) -> Iterator[str]:
    """On options that mean nothing with the values that others have."""
    options = options_of(config.model)
    idle = set(options.defaults()) - set(options.of_effect(config))
    given = set(config.external_config_dict) & set(model_options(config.model))
    for key in sorted(idle & given):
        yield (
            f"Config key {key} has no effect on {config.model} with the values of its other "
            "options."
        )


def _on_data(config: Configuration) -> Iterator[str]:
    """On what is given together and does nothing then."""
    given, evaluation = config.external_config_dict, config["eval_args"]
    if given.get("benchmark_filename") and config["session_length"] is not None:
        key = "session_length" if "session_length" in given else "task"
        yield (
            f"Config key {key} has no effect on the split with benchmark_filename: its files are "
            "the split, and not sessions."
        )
    filters = sorted(key for key in decisions.FILTERS if given.get(key))
    if given.get("benchmark_filename") and filters:
        yield (
            f"Config keys {', '.join(filters)} have no effect with benchmark_filename, as in "
            "RecBole: its files are taken as they are."
        )
    other_split = (evaluation["split"], evaluation["order"]) != ({"LS": "valid_and_test"}, "TO")
    if given.get("benchmark_filename") and other_split:
        yield (
            "Config keys eval_args.split and eval_args.order have no effect with "
            "benchmark_filename: its files are the split."
        )
    reads_vectors = config["kb_input"] or config["kb_score"]
    if given.get("preload_weight"):
        if not reads_vectors:
            yield (
                f"Config key preload_weight has no effect on {config.model}: it reads no vectors "
                "of a knowledge graph."
            )
        elif _vectors_are_given(config, "kge_"):
            yield (
                "Config key preload_weight has no effect: pretrain_path has the vectors of the "
                "knowledge graph."
            )
    if given.get("additional_feat_suffix") and not given.get("preload_weight"):
        yield (
            "Config key additional_feat_suffix has no effect without preload_weight, which names "
            "the columns of ids and of vectors, such as {ent_id: ent_emb}."
        )
    if not reads_vectors or not (given.get("preload_weight") or given.get("pretrain_path")):
        for key in _ALIASES:
            if given.get(key):
                yield (
                    f"Config key {key} has no effect on {config.model} here: it says which ids a "
                    "file of vectors holds, and none is read (preload_weight, pretrain_path)."
                )


def _on_the_loss(config: Configuration) -> Iterator[str]:
    """On negatives and samples that the loss does not draw."""
    model, given, loss = config.model, config.external_config_dict, config["loss_type"]
    if "loss_type" in given and "loss_type" not in config.internal_config_dict:
        yield f"Config key loss_type has no effect on {model}: it is no option of it."
        loss = None
    negatives: Any = given.get("train_neg_sample_args")
    asked = isinstance(negatives, dict) and decisions.negatives_differ(negatives)
    wanted = asked and negatives.get("distribution") not in ("none", "None")
    idle = wanted and config["train_neg_sample_args"]["distribution"] == "none"
    if idle:
        yield (
            f"Config key train_neg_sample_args has no effect on {model} with loss_type {loss}, for "
            "which no position has negatives of its own."
        )
    if model not in registry.own_models():
        return
    if asked and not idle:
        yield from _on_parts_of_negatives(model, negatives, config["train_neg_sample_args"])
    for key, losses in _OF_SAMPLES.items():
        if given.get(key) is None or loss in losses:
            continue
        told = f"only {' and '.join(losses)} {'reads' if len(losses) == 1 else 'read'} it"
        where = f"with loss_type {loss}"
        if loss == "CE" and "loss_type" not in given and _SAMPLED_CE in losses:
            # How many items there are is not known before the data are read.
            where += f" and at most {MANY_ITEMS:,} items"
            told += f"; with more items {_SAMPLED_CE} takes the place of CE"
        yield f"Config key {key} has no effect on {model} {where}: {told}."


def _on_parts_of_negatives(
    model: str, given: Mapping[str, Any], used: Mapping[str, Any]
) -> Iterator[str]:
    """On parts that our own drawing of negatives does not read."""
    idle = {"candidate_num": "which draws no candidates"}
    if used["distribution"] == "uniform":
        idle["alpha"] = "with distribution uniform"
    for part, why in idle.items():
        if part in given and decisions.negatives_differ({part: given[part]}):
            yield f"Config key train_neg_sample_args.{part} has no effect on {model}, {why}."


def _on_pretraining(config: Configuration) -> Iterator[str]:
    """On how vectors are made, and where they are, for a model that has none of them."""
    of_graph, of_items = config["kb_input"] or config["kb_score"], config["item_init"] == "bpr"
    read = {"kge_": of_graph, "bpr_": of_items}
    read |= dict.fromkeys(("pretrain_path", "pretrain_export_path"), of_graph or of_items)
    for key in sorted(config.external_config_dict.keys() & {*PretrainingOptions.checks(), *read}):
        if not read.get(key, read.get(key[:4])) and not _is_of_the_model(config, key):
            yield (
                f"Config key {key} has no effect on {config.model}: it starts from no vectors "
                f"{_PRETRAINING_OF.get(key[:4], 'that are pretrained')}."
            )
        elif key in PretrainingOptions.checks() and _vectors_are_given(config, key[:4]):
            yield (
                f"Config key {key} has no effect: pretrain_path has the vectors "
                f"{_PRETRAINING_OF[key[:4]]}, so none are trained."
            )
        elif key == "kge_norm" and config["kge_method"] != "TransE":
            yield (
                f"Config key kge_norm has no effect on {config['kge_method']}: only TransE is "
                "trained with one norm or the other."
            )


def _vectors_are_given(config: Configuration, kind: str) -> bool:
    """Whether the files that ``kge_`` or ``bpr_`` options would train the vectors of are there."""
    folder = config["pretrain_path"]
    files = (f"{config['dataset']}.{suffix}" for suffix in _FILES_INSTEAD[kind])
    return folder is not None and all(os.path.lexists(Path(folder) / file) for file in files)


def _on_our_run(config: Configuration) -> Iterator[str]:
    """On what only a run under the protocol reads or leaves."""
    given = config.external_config_dict
    for key in sorted(given.keys() & {*_OF_OUR_RUN}):
        if given[key] is not None and not _is_of_the_model(config, key):
            yield (
                f"Config key {key} has no effect on {config.model}, which runs as in RecBole; add "
                "--protocol=paper, or leave it out."
            )


def _on_transforms(config: Configuration) -> Iterator[str]:
    """On a transform whose result no model of RecBole reads, or another one."""
    transform = config.external_config_dict.get("transform")
    if transform in (None, "user_defined") or _TRANSFORMED.get(transform) == config.model:
        return
    if config.model in registry.recbole_models():  # a user's own may read the column
        yield (
            f"Config key transform has no effect on {config.model}, which does not read the column "
            f"that {transform} adds to a batch."
        )


def _is_of_the_model(config: Configuration, key: str) -> bool:
    """Whether a model of RecBole has a key of its own by that name, as NAIS has pretrain_path."""
    return config.model not in registry.MODELS and key in model_options(config.model)


def _on_files(config: Configuration) -> Iterator[str]:
    """On columns that are to be read of files that are not there, or that no one reads."""
    read = (*_FILES, *(config["additional_feat_suffix"] or ()))
    folder = Path(config["data_path"])

    def named(suffix: str) -> Path:
        return atomic_path(folder, config["dataset"], suffix)

    there = os.path.isdir(folder)  # Path.is_dir raises where a name is too long
    if config.under_protocol and there and not has_graph(folder, config["dataset"]):
        for key in _OF_A_GRAPH:
            if config.external_config_dict.get(key):
                yield (
                    f"Config key {key} has no effect: there is no knowledge graph "
                    f"({named('kg').name} and {named('link').name})."
                )
    if there and _SOCIAL not in read and named(_SOCIAL).exists():
        yield (
            f"{named(_SOCIAL).name} is not read: no model here or of RecBole 1.2.1 uses links "
            "between users."
        )
    for key in ("load_col", "unload_col", "unused_col"):
        for suffix in config.external_config_dict.get(key) or ():
            if suffix not in read:
                told = choose_from(suffix, read, "the files that are read are")
                yield f"Config key {key}.{shown(suffix)} has no effect{told}"
            elif suffix in _OPTIONAL and there and not named(suffix).exists():
                yield f"Config key {key}.{suffix} has no effect: there is no {named(suffix).name}."


def on_the_machine(given: Mapping[str, Any], device: torch.device) -> Iterator[str]:
    """On what was given for a GPU where the CPU computes."""
    if device.type == "cpu":
        for key in _ON_GPUS:
            if given.get(key):
                yield f"Config key {key} has no effect here: everything is computed on the CPU."


def _on_company(config: Configuration) -> Iterator[str]:
    """Remarks on keys that have an effect only together with another key."""
    given = config.external_config_dict
    if given.get("wandb_project") and not config["log_wandb"]:
        yield "Config key wandb_project has no effect without --log_wandb=True."
    if (step := config["eval_step"]) < 1:
        for key in sorted(given.keys() & {*_OF_VALIDATION}):
            yield (
                f"Config key {key} has no effect with eval_step {step}, which is no validation at "
                "all."
            )
    if given.get("train_rec_step") not in (None, 1) and config["train_kg_step"] == 0:
        yield f"Config key train_rec_step has no effect on {config.model} with train_kg_step 0."
    if config["nproc"] == 1 and config["world_size"] <= 1:
        for key in sorted(given.keys() & {*_KEYS_OF_SEVERAL_PROCESSES}):
            yield f"Config key {key} has no effect on a single process; nproc says how many."
