"""Our GRU and RecBole's GRU4Rec on the same data: quality after each epoch, and seconds.

    python timings/gru_vs_gru4rec.py [--dataset=ml-100k] [--epochs=10] [--size=256]

Both have embeddings and states of the same size, softmax loss, dropout, optimizer and learning
rate, and both are ranked on validation by our evaluation, all items.  RecBole trains on every
prefix as a row of 50 items; ours on whole sequences in pieces of 64.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import recbole_sequential
import torch
from time_to_quality import epochs, ndcg, our_ndcg

SHARED = {"loss_type": "CE", "learner": "adam", "learning_rate": 0.001, "dropout_prob": 0.3}


def course(name: str, quality: Callable[[], float], train: Callable[[int], Any], last: int) -> None:
    """Print quality and seconds after each epoch, and the best."""
    values = [value for value, _ in epochs(train, quality, name, last)]
    best = max(values)
    print(f"{name}: best NDCG@10 {best:.4f} after {values.index(best) + 1} epochs")


def main() -> None:
    """Print both courses."""
    parser = common.parser(__doc__)
    parser.add_argument("--epochs", type=common.count, default=10)
    parser.add_argument("--size", type=common.count, default=256)
    options = parser.parse_args()
    print(common.machine())
    shared = {**SHARED, "embedding_size": options.size, "hidden_size": options.size}
    bench = common.prepare(options, model="GRU", **shared)
    course("ours", lambda: our_ndcg(bench), bench.train_epoch, options.epochs)
    with tempfile.TemporaryDirectory() as folder:
        config, train, *_ = recbole_sequential.load(options, Path(folder), "full", **shared)
        torch.manual_seed(config["seed"])
        trainer = recbole_sequential.trainer(config, train)
        scorer = recbole_sequential.RecBoleScorer(trainer.model, train.dataset, bench)

        def train_epoch(epoch: int) -> None:
            trainer.model.train()
            trainer._train_epoch(train, epoch)

        def quality() -> float:
            trainer.model.eval()
            return ndcg(bench, scorer)

        course("RecBole's GRU4Rec", quality, train_epoch, options.epochs)


if __name__ == "__main__":
    common.start(main)
