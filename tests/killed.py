"""Commands killed at every rename, removal and new folder; what is left is read and repeated.

``python -m tests.killed KIND FOLDER`` prints a JSON line for every place.  All work is done in
forks of one process that has only imported what it needs, which saves the imports.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import os
import shutil
import signal
import sys
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from dataset_atomic import fetch
from dataset_atomic.cli import main as dataset_atomic
from ksr_recbole import Recommender, cache, digests, one_step, save_model
from ksr_recbole.comparison import cells, moving_cells, runner, store
from ksr_recbole.comparison.cli import main as benchmark
from ksr_recbole.comparison.plan import Request, make_plan
from ksr_recbole.comparison.pool import Job, Report
from ksr_recbole.comparison.report import is_report
from ksr_recbole.comparison.studies import table3
from ksr_recbole.compat import silence_upstream_warnings
from ksr_recbole.config import Config
from ksr_recbole.dataset.sequence_datasets import load_dataset
from ksr_recbole.errors import UserError
from ksr_recbole.pretraining import partial
from ksr_recbole.pretraining.pretrain import pretrained_vectors
from ksr_recbole.pretraining.vectors import check_digest
from ksr_recbole.quick_start import atomic_data
from ksr_recbole.records import read_record
from ksr_recbole.trainer import checkpoint
from ksr_recbole.tuning import search
from ksr_recbole.tuning.cli import main as tune
from tests import benchmark_fakes
from tests.benchmark_fakes import run_jobs, run_result, worker_run_cell
from tests.toy import toy_run, toy_values, write_toy

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

        def convert(out: Path, name: str, options: Any) -> Any:
            _convert(folder, name, "--k-core=2", "--overwrite", out=out)
            return _Report()

        atomic_data.CONVERTERS["ml-100k"] = convert
        config = Config("GRU", "ml-100k", None, {"data_path": str(folder / "out")})
        assert "interactions" in atomic_data.prepare_atomic_files(config)

    def read(self, folder: Path) -> Any:
        one_step.finish_steps(folder / "out" / "ml-100k", lambda n: n.startswith("ml-100k."))
        return _digest(folder / "out") if any(folder.glob("out/*/*.inter")) else "nothing"


class _Report:
    def lines(self) -> list[str]:
        return []


class Export(Kind):
    """``export`` over a model directory, on a system that can exchange folders."""

    places = ("replace", "rmdir")

    def prepare(self, folder: Path) -> None:
        write_toy(folder)
        for seed in (1, 2):
            found = toy_run(folder, "GRU", epochs=1, seed=seed)
            shutil.copy(found["checkpoint"], folder / f"{seed}.pth")
        save_model(folder / "1.pth", folder / "out" / "model")

    def command(self, folder: Path) -> None:
        save_model(folder / "2.pth", folder / "out" / "model")

    def read(self, folder: Path) -> Any:
        return repr(Recommender.load(folder / "out" / "model").recommend("u1"))


class ExportByRenames(Export):
    """As :class:`Export` where folders cannot be exchanged."""

    def command(self, folder: Path) -> None:
        one_step._exchanged = lambda *_: False
        super().command(folder)


class Run(Kind):
    """A run, gone on from its checkpoint if it has one; metrics and weights are compared."""

    places = ("replace",)

    def prepare(self, folder: Path) -> None:
        write_toy(folder)

    def command(self, folder: Path) -> None:
        checkpoints = sorted((folder / "saved").glob("*.pth"))
        resume = str(checkpoints[-1]) if checkpoints else False
        toy_run(folder, "KSR", resume=resume, epochs=2, kge_epochs=1, bpr_epochs=1)

    def read(self, folder: Path) -> Any:
        found = [checkpoint.load(path) for path in (folder / "saved").glob("*.pth")]
        results = [json.loads(path.read_text()) for path in (folder / "results").glob("*.json")]
        if not results:
            return "nothing"
        weights = {name: t.numpy() for name, t in found[-1]["state_dict"].items()}
        return [results[-1]["metrics"], digests.of_values(weights)]


class Cell(Kind):
    """A cell of a comparison, in the pool's own way."""

    places = ("replace", "rmdir")

    def prepare(self, folder: Path) -> None:
        write_toy(folder)

    def _job(self, folder: Path) -> Job:
        values = toy_values(folder, epochs=1)
        values = {k: v for k, v in values.items() if k not in ("checkpoint_dir", "results_dir")}
        request = Request("toy", table3(["GRU"]), ("next-item",), (2020,), folder / "results",
                          values=values)  # fmt: skip
        plan = make_plan(request)
        return Job(plan.distinct_cells()[0], plan.store, (), values, False)

    def command(self, folder: Path) -> None:
        report = worker_run_cell(self._job(folder))
        assert report.error is None, report.error

    def read(self, folder: Path) -> Any:
        job = self._job(folder)
        found = job.store.load(job.cell)
        if found is None:
            return "nothing"
        ranks = {"/".join(key): np.stack(value) for key, value in found.ranks.items()}
        return [found.result["metrics"], digests.of_values(ranks)]


class CellOver(Kind):
    """A cell over a finished one without a measure; the results are drawn, not trained."""

    cell = cells.Cell("KSR", "toy", "next-item", 1, {}, "ab" * 32)

    def _save(self, folder: Path, **more: Any) -> None:
        found = run_result({"test": [1, 3, 2], "valid": [2, 4, 9]}, **more)
        store.Store(folder / "benchmark").save(self.cell, found, 3.0, False)

    def prepare(self, folder: Path) -> None:
        self._save(folder)

    def command(self, folder: Path) -> None:
        self._save(folder, measured_arrays={"a": np.arange(3)}, measures={"b": 1})

    def read(self, folder: Path) -> Any:
        found = store.Store(folder / "benchmark").load(self.cell)
        return [found.result.get("measures"), {k: v.tolist() for k, v in found.measured.items()}]


class Pack(CellOver):
    """A cell packed together with one that was packed before."""

    other = dataclasses.replace(CellOver.cell, seed=2, key="cd" * 32)

    def prepare(self, folder: Path) -> None:
        home = store.Store(folder / "benchmark")
        found = run_result({"test": [1, 3, 2], "valid": [2, 4, 9]})
        home.save(self.other, found, 3.0, False)
        moving_cells.pack(home)
        self._save(folder)

    def command(self, folder: Path) -> None:
        with contextlib.suppress(UserError):  # nothing is left to pack
            moving_cells.pack(store.Store(folder / "benchmark"))

    def read(self, folder: Path) -> Any:
        home = store.Store(folder / "benchmark")
        found = [home.load(cell).record["result"]["metrics"] for cell in (self.cell, self.other)]
        return [found, sorted(path.name for path in home.result_file(self.cell).parent.glob("K*"))]


class Comparison(Kind):
    """``run_benchmark.py``: two cells and the files of their table; nothing is trained."""

    places = ("replace", "rmdir")

    def prepare(self, folder: Path) -> None:
        write_toy(folder)

    def _words(self, folder: Path) -> list[str]:
        values = toy_values(folder)
        del values["checkpoint_dir"], values["eval_args"], values["report_modes"]
        return ["--dataset=toy", "--models=GRU,KSR", *(f"--{k}={v}" for k, v in values.items())]

    def command(self, folder: Path) -> None:
        with (
            mock.patch.object(runner, "run_jobs", run_jobs),
            mock.patch.object(benchmark_fakes, "MODES", ("uni50pop50", "full")),
        ):
            assert benchmark(self._words(folder)) == 0

    def read(self, folder: Path) -> Any:
        one_step.finish_steps(folder / "results", lambda name: is_report(name, "toy"))
        for file in folder.rglob("cells/*.json"):
            read_record(file)
        table, *more = sorted((folder / "results").glob("toy-table3.*")) or [None]
        if table is None:
            return "nothing"
        assert len(more) == 3 and not (folder / "results" / "toy-table3-2.json").exists()
        tables = json.loads((folder / "results" / "toy-table3.json").read_text())["tables"]
        return [tables, (folder / "results" / "toy-table3.tex").read_text()]


class Tuning(Kind):
    """``run_hyper.py``: two trials and the files of the search; nothing is trained."""

    places = ("replace", "rmdir")

    def prepare(self, folder: Path) -> None:
        write_toy(folder)
        (folder / "x.hyper").write_text("learning_rate choice [0.001,0.01]\n")

    def command(self, folder: Path) -> None:
        values = toy_values(folder)
        del values["checkpoint_dir"], values["eval_args"], values["report_modes"]
        words = ["--model=GRU", "--dataset=toy", f"--params_file={folder / 'x.hyper'}"]
        with (
            mock.patch.object(search, "run_jobs", self._run_jobs),
            mock.patch.object(benchmark_fakes, "MODES", ("uni50pop50", "full")),
        ):
            assert tune([*words, *(f"--{k}={v}" for k, v in values.items())]) == 0

    def _run_jobs(self, jobs: Any, workers: int, observer: Any, gpus: Any) -> None:
        for job in jobs:
            score = 100 * job.cell.overrides["learning_rate"]
            found = run_result({"test": [1], "valid": [2]}, best_valid_score=score)
            observer.started(job)
            job.store.save(job.cell, {**found, "pretraining": []}, 1.0, resumed=False)
            observer.ended(job, Report())

    def read(self, folder: Path) -> Any:
        one_step.finish_steps(
            folder / "results", lambda n: n.startswith("GRU-toy-next-item-tuning.")
        )
        for file in folder.rglob("cells/*.json"):
            read_record(file)
        found = sorted((folder / "results").glob("GRU-toy-next-item-tuning.*"))
        if not found:
            return "nothing"
        return [[path.name for path in found],
                (folder / "results" / "GRU-toy-next-item-tuning.yaml").read_text()]  # fmt: skip


class Pretraining(Kind):
    """Vectors for the cache, with the state kept after every epoch, and exported."""

    def prepare(self, folder: Path) -> None:
        write_toy(folder)

    def command(self, folder: Path) -> None:
        self._vectors(folder, every=0.0, export=True)

    def _vectors(self, folder: Path, every: float, export: bool) -> Any:
        partial.SAVE_SECONDS = every
        out = str(folder / "out") if export else None
        changes = {"kge_epochs": 2, "bpr_epochs": 2, "pretrain_export_path": out}
        config = Config("KSR", "toy", None, toy_values(folder, data_cache_dir=None, **changes))
        dataset = load_dataset(config)
        dataset.build()
        return pretrained_vectors(config, dataset)

    def read(self, folder: Path) -> Any:
        one_step.finish_steps(folder / "out", lambda name: name.startswith("toy."))
        kept = len(list((folder / "pretrained").glob("*.safetensors")))
        exported = sorted((folder / "out").glob("toy.*"))
        assert len(exported) in (0, 4), exported
        for path in exported:
            if path.suffix != ".json":
                check_digest(path)
        if kept < 2 or not exported:
            return "nothing"
        found = self._vectors(folder, every=1e9, export=False)
        assert all("from the cache" in note for note in found.notes), found.notes
        arrays = {"e": found.entities, "r": found.relations, "i": found.items}
        return [digests.of_values(arrays), *map(digests.of_file, exported)]


class DataCache(Kind):
    """The cache of a loaded dataset."""

    def prepare(self, folder: Path) -> None:
        write_toy(folder)

    def command(self, folder: Path) -> Any:
        dataset = load_dataset(Config("KSR", "toy", None, toy_values(folder)))
        dataset.build()
        return dataset.fingerprint

    def read(self, folder: Path) -> Any:
        kept = list((folder / "cache").glob("*.safetensors"))
        with mock.patch.object(cache, "write_arrays", side_effect=AssertionError):
            return self.command(folder) if kept else "nothing"


class Fetch(Kind):
    """``fetch``: an archive that is unpacked, and a file of links."""

    members = ("ratings.dat", "users.dat", "README")

    def prepare(self, folder: Path) -> None:
        folder.mkdir()

    def command(self, folder: Path) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            for name in self.members:
                file.writestr(zipfile.ZipInfo(f"ml-1m/{name}"), name * 99)
        link, archive = b"1\tm.01\n", buffer.getvalue()
        blob = hashlib.sha1(f"blob {len(link)}\0".encode() + link).hexdigest()
        entry = {"name": "ml2fb.txt", "sha": blob, "download_url": "http://x/ml2fb.txt"}
        served = {
            "zip": archive,
            "md5": hashlib.md5(archive).hexdigest().encode(),
            "txt": link,
            "dev": json.dumps([entry]).encode(),
        }
        fetch.KB4REC_LISTING = "http://x/dev"
        source = dataclasses.replace(fetch.SOURCES["ml-1m"], md5=None)  # read where it is served
        with (
            mock.patch.dict(fetch.SOURCES, {"ml-1m": source}),
            mock.patch.object(fetch, "_get", lambda url, *_, **__: _Served(served[url[-3:]])),
        ):
            assert dataset_atomic(["fetch", "ml-1m", "--link", f"--raw={folder / 'raw'}"]) == 0

    def read(self, folder: Path) -> Any:
        raw = folder / "raw"
        for place in (raw, raw / "ml-1m"):
            fetch.SOURCES["ml-1m"].finish_unpacking(place)
        unpacked = [name for name in self.members if (raw / "ml-1m" / name).exists()]
        assert len(unpacked) in (0, 3), unpacked
        if not (unpacked and (raw / "ml2fb.txt").exists()):
            return "nothing"
        return _digest(raw)


class _Served:
    """A response of a server that cannot continue a download."""

    status_code = 200

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.headers = {"Content-Length": str(len(content))}

    def iter_content(self, size: int) -> Iterator[bytes]:
        yield self._content

    def __enter__(self) -> _Served:
        return self

    def __exit__(self, *_: object) -> None:
        pass


KINDS = {kind.__name__: kind for kind in (*Kind.__subclasses__(), ExportByRenames, Pack)}


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
    status, refusal = forked(lambda: kind.prepare(base / "before"), log)
    assert status == 0 and refusal is None, refusal or log.read_text()
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
        # A lock file of a dead process has no content and locks nothing; its folder goes with the
        # next write, which the same command need not do.
        left = [str(p) for p in now.rglob("*") if ".ksr-tmp/" in str(p) and p.stat().st_size]
        left += [str(p) for p in now.rglob("*.partial")]
        print(json.dumps({"before": before, "killed": killed, "found": found, "again": again,
                          "end": end, "left": left}), flush=True)  # fmt: skip
        if killed != -signal.SIGKILL:
            return


if __name__ == "__main__":
    silence_upstream_warnings()
    main(sys.argv[1], Path(sys.argv[2]).resolve())
