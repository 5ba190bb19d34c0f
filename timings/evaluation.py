"""Seconds to evaluate all users of a dataset: 101 candidates each, and all items.

    python timings/evaluation.py [--dataset=ml-1m] [--data_path=FOLDER] [--protocol_alone]

The same of RecBole's GRU4Rec (same sizes, histories cut to 50 items) under our protocol, and of its
evaluation by RecBole with 100 sampled negatives and with all items, which takes minutes and which
``--protocol_alone`` leaves out.  No model is trained: that changes no time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import common
import recbole_sequential


def several(action: Callable[[], Any], runs: int) -> list[float]:
    """Seconds of ``runs`` calls after one to warm up."""
    action()
    return [common.seconds_of(action) for _ in range(runs)]


def main() -> None:
    """Print the four figures."""
    parser = common.parser(__doc__, "ml-1m")
    parser.add_argument("--runs", type=common.count, default=3)
    parser.add_argument("--protocol_alone", action="store_true")
    options = parser.parse_args()
    print(common.machine())
    bench = common.prepare(options)
    for mode, name in (("uni50pop50", "101 candidates"), ("full", "all items")):
        seconds = several(lambda m=mode: bench.trainer.rank(bench.test, m), options.runs)
        print(f"ours, {name:14} {common.in_words(seconds)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        trainer, test = recbole_sequential.under_protocol(options, Path(folder))
        for mode, name in (("uni50pop50", "101 candidates"), ("full", "all items")):
            seconds = several(lambda m=mode, t=test: trainer.rank(t, m), options.runs)
            print(f"GRU4Rec, our protocol, {name:14} {common.in_words(seconds)}", flush=True)
    of_recbole = (
        () if options.protocol_alone else (("uni100", "101 candidates"), ("full", "all items"))
    )
    for mode, name in of_recbole:
        with tempfile.TemporaryDirectory() as folder:
            config, train, _, test = recbole_sequential.load(options, Path(folder), mode)
            trainer = recbole_sequential.trainer(config, train)
            evaluate = partial(trainer.evaluate, test, load_best_model=False)
            seconds = common.seconds_of(evaluate)
        print(
            f"GRU4Rec, as in RecBole, {name:14} {seconds:.2f} s (1 run)",
            flush=True,
        )


if __name__ == "__main__":
    common.start(main)
