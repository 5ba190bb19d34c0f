"""What RecBole calls for the datasets and loaders of this package's models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from logging import getLogger
from typing import Any

from ksr_recbole import registry
from ksr_recbole.config_types import Configuration
from ksr_recbole.dataset.dataloader import (
    SequenceEvalData,
    SequenceTrainLoader,
    check_not_empty,
)
from ksr_recbole.dataset.sequence_datasets import WithSequences
from ksr_recbole.invocation import TRAIN
from ksr_recbole.quick_start.model_size import check_memory
from ksr_recbole.quick_start.prepare import (
    check_candidates,
    check_folders,
    check_steps,
    find_vectors,
    open_dataset,
    say_repeats,
    say_whole_sample,
)
from ksr_recbole.quick_start.process_keys import PROCESS_KEYS

FINGERPRINT = "data_fingerprint"
"""Config key that carries the dataset's fingerprint from the loaders to the trainer."""


_OF_OUR_RUN = {"results_dir", "report_modes", *PROCESS_KEYS}
"""Keys that our run reads and RecBole's does not."""


def dataset_of(config: Configuration) -> WithSequences:
    """What ``create_dataset`` calls as the dataset's class.

    Raises:
        UserError: the dataset is unknown or its files are malformed.
    """
    check_folders(config)
    for remark in [*config.remarks(), *_of_our_run_alone(config)]:
        getLogger().warning(remark)
    dataset = open_dataset(config)
    check_memory(config, dataset)
    return dataset


def _of_our_run_alone(config: Configuration) -> Iterator[str]:
    """On keys that were given and that RecBole's own run does not know."""
    for key in sorted(config.external_config_dict.keys() & _OF_OUR_RUN):
        yield (
            f"Config key {key} has no effect with RecBole's run_recbole; "
            f"`{TRAIN}` of this project reads it."
        )


def loader_of(config: Configuration, phase: str) -> Callable[..., Any] | None:
    """What ``data_preparation`` calls as the class of a phase's loader.

    Returns:
        ``None`` if the model is not one of this package's.
    """
    if config["model"] not in registry.own_models():
        return None
    if phase == "train":
        return _train_loader
    return partial(_eval_data, phase="valid" if phase == "valid" else "test")


def _train_loader(
    config: Configuration, dataset: WithSequences, *_: Any, **__: Any
) -> SequenceTrainLoader:
    """Our training loader; RecBole's sampler is not used, and ``shuffle`` is the config's.

    Vectors are pretrained here and not when the model asks for them, so that RecBole's seeding
    of the model comes after it and a run that finds them in the cache is the same.
    """
    loader = SequenceTrainLoader(config, dataset)
    check_not_empty(config, loader)
    check_steps(config, loader)
    say_repeats(dataset)
    say_whole_sample(config, dataset)
    find_vectors(config, dataset)
    config[FINGERPRINT] = dataset.fingerprint
    return loader


def _eval_data(
    config: Configuration, dataset: WithSequences, *_: Any, phase: Any, **__: Any
) -> SequenceEvalData:
    data = SequenceEvalData(config, dataset, phase)
    check_not_empty(config, data)
    modes = config["eval_args"]["mode"]
    if modes["valid"] != modes["test"]:
        check_candidates([data.mode], (dataset, phase))
    elif phase == "valid":  # RecBole asks for the test's loader next: a line for both
        check_candidates([data.mode], (dataset, "valid"), (dataset, "test"))
    return data
