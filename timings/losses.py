"""Epoch time and quality of the losses of KSR (or another model), in turns in one process.

    python timings/losses.py [--dataset=ml-100k] [--data_path=FOLDER] [--model=KSR] [--epochs=3]
        [--to_the_end] [--losses CE sampled_CE:256 sampled_CE:512 gBCE:256]

A loss may name its number of sampled items.  Every loss trains ``--epochs`` epochs, an epoch of
each in turn.  With ``--to_the_end`` every loss is then trained from the start until early
stopping, and the test's MRR and NDCG@10 of both evaluation modes are printed with the paired
t-test over users against the first loss.
"""

from __future__ import annotations

import argparse

import common

from ksr_recbole.evaluation.metrics import per_user_metrics
from ksr_recbole.evaluation.paired_test import paired_p_value

MODES = ("uni50pop50", "full")


def epoch_times(options: argparse.Namespace, losses: list[str], epochs: int) -> None:
    """Print the seconds of an epoch with each loss, the first epoch left out."""
    benches = {
        loss: common.prepare(options, model=options.model, **common.loss_values(loss))
        for loss in losses
    }
    seconds: dict[str, list[float]] = {loss: [] for loss in losses}
    for epoch in range(epochs + 1):
        for loss, bench in benches.items():
            took = common.seconds_of(lambda b=bench, e=epoch: b.train_epoch(e))
            seconds[loss] += [took] if epoch else []
    base = min(seconds[losses[0]])
    for loss, each in seconds.items():
        ratio = base / min(each)
        print(f"{loss:>16}: epoch {common.in_words(each)}; {losses[0]} takes {ratio:.2f} times it")


def qualities(options: argparse.Namespace, losses: list[str]) -> None:
    """Train with each loss to the end and print what the test says."""
    found = {}
    for loss in losses:
        bench = common.prepare(options, model=options.model, **common.loss_values(loss))
        took = common.seconds_of(
            lambda b=bench: b.trainer.fit(b.train, b.valid, verbose=False, saved=False)
        )
        bench.trainer.use_best()
        results = {mode: bench.trainer.rank(bench.test, mode) for mode in MODES}
        best, trained = bench.trainer.best_epoch, bench.trainer.epochs_trained
        print(f"{loss}: best epoch {best} of {trained}, {took:.1f} s with validation", flush=True)
        found[loss] = {
            (mode, name): per_user_metrics(result.users, result.ranks, ["MRR", "NDCG"], [10])[1][
                name
            ]
            for mode, result in results.items()
            for name in ("mrr", "ndcg@10")
        }
        for what, each in found[loss].items():
            first = found[losses[0]][what]
            p = paired_p_value(each, first) if loss != losses[0] else float("nan")
            print(f"  {' '.join(what):>20} {each.mean():.4f}  p {p:.3f}", flush=True)


def main() -> None:
    """Print a line a loss."""
    parser = common.parser(__doc__)
    parser.add_argument("--model", default="KSR")
    parser.add_argument("--epochs", type=common.count, default=3)
    parser.add_argument("--to_the_end", action="store_true")
    parser.add_argument("--losses", nargs="+", default=["CE", "sampled_CE:256", "gBCE:256"])
    options = parser.parse_args()
    print(common.machine())
    epoch_times(options, options.losses, options.epochs)
    if options.to_the_end:
        qualities(options, options.losses)


if __name__ == "__main__":
    common.start(main)
