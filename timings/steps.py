"""Seconds of some training steps of this checkout and of another one, or of two models, in turn.

    python timings/steps.py --against=CHECKOUT [--dataset=ml-1m] [--data_path=FOLDER]
        [--model=KSR] [--batches=40] [--runs=3] [--set KEY=VALUE ...]
    python timings/steps.py --model=KSR-exact --other_model=KSR ...

An epoch of ml-1m takes minutes with some losses; its first batches are enough to compare two
versions of the code.  Each run is a process of its own.  It trains the first batches once, which
compiles, and times them the second time.  With two checkouts a digest of the weights after it
says whether both versions compute the same numbers to the last bit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def train_steps(common: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of the batches and the digest of the weights after them."""
    bench = common.prepare(options, model=options.model, pretrain_dir=options.vectors)
    trainer = bench.trainer

    def steps() -> None:
        for batch in islice(iter(bench.train), options.batches):
            trainer.optimizer.zero_grad()
            trainer.model.calculate_loss(batch).backward()
            trainer.optimizer.step()

    steps()
    begin = perf_counter()
    steps()
    seconds = perf_counter() - begin
    weights = (p.detach().contiguous().numpy().tobytes() for p in trainer.model.parameters())
    return {"seconds": seconds, "digest": hashlib.sha256(b"".join(weights)).hexdigest()[:12]}


def words_in(checkout: Path, model: str, vectors: str) -> list[str]:
    """The command that prints what :func:`train_steps` finds with the code of a checkout."""
    own = [f"--root={checkout}", f"--model={model}", f"--vectors={vectors}"]
    return [sys.executable, __file__, *sys.argv[1:], *own]


def main() -> int:
    """Run with the modules of the checkout that is named; the exit status."""
    given = argparse.ArgumentParser(add_help=False)
    given.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    root = given.parse_known_args()[0].root
    sys.path.insert(0, str((root or ROOT) / "timings"))
    import common

    from ksr_recbole.commands import ended

    return ended(lambda: measure(common, root))


def measure(common: Any, root: Path | None) -> int:
    """Print the seconds of both, their ratio, and of two checkouts whether the numbers are the
    same."""
    count = int if root else common.count  # another checkout may be older
    parser = common.parser(__doc__, "ml-1m")
    parser.add_argument("--root", help=argparse.SUPPRESS)
    parser.add_argument("--vectors", help=argparse.SUPPRESS)
    other = parser.add_mutually_exclusive_group(required=True)
    other.add_argument("--against", type=Path, help="the other checkout")
    other.add_argument("--other_model", help="the other model, in this checkout")
    parser.add_argument("--model", default="KSR", help="the model that is trained")
    parser.add_argument("--batches", type=count, default=40, help="batches of a run")
    parser.add_argument("--runs", type=count, default=3, help="runs of each checkout")
    options = parser.parse_args()
    if root:
        print(json.dumps(train_steps(common, options)))
        return 0
    print(common.machine())
    if options.other_model:
        sides = {name: (ROOT, name) for name in (options.model, options.other_model)}
    else:
        there = options.against.resolve()
        sides = {"here": (ROOT, options.model), "there": (there, options.model)}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as vectors:
        for _ in range(options.runs):
            for name, side in sides.items():
                found[name].append(common.json_of(words_in(*side, vectors)))
    seconds = {name: [run["seconds"] for run in runs] for name, runs in found.items()}
    for name, each in seconds.items():
        print(f"{name:6} {options.batches} batches {common.in_words(each)}")
    first, second = sides
    told = f"{first} / {second} {median(seconds[first]) / median(seconds[second]):.3f}"
    if options.against:
        same = len({run["digest"] for runs in found.values() for run in runs}) == 1
        told += f"; {'the same weights' if same else 'OTHER WEIGHTS'}"
    print(told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
