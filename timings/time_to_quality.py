"""Training seconds until ours is as good as RecBole's stock KSR ever gets.

    python timings/time_to_quality.py [--dataset=ml-100k] [--data_path=FOLDER]
        [--stock_epochs=10] [--patience=2]

Stock KSR is trained until NDCG@10 on validation (full ranking, our protocol for both) has not
improved for ``--patience`` epochs, or for ``--stock_epochs``.  Ours then trains until it
reaches that value.  Only training is counted, and for ours also the pretraining of the
item embeddings, which stock KSR does without; both get the same KB embeddings.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
from epoch_vs_stock import SIZES
from stock import Stock

from ksr_recbole.evaluation.evaluator import evaluate_full
from ksr_recbole.evaluation.scorer import ModelScorer
from ksr_recbole.pretraining import pretrain


def ndcg(bench: common.Bench, scorer: Any) -> float:
    """NDCG@10 of a model on validation, all items ranked."""
    dataset = bench.dataset
    result = evaluate_full(scorer, dataset.sequences, dataset.split, "valid", ["NDCG"], [10], 256)
    return result.metrics["ndcg@10"]


def epochs(train: Callable[[int], Any], quality: Callable[[], float], name: str, last: int) -> Any:
    """Yield quality and training seconds so far after each epoch."""
    seconds = 0.0
    for epoch in range(last):
        seconds += common.seconds_of(lambda e=epoch: train(e))
        value = quality()
        print(f"{name}, {epoch + 1} epochs: NDCG@10 {value:.4f} after {seconds:.1f} s", flush=True)
        yield value, seconds


def main() -> None:
    """Print both courses and the ratio."""
    parser = common.parser(__doc__)
    parser.add_argument("--stock_epochs", type=int, default=10, help="at most")
    parser.add_argument("--patience", type=int, default=2, help="epochs without improvement")
    options = parser.parse_args()
    print(common.machine())
    with tempfile.TemporaryDirectory() as folder:
        bpr: list[float] = []
        train_bpr = pretrain.train_bpr

        def timed(*args: Any, **kwargs: Any) -> Any:
            result: list[Any] = []
            bpr.append(common.seconds_of(lambda: result.append(train_bpr(*args, **kwargs))))
            return result[0]

        pretrain.train_bpr = timed
        fresh = f"{folder}/pretrained"
        bench = common.prepare(options, pretrain_export_path=folder, pretrain_dir=fresh)
        stock = Stock(bench, Path(folder), {**SIZES, "loss_type": "CE"})
        best, best_seconds, waited = 0.0, 0.0, 0

        def train_stock(epoch: int) -> None:
            stock.model.train()
            stock.trainer._train_epoch(stock.train, epoch)

        def stock_quality() -> float:
            stock.model.eval()
            return ndcg(bench, stock)

        for value, seconds in epochs(train_stock, stock_quality, "stock", options.stock_epochs):
            waited = waited + 1 if value <= best else 0
            if value > best:
                best, best_seconds = value, seconds
            if waited >= options.patience:
                break
    print(f"stock KSR's best {best:.4f} took it {best_seconds:.1f} s")
    print(f"pretraining our item embeddings: {sum(bpr):.1f} s")
    reach(bench, "ours, the paper's setting", best, best_seconds, sum(bpr))
    like_stock = {"loss_type": "CE", "learner": "adam", "learning_rate": 0.001}
    bench = common.prepare(options, **like_stock, train_neg_sample_args=None)
    reach(bench, "ours, stock's loss and optimizer", best, best_seconds, sum(bpr))


def reach(bench: common.Bench, name: str, best: float, theirs: float, pretraining: float) -> None:
    """Train ours until it is as good as ``best`` and print the ratio to stock's seconds."""
    sequences, split = bench.dataset.sequences, bench.dataset.split
    scorer = ModelScorer(bench.trainer.model, bench.config, sequences, split)

    def quality() -> float:
        bench.trainer.model.eval()
        return ndcg(bench, scorer)

    def train(epoch: int) -> None:
        bench.trainer._train_epoch(bench.train, epoch)

    for value, seconds in epochs(train, quality, name, 100):
        if value >= best:
            total = seconds + pretraining
            print(f"{name}: reached in {seconds:.1f} s, {total:.1f} s with BPR pretraining")
            print(f"ratio {theirs / seconds:.1f}; with pretraining {theirs / total:.1f}")
            return
    print(f"{name}: did not reach {best:.4f}")


if __name__ == "__main__":
    main()
