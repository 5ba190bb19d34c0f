"""What ten million users, ten million items and a billion interactions would take, computed.

    python timings/internet.py [--users=1e7] [--items=1e7] [--interactions=1e9] [--network=1.25e9]

Measures, on this machine, a training step with 100,000 items (``many_items.py``), the bytes of its
gradients (``processes.py``), and the peak of its matrix products.  All else is arithmetic from
these constants and the sizes of the arrays that the code keeps; nothing of that size is run.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median

import common
import many_items
import processes

SIZE = 256
"""Columns of the item vectors and of the GRU's state, as in the default."""

MEASURED_ITEMS = 100_000
LOSS = "sampled_CE:2048"
"""The default's with so many items."""


def gib(n_bytes: float) -> str:
    """Bytes in GiB."""
    return f"{n_bytes / 2**30:,.1f} GiB"


def main() -> None:
    """Print the constants and what follows from them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=common.amount, default=1e7)
    parser.add_argument("--items", type=common.amount, default=1e7)
    parser.add_argument("--interactions", type=common.amount, default=1e9)
    parser.add_argument(
        "--network", type=common.amount, default=1.25e9, help="bytes a second, 10 Gbit/s"
    )
    options = parser.parse_args()
    print(common.machine())
    with tempfile.TemporaryDirectory() as name:
        case = many_items.Case(MEASURED_ITEMS, LOSS, 200_000, Path(name))
        for _ in range(10):
            case.step()
        seconds = median(case.micros) / 1e6
        batch = case.bench.config["train_batch_size"]
        sent = processes.bytes_of_a_step(Path(name) / str(MEASURED_ITEMS), LOSS)
    peak = common.gemm_peak()
    exchanged = sum(sent.values())
    print(f"measured: {seconds * 1e6:.1f} us an interaction, {batch:,} interactions a step")
    print(f"measured: {exchanged:,} bytes of gradients a step; products at {peak:.0f} GFLOP/s")
    users, items, n = options.users, options.items, options.interactions
    vectors = 4 * items * SIZE
    print(f"\nitem vectors {gib(vectors)}, with Adam's two means {gib(3 * vectors)}")
    print(f"best epoch kept in memory: another {gib(vectors)}; a checkpoint {gib(4 * vectors)}")
    print(f"interactions (item, time, order, 8 bytes each) {gib(24 * n)}")
    print(f"tokens of users and items, about 60 bytes each {gib(60 * (users + items))}")
    # The vectors, two means and the best epoch; every process has all of it.
    held = 4 * vectors + 24 * n + 60 * (users + items)
    print(f"held by each process, all of these together {gib(held)}")
    print(f"an epoch on this machine {n * seconds / 3600:,.1f} h")
    step, wire = batch * seconds, exchanged / options.network
    print(f"a step {step:.3f} s, to send its gradients {wire:.3f} s for each other machine")
    for machines in (2, 8, 64):
        # Every machine has its share of the steps' work, and receives the rows of all others.
        each = step / machines + (machines - 1) * wire / machines
        print(f"{machines:3} machines: an epoch {n / batch * each / 3600:,.1f} h")
    ranking = 2 * users * items * SIZE / (peak * 1e9)
    print(f"all items ranked for all users {ranking / 3600:,.1f} h; for 10,000 of them", end=" ")
    print(f"{ranking * 10_000 / users / 60:,.1f} min")


if __name__ == "__main__":
    common.start(main)
