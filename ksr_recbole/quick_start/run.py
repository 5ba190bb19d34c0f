"""One run: data, pretraining, training, test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import FileHandler, getLogger
from pathlib import Path
from typing import Any

import numpy as np
from recbole.data import create_dataset
from recbole.data import data_preparation as recbole_data_preparation
from recbole.utils import ModelType, get_trainer, init_logger, init_seed, set_color

from ksr_recbole import registry
from ksr_recbole.compat import with_checkpoint_rule
from ksr_recbole.config import Config, option
from ksr_recbole.config.keys import checkpoint_keys
from ksr_recbole.dataset.dataloader import SequenceEvalData, check_not_empty, data_preparation
from ksr_recbole.dataset.kg_sequence_dataset import WithSequences, load_dataset
from ksr_recbole.dataset.linked_dataset import LinkedDataset
from ksr_recbole.errors import UserError
from ksr_recbole.evaluation.evaluator import EvalResult
from ksr_recbole.files import ensure_writable
from ksr_recbole.pretraining.pretrain import pretrained_vectors
from ksr_recbole.quick_start.data import prepare_atomic_files
from ksr_recbole.quick_start.result import environment, settings, summary, write_result
from ksr_recbole.quick_start.stages import Stages, peak_memory_mib
from ksr_recbole.trainer import checkpoint
from ksr_recbole.trainer.trainer import SequenceTrainer

Measure = Callable[
    [SequenceTrainer, SequenceEvalData], tuple[dict[str, Any], dict[str, np.ndarray]]
]
"""What can be asked of a trained model beside its metrics: given a trainer that holds the best
model, and the test data, it makes JSON values and arrays by name."""


def run(
    model: str | None = None,
    dataset: str | None = None,
    config_file_list: list[str] | None = None,
    config_dict: dict[str, Any] | None = None,
    saved: bool = True,
    measure: Measure | None = None,
) -> dict[str, Any]:
    """Train and test a model, as RecBole's ``run_recbole``.

    Args:
        model: a model of this package or of RecBole; by default the one the config names, or KSR.
        dataset: name of the dataset; by default the one the config names, or ``ml-100k``, which
            is converted the first time.
        config_file_list: YAML files.
        config_dict: config values; they win over the files.
        saved: keep the model in ``checkpoint_dir``.
        measure: called after the test; only for models under the paper's protocol.

    Returns:
        RecBole's result dict (``best_valid_score``, ``valid_score_bigger``,
        ``best_valid_result``, ``test_result``); for models under the paper's protocol also
        everything in the result file, its path as ``result_file``, and as ``eval_results`` by
        mode and phase the :class:`~ksr_recbole.evaluation.evaluator.EvalResult` with every
        positive's rank.  With a ``measure`` its JSON values stand under ``measures``, in the
        file too, and its arrays under ``measured_arrays``.

    Raises:
        UserError: anything the user can mend.
    """
    config = Config(model, dataset, config_file_list, config_dict)
    for key in ("checkpoint_dir", "results_dir", "pretrain_dir"):
        ensure_writable(config[key], key)
    if config["data_cache_dir"] is not None:
        ensure_writable(config["data_cache_dir"], "data_cache_dir")
    init_seed(config["seed"], config["reproducibility"])
    with _logging(config):
        _to_log_file(str(config))
        if registry.under_protocol(config["model"]):
            return _run_under_protocol(config, saved, measure)
        if measure is not None:
            raise UserError(
                f"Nothing can be measured on {config['model']} beside its metrics, since it does "
                "not run under the paper's protocol; choose a model that is compared here."
            )
        return _run_recbole_model(config, saved)


@contextmanager
def _logging(config: Config) -> Iterator[None]:
    """RecBole's logger for the time of a run, so that a second run gets its own log file."""
    root = getLogger()
    before = root.handlers[:]
    root.handlers = []
    init_logger(config)
    try:
        yield
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers = before


def _to_log_file(text: str) -> None:
    """Log what is too long for a terminal to the log file only."""
    logger = getLogger()
    record = logger.makeRecord(logger.name, 20, __file__, 0, text, (), None)
    for handler in logger.handlers:
        if isinstance(handler, FileHandler):
            handler.handle(record)


def _run_under_protocol(config: Config, saved: bool, measure: Measure | None) -> dict[str, Any]:
    stages = Stages()
    with stages("data"):
        table1 = prepare_atomic_files(config)
        getLogger().info(table1)
        dataset = load_dataset(config)
        train_data, valid_data, test_data = data_preparation(config, dataset)
        check_not_empty(config, train_data, valid_data, test_data)
        _to_log_file(str(dataset))
    with stages("pretraining"):
        vectors = pretrained_vectors(config, dataset)
    trainer = make_trainer(config, dataset)
    if config["resume"]:
        trainer.resume_checkpoint(_resume_path(config))
    with stages("training"):
        trainer.fit(train_data, valid_data, saved=saved, show_progress=config["show_progress"])
    with stages("test"):
        if saved:
            trainer.load_best(trainer.saved_model_file)
        evaluated = _evaluate_modes(config, trainer, valid_data, test_data)
    measures, arrays = _measured(measure, stages, trainer, test_data)
    result = {
        "model": config["model"],
        "dataset": config["dataset"],
        "table1": table1,
        **_scores(config, trainer, evaluated),
        **measures,
        "pretraining": vectors.notes,
        "data_fingerprint": dataset.fingerprint,
        "seconds": stages.seconds,
        "peak_memory_mib": peak_memory_mib(),
        "checkpoint": trainer.saved_model_file if saved else None,
        "seed": config["seed"],
        "config": settings(config),
        "environment": environment(),
    }
    path = write_result(config["results_dir"], result)
    getLogger().info("\n" + summary(result, path))
    return {**result, **arrays, "result_file": str(path), "eval_results": evaluated}


def _measured(
    measure: Measure | None, stages: Stages, trainer: SequenceTrainer, test_data: SequenceEvalData
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The entries of the result that a measure makes: for its file, and for the caller only."""
    if measure is None:
        return {}, {}
    with stages("measures"):
        measures, arrays = measure(trainer, test_data)
    return {"measures": measures}, {"measured_arrays": arrays}


def _scores(
    config: Config, trainer: SequenceTrainer, evaluated: dict[str, dict[str, EvalResult]]
) -> dict[str, Any]:
    """RecBole's result dict, the metrics in all modes, and what they were computed on."""
    mode = config["eval_args"]["mode"]
    metrics = {
        name: {phase: result.metrics for phase, result in phases.items()}
        for name, phases in evaluated.items()
    }
    return {
        "best_valid_score": float(trainer.best_valid_score),
        "valid_score_bigger": config["valid_metric_bigger"],
        "best_valid_result": metrics[mode["valid"]]["valid"],
        "test_result": metrics[mode["test"]]["test"],
        "metrics": metrics,
        "valid_metric": config["valid_metric"],
        "metric_decimal_place": config["metric_decimal_place"],
        "eval_mode": mode["valid"],
        "best_epoch": trainer.best_epoch,
        "epochs_trained": trainer.epochs_trained,
        "candidates": {
            f"{phase}/{name}": sets.fingerprint
            for (phase, name), sets in trainer.drawn_candidates.items()
        },
    }


def make_trainer(config: Config, dataset: WithSequences) -> SequenceTrainer:
    """Model and trainer for a built dataset."""
    init_seed(config["seed"] + config["local_rank"], config["reproducibility"])
    model = registry.model_class(config["model"])(config, dataset).to(config["device"])
    _to_log_file(str(model))
    keys = checkpoint_keys(config["model"], config["task"])
    return SequenceTrainer(config, model, dataset.fingerprint, keys)


def _resume_path(config: Config) -> str | Path:
    if config["resume"] is True:
        names = config["checkpoint_dir"], config["model"], config["dataset"]
        return checkpoint.newest(*names, "leave --resume out to start anew")
    return config["resume"]


def _evaluate_modes(
    config: Config,
    trainer: SequenceTrainer,
    valid_data: SequenceEvalData,
    test_data: SequenceEvalData,
) -> dict[str, dict[str, EvalResult]]:
    """Results by mode and phase, in the modes configured for evaluation and for the report."""
    modes = [test_data.mode, valid_data.mode, *option(config, "report_modes", list)]
    return {
        mode: {
            data.phase: trainer.rank(data, mode, config["show_progress"])
            for data in (valid_data, test_data)
        }
        for mode in dict.fromkeys(modes)
    }


def _run_recbole_model(config: Config, saved: bool) -> dict[str, Any]:
    """One of RecBole's own models, with its own loaders, trainer and metrics, on our files."""
    logger = getLogger()
    logger.info(prepare_atomic_files(config))
    knowledge = config["MODEL_TYPE"] == ModelType.KNOWLEDGE
    dataset = LinkedDataset(config) if knowledge else create_dataset(config)
    logger.info(dataset)
    train_data, valid_data, test_data = recbole_data_preparation(config, dataset)
    init_seed(config["seed"] + config["local_rank"], config["reproducibility"])
    model = registry.model_class(config["model"])(config, train_data._dataset).to(config["device"])
    trainer_class = get_trainer(config["MODEL_TYPE"], config["model"])
    trainer = with_checkpoint_rule(trainer_class)(config, model)
    progress = config["show_progress"]
    score, valid_result = trainer.fit(train_data, valid_data, saved=saved, show_progress=progress)
    test_result = trainer.evaluate(test_data, load_best_model=saved, show_progress=progress)
    logger.info(set_color("best valid ", "yellow") + f": {valid_result}")
    logger.info(set_color("test result", "yellow") + f": {test_result}")
    return {
        "best_valid_score": score,
        "valid_score_bigger": config["valid_metric_bigger"],
        "best_valid_result": valid_result,
        "test_result": test_result,
    }
