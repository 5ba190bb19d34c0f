"""Seconds of a training epoch: RecBole's stock KSR and ours, one after the other.

    python timings/epoch_vs_stock.py [--dataset=ml-100k] [--data_path=FOLDER] [--epochs=5]

Both train on the same atomic files with the same sizes (items 256, GRU 256, KB 50) and the same
pretrained KB vectors; stock KSR reads prefixes of at most 50 items, as RecBole cuts them, ours
whole sequences.  Each is timed with both losses: the paper's (BPR, one negative) and RecBole's
default for it (softmax over all items).  ``--batches=N`` times N of stock KSR's batches, which are
shuffled, and scales; otherwise its whole epoch is timed.  ``--losses CE`` leaves the other out.
Run nothing else on the machine.

RecBole turns on autograd's anomaly detection for the whole process as soon as one of its sequential
models is imported (``sine.py``), so this is how stock KSR runs.  It is timed so and, since that is
no property of the model, once more without; ours always runs without.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median

import common
import torch
from stock import Stock

SIZES = {"embedding_size": 256, "hidden_size": 256, "kg_embedding_size": 50}


def our_epochs(bench: common.Bench, n_epochs: int) -> list[float]:
    """Seconds of our epochs after one that compiles the kernels."""
    bench.train_epoch(0)
    return [
        common.seconds_of(lambda e=epoch: bench.train_epoch(e)) for epoch in range(1, n_epochs + 1)
    ]


def stock_epoch(stock: Stock, n_batches: int | None) -> tuple[float, int]:
    """Seconds of stock KSR's epoch, and how many of its batches were timed for that."""
    total = len(stock.train)
    if n_batches is None or n_batches >= total:
        return common.seconds_of(lambda: stock.trainer._train_epoch(stock.train, 0)), total
    # Shuffled, so that any batches are a fair sample.
    stock.model.train()
    seconds = []
    for batch, _ in zip(stock.train, range(n_batches), strict=False):
        seconds.append(common.seconds_of(lambda b=batch: train_on(stock, b)))
    return sum(seconds) / n_batches * total, n_batches


def train_on(stock: Stock, batch: object) -> None:
    """One step of RecBole's trainer."""
    stock.trainer.optimizer.zero_grad()
    stock.model.calculate_loss(batch).backward()
    torch.nn.utils.clip_grad_norm_(stock.model.parameters(), float("inf"))
    stock.trainer.optimizer.step()


def main() -> None:
    """Print both figures and their ratio."""
    parser = common.parser(__doc__)
    parser.add_argument(
        "--epochs", type=common.count, default=5, help="our epochs, of which the median"
    )
    parser.add_argument(
        "--batches", type=common.count, help="stock KSR's batches to time; by default all"
    )
    parser.add_argument("--losses", nargs="+", default=["BPR", "CE"], choices=["BPR", "CE"])
    options = parser.parse_args()
    print(common.machine())
    for loss in options.losses:
        sizes = {**SIZES, "loss_type": loss}
        with tempfile.TemporaryDirectory() as folder:
            sampling = {} if loss == "BPR" else {"train_neg_sample_args": None}
            bench = common.prepare(options, **sizes, **sampling, pretrain_export_path=folder)
            mine = our_epochs(bench, options.epochs)
            print(f"ours, {loss}: {common.in_words(mine)}", flush=True)
            stock = Stock(bench, Path(folder), sizes)
            for how, anomaly in (("as RecBole runs it", True), ("no anomaly detection", False)):
                with torch.autograd.set_detect_anomaly(anomaly):
                    theirs, timed = stock_epoch(stock, options.batches)
                of = f"{timed} of {len(stock.train)} batches timed"
                print(f"RecBole's stock KSR, {loss}, {how}: {theirs:.1f} s ({of})")
                print(f"ratio: {theirs / median(mine):.1f}", flush=True)


if __name__ == "__main__":
    common.start(main)
