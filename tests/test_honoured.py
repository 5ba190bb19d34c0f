"""Every key that :mod:`ksr_recbole.config.decisions` calls honoured changes what is observed here.

A row is a key, a value of it, and what is looked at.  The test looks twice, without the key and
with it, and the two must differ; the data are tiny and most rows train nothing.
"""

from __future__ import annotations

import importlib.machinery
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from recbole.utils import init_seed

from dataset_atomic.cli import main as dataset_atomic
from ksr_recbole.config import Config
from ksr_recbole.config.decisions import DECISIONS, Fate
from ksr_recbole.dataset.sequence_datasets import load_dataset
from ksr_recbole.errors import UserError
from ksr_recbole.pretraining.pretrain import pretrained_vectors
from ksr_recbole.quick_start.prepare import load_data, make_trainer
from ksr_recbole.quick_start.process_keys import read_hosts
from tests.toy import toy_run, toy_values, write_toy

Values = dict[str, Any]

SHORT: Values = {"epochs": 1, "report_modes": ["uni5pop5"]}


class Watch:
    """A small dataset and what a configuration makes of it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, printed: Any) -> None:
        self.folder, self.monkeypatch, self.printed = folder, monkeypatch, printed

    def config(self, model: str = "GRU", **values: Any) -> Config:
        return Config(model, "toy", None, toy_values(self.folder, **{**SHORT, **values}))

    def run(self, **values: Any) -> dict[str, Any]:
        return toy_run(self.folder, "GRU", **{**SHORT, **values})

    def loaders(self, model: str = "GRU", **values: Any) -> tuple[Config, Any]:
        config = self.config(model, **values)
        return config, load_data(config)

    def trainer(self, **values: Any) -> Any:
        config, data = self.loaders(**values)
        self.monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        try:
            return make_trainer(config, data.dataset)
        finally:
            self.monkeypatch.undo()

    def rows(self, suffix: str) -> list[list[str]]:
        text = (self.folder / "toy" / f"toy.{suffix}").read_text(encoding="utf-8")
        return [line.split("\t") for line in text.splitlines()]

    def write(self, rows: list[list[str]], suffix: str, name: str = "toy") -> None:
        path = self.folder / name / f"{name}.{suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")


# What is looked at ------------------------------------------------------------------------------


def weights(watch: Watch, **values: Any) -> list[float]:
    """Of a short training, what the weights are at the end."""
    model = values.pop("model", "GRU")
    config, data = watch.loaders(model, **values)
    if model == "KSR":
        data.dataset.pretrained = pretrained_vectors(config, data.dataset)
    trainer = make_trainer(config, data.dataset)
    trainer.fit(data.train, data.valid, saved=False)
    return [float(p.detach().double().abs().sum()) for p in trainer.model.parameters()]


def said(watch: Watch, **values: Any) -> str:
    """What a run prints."""
    watch.printed.readouterr()
    watch.run(**values)
    return "".join(watch.printed.readouterr())


def bars(watch: Watch, **values: Any) -> bool:
    watch.monkeypatch.setattr("ksr_recbole.bars.on_terminal", lambda: True)
    return "Train" in said(watch, **values)


def nine_decimals(watch: Watch, **values: Any) -> bool:
    return re.search(r"\d\.\d{9}\b", said(watch, **values)) is not None


def epochs_trained(watch: Watch, **values: Any) -> int:
    """How many epochs it takes to stop, if every validation is worse than the one before."""
    config, data = watch.loaders(**{"epochs": 6, **values})
    trainer, scores = make_trainer(config, data.dataset), iter(range(9, 0, -1))
    watch.monkeypatch.setattr(trainer, "_valid_epoch", lambda *_, **__: (next(scores), {}))
    trainer.fit(data.train, data.valid, saved=False)
    return trainer.epochs_trained


def validations(watch: Watch, **values: Any) -> int:
    config, data = watch.loaders(**{"epochs": 4, **values})
    trainer, seen = make_trainer(config, data.dataset), []
    trainer.fit(data.train, data.valid, saved=False, callback_fn=lambda *_: seen.append(1))
    return len(seen)


def scores(watch: Watch, **values: Any) -> Any:
    result = watch.run(**values)
    return result["test_result"], result["best_valid_score"], result["valid_metric"]


def users_scored_at_once(watch: Watch, **values: Any) -> int:
    config, data = watch.loaders(**values)
    trainer, seen = make_trainer(config, data.dataset), []
    score = trainer._scorer(data.dataset)

    class Counting:
        def score_candidates(self, users: np.ndarray, *rest: Any) -> torch.Tensor:
            seen.append(len(users))
            return score.score_candidates(users, *rest)

    watch.monkeypatch.setattr(trainer, "_scorer", lambda dataset: Counting())
    trainer.rank(data.test, "uni5pop5")
    return max(seen)


def batch_fields(watch: Watch, **values: Any) -> list[str]:
    fields: set[str] = set()
    for model in ("GRU", "NeuMF", "BPR"):
        more = {"loss_type": "BPR"} if model == "GRU" else {}
        _, data = watch.loaders(model, **more, **values)
        fields |= set(next(iter(data.train)).interaction)
    return sorted(fields)


def negatives(watch: Watch, **values: Any) -> Any:
    _, data = watch.loaders("BPR", **values)
    return next(iter(data.train))["neg_item_id"].tolist()


def first_batch(watch: Watch, **values: Any) -> Any:
    _, data = watch.loaders(**values)
    batch = next(iter(data.train))
    return batch["item_id_list"].shape, batch["item_id_list"].tolist()


def dataset(watch: Watch, **values: Any) -> Any:
    """Interactions, triples and ids that are used; files have a rating and repeats."""
    header, *rows = watch.rows("inter")
    if len(header) == 3:
        rows = [[*row, str(n % 5)] for n, row in enumerate([*rows, *rows[:40]])]
        watch.write([[*header, "rating:float"], *rows], "inter")
        watch.write([*watch.rows("kg"), ["e5", "film.rare", "g1"]], "kg")
        years = [[f"i{n}", str(1900 + n)] for n in range(1, 61)]
        watch.write([["item_id:token", "year:float"], *years], "item")
    made = load_dataset(watch.config("KSR-paper", data_cache_dir=None, **values))
    made.build()
    return made.fingerprint, made.table1(), len(made.triples)


def columns(watch: Watch, **values: Any) -> Any:
    """Whether the columns are read under their names: others are one sentence."""
    try:
        return dataset(watch, **values)
    except UserError as error:
        return str(error)[:60]


def converted(watch: Watch, **values: Any) -> str:
    raw = watch.folder / "raw.csv"
    rows = [f"u{u},i{i},5,{u * 100 + i}" for u in range(5) for i in range(6)]
    raw.write_text("\n".join(["user_id,item_id,stars,timestamp", *rows]) + "\n")
    (watch.folder / "link").write_text("".join(f"i{i}\te{i}\n" for i in range(6)))
    (watch.folder / "kg").write_text("".join(f"e{i}\tgenre\tg{i % 2}\n" for i in range(6)))
    words = ["convert", "csv", f"--raw={raw}", "--dataset=shop", "--k-core=1", "--min-triples=1"]
    words += [f"--{each}={watch.folder / each}" for each in ("link", "kg")]
    words += ["--overwrite", f"--out={watch.folder / 'shop'}", "--rating=stars"]
    assert dataset_atomic([*words, *(f"--{key}={value}" for key, value in values.items())]) == 0
    return (watch.folder / "shop" / "shop.inter").read_text().splitlines()[0]


def vectors(watch: Watch, **values: Any) -> Any:
    """The vectors that a model starts from; files of them lie there."""
    triples = watch.rows("kg")[1:]
    entities = sorted({row[k] for row in triples for k in (0, 2)})
    relations = sorted({row[1] for row in triples})
    for name, tokens in (("ent", entities), ("rel", relations)):
        lines = [[t, " ".join(f"{n}.{k}" for k in range(4))] for n, t in enumerate(tokens)]
        watch.write([[f"{name}_id:token", f"{name}_emb:float_seq"], *lines], name)
    config = watch.config("KSR-paper", data_cache_dir=None, **values)
    made = load_dataset(config)
    made.build()
    try:
        found = pretrained_vectors(config, made)
    except UserError as error:
        return str(error)
    return found.entities.sum().item(), found.relations.sum().item()


def configured(key: str) -> Callable[..., Any]:
    return lambda watch, **values: str(watch.config(**values)[key])


def named(watch: Watch, **values: Any) -> tuple[Any, ...]:
    """Which model and dataset a config file names."""
    file = watch.folder / "some.yaml"
    file.write_text("".join(f"{k}: {v}\n" for k, v in {"seed": 1, **values}.items()))
    config = Config(None, None, [str(file)])
    return config["model"], config["dataset"], config["seed"]


def checkpoint_folder(watch: Watch, **values: Any) -> str:
    return Path(watch.run(**values)["checkpoint"]).parent.name


def deterministic(watch: Watch, **values: Any) -> bool:
    config = watch.config(**values)
    init_seed(config["seed"], config["reproducibility"])
    return torch.backends.cudnn.deterministic


def visible(watch: Watch, **values: Any) -> str | None:
    watch.config(**values)
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def device(watch: Watch, **values: Any) -> str:
    try:
        return str(watch.config(**values)["device"])
    except UserError as error:
        return str(error)


def device_with_a_gpu(watch: Watch, **values: Any) -> str:
    watch.monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return str(watch.config(gpu_id="0", **values)["device"])


def hosts(watch: Watch, **values: Any) -> Any:
    return read_hosts(watch.config(**values))


def of_trainer(attribute: str) -> Callable[..., Any]:
    return lambda watch, **values: getattr(watch.trainer(**values), attribute)


def level(watch: Watch, **values: Any) -> bool:
    return "Used: " in said(watch, **values)


def wandb(watch: Watch, **values: Any) -> list[str]:
    """The projects that a stand-in for Weights & Biases is asked for."""
    asked: list[str] = []
    fake = ModuleType("wandb")
    fake.__spec__ = importlib.machinery.ModuleSpec("wandb", None, origin="a test")
    vars(fake).update(
        init=lambda project=None, **_: asked.append(project), log=lambda *_, **__: None,
        define_metric=lambda *_, **__: None, finish=lambda: None, run=None,
    )  # fmt: skip
    watch.monkeypatch.setitem(sys.modules, "wandb", fake)
    watch.trainer(**values)
    return asked


GIVEN_VECTORS = {
    "additional_feat_suffix": ["ent", "rel"],
    "preload_weight": {"ent_id": "ent_emb", "rel_id": "rel_emb"},
}

COLUMNS = [
    key for key, each in DECISIONS.items() if each.note.startswith("columns of the atomic files")
]
OF_GRAPH = {"model": "KSR", "freeze_kg": False, "epochs": 2}

ROWS: dict[str, tuple[Callable[..., Any], Any, Values]] = {
    # key: what is looked at, the key's value, and what is given both times
    "model": (named, "GRU", {}), "dataset": (named, "toy", {}),
    "gpu_id": (visible, "3", {}), "device": (device, "cuda", {}),
    "use_gpu": (device_with_a_gpu, False, {}),
    "seed": (weights, 7, {}), "reproducibility": (deterministic, False, {}),
    "state": (level, "error", {}), "show_progress": (bars, True, {}),
    "data_path": (configured("data_path"), "elsewhere", {}),
    "checkpoint_dir": (checkpoint_folder, "kept", {}),
    "log_wandb": (wandb, True, {}), "wandb_project": (wandb, "mine", {"log_wandb": True}),
    "nproc": (hosts, 2, {}), "world_size": (hosts, 2, {}), "ip": (hosts, "127.0.0.2", {}),
    "port": (hosts, 7001, {}),
    "epochs": (weights, 2, {}), "train_batch_size": (first_batch, 200, {}),
    "learner": (weights, "sgd", {}), "learning_rate": (weights, 0.5, {}),
    "weight_decay": (weights, 0.1, {}), "clip_grad_norm": (weights, {"max_norm": 0.001}, {
        "learner": "sgd", "learning_rate": 1.0}),
    "shuffle": (first_batch, False, {}), "eval_step": (validations, 2, {}),
    "stopping_step": (epochs_trained, 1, {}),
    "train_neg_sample_args": (negatives, {"distribution": "uniform"}, {}),
    "loss_type": (weights, "BPR", {}), "loss_decimal_place": (nine_decimals, 9, {}),
    "enable_amp": (weights, True, {"model": "NeuMF"}),
    "enable_scaler": (of_trainer("enable_scaler"), True, {}),
    "train_rec_step": (weights, 2, {**OF_GRAPH, "train_kg_step": 1}),
    "train_kg_step": (weights, 1, {**OF_GRAPH, "train_rec_step": 1}),
    "eval_args": (scores, {"mode": "full"}, {}), "metrics": (scores, ["MRR", "Hit"], {}),
    "topk": (scores, [3], {}), "valid_metric": (scores, "NDCG@10", {}),
    "eval_batch_size": (users_scored_at_once, 3, {}),
    "metric_decimal_place": (nine_decimals, 9, {}),
    "LABEL_FIELD": (batch_fields, "truth", {}), "NEG_PREFIX": (batch_fields, "not_", {}),
    "LIST_SUFFIX": (batch_fields, "_row", {}),
    "ITEM_LIST_LENGTH_FIELD": (batch_fields, "so_many", {}),
    **{key: (columns, "other", {}) for key in COLUMNS},
    "RATING_FIELD": (converted, "stars", {}),
    "field_separator": (columns, ";", {}), "encoding": (columns, "utf-16", {}),
    "load_col": (columns, {"inter": ["user_id"]}, {"unload_col": {"inter": ["item_id"]}}),
    "unload_col": (columns, {"inter": ["timestamp"]}, {}),
    "preload_weight": (vectors, GIVEN_VECTORS["preload_weight"], {
        "additional_feat_suffix": ["ent", "rel"]}),
    "additional_feat_suffix": (vectors, ["ent", "rel"], {
        "preload_weight": GIVEN_VECTORS["preload_weight"]}),
    "alias_of_entity_id": (vectors, ["rel_id"], GIVEN_VECTORS),
    "alias_of_relation_id": (vectors, ["ent_id"], GIVEN_VECTORS),
    "alias_of_item_id": (vectors, ["rel_id"], GIVEN_VECTORS),
    "kg_reverse_r": (dataset, True, {}), "rm_dup_inter": (dataset, "first", {}),
    "val_interval": (dataset, {"rating": "[3,inf)"}, {}),
    "user_inter_num_interval": (dataset, "[10,inf)", {}),
    "item_inter_num_interval": (dataset, "[8,inf)", {}),
    "filter_inter_by_user_or_item": (dataset, False, {
        "load_col": {"item": ["item_id", "year"]}, "val_interval": {"year": "[1930,inf)"}}),
    "entity_kg_num_interval": (dataset, "[4,inf)", {}),
    "relation_kg_num_interval": (dataset, "[2,inf)", {}),
}  # fmt: skip

ELSEWHERE = {
    "config_files": "it names the files that every row of `named` reads",
    "seq_separator": "tests/test_pretraining.py: vectors are written and read in every layout",
    "benchmark_filename": "tests/test_recbole_data.py: the users' own files are the split",
}
"""Keys that are observed in another way, and how."""


_SEEN: dict[str, Any] = {}
"""What was seen without a key, which several rows have in common."""


@pytest.fixture
def watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Watch]:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    level_before = logging.getLogger().level
    yield Watch(write_toy(tmp_path / "data"), monkeypatch, capsys)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before
    logging.getLogger().setLevel(level_before)


def test_every_honoured_key_has_a_row():
    honoured = {key for key, decision in DECISIONS.items() if decision.fate is Fate.HONOURED}
    assert honoured == ROWS.keys() | ELSEWHERE.keys()


@pytest.mark.parametrize("key", ROWS)
def test_a_key_that_is_honoured_changes_something(key, watch):
    look, value, always = ROWS[key]
    without = f"{look} {always}"
    if without not in _SEEN:
        _SEEN[without] = look(watch, **always)
    assert look(watch, **{**always, key: value}) != _SEEN[without]


@pytest.mark.parametrize(("model", "idle"), [("GRU", True), ("BPR", True), ("NeuMF", False)])
def test_half_precision_that_changes_nothing_is_said(watch, model, idle):
    watch.printed.readouterr()
    toy_run(watch.folder, model, enable_amp=True, **SHORT)
    told = "".join(watch.printed.readouterr())
    assert (f"enable_amp has no effect on {model} on this device" in told) is idle
