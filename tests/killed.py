"""Commands killed at every rename, removal and new folder; what is left is read and repeated.

``python -m tests.killed KIND FOLDER`` prints a JSON line for every place.  All work is done in
forks of one process that has only imported what it needs, which saves the imports.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dataset_atomic.cli import main as dataset_atomic
from ksr_recbole import one_step
from ksr_recbole.compat import silence_upstream_warnings
from ksr_recbole.errors import UserError
from ksr_recbole.quick_start import atomic_data
from tests.toy import write_toy

PLACES = ("replace", "unlink", "rmdir", "mkdir")
"""Functions of ``os`` at whose calls the process dies."""


class Kind:
    """A command, what it finds, and how its outcome is read."""

    places: tuple[str, ...] = PLACES

    def prepare(self, folder: Path) -> None:
        """What is there before."""

    def command(self, folder: Path) -> None:
        raise NotImplementedError

    def read(self, folder: Path) -> Any:
        """What the project's own readers make of what is there, as JSON."""
        raise NotImplementedError


def _convert(folder: Path, name: str, *more: str, out: Path | None = None) -> None:
    given = [f"--raw={folder / 'ratings.csv'}", f"--link={folder / 'links.tsv'}"]
    given += [f"--kg={folder / 'triples.tsv'}", "--min-triples=1", f"--dataset={name}"]
    words = ["convert", "csv", *given, f"--out={out or folder / 'out' / name}", *more]
    assert dataset_atomic(words) == 0


def _write_raw(folder: Path) -> None:
    """Raw files like those that the toy dataset could have been made from."""
    toy = write_toy(folder) / "toy"
    for suffix, name in (("inter", "ratings.csv"), ("link", "links.tsv"), ("kg", "triples.tsv")):
        header, *lines = (toy / f"toy.{suffix}").read_text().splitlines()
        if suffix == "inter":
            header = "user_id,item_id,timestamp"
            lines = [header, *(line.replace("\t", ",") for line in lines)]
        (folder / name).write_text("\n".join(lines) + "\n")


def _digest(folder: Path) -> str:
    """Of the names and bytes of all files but locks and temporary ones, which no reader reads."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "ksr-" not in str(path) and path.suffix != ".lock":
            digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


class ConvertOverwrite(Kind):
    """``convert --overwrite`` over a conversion by other rules, which has a file more."""

    def prepare(self, folder: Path) -> None:
        _write_raw(folder)
        (folder / "names.tsv").write_text("e1\tone\ne2\ttwo\n")
        _convert(folder, "toy", "--k-core=2", f"--names={folder / 'names.tsv'}")

    def command(self, folder: Path) -> None:
        _convert(folder, "toy", "--k-core=5", "--overwrite")

    def read(self, folder: Path) -> Any:
        assert dataset_atomic(["describe", str(folder / "out" / "toy")]) == 0
        return _digest(folder / "out")


class Automatic(Kind):
    """The conversion of a dataset at its first run."""

    def prepare(self, folder: Path) -> None:
        _write_raw(folder)
        (folder / "out").mkdir()

    def command(self, folder: Path) -> None:
        atomic_data.DATASETS = folder / "out"

        def convert(out: Path, options: Any) -> Any:
            _convert(folder, "ml-100k", "--k-core=2", "--overwrite", out=out)
            return _Report()

        atomic_data.CONVERTERS["ml-100k"] = convert
        config = {
            "dataset": "ml-100k",
            "data_path": str(atomic_data.DATASETS / "ml-100k"),
            "model": "GRU",
        }
        assert "interactions" in atomic_data.prepare_atomic_files(config)

    def read(self, folder: Path) -> Any:
        one_step.finish_steps(folder / "out" / "ml-100k")
        return _digest(folder / "out") if any(folder.glob("out/*/*.inter")) else "nothing"


class _Report:
    def lines(self) -> list[str]:
        return []


KINDS = {kind.__name__: kind for kind in Kind.__subclasses__()}


def forked(work: Callable[[], Any], log: Path) -> tuple[int, Any]:
    """A function's exit status in a fork, negative for a signal, and its value."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        with log.open("ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        try:
            value = json.dumps(work())
        except UserError as error:
            value = json.dumps(f"error: {error}")
        except BaseException:
            traceback.print_exc()
            os._exit(3)
        with os.fdopen(writing, "w") as pipe:
            pipe.write(value)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return status, json.loads(text) if text else None


def dying(work: Callable[[], Any], after: int, places: tuple[str, ...]) -> Callable[[], Any]:
    """The function, ended by SIGKILL before one of its calls, the ``after``-th from 0."""

    def run_until() -> Any:
        left = after

        def counted(original: Callable[..., Any], *words: Any, **named: Any) -> Any:
            nonlocal left
            if left == 0:
                print("killed at", getattr(original, "__name__", "exchange"), words, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return original(*words, **named)

        for name in places:
            setattr(os, name, functools.partial(counted, getattr(os, name)))
        one_step._exchanged = functools.partial(counted, one_step._exchanged)
        return work()

    return run_until


def main(name: str, base: Path) -> None:
    """Try every place of a kind."""
    kind, log = KINDS[name](), base / "output.txt"
    base.mkdir()
    os.chdir(base)
    status, _ = forked(lambda: kind.prepare(base / "before"), log)
    assert status == 0, log.read_text()
    (base / "before").mkdir(exist_ok=True)
    now = base / "now"
    for after in range(1000):
        shutil.rmtree(now, ignore_errors=True)
        shutil.copytree(base / "before", now)
        before = forked(lambda: kind.read(now), log) if after == 0 else None
        killed, _ = forked(dying(lambda: kind.command(now), after, kind.places), log)
        found = forked(lambda: kind.read(now), log)
        again, _ = forked(lambda: kind.command(now), log) if killed else (0, None)
        end = forked(lambda: kind.read(now), log)
        # A lock file of a dead process has no content and locks nothing.
        left = [str(p.relative_to(now)) for p in now.rglob("*.ksr-tmp")]
        left += [str(p.relative_to(now)) for p in now.rglob("*.partial")]
        print(json.dumps({"before": before, "killed": killed, "found": found, "again": again,
                          "end": end, "left": left}), flush=True)  # fmt: skip
        if killed != -signal.SIGKILL:
            return


if __name__ == "__main__":
    silence_upstream_warnings()
    main(sys.argv[1], Path(sys.argv[2]).resolve())
