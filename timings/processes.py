"""Several processes on one machine: seconds of an epoch, and bytes that a step exchanges.

    python timings/processes.py [--items 3000 30000] [--interactions=100000]

GRU with the default's sizes on generated data (``many_items.py``), trained by one process with two
threads and by two with one thread each.  The bytes are those of the gradients that each
process sends in a step, dense with few items and by row with more than 20,000.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import common
import many_items

EPOCHS = 3
SIZE = 256


def epochs(folder: Path, nproc: int, threads: int, loss: str) -> list[float]:
    """Seconds of each epoch but the first."""
    more = [f"--nproc={nproc}", f"--num_threads={threads}"]
    more += [f"--{key}={value}" for key, value in common.loss_values(loss).items()]
    more += [f"--epochs={EPOCHS}", "--eval_step=0", "--report_modes=uni50pop50"]
    folders = dict.fromkeys(common.FOLDERS, folder / "out")
    command = common.run_words(common.for_generated(folder), "GRU", folders, *more)
    done = subprocess.run(command, cwd=common.ROOT, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    if done.returncode:
        common.fail(done.returncode, said)
    return [seconds for epoch, seconds, _ in common.epoch_lines(said) if epoch]


def bytes_of_a_step(folder: Path, loss: str) -> dict[str, int]:
    """Bytes of the gradients of the first batch: of the item vectors, and of all else."""
    options, cache = common.for_generated(folder), str(folder / "out")
    values = {**common.loss_values(loss), "data_cache_dir": cache}
    bench = common.prepare(options, model="GRU", **values)
    batch = next(iter(bench.train))
    bench.trainer.model.calculate_loss(batch).backward()
    sizes = {"items": 0, "others": 0}
    for name, parameter in bench.trainer.model.named_parameters():
        gradient = parameter.grad
        if gradient is None:
            continue
        parts = [gradient]
        if gradient.is_sparse:
            gradient = gradient.coalesce()
            parts = [gradient.values(), gradient.indices()]
        kind = "items" if name.startswith("item_embedding") else "others"
        sizes[kind] += sum(part.numel() * part.element_size() for part in parts)
    return sizes


def main() -> None:
    """Print both ways and the bytes, for each number of items."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", nargs="+", type=common.count, default=[3_000, 30_000])
    parser.add_argument("--interactions", type=common.count, default=100_000)
    parser.add_argument("--loss", default="sampled_CE")
    options = parser.parse_args()
    print(common.machine())
    for n_items in options.items:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            many_items.generate(n_items, options.interactions, folder)
            sizes = bytes_of_a_step(folder, options.loss)
            print(f"{n_items:,} items: bytes of a step's gradients {json.dumps(sizes)}", flush=True)
            one = epochs(folder, 1, 2, options.loss)
            two = epochs(folder, 2, 1, options.loss)
            print(f"  one process, two threads:  epoch {common.in_words(one)}")
            print(f"  two processes, one thread: epoch {common.in_words(two)}", flush=True)
            print(f"  one against two: {min(one) / min(two):.2f}")


if __name__ == "__main__":
    common.start(main)
