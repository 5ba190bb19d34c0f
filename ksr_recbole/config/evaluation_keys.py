"""What RecBole's keys on the evaluation say: ``eval_args``'s modes, ``metrics`` and ``topk``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from recbole.utils import EvaluatorType, ModelType

from ksr_recbole.choices import choose_from
from ksr_recbole.config_types import ConfigValues
from ksr_recbole.errors import UserError, shown

KNOWN_METRICS = ("map", "mrr", "hit", "ndcg", "recall", "precision")
"""Known metrics by RecBole's name; :mod:`ksr_recbole.evaluation.metrics` computes them."""

WHOLE_LIST_METRICS = ("map", "mrr")
"""Those also reported without a cut, as the paper does (Table 3)."""


@dataclass(frozen=True)
class EvalMode:
    """What the positives are ranked against.

    Attributes:
        kind: ``"sampled"`` negatives, or all items (``"full"``).
        n_uniform: negatives per positive drawn uniformly.
        n_popular: negatives per positive drawn by popularity.
        calibrated: whether popularity is added to the scores, as much as validation wants.
    """

    kind: Literal["sampled", "full"]
    n_uniform: int = 0
    n_popular: int = 0
    calibrated: bool = False


CALIBRATED = "+popularity"
"""End of a mode's name in which popularity is added to the scores."""


def parse_mode(text: str) -> EvalMode:
    """Read RecBole's ``eval_args: mode``: ``uni50pop50`` (the paper's), ``uni100``, ``full``.

    With :data:`CALIBRATED` behind it a mode is one of ``report_modes``.

    Raises:
        UserError: anything else, telling what is possible.
    """
    given = canonical_mode(text)
    name = uncalibrated(given)
    if name == "full":
        return EvalMode("full", calibrated=name != given)
    match = re.fullmatch(r"(?:uni([1-9][0-9]{0,8}))?(?:pop([1-9][0-9]{0,8}))?", name)
    if not name or match is None:
        raise UserError(
            f"eval_args: mode: {shown(repr(text))} is not a mode known here; use uniN, popN "
            "or uniNpopM with the numbers of negatives per positive (uni50pop50 as in the paper), "
            "or full."
        )
    return EvalMode("sampled", int(match[1] or 0), int(match[2] or 0), calibrated=name != given)


def check_recboles_mode(text: str) -> None:
    """Refuse a mode that RecBole's own evaluation does not have.

    Raises:
        UserError: anything but ``full``, ``labeled``, ``uniN`` and ``popN`` with N above 0.
    """
    if not re.fullmatch(r"full|labeled|(?:uni|pop)[1-9][0-9]{0,8}", str(text)):
        raise UserError(
            f"Config key eval_args.mode is {shown(repr(text))}; RecBole's own evaluation has full, "
            "labeled, and uniN and popN with a number N of negatives per positive."
        )


def check_recboles_labels(config: ConfigValues) -> None:
    """Refuse ``labeled`` with metrics of a ranking, on which RecBole stops after an epoch.

    Raises:
        UserError: naming the mode, and the metrics that go with it.
    """
    modes = config["eval_args"]["mode"]
    if config["eval_type"] == EvaluatorType.RANKING and "labeled" in modes.values():
        raise UserError(
            f"Config key eval_args.mode is {shown(modes)}, but labeled ranks nothing: with it "
            "metrics and valid_metric are among AUC, MAE, RMSE and LogLoss; or give a mode such as "
            "full or uni100."
        )


def puts_in_order(config: ConfigValues) -> bool:
    """Whether RecBole's own evaluation, or the model's histories, need the times' order."""
    sequential = config["MODEL_TYPE"] == ModelType.SEQUENTIAL
    in_order = sequential or config["eval_args"]["order"] == "TO"
    return in_order and not config["benchmark_filename"]


def canonical_mode(text: str) -> str:
    """A mode's name as results have it: in small letters and without blanks around it."""
    return str(text).strip().lower()


def uncalibrated(mode: str) -> str:
    """The mode without :data:`CALIBRATED` behind it; any other is as it was."""
    plain = mode.strip()
    return plain[: -len(CALIBRATED)] if plain.lower().endswith(CALIBRATED) else mode


def check_selecting(mode: str) -> None:
    """Refuse a mode that cannot select the best epoch.

    Raises:
        UserError: it is unknown, or calibrated.
    """
    if parse_mode(mode).calibrated:
        raise UserError(
            f"eval_args: mode: {shown(mode)} is fitted once a model is trained; name it in "
            f"report_modes, and {shown(uncalibrated(mode))} here."
        )


def evaluated_modes(config: ConfigValues) -> list[str]:
    """The modes a run is evaluated in, each once: the one that selects the best epoch first."""
    mode = config["eval_args"]["mode"]
    return list(dict.fromkeys([mode["valid"], mode["test"], *config["report_modes"]]))


def parse_metrics(names: Sequence[str] | str) -> list[str]:
    """Names of metrics as RecBole's ``metrics`` setting gives them, in lower case.

    Raises:
        UserError: a name is unknown.
    """
    given = names.split(",") if isinstance(names, str) else names
    parsed = [str(name).strip().lower() for name in given]
    for name in parsed:
        if name not in KNOWN_METRICS:
            raise UserError(
                f"metrics: '{shown(name)}' is not a ranking metric known here"
                f"{choose_from(name, KNOWN_METRICS, 'the metrics are')}"
            )
    return list(dict.fromkeys(parsed))


def parse_topk(topk: Sequence[int] | int) -> list[int]:
    """Cuts of the list as RecBole's ``topk`` setting gives them.

    Raises:
        UserError: a cut is not a positive whole number.
    """
    cuts = [topk] if isinstance(topk, int | np.integer) else list(topk)
    for cut in cuts:
        if isinstance(cut, bool) or not isinstance(cut, int | np.integer) or cut < 1:
            raise UserError(f"topk: {cut!r} is not a whole number of at least 1, such as 10.")
    return list(dict.fromkeys(int(cut) for cut in cuts))


def metric_keys(names: Sequence[str], topk: Sequence[int]) -> list[str]:
    """Keys of the results that a run gives for these settings.

    Raises:
        UserError: a metric or cut is unknown.
    """
    keys: list[str] = []
    for name in parse_metrics(names):
        keys += [name] * (name in WHOLE_LIST_METRICS)
        keys += [f"{name}@{cut}" for cut in parse_topk(topk)]
    return keys
