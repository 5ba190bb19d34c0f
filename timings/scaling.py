"""Time and memory against the number of interactions, on generated data of ml-20m's shape.

    python timings/scaling.py [--millions 0.1 0.3 1 2 4 5.87]

Table 1 of the paper gives ml-20m 61,583 users, 19,533 items, 5,868,015 interactions, 1,125,100
entities and 81 relations.  Smaller sizes have fewer users and the same items and graph.  The
last row has ml-1m's users, items and graph with user histories as long as ml-20m's, so that
its time per interaction can be compared.  Vectors are random: pretraining is not measured.
Every size runs in its own process, so that peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import common
import numpy as np
import polars as pl

MEAN_LENGTH, SHORTEST = 5_868_015 / 61_583, 10


@dataclass(frozen=True)
class Shape:
    """Sizes of a generated dataset."""

    name: str
    n_interactions: int
    n_items: int
    n_entities: int
    n_relations: int
    n_triples: int


def ml_20m(millions: float) -> Shape:
    """ml-20m with fewer users.  The number of triples is not in the paper: about 150 an item."""
    return Shape(f"ml-20m/{millions:g}M", round(millions * 1e6), 19_533, 1_125_100, 81, 3_000_000)


ML_1M = Shape("ml-1m", 575_600, 2_983, 28_123, 17, 111_740)


def generate(shape: Shape, folder: Path, seed: int = 0) -> None:
    """Write the atomic files of a dataset named ``generated`` below ``folder``.

    Lengths are log-normal, items' popularity falls as their rank's inverse root, and each triple
    has an item as its head or its tail: the graph is one step around the items (Sec. 5.1).
    """
    rng = np.random.default_rng(seed)
    n_users = round(shape.n_interactions / MEAN_LENGTH)
    spread = 0.9
    center = np.log(MEAN_LENGTH - SHORTEST) - spread**2 / 2
    lengths = SHORTEST + rng.lognormal(center, spread, n_users).astype(np.int64)
    popularity = 1 / np.sqrt(np.arange(1, shape.n_items + 1))
    chances = np.cumsum(popularity) / popularity.sum()
    total = int(lengths.sum())
    items = np.searchsorted(chances, rng.random(total)) + 1
    users = np.repeat(np.arange(1, n_users + 1), lengths)
    target = folder / "generated"
    target.mkdir(parents=True)
    inter = {"user_id:token": users, "item_id:token": items, "timestamp:float": np.arange(total)}
    pl.DataFrame(inter).write_csv(target / "generated.inter", separator="\t")
    # Every entity is in a triple; items' entities come first.
    others = np.arange(shape.n_items + 1, shape.n_entities + 1)
    more = rng.choice(others, shape.n_triples - len(others))
    outer = np.concatenate([others, more])
    inner = np.concatenate(
        [
            np.arange(1, shape.n_items + 1),
            rng.integers(1, shape.n_items + 1, shape.n_triples - shape.n_items),
        ]
    )
    relations = rng.integers(0, shape.n_relations, shape.n_triples)
    forward = relations % 2 == 0  # every other relation leads from an item to its attribute
    kg = {
        "head_id:token": np.where(forward, inner, outer),
        "relation_id:token": relations,
        "tail_id:token": np.where(forward, outer, inner),
    }
    pl.DataFrame(kg).write_csv(target / "generated.kg", separator="\t")
    ids = np.arange(1, shape.n_items + 1)
    link = {"item_id:token": ids, "entity_id:token": ids}
    pl.DataFrame(link).write_csv(target / "generated.link", separator="\t")


def measure(folder: Path) -> dict[str, float]:
    """Load, train an epoch and evaluate the dataset in ``folder``."""
    from ksr_recbole.dataset.pretrained import PretrainedVectors

    options = common.for_generated(folder)
    made: list[common.Bench] = []

    def random_vectors(dataset: object) -> PretrainedVectors:
        rng = np.random.default_rng(0)
        rows = (dataset.item_num, dataset.entity_num, dataset.relation_num)
        sizes = (256, 50, 50)
        draws = [
            rng.standard_normal(shape, dtype=np.float32) / shape[1] ** 0.5
            for shape in zip(rows, sizes, strict=True)
        ]
        return PretrainedVectors(*draws)

    def load() -> None:
        made.append(common.load(options, data_cache_dir=str(folder / "cache")))

    first = common.seconds_of(load)
    made.clear()
    again = common.seconds_of(load)
    loaded = made[0]
    loaded.dataset.pretrained = random_vectors(loaded.dataset)
    bench = common.ready(loaded)
    n_attributes = len(bench.dataset.attributes)
    n = int(bench.dataset.sequences.lengths.sum())
    epochs = [
        common.seconds_of(lambda e=epoch: bench.train_epoch(e))
        for epoch in range(2 if n < 1_500_000 else 1)
    ]
    return {
        "interactions": n,
        "attributes": n_attributes,
        "load": first,
        "load_again": again,
        "epoch": epochs[-1],
        "sampled": common.seconds_of(lambda: bench.trainer.rank(bench.test, "uni50pop50")),
        "full": common.seconds_of(lambda: bench.trainer.rank(bench.test, "full")),
        "peak_mib": common.peak_memory_mib(),
    }


def in_own_process(shape: Shape) -> dict[str, float]:
    """:func:`measure` of generated data in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        generate(shape, Path(folder))
        return common.json_of([sys.executable, __file__, "--measure", folder])


def main() -> None:
    """Print one line a size, and the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--millions", nargs="+", type=common.amount, default=[0.1, 0.3, 1, 2, 4, 5.868]
    )
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(Path(options.measure))))
        return
    print(common.machine())
    print(f"{'data':>14}{'interactions':>13}{'attributes':>11}{'load':>8}{'again':>7}", end="")
    print(f"{'epoch':>9}{'us each':>9}{'101 items':>11}{'all items':>11}{'peak MiB':>10}")
    rows = []
    for shape in [*map(ml_20m, options.millions), ML_1M]:
        row = in_own_process(shape)
        rows.append(row)
        each = row["epoch"] / row["interactions"] * 1e6
        print(
            f"{shape.name:>14}{row['interactions']:13,}{row['attributes']:11}"
            f"{row['load']:7.1f}s{row['load_again']:6.1f}s{row['epoch']:8.1f}s{each:9.2f}"
            f"{row['sampled']:10.1f}s{row['full']:10.1f}s{row['peak_mib']:10.0f}",
            flush=True,
        )
    largest, small = rows[-2], rows[-1]
    ratio = largest["epoch"] / largest["interactions"] / (small["epoch"] / small["interactions"])
    print(f"time per interaction, largest against ml-1m's shape: {ratio:.2f}")


if __name__ == "__main__":
    common.start(main)
