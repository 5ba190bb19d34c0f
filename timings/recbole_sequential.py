"""RecBole's sequential models on the same interactions: their loading, and their scores."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from recbole.data import create_dataset
from recbole.data import data_preparation as recbole_data_preparation
from recbole.data.interaction import Interaction
from recbole.trainer import Trainer

from ksr_recbole.compat import keeping_anomaly_mode
from ksr_recbole.config import Config
from ksr_recbole.dataset.dataloader import SequenceEvalData
from ksr_recbole.dataset.recbole_views import load_views, recbole_loaders
from ksr_recbole.dataset.sequences import ragged_positions
from ksr_recbole.quick_start.atomic_data import prepare_atomic_files
from ksr_recbole.trainer.recbole_trainer import recbole_trainer

with keeping_anomaly_mode():
    from recbole.model.sequential_recommender.gru4rec import GRU4Rec


def load(
    options: argparse.Namespace, folder: Path, mode: str = "uni100", **changes: Any
) -> tuple[Any, ...]:
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
            **changes,
        },
    )
    return config, *recbole_data_preparation(config, create_dataset(config))


def under_protocol(options: argparse.Namespace, folder: Path) -> tuple[Any, SequenceEvalData]:
    """Trainer of an untrained GRU4Rec under the paper's protocol, and the test data."""
    values = {"protocol": "paper", "embedding_size": 256, "hidden_size": 256}
    values |= {"checkpoint_dir": str(folder)}
    values |= {"data_path": options.data_path} if options.data_path else {}
    config = Config("GRU4Rec", options.dataset, None, values)
    train, _, test = recbole_loaders(config, load_views(config))
    data = train.dataset
    model = GRU4Rec(config, data)
    return recbole_trainer(config, model, data.fingerprint, frozenset()), test


def trainer(config: Any, train_data: Any) -> Trainer:
    """RecBole's trainer of an untrained GRU4Rec."""
    return Trainer(config, GRU4Rec(config, train_data.dataset))


class RecBoleScorer:
    """What our evaluation asks of a model, so that both are ranked by the same protocol.

    Args:
        model: a sequential model of RecBole.
        dataset: the dataset it was made with.
        bench: our run, whose users and items are ranked.
    """

    def __init__(self, model: Any, dataset: Any, bench: common.Bench) -> None:
        self.model, self.sequences = model, bench.dataset.sequences
        known = dataset.field2token_id["item_id"]
        tokens = bench.dataset.field2id_token["item_id"]
        self._ids = np.array([0, *(known.get(token, 0) for token in tokens[1:])])

    def score_all(self, users: np.ndarray, history_end: np.ndarray) -> torch.Tensor:
        """Scores of all our items for users' histories, ``[B, n_items]``."""
        start = np.maximum(history_end - common.LONGEST, 0)
        rows, columns = ragged_positions(history_end - start)
        items = np.zeros((len(users), common.LONGEST), np.int64)
        items[rows, columns] = self._ids[
            self.sequences.items[self.sequences.spans(users, start, history_end)]
        ]
        fields = {
            self.model.ITEM_SEQ: torch.from_numpy(items),
            self.model.ITEM_SEQ_LEN: torch.from_numpy(history_end - start),
        }
        scores = self.model.full_sort_predict(Interaction(fields))[:, self._ids]
        scores[:, self._ids == 0] = float("-inf")  # items it had to leave out
        return scores
