"""Time of a training step against the number of items, on generated interactions.

    python timings/many_items.py [--items 10000 100000 1000000] [--losses sampled_CE:2048 CE]

GRU with the default's sizes on generated interactions (``--interactions``, histories of 50 items,
popularity falling as the inverse root of its rank).  A loss may name its number of sampled items.
Batches are those of the training loader; the first ones, in which memory is taken, are not counted.
All sizes take turns in one process, so that other work on the machine falls on all of them.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import common
import numpy as np
import polars as pl

from ksr_recbole.errors import UserError
from ksr_recbole.text import counted

LENGTH = 50


def generate(n_items: int, n_interactions: int, folder: Path) -> None:
    """Write ``folder/generated``, interactions alone, in which every item occurs.

    Raises:
        UserError: there are too few interactions for a user.
    """
    rng = np.random.default_rng(0)
    n_users = max(n_interactions, 2 * n_items) // LENGTH
    if not n_users:
        raise UserError(
            f"A history has {LENGTH} interactions; give at least --interactions={LENGTH}."
        )
    popularity = 1 / np.sqrt(np.arange(1, n_items + 1))
    chances = np.cumsum(popularity) / popularity.sum()
    drawn = np.searchsorted(chances, rng.random(n_users * LENGTH - n_items)) + 1
    items = rng.permutation(np.concatenate([np.arange(1, n_items + 1), drawn]))
    users = np.repeat(np.arange(1, n_users + 1), LENGTH)
    target = folder / "generated"
    target.mkdir(parents=True)
    columns = {"user_id:token": users, "item_id:token": items}
    columns["timestamp:float"] = np.arange(len(items))
    pl.DataFrame(columns).write_csv(target / "generated.inter", separator="\t")


class Case:
    """A model on generated data, a step at a time."""

    def __init__(self, n_items: int, loss: str, n_interactions: int, folder: Path) -> None:
        where = folder / str(n_items)
        if not where.exists():
            generate(n_items, n_interactions, where)
        options, cache = common.for_generated(where), str(where / "cache")
        values = {**common.loss_values(loss), "data_cache_dir": cache}
        self.bench = common.prepare(options, model="GRU", **values)
        self.batches = iter(self.bench.train)
        self.micros: list[float] = []
        self.n_batches = len(self.bench.train)
        for _ in range(3):
            self.step()
        self.micros.clear()

    def step(self) -> None:
        """One step; notes its microseconds for each interaction.

        Raises:
            UserError: an epoch has no further batch.
        """
        start = perf_counter()
        batch = next(self.batches, None)
        if batch is None:
            raise UserError(
                f"An epoch has {counted(self.n_batches, 'batch', 'batches')}, too few for --steps "
                "and three before them; give more --interactions, or fewer --steps."
            )
        self.bench.step(batch)
        self.micros.append((perf_counter() - start) / int(batch["item_length"].sum()) * 1e6)


def main() -> None:
    """Print a line for each size and loss, and the ratio of the largest to the smallest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--items", nargs="+", type=common.count, default=[10_000, 100_000, 1_000_000]
    )
    parser.add_argument("--losses", nargs="+", default=["sampled_CE:2048"])
    parser.add_argument("--interactions", type=common.count, default=200_000)
    parser.add_argument("--steps", type=common.count, default=15)
    options = parser.parse_args()
    print(common.machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        cases = {
            (loss, n): Case(n, loss, options.interactions, Path(folder))
            for n in options.items
            for loss in options.losses
        }
        for _ in range(options.steps):
            for case in cases.values():
                case.step()
    print(f"{'loss':>16}{'items':>12}   microseconds for each interaction")
    for (loss, n), case in cases.items():
        print(f"{loss:>16}{n:12,}   {common.in_words(case.micros, 'us')}")
    for loss in options.losses:
        few, many = (median(cases[loss, pick(options.items)].micros) for pick in (min, max))
        print(f"{loss}: most items against fewest {many / few:.2f}")
    print(f"peak memory of all together {common.peak_memory_mib():,.0f} MiB")


if __name__ == "__main__":
    common.start(main)
