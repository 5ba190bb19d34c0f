"""Converting at the size of ml-20m and of Freebase: seconds, rows per second, peak memory.

Generates a ratings file and a gzip Freebase dump of the right shapes (kept in ``--folder``), then
converts a quarter, a half and the whole of them, each in a process of its own.  On a smaller file
it runs RecBole's own loading and 10-core filter and a plain pandas version as well as ours.

    python timings/convert_scale.py --folder=/tmp/convert_scale
"""

from __future__ import annotations

import argparse
import gzip
import resource
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dataset_atomic.cli import main as convert_command

N_USERS, N_ITEMS, N_RELATIONS = 138_493, 26_744, 80
ROWS = 1_000_000
NS = "<http://rdf.freebase.com/ns/"


def write_ratings(path: Path, n_rows: int, rng: np.random.Generator) -> None:
    """``n_rows`` of ``userId,movieId,rating,timestamp`` sorted by user, items by popularity."""
    with path.open("wb") as file:
        file.write(b"userId,movieId,rating,timestamp\n")
        for start in range(0, n_rows, ROWS):
            n = min(ROWS, n_rows - start)
            share = start / n_rows, (start + n) / n_rows
            n_users = N_USERS * n_rows // 20_000_000
            user = np.sort(rng.integers(int(share[0] * n_users), int(share[1] * n_users) + 1, n))
            item = (N_ITEMS * rng.random(n) ** 2.5).astype(int)
            stamp = rng.integers(1_104_537_600, 1_451_606_400, n)
            frame = pl.DataFrame({"u": user + 1, "i": item + 1, "r": 3.5, "t": stamp})
            frame.write_csv(file, include_header=False)


def write_links(path: Path) -> None:
    """A Freebase entity for nearly all items."""
    items = np.arange(1, N_ITEMS + 1, dtype=np.int64)
    frame = pl.DataFrame({"item": items, "entity": items}).filter(pl.col("item") % 20 != 0)
    frame.select("item", entity="m.0" + pl.col("entity").cast(pl.String)).write_csv(
        path, separator="\t", include_header=False
    )


def write_dump(path: Path, n_triples: int, rng: np.random.Generator) -> None:
    """``n_triples`` lines of a Freebase dump, a sixth of them names."""
    n_entities = max(N_ITEMS + 1, n_triples // 10)
    with gzip.open(path, "wb", compresslevel=1) as file:
        for start in range(0, n_triples, ROWS):
            n = min(ROWS, n_triples - start)
            low = n_entities * start // n_triples
            head = np.sort(rng.integers(low, low + n_entities * n // n_triples + 1, n))
            relation = np.minimum(rng.geometric(0.06, n), N_RELATIONS)
            is_name = rng.random(n) < 1 / 6
            frame = pl.DataFrame(
                {"h": head, "r": relation, "t": rng.integers(0, n_entities, n), "n": is_name}
            ).select(
                (f"{NS}m.0" + pl.col("h").cast(pl.String) + ">").alias("s"),
                pl.when("n").then(pl.lit(f"{NS}type.object.name>"))
                .otherwise(f"{NS}film.film.r_" + pl.col("r").cast(pl.String) + ">").alias("p"),
                pl.when("n").then('"Entity ' + pl.col("h").cast(pl.String) + '"@en')
                .otherwise(f"{NS}m.0" + pl.col("t").cast(pl.String) + ">").alias("o"),
                pl.lit(".").alias("dot"),
            )  # fmt: skip
            file.write(
                frame.write_csv(separator="\t", include_header=False, quote_style="never").encode()
            )


def made(folder: Path, n_ratings: int, n_triples: int) -> Path:
    """The raw folder of a size, generated unless it is there."""
    raw = folder / f"raw-{n_ratings}-{n_triples}"
    if not (raw / "done").exists():
        # In a process of its own: a child inherits its parent's peak memory.
        measured(generate, raw, n_ratings, n_triples)
    return raw


def generate(raw: Path, n_ratings: int, n_triples: int) -> None:
    """Write the raw folder of a size."""
    raw.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    write_ratings(raw / "ratings.csv", n_ratings, rng)
    write_links(raw / "ml2fb.txt")
    write_dump(raw / "freebase-rdf-latest.gz", n_triples, rng)
    (raw / "done").touch()


def measured(job: Callable[..., None], *arguments: object) -> tuple[float, float]:
    """Seconds and peak MiB of a job in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as own:
        return own.submit(_measured, job, *arguments).result()


def _measured(job: Callable[..., None], *arguments: object) -> tuple[float, float]:
    start = time.perf_counter()
    job(*arguments)
    # Not peak_memory_mib(): its package imports PyTorch, whose memory would be counted here.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return time.perf_counter() - start, peak


def ours(raw: Path, out: Path) -> None:
    """Our whole conversion: ratings, links, graph, filtering, writing."""
    shutil.rmtree(out, ignore_errors=True)
    if convert_command(["convert", "ml-20m", "--raw", str(raw), "--out", str(out)]):
        raise SystemExit(1)


def plain_pandas(raw: Path) -> None:
    """The interactions only: read, keep linked items, 10-core, sort."""
    import pandas as pd

    inter = pd.read_csv(raw / "ratings.csv", dtype={"userId": str, "movieId": str})
    link = pd.read_csv(raw / "ml2fb.txt", sep="\t", names=["item", "entity"], dtype=str)
    inter = inter[inter.movieId.isin(link.item)]
    while True:
        before = len(inter)
        for column in ("userId", "movieId"):
            inter = inter[inter.groupby(column)[column].transform("size") >= 10]
        if len(inter) == before:
            break
    inter.sort_values("timestamp", kind="stable").to_csv(raw / "pandas.inter", index=False)


def recbole(raw: Path) -> None:
    """The interactions only: RecBole's loading of an atomic file and its 10-core filter."""
    import common
    from recbole.data.dataset import Dataset

    folder = raw / "recbole" / "big"
    folder.mkdir(parents=True, exist_ok=True)
    with (raw / "ratings.csv").open() as source, (folder / "big.inter").open("w") as target:
        source.readline()
        target.write("user_id:token,item_id:token,rating:float,timestamp:float\n")
        shutil.copyfileobj(source, target)
    sys.argv = sys.argv[:1]
    settings = {
        "data_path": str(folder.parent), "field_separator": ",", "show_progress": False,
        "user_inter_num_interval": "[10,inf)", "item_inter_num_interval": "[10,inf)",
        "load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]},
    }  # fmt: skip
    start = time.perf_counter()
    Dataset(common.RecBolesConfig(model="BPR", dataset="big", config_dict=settings))
    print(f"RecBole's loading and filtering alone: {time.perf_counter() - start:.1f} s")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/convert_scale"))
    parser.add_argument("--ratings", type=int, default=20_000_000)
    parser.add_argument("--triples", type=int, default=60_000_000)
    parser.add_argument("--compare", type=int, default=2_000_000, help="ratings of the comparison")
    given = parser.parse_args()
    print("| ratings | triples | seconds | rows/s | peak MiB |", flush=True)
    for part in (4, 2, 1):
        sizes = given.ratings // part, given.triples // part
        raw = made(given.folder, *sizes)
        seconds, peak = measured(ours, raw, given.folder / "ml-20m")
        rate = sum(sizes) / seconds
        print(
            f"| {sizes[0]:,} | {sizes[1]:,} | {seconds:.1f} | {rate:,.0f} | {peak:,.0f} |",
            flush=True,
        )
    raw = made(given.folder, given.compare, 100_000)
    base, base_peak = measured(ours, raw, given.folder / "ml-20m")
    print(f"{given.compare:,} ratings, 100,000 triples: ours {base:.1f} s, {base_peak:,.0f} MiB")
    for job in (plain_pandas, recbole):
        seconds, peak = measured(job, raw)
        print(
            f"{job.__name__}: {seconds:.1f} s, {peak:,.0f} MiB, ratio {seconds / base:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
