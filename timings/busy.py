"""Seconds of a training epoch on an idle machine, and with a busy process on every core.

    python timings/busy.py [--dataset=ml-100k] [--runs=2] [--epochs=4] [--against=CHECKOUT]

Trains the default KSR with ``run_recbole.py``, as a user would.  The first epoch of each run
compiles and is not counted.  "Busy" is one endless loop for each core this process may use, all
started here and ended here.  ``--against`` names another checkout: its runs alternate with those
of this one, so that both meet the same hours of the machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import common


@contextmanager
def busy_cores() -> Iterator[None]:
    """Inside the block an endless loop runs for each core this process may use."""
    # They end with this process, however it ends.
    endless = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"
    loop = [sys.executable, "-c", endless]
    others = [subprocess.Popen(loop) for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def epochs_of(
    checkout: Path, options: argparse.Namespace, epochs: int, folder: Path
) -> dict[str, float]:
    """Loss (as it is printed) and seconds of each epoch after the first of one run."""
    own = folder / str(checkout).replace(os.sep, "-")
    folders = {key: own / key for key in common.FOLDERS}
    # Pretrained vectors are the same files everywhere; other caches may differ in format.
    folders["pretrain_dir"] = folder / "pretrain_dir"
    more = f"--epochs={epochs}", "--eval_step=0"
    command = common.run_words(options, "KSR", folders, *more)
    done = subprocess.run(command, cwd=checkout, text=True, capture_output=True)
    lines = common.epoch_lines(done.stdout + done.stderr)
    if done.returncode or len(lines) < epochs:
        common.fail(done.returncode or 1, done.stdout + done.stderr)
    return {loss: seconds for epoch, seconds, loss in lines if epoch}


def main() -> None:
    """Print medians and ratios."""
    parser = common.parser(__doc__)
    parser.add_argument("--runs", type=common.count, default=2, help="runs of each kind")
    parser.add_argument("--epochs", type=common.count, default=4, help="epochs of a run")
    parser.add_argument("--against", type=Path, help="another checkout, to be measured too")
    options = parser.parse_args()
    if options.epochs < 2:
        parser.error("--epochs must be at least 2, as the first one is not counted")
    print(common.machine())
    checkouts = {"here": common.ROOT}
    if options.against:
        checkouts["there"] = options.against.resolve()
    seconds: dict[tuple[str, str], list[float]] = {}
    losses: dict[str, set[str]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)

        def measure(state: str) -> None:
            for name, checkout in checkouts.items():
                epochs = epochs_of(checkout, options, options.epochs, folder)
                seconds.setdefault((name, state), []).extend(epochs.values())
                losses.setdefault(name, set()).update(epochs)

        for checkout in checkouts.values():  # so that vectors and compiled kernels are cached
            epochs_of(checkout, options, 1, folder)
        for _ in range(options.runs):
            measure("idle")
            with busy_cores():
                measure("busy")
    for name in checkouts:
        idle, busy = seconds[name, "idle"], seconds[name, "busy"]
        print(
            f"{name:6} idle {common.in_words(idle)}, busy {common.in_words(busy)}; "
            f"busy / idle {median(busy) / median(idle):.2f}"
        )
    if options.against:
        ratio = median(seconds["here", "idle"]) / median(seconds["there", "idle"])
        same = "the same losses" if losses["here"] == losses["there"] else "OTHER LOSSES"
        print(f"idle, here / there {ratio:.3f}; {same}")


if __name__ == "__main__":
    common.start(main)
