"""One trial: train with its settings and score the best epoch on validation."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from time import perf_counter
from typing import Any

from recbole.utils import init_seed

from ksr_recbole.config import Config
from ksr_recbole.dataset.dataloader import check_not_empty, data_preparation
from ksr_recbole.dataset.kg_sequence_dataset import load_dataset
from ksr_recbole.errors import UserError, one_line
from ksr_recbole.pretraining.pretrain import pretrained_vectors
from ksr_recbole.quick_start.run import make_trainer
from ksr_recbole.registry import model_class
from ksr_recbole.trainer.checkpoint import plain
from ksr_recbole.trainer.trainer import check_options
from ksr_recbole.tuning.plan import Plan
from ksr_recbole.tuning.trials import Trial


def run_trial(plan: Plan, params: Mapping[str, Any], **values: Any) -> Trial:
    """Run a trial; whatever goes wrong is recorded, so that the search can go on.

    Args:
        plan: the search.
        params: the trial's settings.
        values: further config values, of no consequence for its score.
    """
    start = perf_counter()
    found: dict[str, Any] = {}
    try:
        found = _validate(plan.config(params, **values))
    except UserError as error:
        found = {"error": one_line(error)}
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {one_line(error)}"}
    seconds = perf_counter() - start
    return Trial(plan.trial_key(params), plain(dict(params)), seconds=seconds, **found)


def _validate(config: Config) -> dict[str, Any]:
    """Train as :func:`ksr_recbole.quick_start.run` does, without test and without files."""
    init_seed(config["seed"], config["reproducibility"])
    dataset = load_dataset(config)
    train_data, valid_data, test_data = data_preparation(config, dataset)
    check_not_empty(config, train_data, valid_data, test_data)
    check_options(config, model_class(config["model"]))
    vectors = pretrained_vectors(config, dataset)
    trainer = make_trainer(config, dataset)
    scores: dict[int, float] = {}
    score, metrics = trainer.fit(
        train_data,
        valid_data,
        verbose=False,
        saved=False,
        show_progress=config["show_progress"],
        callback_fn=scores.__setitem__,
    )
    if metrics is None or not isfinite(score):
        raise UserError("No epoch was validated; eval_step must be positive.")
    return {
        "score": float(score),
        "metrics": plain(metrics),
        # Of equal epochs RecBole keeps the latest.
        "best_epoch": max(epoch for epoch, reached in scores.items() if reached == score),
        "epochs_trained": trainer.epochs_trained,
        "notes": tuple(vectors.notes),
    }
