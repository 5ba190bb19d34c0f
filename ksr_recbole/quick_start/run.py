"""One run: data, pretraining, training, test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from logging import getLogger
from math import isfinite
from typing import Any

import numpy as np
from recbole.utils import init_seed

from ksr_recbole import registry
from ksr_recbole.bars import hide
from ksr_recbole.config import Config
from ksr_recbole.config.evaluation_keys import evaluated_modes, parse_mode
from ksr_recbole.core_sharing import sharing_cores
from ksr_recbole.dataset.dataloader import SequenceEvalData
from ksr_recbole.dataset.pretrained import PretrainedVectors
from ksr_recbole.dataset.sequence_datasets import WithSequences
from ksr_recbole.distributed import group
from ksr_recbole.distributed.launching import launch
from ksr_recbole.errors import UserError
from ksr_recbole.evaluation.evaluator import EvalResult
from ksr_recbole.quick_start.logs import (
    log_evaluated,
    logging_of,
    own_wandb_run,
    to_log_file,
)
from ksr_recbole.quick_start.model_size import check_memory, naming_full_gpu
from ksr_recbole.quick_start.prepare import (
    check_candidates,
    check_folders,
    check_steps,
    find_vectors,
    load_data,
    make_trainer,
)
from ksr_recbole.quick_start.process_keys import check_possible, read_hosts
from ksr_recbole.quick_start.recbole_models import check_usable
from ksr_recbole.quick_start.recbole_run import EVALUATIONS, options_named, run_recbole_model
from ksr_recbole.quick_start.result import environment, settings, summary, write_result
from ksr_recbole.quick_start.stages import Stages, peak_memory_mib
from ksr_recbole.text import columns_of
from ksr_recbole.trainer import checkpoint
from ksr_recbole.trainer.option_checks import check_options
from ksr_recbole.trainer.trainer import ProtocolTrainer

Measure = Callable[
    [ProtocolTrainer, SequenceEvalData], tuple[dict[str, Any], dict[str, np.ndarray]]
]
"""What can be measured of a trained model in addition to its metrics: given a trainer that holds
the best model, and the test data, it makes JSON values and arrays by name."""


def run(
    model: str | None = None,
    dataset: str | None = None,
    config_file_list: list[str] | None = None,
    config_dict: dict[str, Any] | None = None,
    saved: bool = True,
    measure: Measure | None = None,
    **processes: Any,
) -> dict[str, Any]:
    """Train and test a model, as RecBole's ``run`` and ``run_recbole``.

    Args:
        model: a model of this package or of RecBole; by default the one the config names, or KSR.
        dataset: name of the dataset; by default the one the config names, or ``ml-100k``, which
            is converted the first time.
        config_file_list: YAML files.
        config_dict: config values; they win over the files.
        saved: keep the model in ``checkpoint_dir``; it cannot be resumed otherwise.
        measure: called after the test, in every process; only for models under the paper's
            protocol.  With several processes it must be a function that can be imported.
        processes: RecBole's ``nproc``, ``world_size``, ``ip``, ``port`` and ``group_offset``,
            which are config keys too; see ``docs/distributed.md``.

    Returns:
        RecBole's result dict (``best_valid_score``, ``valid_score_bigger``,
        ``best_valid_result``, ``test_result``); for models under the paper's protocol also
        everything in the result file, its path as ``result_file``, and as ``eval_results`` by
        mode and phase the :class:`~ksr_recbole.evaluation.evaluator.EvalResult` with every
        positive's rank, a user's id as ``example_user``, and under ``longer`` the config values
        with which the training would continue.  With a ``measure`` its JSON values stand under
        ``measures``, in the file too, and its arrays under ``measured_arrays``.

    Raises:
        UserError: anything the user can mend.
    """
    arguments = (model, dataset, config_file_list, {**(config_dict or {}), **processes})
    config = Config(*arguments)
    hosts = read_hosts(config)
    if not hosts.distributed:
        return _run(config, saved, measure)
    check_possible(config, hosts)
    rest = (saved, measure, registry.added_models())
    return launch(run_in_process, (arguments, *rest), hosts, config["device"].type)


def run_in_process(
    arguments: tuple[Any, ...],
    saved: bool,
    measure: Measure | None,
    added: Mapping[str, registry.Entry],
) -> dict[str, Any]:
    """The run, in one of its processes.

    Args:
        arguments: those of :class:`~ksr_recbole.config.Config`.
        saved: as :func:`run`'s.
        measure: as :func:`run`'s.
        added: the models added in the process that started this one.
    """
    registry.MODELS.update(added)
    if not group.this_process().main:
        hide()
    return _run(Config(*arguments), saved, measure)


def _run(config: Config, saved: bool, measure: Measure | None) -> dict[str, Any]:
    group.from_main(lambda: check_folders(config, "results_dir"))
    init_seed(config["seed"], config["reproducibility"])
    # The test shares the cores as training does, and so does what is measured after it.
    with logging_of(config), sharing_cores(), naming_full_gpu(), own_wandb_run(config):
        to_log_file(str(config))
        for remark in config.remarks():
            getLogger().warning(remark)
        if config.under_protocol:
            return _run_under_protocol(config, saved, measure)
        if measure is not None:
            raise UserError(
                f"Nothing can be measured on {config['model']} except its metrics, since it does "
                "not run under the paper's protocol; choose a model that is compared here."
            )
        return run_recbole_model(config, saved)


def _run_under_protocol(config: Config, saved: bool, measure: Measure | None) -> dict[str, Any]:
    # What would be refused later is refused before anything is read or trained.
    check_options(config, registry.model_class(config["model"]))
    ours = registry.is_compared(config["model"])
    if not ours:
        check_usable(config)
        getLogger().info(f"RecBole's {config['model']}, {EVALUATIONS['paper']}.")
    stages = Stages()
    with stages("data"):
        dataset, train_data, valid_data, test_data = load_data(config)
    check_memory(config, dataset)
    resume = group.from_main(lambda: _resume_path(config))
    modes = evaluated_modes(config)
    phases = [(data.dataset, data.phase) for data in (valid_data, test_data)]
    fewer = group.from_main(lambda: check_candidates(modes, *phases))
    group.from_main(lambda: check_steps(config, train_data))
    with stages("pretraining"):
        vectors = find_vectors(config, dataset)
    trainer = _trainer_of(config, dataset, train_data, vectors, ours)
    with trainer.naming_checkpoint(saved):
        if resume is not None:
            trainer.resume_checkpoint(resume)
        with nullcontext() if ours else options_named(config):
            with stages("training"):
                progress = config["show_progress"]
                trainer.fit(train_data, valid_data, saved=saved, show_progress=progress)
            with stages("test"):
                evaluated, weights = _evaluate_best(trainer, saved, modes, valid_data, test_data)
            log_evaluated(trainer, evaluated, test_data.mode)
        measures, arrays = _measured(measure, stages, trainer, test_data)
        result = {
            **_of_data(config, dataset),
            **_scores(config, trainer, evaluated),
            **({"fewer_candidates": fewer} if fewer else {}),
            **weights,
            **({"memory_fit": trainer.memory_fit.report()} if trainer.memory_fit else {}),
            **measures,
            **_of_the_run(config, vectors, stages),
            "checkpoint": trainer.saved_model_file if saved else None,
        }
        result = group.from_main(lambda: _leave(config, result))
    user = dataset.field2id_token[dataset.uid_field][1]
    more = {"eval_results": evaluated, "example_user": str(user), "longer": trainer.longer()}
    return {**result, **arrays, **more}


def _trainer_of(
    config: Config,
    dataset: WithSequences,
    train_data: Any,
    vectors: PretrainedVectors,
    ours: bool,
) -> ProtocolTrainer:
    if ours:
        return make_trainer(config, dataset)
    view = train_data._dataset  # what RecBole's models are made of
    view.pretrained = vectors
    with options_named(config):
        return make_trainer(config, view)


def _of_data(config: Config, dataset: WithSequences) -> dict[str, Any]:
    """What was trained on what."""
    return {
        "model": config["model"],
        "dataset": config["dataset"],
        "table1": dataset.table1().line(),
        "data": asdict(dataset.funnel),
        "data_fingerprint": dataset.fingerprint,
    }


def _of_the_run(config: Config, vectors: PretrainedVectors, stages: Stages) -> dict[str, Any]:
    """How and where it was trained."""
    return {
        "pretraining": vectors.notes,
        "seconds": stages.seconds,
        "peak_memory_mib": peak_memory_mib(),
        "seed": config["seed"],
        "config": settings(config),
        "environment": environment(config["device"]),
    }


def _evaluate_best(
    trainer: ProtocolTrainer,
    saved: bool,
    modes: list[str],
    valid: SequenceEvalData,
    test: SequenceEvalData,
) -> tuple[dict[str, dict[str, EvalResult]], dict[str, Any]]:
    """The best model's results by mode and phase; what popularity weighs in calibrated modes."""
    if saved:
        trainer.load_best(trainer.saved_model_file)
    else:
        trainer.use_best()
    weights = {
        mode: trainer.popularity_weights(valid, mode)
        for mode in modes
        if parse_mode(mode).calibrated
    }
    show = trainer.config["show_progress"]
    evaluated: dict[str, dict[str, EvalResult]] = {
        mode: {
            data.phase: trainer.rank(data, mode, show, weights.get(mode, {}).get(data.phase, 0.0))
            for data in (valid, test)
        }
        for mode in modes
    }
    return evaluated, _of_popularity(weights)


def _of_popularity(weights: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """The weights of test for the result file, and those of validation where they differ."""
    of_valid, of_test = (
        {mode: found[phase] for mode, found in weights.items()} for phase in ("valid", "test")
    )
    told = {"popularity_weights": of_test} if weights else {}
    return told if of_valid == of_test else {**told, "popularity_weights_of_validation": of_valid}


def _leave(config: Config, result: dict[str, Any]) -> dict[str, Any]:
    """Write and show a result, and say where it was written."""
    path = write_result(config["results_dir"], result)
    getLogger().info("Result:\n" + summary(result, path, columns_of(sys.stderr)))
    return {**result, "result_file": str(path)}


def _measured(
    measure: Measure | None, stages: Stages, trainer: ProtocolTrainer, test_data: SequenceEvalData
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The entries of the result that a measure makes: for its file, and for the caller only."""
    if measure is None:
        return {}, {}
    with stages("measures"):
        measures, arrays = measure(trainer, test_data)
    return {"measures": measures}, {"measured_arrays": arrays}


def _scores(
    config: Config, trainer: ProtocolTrainer, evaluated: dict[str, dict[str, EvalResult]]
) -> dict[str, Any]:
    """RecBole's result dict, the metrics in all modes, and what they were computed on."""
    mode = config["eval_args"]["mode"]
    metrics = {
        name: {phase: result.metrics for phase, result in phases.items()}
        for name, phases in evaluated.items()
    }
    return {
        "best_valid_score": _finite(trainer.best_valid_score),
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


def _finite(score: float) -> float | None:
    """The score, ``None`` if nothing was validated: JSON knows no infinity."""
    return float(score) if isfinite(score) else None


def _resume_path(config: Config) -> str | None:
    """The checkpoint to resume from, if one is given; whether it can be used is checked later."""
    given = config["resume"]
    if given is True:
        names = config["checkpoint_dir"], config["model"], config["dataset"]
        return str(checkpoint.newest(*names, "leave --resume out to start anew"))
    if not given:
        return None
    checkpoint.check_exists(given)
    return str(given)
