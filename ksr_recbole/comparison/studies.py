"""What is compared: each table or figure of the paper as a list of settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from ksr_recbole.config.shared import KGEMethod
from ksr_recbole.registry import MODELS, PAPER_MODELS


@dataclass(frozen=True)
class Setting:
    """A row of a table: a model under some config values.

    Attributes:
        label: the row's name, different within a study.
        model: name of the model.
        overrides: config values that differ from the model's own.
        group: rows of another group stand below a rule.
        series: the line of a line figure that the row is a point of.
        x: where on that line.
    """

    label: str
    model: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""
    series: str = ""
    x: float = 0.0


@dataclass(frozen=True)
class Study:
    """A table and its figure.

    Attributes:
        name: part of the files' names.
        title: what the table shows, in words.
        settings: the rows, in order.
        tasks: the tasks shown if none is asked for.
        reference: label of the row that the others are tested against, if any.
        baselines: labels of the rows of which the best is what the reference improves on.
        figure: ``bars`` of every row, or ``lines`` of every series.
        split_figure: a panel for each group instead of all rows in one.
        x_label: what ``x`` is, for a line figure.
        phase: whose metrics are shown, ``test`` or, to choose settings, ``valid``.
        measure: ``module:function`` of what is measured on every trained model, if anything.
        report: ``module:function`` that writes what the study leaves; by default the tables.
    """

    name: str
    title: str
    settings: tuple[Setting, ...]
    tasks: tuple[str, ...] = ("next-item",)
    reference: str | None = None
    baselines: tuple[str, ...] = ()
    figure: Literal["bars", "lines"] = "bars"
    split_figure: bool = False
    x_label: str = ""
    phase: Literal["test", "valid"] = "test"
    measure: str | None = None
    report: str | None = None

    def varies(self, key: str) -> bool:
        """Whether every row sets a config key, and not all of them to one value."""
        values = [setting.overrides.get(key, ...) for setting in self.settings]
        return ... not in values and any(value != values[0] for value in values)

    def only(self, kept: Sequence[Setting]) -> Study:
        """The study with some of its rows; without the reference, their first is in its place.

        It has no baselines then: they are those of the reference.
        """
        labels = [setting.label for setting in kept]
        reference, baselines = self.reference, self.baselines
        if reference is not None and reference not in labels:
            reference, baselines = next(iter(labels), None), ()
        baselines = tuple(label for label in baselines if label in labels)
        return replace(self, settings=tuple(kept), reference=reference, baselines=baselines)


TABLE3 = "table3"
"""Name of the comparison of methods, the study run if none is named."""

TUNING = "tuning"
"""Name of the study that :mod:`ksr_recbole.comparison.trial_files` makes from its YAML file."""


def table3(models: Sequence[str]) -> Study:
    """The comparison of ``models`` (Table 3).

    Variants stand below, then RecBole's models in its own settings; both are no baselines.
    """
    own = "KSR"
    settings = [
        Setting(name, name, protocol_values(name), _GROUPS[_group_of(name)])
        for name in sorted(models, key=_group_of)
    ]
    return Study(
        name=TABLE3,
        title="Methods compared (Table 3)",
        settings=tuple(settings),
        reference=own if own in models else None,
        baselines=tuple(name for name in models if name != own and _group_of(name) == 0),
    )


_GROUPS = ("", "variants", "RecBole's models")


def _group_of(model: str) -> int:
    """Which of :data:`_GROUPS` a model's row stands in."""
    return (0 if model in PAPER_MODELS else 1) if model in MODELS else 2


def protocol_values(model: str) -> dict[str, Any]:
    """What a model of RecBole must be given to run as the models compared here."""
    return {} if model in MODELS else {"protocol": "paper"}


def _of_ksr(key: str, values: Iterable[Any], group: str = "", **fixed: Any) -> tuple[Setting, ...]:
    """KSR under each of ``values`` of one config key."""
    return tuple(
        Setting(f"KSR, {key} {value}", "KSR", {**fixed, key: value}, group) for value in values
    )


_VALUE_MATRICES = _of_ksr("value_matrix", ("private", "shared"))

_LOSSES = (
    *_of_ksr("loss_type", ("CE", "sampled_CE", "gBCE")),
    Setting("KSR, sampled_CE of 256", "KSR", {"loss_type": "sampled_CE", "sampled_items": 256}),
)

_LADDER = (
    Setting("GRU++, score of Eq. 2", "GRU++-paper", {}),
    Setting("with the MLPs of Eq. 10", "GRU++-paper", {"score_mlp_layers": 1}),
    Setting(
        "with e_i in the item's score",
        "GRU++-paper",
        {"score_mlp_layers": 1, "kb_score": True}
        | {"kg_embedding_size": 50, "kb_scale": 1.0, "freeze_kg": True},
    ),
    Setting("with the memory: KSR", "KSR-paper", {}),
)
"""Each row differs from the one before in one thing; all are trained as the paper trains KSR."""

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        Study(
            name="value-matrix",
            title="A value matrix for each user or one for all (Table 4)",
            settings=_VALUE_MATRICES,
            tasks=("next-item", "next-session"),
            reference=_VALUE_MATRICES[0].label,
            baselines=(_VALUE_MATRICES[1].label,),
        ),
        Study(
            name="loss",
            title="The softmax over all items and the losses on a sample of them",
            settings=_LOSSES,
            reference=_LOSSES[0].label,
            baselines=tuple(setting.label for setting in _LOSSES[1:]),
        ),
        Study(
            name="ladder",
            title="From GRU++ to KSR in the paper's training, one change at a time",
            settings=_LADDER,
            tasks=("next-item", "next-session"),
            reference=_LADDER[-1].label,
            baselines=tuple(setting.label for setting in _LADDER[:-1]),
        ),
        Study(
            name="train-ratio",
            title="Share of the training interactions (Fig. 3)",
            settings=tuple(
                Setting(
                    f"{model}, {ratio:.0%}",
                    model,
                    {"train_ratio": ratio},
                    group=f"{ratio:.0%}",
                    series=model,
                    x=ratio,
                )
                for ratio in (0.2, 0.4, 0.6, 0.8, 1.0)
                # The paper's two, and GRU++ with items that train as those of KSR's default do.
                for model in ("GRU++", "KSR", "GRU++-trained")
            ),
            figure="lines",
            x_label="share of the training interactions",
        ),
        Study(
            name="kge",
            title="Methods and sizes of the KB embeddings (Fig. 4)",
            settings=(
                *_of_ksr("kge_method", get_args(KGEMethod), group="method", kg_embedding_size=50),
                *_of_ksr(
                    "kg_embedding_size", (50, 100, 150, 200), group="size", kge_method="TransE"
                ),
            ),
            split_figure=True,
        ),
        Study(
            name="interpretability",
            title="How far the explanations are right (Sec. 5.4)",
            settings=tuple(
                Setting(f"{model}, {kind}", model, {"value_matrix": kind}, group=model)
                for model in ("KSR", "KSR-paper")
                for kind in ("private", "shared")
            ),
            reference="KSR, private",
            measure="ksr_recbole.interpretability.measures:measure_explanations",
            report="ksr_recbole.interpretability.study_report:report_interpretability",
        ),
    )
}
"""The studies other than Table 3, by name."""
