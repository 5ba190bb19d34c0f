"""The files that a cell's result depends on, by their content."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dataset_atomic.layout import Layout
from ksr_recbole import digests
from ksr_recbole.comparison.cells import PATH_KEYS
from ksr_recbole.config.shared import GIVEN_VECTORS
from ksr_recbole.config_types import Configuration
from ksr_recbole.dataset.loading import Asked

_GRAPH = ("kg", "link")
_SIDES = ("user", "item")

_OF_A_MODEL = {"LDiffRec": "item_emb.npy"}
"""What models of RecBole read of the dataset's folder without a key that says so."""


def file_digests(config: Configuration) -> dict[str, str]:
    """SHA-256 of each file that is there and that a run of a configuration reads.

    Args:
        config: a :class:`~ksr_recbole.config.Config`.

    Returns:
        By suffix, such as ``"inter"`` or, of a part of ``benchmark_filename``, ``"train.inter"``;
        of a file that a model's own key names, by the key.
    """
    found = ((name, path) for name, path in _files(config) if path.is_file())
    return {name: digests.of_file_once(path) for name, path in found}


def _files(config: Configuration) -> Iterator[tuple[str, Path]]:
    folder, dataset = Path(config["data_path"]), config["dataset"]
    for path in Layout.of(config).inter_paths(folder, dataset):
        yield path.name.removeprefix(f"{dataset}."), path
    for suffix in (*_GRAPH, *(side for side in _SIDES if _matters(config, side))):
        yield suffix, folder / f"{dataset}.{suffix}"
    for suffix in config["additional_feat_suffix"] or ():
        yield f"additional.{suffix}", folder / f"{dataset}.{suffix}"
    if config["pretrain_path"]:
        for suffix in GIVEN_VECTORS:
            yield suffix, Path(config["pretrain_path"]) / f"{dataset}.{suffix}"
    # RecBole's NAIS reads a file where others have a folder of vectors.
    of_models = {key for key in config.internal_config_dict if key.endswith("_path")} - PATH_KEYS
    for key in sorted({*of_models, "pretrain_path"}):
        if isinstance(value := config[key], str) and value:
            yield key, Path(value)
    if name := _OF_A_MODEL.get(config["model"]):
        yield name, folder / name


def _matters(config: Configuration, side: str) -> bool:
    """Whether a run reads the file of users or items, which may leave out others."""
    path = Path(config["data_path"]) / f"{config['dataset']}.{side}"
    return path.is_file() and not Asked.of(config, side).nothing
