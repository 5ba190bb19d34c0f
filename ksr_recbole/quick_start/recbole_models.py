"""Which of RecBole's models run under the paper's protocol, and why the others do not."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

from recbole.data.dataset import Dataset
from recbole.utils import ModelType

from dataset_atomic.atomic import atomic_path
from dataset_atomic.atomic_files import columns_of
from dataset_atomic.layout import Layout
from dataset_atomic.table1 import has_graph
from ksr_recbole.config.evaluation_keys import puts_in_order
from ksr_recbole.config_types import Configuration
from ksr_recbole.dataset.recbole_views import needs_graph
from ksr_recbole.dataset.sequence_datasets import no_graph
from ksr_recbole.errors import UserError, shown
from ksr_recbole.paths import is_installed
from ksr_recbole.registry import model_class

_IN_STAGES = {
    "S3Rec": "it is pretrained by a run of its own, whose file RecBole unpickles",
    "RaCT": "its actor and its critic are pretrained by runs of their own, whose files RecBole "
    "unpickles",
}
"""Models that RecBole trains in several runs, and how."""


def check_usable(config: Configuration) -> None:
    """Refuse a model of RecBole that cannot run under the paper's protocol, whatever the data.

    Raises:
        UserError: saying why.
    """
    if reason := _reason_against(config):
        raise UserError(
            f"RecBole's {config['model']} cannot run under the paper's protocol: {reason}."
        )


def check_files(config: Configuration) -> None:
    """Refuse a model of RecBole that reads what the dataset's atomic files do not have.

    Raises:
        UserError: naming the files or the columns.
    """
    folder, name = Path(config["data_path"]), config["dataset"]
    if needs_graph(config) and not has_graph(folder, name):
        raise no_graph(config)
    for suffix in config["additional_feat_suffix"] or ():
        if not (vectors := atomic_path(folder, name, suffix)).is_file():
            raise UserError(
                f"There is no {vectors}, from which {config['model']} takes vectors "
                "(additional_feat_suffix); with --protocol=paper GRU4RecKG and StockKSR pretrain "
                "theirs, and pretrain_export_path writes such files."
            )
    wanted, path = config["selected_features"], atomic_path(folder, name, "item")
    if not isinstance(wanted, list):
        return
    there = columns_of(path, Layout.of(config)) if path.is_file() else {}
    if missing := [str(feature) for feature in wanted if feature not in there]:
        others = ", ".join(shown(column) for column in list(there)[1:]) or "no such column"
        raise UserError(
            f"RecBole's {config['model']} reads the item features {shown(', '.join(missing))} "
            f"(selected_features), but {path} has {others}; name features that it has."
        )


def check_times(config: Configuration) -> None:
    """Refuse interactions without times where RecBole's own evaluation needs their order.

    Raises:
        UserError: naming the column and what to give instead.
    """
    layout, sequential = Layout.of(config), config["MODEL_TYPE"] == ModelType.SEQUENTIAL
    if not puts_in_order(config):
        return
    [path] = layout.inter_paths(Path(config["data_path"]), config["dataset"])
    columns = columns_of(path, layout)
    if layout.time not in columns:
        without = "" if sequential else ", or give --eval_args.order=RO, which is a random order"
        raise UserError(
            f"{path} has no column {shown(layout.time)} with the times of the interactions, whose "
            f"order {config['model']} or its evaluation needs; name the column as TIME_FIELD"
            f"{without}."
        )


def check_histories(config: Configuration) -> None:
    """Refuse given files without a history in every row, which RecBole's sequential models read.

    Raises:
        UserError: naming the first of them, and what to do.
    """
    if not config["benchmark_filename"] or config["MODEL_TYPE"] != ModelType.SEQUENTIAL:
        return
    layout = Layout.of(config)
    histories = layout.item + config["LIST_SUFFIX"]
    for path in layout.inter_paths(Path(config["data_path"]), config["dataset"]):
        if path.is_file() and histories not in columns_of(path, layout):
            raise UserError(
                f"{path} has no column {shown(histories)} with a history in every row, which "
                f"RecBole's {config['model']} reads from the files of benchmark_filename; add "
                "--protocol=paper, which makes the histories of the rows, or leave "
                "benchmark_filename out."
            )


def check_labels(config: Configuration, dataset: Dataset) -> None:
    """Refuse interactions without labels where RecBole's training or its metrics read them.

    Args:
        config: the configuration.
        dataset: RecBole's, loaded.

    Raises:
        UserError: naming the column and what to give instead.
    """
    if dataset.label_field in dataset.inter_feat:
        return
    without_negatives = config["train_neg_sample_args"]["distribution"] == "none"
    reads = config["MODEL_TYPE"] in (ModelType.CONTEXT, ModelType.DECISIONTREE)
    labeled = "labeled" in config["eval_args"]["mode"].values()
    if labeled or (reads and without_negatives):
        raise UserError(
            f"{config['dataset']} has no column {shown(dataset.label_field)} (LABEL_FIELD) with "
            f"the labels that {'eval_args.mode labeled' if labeled else config['model']} reads; "
            "load one (load_col), or give a threshold such as --threshold.rating=3, from which on "
            "a label is 1."
        )


def check_packages(config: Configuration) -> None:
    """Refuse a model of RecBole whose module imports what is not installed.

    Raises:
        UserError: naming the packages.
    """
    if reason := _packages_missing_for(config):
        raise UserError(f"RecBole's {config['model']} cannot run: {reason}.")


def _packages_missing_for(config: Configuration) -> str | None:
    missing = sorted(_missing_packages(model_class(config["model"])) - _not_needed(config))
    if not missing:
        return None
    return f"it imports {', '.join(missing)}, which is not installed; install it first"


def is_usable(config: Configuration) -> bool:
    """Whether a model of RecBole can run under the paper's protocol."""
    return _reason_against(config) is None


def _reason_against(config: Configuration) -> str | None:
    name = config["model"]
    if config["MODEL_TYPE"] in (ModelType.CONTEXT, ModelType.DECISIONTREE):
        return (
            "it scores rows of features (context-aware), not users and items; leave protocol out "
            "for RecBole's own evaluation"
        )
    if reason := _packages_missing_for(config):
        return reason
    if how := _IN_STAGES.get(name):
        return how
    clusters = name == "LDiffRec" and config["n_cate"] != 1
    if clusters and not (Path(config["data_path"]) / "item_emb.npy").is_file():
        return f"it reads item vectors from {config['data_path']}/item_emb.npy, which is not there"
    return None


def _missing_packages(model: type) -> set[str]:
    """Packages that a model's module imports, also inside its functions, and that are not here."""
    tree = ast.parse(inspect.getsource(sys.modules[model.__module__]))
    return {name for name in _imported(tree) if name != "recbole" and not is_installed(name)}


def _not_needed(config: Configuration) -> set[str]:
    """Packages that a model imports under other settings only."""
    unless = {"community": config["neigh_info_method"] == "louvain"}
    unless["kmeans_pytorch"] = config["n_cate"] != 1
    return {name for name, needed in unless.items() if not needed}


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
