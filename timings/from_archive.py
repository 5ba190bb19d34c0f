"""From the archive of a dataset to the first epoch: seconds, processor time and peak memory.

    python timings/from_archive.py [--dataset=ml-1m] [--data_path=FOLDER] [--folder=/tmp/archive]
    python timings/from_archive.py --dataset=ml-20m [--ratings=20000000]

An archive of GroupLens's shape is made once and kept in ``--folder``: ml-1m's from the atomic
files ``FOLDER/ml-1m/ml-1m.inter`` and ``.item``, ml-20m's at random, with its users, films and
years.  Then ``run_recbole.py`` starts as a user starts it, with nothing unpacked, converted or
cached, and is stopped when pretraining begins, which is not counted.  The download is not either.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import polars as pl

ROOT = Path(__file__).resolve().parents[1]
AIMS = {"ml-1m": (60, 4096), "ml-20m": (180, 4096)}
"""Seconds and MiB on two cores."""

RUN = """
import sys
from dataclasses import replace
from dataset_atomic.sources import SOURCES
from ksr_recbole.cli import main
name, md5, *words = sys.argv[1:]
SOURCES[name] = replace(SOURCES[name], md5=md5)
sys.exit(main([f"--dataset={name}", *words]))
"""
"""The command, which takes the made archive for the published one."""


def made(folder: Path, name: str, source: Path, n_ratings: int) -> Path:
    """The archive, made unless it is there."""
    archive = folder / f"{name}-{n_ratings}.zip"
    if not archive.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = archive.with_suffix(".part")
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
            if name == "ml-1m":
                write_small(file, source / name)
            else:
                write_large(file, folder / "ratings.csv", n_ratings)
        part.replace(archive)
    return archive


def write_small(file: zipfile.ZipFile, source: Path) -> None:
    """ml-1m from its atomic files."""
    columns = {"separator": "\t", "quote_char": None, "infer_schema": False}
    inter = pl.read_csv(source / "ml-1m.inter", **columns)
    inter.columns = ["u", "i", "t", *inter.columns[3:]]
    time_of = pl.col("t").cast(pl.Float64).cast(pl.Int64).cast(pl.String)
    lines = inter.select(pl.concat_str("u", "i", pl.lit("4"), time_of, separator="::"))
    file.writestr("ml-1m/ratings.dat", "\n".join(lines.to_series()) + "\n")
    films = pl.read_csv(source / "ml-1m.item", **columns).rows()
    text = "".join(f"{i}::{t} ({y})::{(g or '').replace(' ', '|')}\n" for i, t, y, g, *_ in films)
    file.writestr("ml-1m/movies.dat", text.encode("latin-1", "replace"))


def write_large(file: zipfile.ZipFile, ratings: Path, n_ratings: int) -> None:
    """ml-20m's shape."""
    import convert_scale

    convert_scale.write_ratings(ratings, n_ratings, np.random.default_rng(0))
    file.write(ratings, "ml-20m/ratings.csv")
    ratings.unlink()
    films = range(1, convert_scale.N_ITEMS + 1)
    text = "".join(f'{i},"Film {i} ({1950 + i % 60})",Drama|War\n' for i in films)
    file.writestr("ml-20m/movies.csv", f"movieId,title,genres\n{text}")


def measure(folder: Path, name: str, archive: Path) -> None:
    """Run until pretraining begins; print what was said, and the figures."""
    work = folder / "run"
    shutil.rmtree(work, ignore_errors=True)
    (work / "data" / name).mkdir(parents=True)
    shutil.copy(archive, work / "data" / name / f"{name}.zip")
    md5 = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
    words = [name, md5, "--model=KSR", f"--data_path={work}/data", "--show_progress=False"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, *words],
        cwd=work,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        seconds = time.perf_counter() - begin
        print(f"{seconds:7.1f} s | {line.rstrip()}", flush=True)
        if "Pretraining" in line:
            break
    else:
        sys.exit(f"the command ended with {process.wait()} before pretraining")
    peak = int(Path(f"/proc/{process.pid}/status").read_text().split("VmHWM:")[1].split()[0]) >> 10
    ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    busy = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    process.send_signal(signal.SIGKILL)
    process.wait()
    most_seconds, most_memory = AIMS[name]
    print(
        f"{name}, archive to first epoch without pretraining: {seconds:.1f} s (aim: below "
        f"{most_seconds}), {busy:.1f} s of the processor, peak {peak:,} MiB (aim: below "
        f"{most_memory:,}); load {os.getloadavg()[0]:.1f}"
    )


def main() -> None:
    """Make the archive and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", choices=AIMS, default="ml-1m")
    parser.add_argument("--data_path", type=Path, default=ROOT / "dataset_atomic")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/archive"))
    parser.add_argument("--ratings", type=int, default=20_000_000, help="of ml-20m")
    given = parser.parse_args()
    archive = made(given.folder, given.dataset, given.data_path, given.ratings)
    measure(given.folder, given.dataset, archive)


if __name__ == "__main__":
    main()
