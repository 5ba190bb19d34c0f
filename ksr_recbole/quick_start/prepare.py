"""The one pipeline of a run, a step each: configuration, data, vectors, model and trainer.

Whoever trains or reads a model under the paper's protocol calls these: a run, a registered
model's hooks, the readers of checkpoints and the timings.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from logging import getLogger
from typing import Any, NamedTuple

import numpy as np
from recbole.data import data_preparation as recbole_data_preparation
from recbole.utils import get_trainer, init_seed, training_arguments

from dataset_atomic.held import holding
from ksr_recbole import registry
from ksr_recbole.compat import trusting, with_checkpoint_rule, without_pickles
from ksr_recbole.config.evaluation_keys import parse_mode, uncalibrated
from ksr_recbole.config.keys import added_options
from ksr_recbole.config.kinds import compared_keys
from ksr_recbole.config.shared import MANY_ITEMS, SAMPLE_OF_MANY, SHARED_SAMPLE, meant_by
from ksr_recbole.config_types import Configuration
from ksr_recbole.dataset.dataloader import (
    SequenceEvalData,
    TrainLoader,
    check_not_empty,
    data_preparation,
)
from ksr_recbole.dataset.pretrained import PretrainedVectors
from ksr_recbole.dataset.recbole_dataset import recbole_dataset
from ksr_recbole.dataset.recbole_views import load_views, recbole_loaders
from ksr_recbole.dataset.sequence_datasets import WithSequences, data_keys_named, load_dataset
from ksr_recbole.dataset.sequences import EvalPhase, UserSequences
from ksr_recbole.distributed import group
from ksr_recbole.evaluation.candidates import fitting_counts
from ksr_recbole.files import ensure_writable
from ksr_recbole.pretraining.pretrain import pretrained_vectors
from ksr_recbole.quick_start.atomic_data import prepare_atomic_files
from ksr_recbole.quick_start.logs import to_log_file
from ksr_recbole.quick_start.recbole_models import (
    check_files,
    check_histories,
    check_labels,
    check_times,
)
from ksr_recbole.text import counted
from ksr_recbole.trainer.recbole_trainer import recbole_trainer
from ksr_recbole.trainer.sequence_trainer import SequenceTrainer
from ksr_recbole.trainer.trainer import ProtocolTrainer


class Data(NamedTuple):
    """A built dataset, and what is read of it in each phase."""

    dataset: WithSequences
    train: TrainLoader
    valid: SequenceEvalData
    test: SequenceEvalData


def check_folders(config: Configuration, *more: str) -> None:
    """Make sure that what is made can be kept.

    Args:
        config: the configuration.
        more: keys of further folders.

    Raises:
        UserError: a folder cannot be made or written to.
    """
    for key in ("checkpoint_dir", "pretrain_dir", "pretrain_export_path", "data_cache_dir", *more):
        if config[key] is not None:
            ensure_writable(config[key], key)


def open_dataset(config: Configuration) -> WithSequences:
    """The dataset of a configuration, not built yet; its files are made first where they can be.

    Raises:
        UserError: the dataset is unknown or its files are malformed.
    """
    with holding():
        described = group.in_turn(lambda: prepare_atomic_files(config))
        getLogger().info(f"Files: {described}")  # what is used of them is logged once it is read
        load = load_dataset
        if not registry.is_compared(config["model"]):
            check_files(config)
            load = load_views
        dataset = group.in_turn(lambda: load(config))
    _choose_loss(config, dataset)
    return dataset


def _choose_loss(config: Configuration, dataset: WithSequences) -> None:
    """Instead of the softmax over all of many items take the sampled one, unless it was asked for.

    Its cost is that of a sample, whatever the number of items.
    """
    name, n_items = config["model"], dataset.item_num - 1
    if name not in registry.own_models() or config["loss_type"] != "CE" or n_items <= MANY_ITEMS:
        return
    chosen = {**config.external_config_dict, **added_options(name)}
    if "loss_type" in chosen or not getattr(registry.model_class(name), "INNER_PRODUCT", False):
        return
    config["loss_type"] = "sampled_CE"
    if config["sampled_items"] is None:
        config["sampled_items"] = SAMPLE_OF_MANY
    getLogger().info(
        f"{config['dataset']} has {n_items:,} items, more than {MANY_ITEMS:,}, so the loss is "
        f"sampled_CE with sampled_items: {config['sampled_items']}; loss_type: CE would compute "
        "the score of every item at every position."
    )


def load_data(config: Configuration) -> Data:
    """The dataset, built, and its training, validation and test data.

    Raises:
        UserError: as :func:`open_dataset`, or a phase has nothing to read.
    """
    dataset = open_dataset(config)
    ours = registry.is_compared(config["model"])
    phases = (data_preparation if ours else recbole_loaders)(config, dataset)
    check_not_empty(config, *phases)
    say_repeats(dataset)
    say_whole_sample(config, dataset)
    to_log_file(str(dataset))
    return Data(dataset, *phases)


def say_repeats(dataset: WithSequences) -> None:
    """Say how many interactions there are more than once."""
    if repeats := n_repeats(dataset.sequences):
        getLogger().info(
            f"{counted(repeats, 'interaction repeats', 'interactions repeat')} an earlier one of "
            "the same user, item and time. None is left out; --rm_dup_inter=first keeps one of "
            "each user and item."
        )


def say_whole_sample(config: Configuration, dataset: WithSequences) -> None:
    """Say where ``sampled_items`` is more than there are items, so that nothing is sampled."""
    if config["model"] not in registry.own_models() or config["loss_type"] not in SHARED_SAMPLE:
        return
    wanted, n_items = meant_by("sampled_items", config["sampled_items"]), dataset.item_num - 1
    if wanted > n_items:
        same = "" if config["loss_type"] == "gBCE" else ", and the loss is that of loss_type CE"
        getLogger().info(
            f"{config['dataset']} has {counted(n_items, 'item')}, fewer than sampled_items: "
            f"{wanted}, so every sample has all items{same}."
        )


def n_repeats(sequences: UserSequences) -> int:
    """How many interactions have the user, item and time of another one, which is not counted."""
    users = np.repeat(np.arange(sequences.n_users), sequences.lengths)
    times = sequences.timestamps
    same = (users[1:] == users[:-1]) & (times[1:] == times[:-1])
    tied = np.zeros(len(users), dtype=bool)  # only such can be repeats, and there are few
    tied[1:] |= same
    tied[:-1] |= same
    table = np.stack([sequences.items[tied], times[tied], users[tied]])
    table = table[:, np.lexsort(table)]
    return int((table[:, 1:] == table[:, :-1]).all(axis=0).sum())


def check_candidates(
    modes: Iterable[str], *phases: tuple[WithSequences, EvalPhase]
) -> dict[str, str]:
    """Make sure that candidates can be drawn, and say where a small catalogue has fewer.

    Args:
        modes: of evaluation.
        phases: the phases that are evaluated, each with its dataset.

    Returns:
        What was said, by ``phase/mode``.

    Raises:
        UserError: a user has too few items left that could be candidates.
    """
    phases_of: dict[str, list[str]] = {}
    fewer: dict[str, str] = {}
    plain = dict.fromkeys(map(uncalibrated, modes))
    for name, (dataset, phase) in itertools.product(plain, phases):
        mode = parse_mode(name)
        wanted = mode.n_uniform, mode.n_popular
        if mode.kind == "full":
            continue
        users = dataset.field2id_token[dataset.uid_field]
        counts = fitting_counts(dataset.sequences, dataset.split, phase, wanted, users)
        if counts != wanted:
            told = (
                f"the catalogue has {dataset.sequences.n_items - 1} items, so each positive is "
                f"ranked against {counts[0]} uniform and {counts[1]} popular items instead of "
                f"{wanted[0]} and {wanted[1]}."
            )
            phases_of.setdefault(told, []).append(phase)
            fewer[f"{phase}/{name}"] = told
    for told, names in phases_of.items():
        getLogger().warning(f"{' and '.join(names)}: {told}")
    return fewer


def check_steps(config: Configuration, train: Any) -> None:
    """Say where the default ``train_batch_size`` makes one step of an epoch, and what to give."""
    given = "train_batch_size" in config.external_config_dict
    if given or not isinstance(train, TrainLoader) or len(train) > 1:
        return
    smaller = 1 << max(2, (train.n_targets // 6).bit_length() - 1)  # six to twelve steps
    getLogger().warning(
        f"An epoch is a single step, for all {train.n_targets:,} training targets fit into "
        f"train_batch_size: {config['train_batch_size']}; smaller batches learn more in an epoch: "
        f"try --train_batch_size={smaller}."
    )


def find_vectors(config: Configuration, dataset: WithSequences) -> PretrainedVectors:
    """The vectors the model starts from, found or trained by the main process for all.

    They are kept with the dataset, for the model that is made of it.

    Raises:
        UserError: given vectors do not fit, or the cache folder cannot be written.
    """
    made = group.from_main(lambda: vars(pretrained_vectors(config, dataset)))
    dataset.pretrained = PretrainedVectors(**made)
    return dataset.pretrained


def make_trainer(config: Configuration, dataset: WithSequences) -> ProtocolTrainer:
    """Model and trainer for a built dataset that has its vectors; of RecBole's, a training view.

    Raises:
        UserError: the processes do not train the same model on the same data.
    """
    keys = compared_keys(config)
    same = {key: str(config[key]) for key in keys | set(training_arguments) | {"model"}}
    resumes = bool(config["resume"])
    group.require_equal({**same, "resume": resumes, "data of fingerprint": dataset.fingerprint})
    # The same in all processes: they draw the same negative triples and start from one model.
    init_seed(config["seed"], config["reproducibility"])
    kind = registry.model_class(config["model"])
    with trusting(config):
        model = kind(config, dataset).to(config["device"])
    to_log_file(str(model))
    ours = registry.is_compared(config["model"])
    return (SequenceTrainer if ours else recbole_trainer)(config, model, dataset.fingerprint, keys)


def load_recboles_data(config: Configuration) -> tuple[Any, Any, Any]:
    """RecBole's loaders of training, validation and test data, for a model evaluated by RecBole.

    Raises:
        UserError: as :func:`open_dataset`.
    """
    getLogger().info(prepare_atomic_files(config))
    check_files(config)
    check_histories(config)
    check_times(config)
    with data_keys_named(config):
        dataset = recbole_dataset(config)
    check_labels(config, dataset)
    getLogger().info(dataset.funnel.line())
    getLogger().info(dataset)
    with data_keys_named(config), without_pickles(config):
        return recbole_data_preparation(config, dataset)


def make_recboles_trainer(config: Configuration, dataset: Any) -> Any:
    """Model and RecBole's own trainer for the dataset of its training data."""
    init_seed(config["seed"] + config["local_rank"], config["reproducibility"])
    model = registry.model_class(config["model"])(config, dataset)
    trainer_class = get_trainer(config["MODEL_TYPE"], config["model"])
    trainer = with_checkpoint_rule(trainer_class)(config, model.to(config["device"]))
    trainer.eval_step = min(trainer.eval_step, trainer.epochs)  # a model without epochs has one
    return trainer
