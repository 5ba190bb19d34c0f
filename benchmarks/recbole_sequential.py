"""RecBole's GRU4Rec on the same interactions: its augmented loading and its evaluation."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import common
from recbole.data import create_dataset
from recbole.data import data_preparation as recbole_data_preparation
from recbole.model.sequential_recommender.gru4rec import GRU4Rec
from recbole.trainer import Trainer

from ksr_recbole.config import Config
from ksr_recbole.quick_start.data import prepare_atomic_files


def load(options: argparse.Namespace, folder: Path, mode: str = "uni100") -> tuple[Any, ...]:
    """Config, training, validation and test data of RecBole's own sequential loading."""
    values = {"data_path": options.data_path} if options.data_path else {}
    ours = Config("KSR", options.dataset, None, values)
    prepare_atomic_files(ours)
    name = f"{options.dataset}-copy"  # RecBole sends the name ml-100k to files of its own
    (folder / name).mkdir()
    source = Path(ours["data_path"]) / f"{options.dataset}.inter"
    shutil.copy(source, folder / name / f"{name}.inter")
    config = common.recbole_config(
        GRU4Rec,
        name,
        folder,
        {
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "embedding_size": 256,
            "hidden_size": 256,
            "train_neg_sample_args": None,
            "eval_args": {"mode": mode},
        },
    )
    return config, *recbole_data_preparation(config, create_dataset(config))


def trainer(config: Any, train_data: Any) -> Trainer:
    """RecBole's trainer of an untrained GRU4Rec."""
    return Trainer(config, GRU4Rec(config, train_data.dataset))
