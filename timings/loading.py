"""Seconds and peak memory of loading a dataset, ours and RecBole's, each in its own process.

    python timings/loading.py [--dataset=ml-1m] [--data_path=FOLDER]

Ours: without and with a cached copy, then with two training epochs and an evaluation.  RecBole's:
the loading of a sequential model, which makes a padded row of 50 items of every prefix.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import common

KINDS = {
    "nothing but the imports": lambda *_: None,
    "ours, from the atomic files": lambda options, folder: common.load(
        options, data_cache_dir=str(folder / "anew")
    ),
    "ours, from the cache": lambda options, _: common.load(options),
    "ours, training and evaluation": lambda options, _: train(options),
    "RecBole's augmented loading": lambda options, folder: augmented(options, folder),
}


def train(options: argparse.Namespace) -> None:
    """Load, train two epochs and evaluate."""
    bench = common.prepare(options)
    for epoch in range(2):
        bench.train_epoch(epoch)
    bench.trainer.rank(bench.valid, "uni50pop50")
    bench.trainer.rank(bench.test, "full")


def augmented(options: argparse.Namespace, folder: Path) -> None:
    """RecBole's loading."""
    import recbole_sequential

    recbole_sequential.load(options, folder)


def main() -> None:
    """Print a line for each kind."""
    parser = common.parser(__doc__, "ml-1m")
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.kind:
        with tempfile.TemporaryDirectory() as folder:
            seconds = common.seconds_of(lambda: KINDS[options.kind](options, Path(folder)))
        print(json.dumps({"seconds": seconds, "peak": common.peak_memory_mib()}))
        return
    print(common.machine())
    common.prepare(options)  # so that the cached copy and the vectors are there
    for kind in KINDS:
        result = common.json_of([sys.executable, *sys.argv, "--kind", kind])
        print(f"{kind:30} {result['seconds']:7.2f} s {result['peak']:7.0f} MiB", flush=True)


if __name__ == "__main__":
    common.start(main)
