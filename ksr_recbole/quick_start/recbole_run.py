"""A run of one of RecBole's own models outside of the paper's protocol, and where one may stop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from logging import getLogger
from typing import Any

from recbole.utils import EvaluatorType, set_color

from ksr_recbole.bars import recbole_bars
from ksr_recbole.compat import recbole_stops, trusting
from ksr_recbole.config import Config
from ksr_recbole.config.evaluation_keys import parse_mode
from ksr_recbole.config.kinds import FOR_ALL
from ksr_recbole.config.shared import PretrainingOptions
from ksr_recbole.errors import shown
from ksr_recbole.interruptions import naming_checkpoint
from ksr_recbole.quick_start.prepare import load_recboles_data, make_recboles_trainer
from ksr_recbole.quick_start.recbole_models import check_packages, is_usable

EVALUATIONS = {
    "paper": "trained by RecBole on the split of the paper's protocol and evaluated by that "
    "protocol: our candidates, ranks and metrics",
    "recbole": "evaluated as RecBole does",
}
"""By value of ``protocol``, how a model of RecBole is evaluated."""


def run_recbole_model(config: Config, saved: bool) -> dict[str, Any]:
    """One of RecBole's own models, with its own loaders, trainer and metrics, on our files.

    Returns:
        RecBole's result dict.

    Raises:
        UserError: the model, its options or the data cannot be used.
    """
    logger = getLogger()
    check_packages(config)
    train_data, valid_data, test_data = load_recboles_data(config)
    for phase, data in (("validation", valid_data), ("the test", test_data)):
        if not data:  # RecBole's result is None then
            logger.warning(
                f"The split {shown(config['eval_args']['split'])} leaves no interaction for "
                f"{phase}."
            )
    for remark in _repeated_negatives(config, train_data._dataset.item_num - 1):
        logger.warning(remark)
    progress = config["show_progress"]
    # RecBole leaves a checkpoint, but its training does not continue in the same way from it.
    with naming_checkpoint(lambda: None), options_named(config), trusting(config):
        trainer = make_recboles_trainer(config, train_data._dataset)
        with recbole_bars():
            score, valid_result = trainer.fit(
                train_data, valid_data, saved=saved, show_progress=progress
            )
            test_result = trainer.evaluate(test_data, load_best_model=saved, show_progress=progress)
    valid_result, test_result = (_as_floats(each) for each in (valid_result, test_result))
    other = (
        "; --protocol=paper evaluates it as the models compared here" if is_usable(config) else ""
    )
    split, order, by = (config["eval_args"][key] for key in ("split", "order", "group_by"))
    how = f"{EVALUATIONS['recbole']} (split {split}, order {order}, group_by {by})"
    logger.info(f"RecBole's {config['model']}, {how}{other}:")
    logger.info(set_color("best valid ", "yellow") + f": {valid_result}")
    logger.info(set_color("test result", "yellow") + f": {test_result}")
    return {
        "best_valid_score": score,
        "valid_score_bigger": config["valid_metric_bigger"],
        "best_valid_result": valid_result,
        "test_result": test_result,
    }


def _repeated_negatives(config: Config, n_items: int) -> Iterator[str]:
    """Remarks on modes with more negatives of a positive than there are other items."""
    if config["eval_type"] != EvaluatorType.RANKING:
        return
    for mode in sorted(set(config["eval_args"]["mode"].values())):
        parsed = parse_mode(mode)
        drawn = parsed.n_uniform + parsed.n_popular
        if drawn >= n_items:
            yield (
                f"eval_args.mode is {mode}, but {config['dataset']} has {n_items:,} items: RecBole "
                f"draws {drawn:,} negatives for each positive with repetition, and ranks it "
                "against the different ones among them."
            )


_OF_DATA_AND_EVALUATION = frozenset(
    key
    for key in FOR_ALL
    if key.endswith("_FIELD")
    or key in ("eval_args", "metrics", "valid_metric", "topk", "load_col", "unload_col")
    or key in ("train_neg_sample_args", "transform", "numerical_features")
)
"""Keys of every run on which a model of RecBole may stop too."""


def options_named(config: Config) -> AbstractContextManager[None]:
    """Where a model of RecBole stops, on the data or on options that no one checks.

    Raises:
        UserError: inside, in place of RecBole's error.
    """
    ours = {*FOR_ALL, *PretrainingOptions.checks(), "model"} - _OF_DATA_AND_EVALUATION
    return recbole_stops(
        Exception,  # an option may be the path of a file with any content
        lambda: sorted(config.external_config_dict.keys() - ours),
        f"RecBole's {config['model']} stopped on {config['dataset']} ({{error}}); its "
        "documentation says what data and options it takes.",
        f"RecBole's {config['model']} stopped ({{error}}) with the given {{keys}}; what it takes "
        "is in RecBole's documentation.",
    )


def _as_floats(metrics: Mapping[str, Any] | None) -> dict[str, float] | None:
    """RecBole's metrics as Python numbers, which NumPy 2 prints as such."""
    return None if metrics is None else {name: float(value) for name, value in metrics.items()}
