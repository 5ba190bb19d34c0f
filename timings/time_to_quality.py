"""Training seconds until ours is as good as RecBole's stock KSR ever gets.

    python timings/time_to_quality.py [--dataset=ml-100k] [--data_path=FOLDER]
        [--stock_epochs=10] [--patience=2] [--keep=FOLDER]
        [--stock_seconds=S [--stock_precision=medium]] [--ours default paper stocks-loss]

Stock KSR is trained until NDCG@10 on validation (full ranking, our protocol for both) has not
improved for ``--patience`` epochs, or for ``--stock_epochs``.  Ours then trains until it
reaches that value.  Only training is counted, and for ours also the pretraining of the
item embeddings, which stock KSR does without; both get the same KB embeddings.

On ml-1m an epoch of stock KSR takes half an hour.  ``--keep`` keeps its state after each epoch;
the same command continues there.  Whatever else ran meanwhile, ``--stock_seconds`` counts each of
its epochs as so long: measure it with ``epoch_vs_stock.py`` on an idle machine.  What changes no
number is then left out while it trains: autograd's anomaly detection, and computing the memory of a
training row more than once.  ``--stock_precision=medium`` multiplies bfloat16 parts, where the
processor can; that changes its numbers by their rounding.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import common
import torch
from epoch_vs_stock import SIZES
from recbole.utils import init_seed
from stock import Stock

from ksr_recbole.evaluation.evaluator import evaluate_full
from ksr_recbole.evaluation.scorer import ModelScorer
from ksr_recbole.pretraining import pretrain
from ksr_recbole.trainer.precision import matrix_products

OURS: dict[str, dict[str, Any]] = {
    "default": {"model": "KSR"},
    "paper": {},
    "stocks-loss": {"loss_type": "CE", "learner": "adam", "learning_rate": 0.001}
    | {"train_neg_sample_args": None},
}
"""Ours: KSR's default, KSR-paper, and KSR-paper with stock's loss and optimizer."""


def ndcg(bench: common.Bench, scorer: Any) -> float:
    """NDCG@10 of a model on validation, all items ranked."""
    dataset = bench.dataset
    result = evaluate_full(scorer, dataset.sequences, dataset.split, "valid", ["NDCG"], [10], 256)
    return result.metrics["ndcg@10"]


def our_ndcg(bench: common.Bench) -> float:
    """:func:`ndcg` of our model as it is now.

    A scorer computes the vectors of all items once, so that each epoch needs its own.
    """
    model = bench.trainer.model.eval()
    with bench.trainer.averaged():
        scorer = ModelScorer(model, bench.config, bench.dataset.sequences, bench.dataset.split)
        return ndcg(bench, scorer)


def epochs(
    train: Callable[[int], Any], quality: Callable[[], float], name: str, last: int
) -> Iterator[tuple[float, float]]:
    """Yield quality and training seconds so far after each epoch."""
    seconds = 0.0
    for epoch in range(last):
        seconds += common.seconds_of(lambda e=epoch: train(e))
        value = quality()
        print(told(name, epoch, value, seconds), flush=True)
        yield value, seconds


def told(name: str, epoch: int, value: float, seconds: float) -> str:
    """A line about an epoch, the first one being 0, its quality and the seconds so far."""
    return f"{name}, {epoch + 1} epochs: NDCG@10 {value:.4f} after {seconds:.1f} s"


class StockCourse:
    """Stock KSR, trained epoch by epoch, from where a kept state left it.

    Args:
        bench: our run, whose protocol evaluates it.
        folder: where its files are; a state is kept there if ``keep`` says so.
        keep: whether a state is kept after each epoch.
        seconds: of an epoch; ``None``: as measured.
        precision: of its products while it trains (PyTorch's ``set_float32_matmul_precision``).
    """

    def __init__(
        self, bench: common.Bench, folder: Path, keep: bool, seconds: float | None, precision: str
    ) -> None:
        self._bench, self._seconds, self._keep = bench, seconds, keep
        self._precision = precision
        sizes = {**SIZES, "loss_type": "CE"}
        self._stock = Stock(bench, folder, sizes, remember=seconds is not None)
        self._file = folder / "stock.pt"
        self.values: list[tuple[float, float]] = []
        if keep and self._file.exists():
            state = torch.load(self._file, weights_only=True)
            self._stock.model.load_state_dict(state["model"])
            self._stock.trainer.optimizer.load_state_dict(state["optimizer"])
            self.values = [
                (value, so_far if seconds is None else seconds * (epoch + 1))
                for epoch, (value, so_far) in enumerate(state["values"])
            ]

    def epochs(self, last: int) -> Iterator[tuple[float, float]]:
        """Quality and training seconds so far after each epoch, those done before too."""
        for epoch, (value, seconds) in enumerate(self.values):
            print(told("stock", epoch, value, seconds))
            yield value, seconds
        if self._seconds is not None and len(self.values) < last:
            self._stock.model.remember(self._stock.train.dataset.inter_feat)
        for epoch in range(len(self.values), last):
            took = common.seconds_of(lambda e=epoch: self._train(e))
            so_far = self.values[-1][1] if self.values else 0.0
            self._stock.model.eval()
            value = ndcg(self._bench, self._stock)
            self.values.append((value, so_far + (self._seconds or took)))
            self._save()
            print(f"{told('stock', epoch, *self.values[-1])} (it took {took:.1f} s)", flush=True)
            yield self.values[-1]

    def _train(self, epoch: int) -> None:
        init_seed(self._stock.config["seed"] + epoch, True)  # an order that resuming keeps
        self._stock.train.generator.manual_seed(self._stock.config["seed"] + epoch)
        self._stock.model.train()
        as_recbole_runs_it = self._seconds is None and torch.is_anomaly_enabled()
        anomaly = torch.autograd.set_detect_anomaly(as_recbole_runs_it)
        with anomaly, matrix_products(self._precision):
            self._stock.trainer._train_epoch(self._stock.train, epoch)

    def _save(self) -> None:
        if not self._keep:
            return
        model, optimizer = self._stock.model, self._stock.trainer.optimizer
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        temporary = self._file.with_suffix(".tmp")
        torch.save({**state, "values": self.values}, temporary)
        os.replace(temporary, self._file)


@contextmanager
def bpr_seconds() -> Iterator[list[float]]:
    """Inside the block the list gets the seconds of each training of item embeddings."""
    seconds: list[float] = []
    train_bpr = pretrain.train_bpr

    def timed(*args: Any, **kwargs: Any) -> Any:
        result: list[Any] = []
        seconds.append(common.seconds_of(lambda: result.append(train_bpr(*args, **kwargs))))
        return result[0]

    pretrain.train_bpr = timed
    try:
        yield seconds
    finally:
        pretrain.train_bpr = train_bpr


def stock_course(options: argparse.Namespace) -> tuple[float, float, float]:
    """Train stock KSR.

    Returns:
        Its best NDCG@10, its training seconds until then, and those of our item embeddings.
    """
    with tempfile.TemporaryDirectory() as temporary, bpr_seconds() as bpr:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        fresh = f"{folder}/pretrained"
        bench = common.prepare(options, pretrain_export_path=str(folder), pretrain_dir=fresh)
        course = StockCourse(
            bench,
            folder,
            options.keep is not None,
            options.stock_seconds,
            options.stock_precision,
        )
        best, best_seconds, waited = 0.0, 0.0, 0
        for value, seconds in course.epochs(options.stock_epochs):
            waited = waited + 1 if value <= best else 0
            if value > best:
                best, best_seconds = value, seconds
            if waited >= options.patience:
                break
        if not bpr:  # kept with stock's state: made once more, for its time
            common.prepare(options, pretrain_dir=f"{temporary}/once-more")
    return best, best_seconds, sum(bpr)


def main() -> None:
    """Print both courses and the ratio."""
    parser = common.parser(__doc__)
    parser.add_argument("--stock_epochs", type=common.count, default=10, help="at most")
    parser.add_argument(
        "--patience", type=common.count, default=2, help="epochs without improvement"
    )
    parser.add_argument("--keep", type=Path, help="folder that keeps stock KSR's state")
    parser.add_argument(
        "--stock_seconds", type=common.amount, help="seconds of an epoch of stock KSR"
    )
    parser.add_argument("--stock_precision", default="highest", choices=("highest", "medium"))
    parser.add_argument("--ours", nargs="+", default=list(OURS), choices=list(OURS))
    parser.add_argument(
        "--our_epochs", type=common.count, default=100, help="of each of ours, at most"
    )
    options = parser.parse_args()
    if options.stock_precision != "highest" and options.stock_seconds is None:
        parser.error("--stock_precision needs --stock_seconds: its own would be another model's")
    print(common.machine())
    best, best_seconds, pretraining = stock_course(options)
    print(f"stock KSR's best {best:.4f} took it {best_seconds:.1f} s")
    print(f"pretraining our item embeddings: {pretraining:.1f} s")
    for name in options.ours:
        bench = common.prepare(options, **OURS[name])
        reach(bench, name, options.our_epochs, best, best_seconds, pretraining)


def reach(
    bench: common.Bench, name: str, most: int, best: float, theirs: float, pretraining: float
) -> None:
    """Train ours until it is as good as ``best`` and print the ratio to stock's seconds."""
    name = f"ours, {name}"
    for value, seconds in epochs(bench.train_epoch, lambda: our_ndcg(bench), name, most):
        if value >= best:
            total = seconds + pretraining
            print(f"{name}: reached in {seconds:.1f} s, {total:.1f} s with BPR pretraining")
            print(f"ratio {theirs / seconds:.1f}; with pretraining {theirs / total:.1f}")
            return
    print(f"{name}: did not reach {best:.4f}")


if __name__ == "__main__":
    common.start(main)
