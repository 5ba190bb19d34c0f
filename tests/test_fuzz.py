"""Mutated files of every kind give what they say, or one sentence: see :mod:`tests.fuzzing`.

``KSR_FUZZ=20 python -m pytest tests/test_fuzz.py -o junit_family=legacy --junitxml=FILE`` runs 20
times the cases and writes into the file how many there were of every kind, and how many were
refused.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import math
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors import safe_open

from dataset_atomic.archives import unpack
from dataset_atomic.atomic import read_atomic
from dataset_atomic.atomic_files import check_atomic_file
from dataset_atomic.cli import main as dataset_atomic
from dataset_atomic.describe import describe
from dataset_atomic.layout import KEYS as LAYOUT_KEYS
from dataset_atomic.raw.interactions import Period, read_interactions
from dataset_atomic.raw.links import read_links
from dataset_atomic.raw.stream import TextFormat
from dataset_atomic.raw.triples import scan_triples
from ksr_recbole.cache import read_arrays, write_arrays
from ksr_recbole.comparison import packed
from ksr_recbole.comparison.cells import Cell
from ksr_recbole.comparison.live import TrialLines
from ksr_recbole.comparison.pool import Report
from ksr_recbole.comparison.results import Row
from ksr_recbole.comparison.store import Finished, Store
from ksr_recbole.comparison.studies import Setting
from ksr_recbole.comparison.trial_files import by_mrr, read_trials
from ksr_recbole.comparison.trials import rank_trials
from ksr_recbole.config import Config
from ksr_recbole.config.decisions import FILTERS
from ksr_recbole.config.keys import TEXTS, known_keys, read_for_all
from ksr_recbole.config.literals import is_plain, read_yaml
from ksr_recbole.dataset.loading import read_columns
from ksr_recbole.dataset.sequence_datasets import KGSequenceDataset
from ksr_recbole.distributed.message import read_message
from ksr_recbole.errors import DamagedFileError
from ksr_recbole.one_step import finish_steps
from ksr_recbole.pretraining.vectors import read_vectors
from ksr_recbole.quick_start.prepare import find_vectors, load_data, make_trainer
from ksr_recbole.records import read_record, sealed
from ksr_recbole.tuning import search_report
from ksr_recbole.tuning.request import Request, make_plan
from ksr_recbole.tuning.search import Search
from ksr_recbole.tuning.space import read_space
from tests.benchmark_fakes import run_result
from tests.fuzzing import cases, mutated, outcome
from tests.mutations import ODD_VALUES as ODD_JSON
from tests.mutations import paths_in, with_other, without
from tests.toy import toy_values, write_toy

MOST_FAULTS = 10
"""Shown of one kind."""

Check = Callable[[random.Random], str | None]


@pytest.fixture
def fuzz(record_property: Callable[[str, object], None]) -> Callable[[str, int, Check], None]:
    """``fuzz(kind, number, check)`` calls ``check`` for each case; it gives the refusal, if any."""

    def run(kind: str, number: int, check: Check) -> None:
        done = refused = 0
        faults: dict[str, Exception] = {}
        for rng in cases(kind, number):
            try:
                refused += check(rng) is not None
            except Exception as error:
                error.add_note(f"in case {done} of {kind!r}")
                faults.setdefault(f"{type(error)} {str(error)[-60:]}", error)
            done += 1
        record_property("cases", done)
        record_property("refused", refused)
        if faults:
            raise ExceptionGroup("faults", list(faults.values())[:MOST_FAULTS])
        # With only one of the two, nothing was tried.
        assert 0 < refused < done, f"{refused} of {done} were refused"

    return run


BLANKS = " \t\n\x0b\x0c\r\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
"""What Unicode calls white space; Python strips four controls more."""


def rows_of(content: bytes) -> list[list[str]]:
    """Lines of fields separated by tabs, as anybody would read them."""
    text = content.decode().replace("\r\n", "\n").rstrip("\r\n")
    return [line.split("\t") for line in text.split("\n")]


# Atomic files ---------------------------------------------------------------------------------

ATOMIC = {
    "inter": {"user_id": "token", "item_id": "token", "timestamp": "float"},
    "kg": dict.fromkeys(("head_id", "relation_id", "tail_id"), "token"),
    "link": dict.fromkeys(("item_id", "entity_id"), "token"),
    "item": {"item_id": "token", "movie_title": "token_seq"},
    "entity": {"entity_id": "token", "name": "token_seq"},
    "relation": {"relation_id": "token"},
}
SIDE = {
    "item": "item_id:token\tmovie_title:token_seq\trelease_year:token\n"
    + "".join(f"i{n}\tThe {n}th film\t{1970 + n}\n" for n in range(1, 9)),
    "entity": "entity_id:token\tname:token_seq\n"
    + "".join(f"e{n}\tEntity {n}, the\n" for n in range(1, 9)),
    "relation": "relation_id:token\treverse_id:token\tattribute:token\n"
    "film.genre\tgenre.films\t1\ngenre.films\tfilm.genre\t0\nfilm.director\t\t1\n",
}


def original(folder: Path, suffix: str) -> bytes:
    if suffix in SIDE:
        return SIDE[suffix].encode()
    return (write_toy(folder, n_users=6, n_items=20) / "toy" / f"toy.{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", ["inter", "kg", "link"])
def test_columns_of_atomic_files(tmp_path, fuzz, suffix):
    content, path = original(tmp_path, suffix), tmp_path / f"x.{suffix}"

    def check(rng):
        path.write_bytes(mutated(rng, content))

        def read():
            check_atomic_file(path, ATOMIC[suffix])
            return read_columns(path, ATOMIC[suffix])

        found = outcome(read, (pl.exceptions.PolarsError,))  # then RecBole reads it
        if found.refused is None:
            header, *rows = rows_of(path.read_bytes())
            for name, kind in ATOMIC[suffix].items():
                column = [row[header.index(f"{name}:{kind}")] for row in rows]
                wanted = column if kind == "token" else [float(text) for text in column]
                assert found.value[name].tolist() == wanted
        return found.refused

    fuzz(f"columns of .{suffix}", 250, check)


@pytest.mark.parametrize("suffix", ATOMIC)
def test_atomic_files_as_text(tmp_path, fuzz, suffix):
    content, path = original(tmp_path, suffix), tmp_path / f"x.{suffix}"

    def check(rng):
        path.write_bytes(mutated(rng, content))
        found = outcome(lambda: read_atomic(path, ATOMIC[suffix]))
        if found.refused is None:
            header, *rows = rows_of(path.read_bytes())
            assert [f"{name}:{kind}" for name, kind in found.value.types.items()] == header
            read = [["" if cell is None else cell for cell in row] for row in
                    found.value.frame.iter_rows()]  # fmt: skip
            assert read == rows
        return found.refused

    fuzz(f".{suffix} as text", 150, check)


# Raw files ------------------------------------------------------------------------------------


def test_link_files(tmp_path, fuzz):
    content = original(tmp_path, "link").split(b"\n", 1)[1]
    path = tmp_path / "links.tsv"

    def check(rng):
        path.write_bytes(mutated(rng, content))
        found = outcome(lambda: read_links(path).frame.rows())
        if found.refused is None:
            wanted: dict[str, str] = {}
            for row in rows_of(path.read_bytes().removeprefix(b"\xef\xbb\xbf")):
                if "".join(row):
                    entity = row[1].strip(BLANKS).removeprefix("<").removesuffix(">")
                    wanted.setdefault(row[0].strip(BLANKS), entity)
            assert dict(found.value) == wanted
        return found.refused

    fuzz("link files", 250, check)


RATINGS = "user_id,item_id,timestamp\n" + "".join(
    f"u{n % 5},i{n % 7},{1_000_000_000 + 977 * n}\n" for n in range(40)
)


@pytest.mark.parametrize("compressed", [False, True])
def test_files_of_interactions(tmp_path, fuzz, compressed):

    content = gzip.compress(RATINGS.encode(), mtime=0) if compressed else RATINGS.encode()
    path = tmp_path / "ratings.csv"
    columns = {name: name for name in ("user_id", "item_id", "timestamp")}
    layout = TextFormat(columns, ",", quoted=True, header=True)
    linked = pl.Series([f"i{n}" for n in range(7)])

    def check(rng):
        path.write_bytes(mutated(rng, content))
        found = outcome(lambda: read_interactions(path, layout, linked, Period()))
        if found.refused is None:
            funnel = found.value.funnel
            frame = found.value.frame
            assert funnel.rows_in - sum(funnel.dropped.values()) == frame.height
            if not compressed:
                text = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode()
                rows = list(csv.DictReader(io.StringIO(text.replace("\r\n", "\n"), newline="\n")))
                wanted = [(r["user_id"].strip(BLANKS), r["item_id"].strip(BLANKS)) for r in rows]
                wanted = [pair for pair in wanted if pair[1] in set(linked)]
                assert sorted(frame.select("user_id", "item_id").rows()) == sorted(wanted)
            else:
                assert frame.height == 40
        return found.refused

    fuzz(f"interactions{', gzip' if compressed else ''}", 250, check)


TRIPLES = {
    "tsv": "".join(f"e{n}\tfilm.genre\tg{n % 3}\n" for n in range(1, 20)),
    "nt": "".join(
        f"<http://dbpedia.org/resource/E{n}> <http://dbpedia.org/ontology/genre> "
        f"<http://dbpedia.org/resource/G{n % 3}> .\n"
        f"<http://dbpedia.org/resource/E{n}> <http://www.w3.org/2000/01/rdf-schema#label> "
        f'"Name {n}"@en .\n'
        for n in range(1, 20)
    ),
    "rdf": "".join(
        f"<http://rdf.freebase.com/ns/m.0{n}>\t<http://rdf.freebase.com/ns/film.film.genre>\t"
        f"<http://rdf.freebase.com/ns/m.1{n % 3}>\t.\n"
        for n in range(1, 20)
    ),
}


@pytest.mark.parametrize("form", TRIPLES)
def test_files_of_triples(tmp_path, fuzz, form):

    path = tmp_path / "triples"
    prefix = {"tsv": "e", "nt": "dbr:E", "rdf": "m.0"}[form]
    seeds = pl.Series([f"{prefix}{n}" for n in range(1, 20)])

    def check(rng):
        path.write_bytes(mutated(rng, TRIPLES[form].encode()))
        found = outcome(lambda: scan_triples([path], seeds))
        if found.refused is None:
            funnel = found.value.funnel
            assert funnel.rows_in - sum(funnel.dropped.values()) == found.value.kg.height
            known = set(seeds)
            assert all(h in known or t in known for h, _, t in found.value.kg.rows())
        return found.refused

    fuzz(f"triples, {form}", 200, check)


# Settings -------------------------------------------------------------------------------------

HYPER = """\
# ranges
learning_rate loguniform -8,-4
gamma choice [1,10.0,'x']
dropout_prob uniform 0.0,0.5
embedding_size quniform 32,256,32
"""


def test_hyper_files(tmp_path, fuzz):
    path = tmp_path / "x.hyper"

    def check(rng):
        path.write_bytes(mutated(rng, HYPER.encode()))
        found = outcome(lambda: read_space(path))
        if found.refused is None:
            lines = path.read_text(encoding="utf-8").split("\n")
            lines = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
            assert [each.name for each in found.value] == [line.split()[0] for line in lines]
            for each in found.value:
                numbers = [v for v in each.values if isinstance(v, float)]
                assert each.values and all(map(math.isfinite, numbers))
        return found.refused

    fuzz(".hyper", 400, check)


TRIALS = "KSR:\n- {gamma: 10}\n- {gamma: 1, hidden_size: 32}\nGRU:\n- {}\n- {num_layers: 2}\n"


def test_files_of_trials(tmp_path, fuzz):
    path = tmp_path / "next-item.yaml"

    def check(rng):
        path.write_bytes(mutated(rng, TRIALS.encode()))
        found = outcome(lambda: read_trials(path))
        if found.refused is None:
            assert len({len(trials) for trials in found.value.values()}) == 1
            json.dumps(found.value)
        return found.refused

    fuzz("trials", 250, check)


def test_files_of_vectors(tmp_path, fuzz):
    path = tmp_path / "toy.ent"
    content = "ent_id:token\tent_emb:float_seq\n"
    content += "".join(f"e{n}\t{n}.5 -0.25 1e-3\n" for n in range(9))
    tokens = [f"e{n}" for n in range(9)]

    def check(rng):
        path.write_bytes(mutated(rng, content.encode()))
        found = outcome(lambda: read_vectors(path, tokens))
        if found.refused is None:
            header, *rows = rows_of(path.read_bytes())
            key = [name.endswith(":token") for name in header].index(True)
            wanted = {row[key]: np.float32(row[1 - key].split()) for row in rows}
            assert all(
                np.array_equal(wanted[t], v) for t, v in zip(tokens, found.value, strict=True)
            )
        return found.refused

    fuzz("vectors", 250, check)


# Archives and journals ------------------------------------------------------------------------


def test_archives(tmp_path, fuzz):
    buffer, members = io.BytesIO(), {"ml/ratings.dat": b"1::2::3\n" * 40, "ml/README": b"text"}
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in members.items():
            file.writestr(zipfile.ZipInfo(name), text)

    def check(rng):
        folder = tmp_path / f"{rng.random()}" / "raw"
        folder.mkdir(parents=True)
        archive = folder / "ml.zip"
        archive.write_bytes(mutated(rng, buffer.getvalue()))
        found = outcome(lambda: unpack(archive, 1000))
        there = [path for path in folder.parent.rglob("*") if path.is_file()]
        assert all(folder in path.parents for path in there)
        contents = {path.read_bytes() for path in there if path != archive}
        assert contents <= set(members.values())
        return found.refused

    fuzz("archives", 300, check)


def test_journals(tmp_path, fuzz):
    content = json.dumps({"names": ["x.inter", "x.kg"], "removed": ["x.link"]}).encode()

    def check(rng):
        base = tmp_path / f"{rng.random()}"
        folder = base / "data"
        step = folder / ".0123456789abcdef.ksr-tmp"
        step.mkdir(parents=True)
        outside = base / "evil"
        outside.write_text("outside")
        for name in ("x.inter", "x.kg", "x.link"):
            (folder / name).write_text("old")
        for name in ("x.inter", "x.kg"):
            (step / name).write_text("new")
        journal = mutated(rng, content)
        (step / "ksr-journal.json").write_bytes(journal)
        found = outcome(lambda: finish_steps(folder, lambda _: True))
        assert outside.read_text() == "outside"
        assert {path.name for path in base.iterdir()} == {"data", "evil"}
        if found.refused is None:
            assert not step.exists()
            found_there = {path.name: path.read_text() for path in folder.glob("x*")}
            given = json.loads(journal)
            for name in given["names"]:
                assert found_there.get(name, "new") == "new"
            assert not found_there.keys() & set(given["removed"])
        return found.refused

    fuzz("journals", 300, check)


@pytest.mark.parametrize("kind", ["pipe", "folder", "endless"])
def test_journals_that_are_no_files(tmp_path, kind):
    step = tmp_path / ".0123456789abcdef.ksr-tmp"
    step.mkdir()
    journal = step / "ksr-journal.json"
    if kind == "pipe":
        os.mkfifo(journal)
    elif kind == "folder":
        journal.mkdir()
    else:
        journal.symlink_to("/dev/zero")
    assert (
        "ksr-journal.json is damaged"
        in outcome(lambda: finish_steps(tmp_path, lambda _: True)).refused
    )


# Whole datasets -------------------------------------------------------------------------------


def linked_interactions(folder: Path) -> list[tuple[str, str, float]]:
    """The interactions of a dataset that a model with a graph may use, read by hand."""

    def columns(suffix: str) -> list[list[str]]:
        header, *rows = rows_of((folder / f"toy.{suffix}").read_bytes())
        places = [header.index(f"{name}:{kind}") for name, kind in ATOMIC[suffix].items()]
        return [[row[place] for place in places] for row in rows]

    entities = {end for head, _, tail in columns("kg") for end in (head, tail)}
    links = dict(reversed(columns("link")))  # an item's first line counts
    linked = {item for item, entity in links.items() if entity in entities}
    return sorted((u, i, float(t)) for u, i, t in columns("inter") if i in linked)


@pytest.mark.parametrize("suffix", ["inter", "kg", "link"])
def test_whole_datasets(tmp_path, fuzz, suffix):
    folder = write_toy(tmp_path, n_users=6, n_items=20) / "toy"
    config = Config("KSR", "toy", None, toy_values(tmp_path, data_cache_dir=None))
    path = folder / f"toy.{suffix}"
    content = path.read_bytes()

    def check(rng):
        path.write_bytes(mutated(rng, content))
        found = outcome(lambda: KGSequenceDataset(config))
        if found.refused is None:
            data, tokens = found.value, found.value.field2id_token
            frame = data.inter_feat
            users, items = (tokens[f][frame[f]] for f in (data.uid_field, data.iid_field))
            used = sorted(zip(users, items, frame[data.time_field], strict=True))
            assert used == linked_interactions(folder)
            assert outcome(data.build).refused is None
        return found.refused

    fuzz(f"dataset with another .{suffix}", 40, check)


@pytest.mark.parametrize("suffix", ["inter", "kg", "link", "entity", "relation"])
def test_descriptions(tmp_path, fuzz, suffix):
    folder = write_toy(tmp_path, n_users=6, n_items=20) / "toy"
    for side, text in SIDE.items():
        (folder / f"toy.{side}").write_text(text)
    path = folder / f"toy.{suffix}"
    content = path.read_bytes()

    def check(rng):
        path.write_bytes(mutated(rng, content))
        found = outcome(lambda: describe(folder))
        if found.refused is None:
            n_rows = len(rows_of((folder / "toy.inter").read_bytes())) - 1
            assert f"{n_rows:,} interactions" in found.value[0]
        return found.refused

    fuzz(f"description with another .{suffix}", 40, check)


def test_conversions(tmp_path, fuzz, capfd):
    raw = write_toy(tmp_path / "raw", n_users=8, n_items=20) / "toy"
    files = {}
    for suffix in ("inter", "link", "kg"):
        lines = (raw / f"toy.{suffix}").read_text().splitlines()[1:]
        files[suffix] = "\n".join(lines).replace("\t", "," if suffix == "inter" else "\t")
    files["inter"] = "user_id,item_id,timestamp\n" + files["inter"]

    def check(rng):
        folder = tmp_path / f"{rng.random()}"
        folder.mkdir()
        chosen = rng.choice(list(files))
        for name, text in files.items():
            content = mutated(rng, text.encode()) if name == chosen else text.encode()
            (folder / name).write_bytes(content)
        words = ["convert", "csv", "--dataset=toy", f"--out={folder / 'toy'}", "--k-core=2"]
        words += ["--min-triples=1", f"--raw={folder / 'inter'}"]
        words += [f"--link={folder / 'link'}", f"--kg={folder / 'kg'}"]
        status = outcome(lambda: dataset_atomic(words)).value
        told = capfd.readouterr().err
        made = sorted(path.name for path in folder.glob("toy/*"))
        assert (status, told.count("\n")) in ((0, 0), (2, 1)), told
        if status == 0:
            assert {"toy.inter", "toy.kg", "toy.link"} <= set(made)
            assert outcome(lambda: describe(folder / "toy")).refused is None
            return None
        assert not made
        return told

    fuzz("conversions", 40, check)


# Caches: the digest is right, the content is not ----------------------------------------------


def other_array(rng: random.Random, array: np.ndarray) -> np.ndarray:
    """An array of another shape, type or content."""
    match rng.randrange(6):
        case 0:
            return array[:-1].copy()
        case 1:
            return np.concatenate([array, array])
        case 2:
            return array[None].copy()
        case 3:
            return array.astype(rng.choice([np.float64, np.int8, np.uint8, bool]))
        case 4:
            return np.full_like(array, rng.choice([0, 1, 100]))
        case _:
            return np.frombuffer(mutated(rng, array.tobytes()), np.uint8).copy()


def test_caches_of_datasets(tmp_path, fuzz, caplog):
    values = toy_values(write_toy(tmp_path, n_users=6, n_items=20))
    config = Config("KSR", "toy", None, values)

    def fingerprint():
        dataset = KGSequenceDataset(config)
        dataset.build()
        return dataset.fingerprint

    wanted = fingerprint()
    [path] = (tmp_path / "cache").glob("*.safetensors")
    with safe_open(path, framework="numpy") as file:
        key = file.metadata()["key"]
    arrays = read_arrays(path, key)
    kept = path.read_bytes()

    def check(rng):
        by_bytes = rng.random() < 0.5
        if by_bytes:
            path.write_bytes(mutated(rng, kept))
        else:
            name = rng.choice(sorted(arrays))
            changed = {**arrays, name: other_array(rng, arrays[name])}
            if rng.random() < 0.1:
                del changed[name]
            write_arrays(path, key, changed, {})
        caplog.clear()
        found = outcome(fingerprint)
        made_again = "Making" in caplog.text
        # Who writes a right checksum of other sound arrays is not noticed.
        assert found.value == wanted or not (by_bytes or made_again)
        return "made again" if made_again else None

    fuzz("caches of datasets", 100, check)


# Cells and trials -----------------------------------------------------------------------------

CELL = Cell("KSR", "toy", "next-item", 1, {}, "ab" * 32)
MEASURES = {"metrics": ["MAP", "MRR", "Hit", "NDCG"], "topk": [10]}
LARGEST = (
    {"topk": list(range(1, 200_000))},
    {"topk": [2**70], "metrics": ["Hit"]},
    {"metrics": ["MRR"], "topk": [10]},
)
"""Configurations under which a cell's metrics would take memory, or be fewer than it has."""


def other_record(rng: random.Random, record: dict[str, Any]) -> dict[str, Any]:
    """A cell's JSON values with a part missing or another value somewhere; the digest is right."""
    places = [place for place in paths_in(record, depth=6) if place[0] != "key"]
    place = rng.choice(places)
    if rng.random() < 0.3:
        return sealed(without(record, place))
    if rng.random() < 0.1:
        return sealed(with_other(record, ("result", "config"), rng.choice(LARGEST)))
    return sealed(with_other(record, place, rng.choice(ODD_JSON)))


class CellFiles:
    """A finished cell's two files, and damage to them.

    Attributes:
        resealed: whether the last damage was a change under the right digest.
    """

    def __init__(self, store: Store, cell: Cell) -> None:
        self._paths = (store.result_file(cell), store.ranks_file(cell))
        self._key = cell.key
        self._kept = [path.read_bytes() for path in self._paths]
        self._record = read_record(self._paths[0])
        self._arrays = read_arrays(self._paths[1], cell.key)
        self.resealed = False

    def damage(self, rng: random.Random) -> None:
        """Put back what was kept, and change something in it."""
        for path, content in zip(self._paths, self._kept, strict=True):
            path.write_bytes(content)
        self.resealed = rng.random() < 0.6
        if not self.resealed:
            number = rng.randrange(2)
            self._paths[number].write_bytes(mutated(rng, self._kept[number]))
        elif rng.random() < 0.7:
            self._paths[0].write_text(json.dumps(other_record(rng, self._record)))
        else:
            name = rng.choice(sorted(self._arrays))
            changed = {**self._arrays, name: other_array(rng, self._arrays[name])}
            write_arrays(self._paths[1], self._key, changed, {})


def figures(found: Finished) -> dict[str, Any]:
    """What tables show of a cell."""
    row = Row(Setting("KSR", "KSR", {}), CELL.task, {CELL.seed: found})
    [trial] = rank_trials([row], by_mrr("full"))
    users = [each.values for each in found.per_user("full", "test").values()]
    metrics = np.concatenate([[trial.score], *row.values("full").values(), *users])
    return {"metrics": metrics.tolist(), "rest": (row.training(), trial.seconds)}


def test_cells(tmp_path, fuzz, caplog):
    store = Store(tmp_path)
    result = run_result({"test": [1, 3, 2], "valid": [2, 4, 9]}, config=MEASURES)
    store.save(CELL, result, 3.0, False)
    wanted, files = figures(store.load(CELL)), CellFiles(store, CELL)

    def check(rng):
        files.damage(rng)
        caplog.clear()
        found = outcome(lambda: store.load(CELL))
        if found.value is None:
            assert "again" in caplog.text
            return caplog.text
        shown = outcome(lambda: figures(found.value))
        if shown.refused is None:
            assert shown.value["metrics"] == pytest.approx(wanted["metrics"])
            assert files.resealed or shown.value == wanted
        return shown.refused

    fuzz("cells", 500, check)


def test_packed_cells(tmp_path, fuzz):
    path = tmp_path / packed.FILE
    ranks = np.array([1, 300, 2, 7, 9, 4], np.uint16)
    arrays = {f"{mode}/test/users": np.array([1, 1, 2, 3, 3, 4], np.uint8) for mode in "ab"}
    arrays |= {"a/test/ranks": ranks, "b/test/ranks": ranks[::-1].copy(), "measured/m": np.eye(2)}
    packed.pack_bytes(path, {"x": ({"y": [1]}, arrays)})
    kept = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(kept)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    [line] = lzma.decompress(members[packed._LINES]).decode().splitlines()
    sizes = (0, -1, 2**40, 2**63 - 1, [0, 2**62], [1] * 40, [2**62] * 9, [[1]], 3, None)

    def other_line(rng):
        record = {key: value for key, value in json.loads(line).items() if key != "sha256"}
        if rng.random() < 0.3:
            of = rng.choice(sorted(record["arrays"]))
            return with_other(record, ("arrays", of, "shape"), rng.choice(sizes))
        if rng.random() < 0.2:  # users that begin below 0, where ranks are taken from others'
            of = {name: {**each, "dtype": "|i1"} for name, each in record["arrays"].items()}
            return {**record, "arrays": {**of, "b/test/ranks": record["arrays"]["b/test/ranks"]}}
        return with_other(record, rng.choice(list(paths_in(record, 5))), rng.choice(ODD_JSON))

    def check(rng):
        path.write_bytes(mutated(rng, kept))
        resealed = rng.random() < 0.6
        if resealed:
            lines = json.dumps(sealed(other_line(rng)))
            changed = {**members, packed._LINES: lzma.compress(lines.encode())}
            with zipfile.ZipFile(path, "w") as file:
                for name, data in changed.items():
                    if rng.random() < 0.2:
                        data = lzma.compress(b"\xff" * rng.choice((6, 12, 24, 1 << 20)))
                    file.writestr(name, data)
        packed._lines_of.cache_clear()
        found = outcome(lambda: packed.read_packed(path, "x"), (DamagedFileError,))
        if found.value is not None:
            for name, array in arrays.items():
                assert np.array_equal(found.value[1][name], array)
        return "nothing" if found.value is None else None

    fuzz("packed cells", 400, check)


def test_trials_of_a_search(tmp_path, fuzz, monkeypatch, capsys):
    write_toy(tmp_path, n_users=6, n_items=20)
    ranges = tmp_path / "x.hyper"
    ranges.write_text("learning_rate choice [0.001,0.01]\n")
    plan = make_plan(Request("GRU", "toy", ranges, values=toy_values(tmp_path)))
    monkeypatch.setattr(search_report, "_draw", lambda *given: Path(given[-1]).touch())
    ran: list[Any] = []

    def run_jobs(jobs, observer):
        for job in jobs:
            ran.append(job)
            rate = job.cell.overrides["learning_rate"]
            score = {"best_valid_score": 10 * rate, "config": MEASURES}
            observer.started(job)
            job.store.save(job.cell, run_result({"test": [1], "valid": [2]}, **score), 1.0, False)
            observer.ended(job, Report())

    def searched():
        search = Search(plan, TrialLines(plan.store, plan.n_trials, plan.selected_by))
        run_jobs(search.jobs(), search)
        search_report.report(plan, search.tried())
        trials = json.loads(plan.file("json").read_text())["trials"]
        assert all(each["error"] is None for each in trials)
        return [(each["metrics"], each["score"]) for each in trials]

    wanted = searched()
    files = CellFiles(plan.store, plan.cell(1, {"learning_rate": 0.001}))

    def check(rng):
        files.damage(rng)
        ran.clear()
        found = outcome(searched)
        if found.refused is None:
            assert [each for each, _ in found.value] == [each for each, _ in wanted]
            assert files.resealed or found.value == wanted
        capsys.readouterr()
        return found.refused or ("run again" if ran else None)

    fuzz("trials of a search", 60, check)


# Configuration --------------------------------------------------------------------------------

ODD_VALUES: tuple[object, ...] = (
    *(None, True, False, 0, 1, -1, 3, 10**9, 2**70, 0.0, 0.5, -0.5, 1e308, math.nan, math.inf),
    *("", "x", "None", "1/0", "os.runs", "[][1]", "[5", "[5,inf)", "../evil", "a\0b", "\x1b[2J"),
    *("9" * 5000, "[" * 5000, [], [0], [[]], ["a", 1], [None], {}, {"x": 1}, (1, 2), {"a": {}}),
)
"""What a stranger may give any key."""


OF_DATA = read_for_all() | frozenset(
    {*LAYOUT_KEYS.values(), *FILTERS, "task", "session_length", "train_ratio", "attributes"}
)
"""Keys on which the data or the batches may depend; the others are options of models."""


def test_config_values(tmp_path, fuzz):
    values = toy_values(write_toy(tmp_path, n_users=6, n_items=20), item_init="random")
    keys = sorted(known_keys() - {"model", "dataset", "config_files", "config_file"})
    without_changes = load_data(Config("GRU", "toy", None, values)).dataset

    def prepared(key, value):
        config = Config("GRU", "toy", None, {**values, key: value})
        # Loading takes most of the time, and few keys have a part in it.
        dataset = load_data(config).dataset if key in OF_DATA else without_changes
        find_vectors(config, dataset)
        make_trainer(config, dataset)

    def check(rng):
        key, value = rng.choice(keys), rng.choice(ODD_VALUES)
        return outcome(lambda: prepared(key, value)).refused

    fuzz("config values", 60, check)


def test_config_files(tmp_path, fuzz):
    path = tmp_path / "mine.yaml"
    content = b"gamma: 1e-3\ntopk: [5, 10]\neval_args: {mode: full}\nresults_dir: 2026-11-28\n"

    def check(rng):
        path.write_bytes(mutated(rng, content))
        found = outcome(lambda: Config("GRU", "toy", [str(path)]))
        if found.refused is None:
            given = read_yaml(path, TEXTS)
            assert {key.partition(".")[0] for key in given} <= known_keys()
            assert all(is_plain(value) for value in given.values())
        return found.refused

    fuzz("config files", 60, check)


# Between processes ----------------------------------------------------------------------------


def test_messages(fuzz):
    described = {"dict": [["a", {"tensor": ["float32", 2, 3]}], ["b", {"tuple": [1, None, "x"]}]]}
    content = json.dumps({"list": [described, {"array": ["int64", 4]}]}).encode()
    assert [tensor.shape for tensor in read_message(content)[1]] == [(2, 3), (4,)]
    fuzz("messages", 200, lambda rng: outcome(lambda: read_message(mutated(rng, content))).refused)
