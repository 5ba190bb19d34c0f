"""Adding a model in one file: examples/my_model.py, and what is refused."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from recbole.config import Config as RecBoleConfig

import ksr_recbole
from ksr_recbole import registry
from ksr_recbole.config import Config
from ksr_recbole.config.keys import model_options
from ksr_recbole.config.options import real, whole
from ksr_recbole.errors import UserError
from ksr_recbole.model.gru_recommender import GRU
from ksr_recbole.model.ksr import KSR
from ksr_recbole.quick_start import run
from ksr_recbole.trainer import checkpoint
from tests import forked
from tests.toy import toy_values, write_toy

ROOT = Path(__file__).resolve().parents[1]


class Shy(KSR):
    """KSR under another name."""


class Twice(GRU):
    """A GRU one of whose layers has two names."""

    def __init__(self, config, dataset) -> None:
        super().__init__(config, dataset)
        self.shown = self.user_mlp


class Normed(GRU):
    """A GRU with running means."""

    def __init__(self, config, dataset) -> None:
        super().__init__(config, dataset)
        self.norm = torch.nn.BatchNorm1d(config["hidden_size"], momentum=0.9)
        self.user_mlp = torch.nn.Sequential(self.norm, self.user_mlp)


@pytest.fixture(autouse=True)
def models_as_before():
    before = dict(registry.MODELS)
    yield
    registry.MODELS.clear()
    registry.MODELS.update(before)


def test_the_example_trains_with_its_own_option(tmp_path: Path) -> None:
    write_toy(tmp_path)
    values = toy_values(tmp_path, epochs=1, uniform_share=0.5)
    mode = values.pop("eval_args")["mode"]
    values |= {"dataset": "toy", "eval_args.mode": mode}
    arguments = [f"--{key}={value}" for key, value in values.items()]
    done = forked.run([ROOT / "examples" / "my_model.py", *arguments], tmp_path)
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "saved").glob("EvenKSR-toy-*.pth")
    content = checkpoint.load(file)
    assert content["model"] == "EvenKSR"
    assert content["settings"]["uniform_share"] == 0.5


def test_an_added_model_is_the_one_it_is_based_on_but_for_what_it_changes(tmp_path: Path) -> None:
    registry.add_model("Shy", Shy, based_on="KSR", gamma=10.0)
    write_toy(tmp_path)
    results = [
        run(model, "toy", config_dict=toy_values(tmp_path, epochs=1), saved=False)
        for model in ("KSR", "Shy")
    ]
    assert results[0]["metrics"] == results[1]["metrics"]
    registry.add_model("Shy", Shy, based_on="KSR", gamma=0.0, embedding_size=4)
    assert model_options("Shy") == {**model_options("KSR"), "gamma": 0.0, "embedding_size": 4}
    config = Config("Shy", "toy", None, {"data_path": str(tmp_path), "gpu_id": ""})
    assert (config["gamma"], config["embedding_size"], config["hidden_size"]) == (0.0, 4, 256)
    assert registry.needs_kg("Shy") and "Shy" in registry.own_models()


class Holding(GRU):
    """A GRU with one more buffer."""

    buffer = torch.zeros(0)

    def __init__(self, config, dataset) -> None:
        super().__init__(config, dataset)
        self.register_buffer("more", self.buffer)


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        (torch.ones(3, dtype=torch.complex64), "complex64"),
        (torch.ones(3).to(torch.uint16), "uint16"),
        (torch.eye(3).to_sparse(), "sparse"),
    ],
)
def test_a_tensor_that_no_checkpoint_can_hold_is_refused_before_training(
    tmp_path, monkeypatch, more, kind
):
    write_toy(tmp_path)
    monkeypatch.setattr(Holding, "buffer", more)
    ksr_recbole.add_model("Holding", Holding, based_on="GRU")
    values = toy_values(tmp_path, epochs=1)
    with pytest.raises(UserError, match=f"^more of the model is {kind}, which no checkpoint"):
        run("Holding", "toy", None, values)
    assert not list((tmp_path / "saved").glob("*.pth"))
    run("Holding", "toy", None, values, saved=False)


@pytest.mark.parametrize("added", [Twice, Normed])
def test_the_best_epoch_s_model_is_kept_whatever_it_has(tmp_path: Path, added) -> None:
    """Under both names of a layer, with the running means of its epoch, and resumed."""
    registry.add_model("Added", added, based_on="GRU", score_mlp_layers=1)
    write_toy(tmp_path)
    many = toy_values(tmp_path, epochs=12, learning_rate=0.3, stopping_step=20)
    # Of which seeds later epochs have changed the model depends on how sums are rounded here.
    tried = (run("Added", "toy", None, many | {"seed": seed}) for seed in range(3, 13))
    whole = next(result for result in tried if result["best_epoch"] < 11)
    many["seed"] = whole["seed"]
    mode = whole["eval_mode"]
    assert whole["metrics"][mode]["valid"]["mrr"] == whole["best_valid_score"]
    half = run("Added", "toy", None, {**many, "epochs": 6})
    resumed = run("Added", "toy", None, {**many, "resume": half["checkpoint"]})
    assert resumed["metrics"] == whole["metrics"]
    assert resumed["best_valid_score"] == whole["best_valid_score"]


@pytest.mark.parametrize("where", [{"dataset": "ml-1m"}, {"task": "next-session"}])
def test_what_was_chosen_for_the_base_somewhere_holds_there_but_for_its_own(where) -> None:
    registry.add_model("Shy", Shy, based_on="KSR", stopping_step=20)
    registry.add_model("Shyer", Shy, based_on="Shy", gamma=3.0)
    configs = {
        name: Config(name, where.get("dataset", "toy"), None, {"gpu_id": "", **where})
        for name in ("KSR", "Shy", "Shyer")
    }
    for key in set(model_options("KSR")) - {"stopping_step", "gamma"}:
        assert configs["Shy"][key] == configs["Shyer"][key] == configs["KSR"][key], key
    assert configs["KSR"]["stopping_step"] != 20
    assert configs["Shy"]["stopping_step"] == configs["Shyer"]["stopping_step"] == 20
    assert (configs["Shy"]["gamma"], configs["Shyer"]["gamma"]) == (10.0, 3.0)


def test_a_new_option_is_known_only_once_it_is_added() -> None:
    with pytest.raises(UserError, match="Unknown config key 'shyness'"):
        Config("KSR", "toy", None, {"shyness": 1})
    registry.add_model("Shy", Shy, based_on="GRU++", shyness=1)
    assert Config("Shy", "toy", None, {"shyness": 2, "gpu_id": ""})["shyness"] == 2
    assert not registry.needs_kg("Shy")


@pytest.mark.parametrize("name", ["KSR", "GRU++", "LightGCN"])
def test_a_name_that_is_taken(name: str) -> None:
    with pytest.raises(UserError, match=f"The name {re.escape(name)} is taken by the model"):
        registry.add_model(name, Shy, based_on="KSR")


@pytest.mark.parametrize("name", ["", "a b", "x/y"])
def test_a_name_of_other_characters(name: str) -> None:
    with pytest.raises(UserError, match=f"has only letters, .* another than '{name}'"):
        registry.add_model(name, Shy, based_on="KSR")


@pytest.mark.parametrize("name", ["A" * 101, "é" * 51, "-x", "nul"])
def test_a_name_that_is_no_part_of_a_files_name(name: str) -> None:
    """Of a name too long it was said, in the middle of a run, that no log can be written."""
    with pytest.raises(UserError, match="The model cannot be called"):
        registry.add_model(name, Shy, based_on="KSR")
    registry.add_model("A" * 100, Shy, based_on="KSR")


@pytest.mark.parametrize("name", ["ksr", "gru4rec", "SHY"])
def test_a_name_that_recbole_takes_for_another(name: str) -> None:
    """It imports a module of the name in small letters."""
    registry.add_model("Shy", Shy, based_on="KSR")
    registry.add_model("Shy", Shy, based_on="KSR")
    with pytest.raises(UserError, match=f"The name {name} is taken by the model"):
        registry.add_model(name, Shy, based_on="KSR")


@dataclass(frozen=True, kw_only=True)
class Milder(KSR.Options):
    gamma: float = real(3.0, minimum=0)


@dataclass(frozen=True, kw_only=True)
class Unchecked(KSR.Options):
    foo: int = 3


class Undecorated(KSR.Options):
    foo: int = whole(3)


def with_options(options: type) -> type:
    return type("Own", (KSR,), {"Options": options})


def test_the_default_of_an_own_class_counts() -> None:
    registry.add_model("Mild", with_options(Milder), based_on="KSR")
    changed = {**model_options("KSR"), "gamma": 3.0}
    assert model_options("Mild") == changed
    registry.add_model("Mild", with_options(Milder), based_on="KSR", gamma=4.0)
    assert model_options("Mild") == {**changed, "gamma": 4.0}


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (lambda config, dataset: None, "must be a class of recommenders"),
        (torch.nn.Linear, "must be a class of recommenders"),
        ("KSR", "must be a class of recommenders"),
        (with_options(dict), r"Own\.Options must be a subclass of an Options class"),
        (with_options(Unchecked), r"The option foo of Own\.Options has no check; declare it by"),
        (with_options(Undecorated), r"Write @dataclass\(frozen=True, kw_only=True\) above Own"),
    ],
)
def test_what_is_no_model_is_said_when_it_is_added(model, told: str) -> None:
    before = dict(registry.MODELS)
    with pytest.raises(UserError, match=told):
        registry.add_model("Mine", model, based_on="KSR")
    assert before == registry.MODELS


def test_an_unknown_base() -> None:
    with pytest.raises(UserError, match="no model 'KRS' to base Shy on; did you mean KSR"):
        registry.add_model("Shy", Shy, based_on="KRS")


def test_attention_of_the_example_sums_to_one_and_leaves_nothing_out() -> None:
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        from my_model import EvenKSR
    finally:
        sys.path.pop(0)
    model = EvenKSR.__new__(EvenKSR)
    torch.nn.Module.__init__(model)
    model.exact = None
    model.options = EvenKSR.Options(uniform_share=0.2, gamma=1e6)
    model.query_mlp = torch.nn.Identity()
    model.relation_embedding = torch.nn.Embedding.from_pretrained(torch.eye(4))
    model.attributes = torch.arange(4)
    weights = model.attention(torch.eye(4))
    assert torch.allclose(weights.sum(-1), torch.ones(4))
    assert torch.allclose(weights, 0.8 * torch.eye(4) + 0.05)


class Unknown(KSR):
    """A class that was not added."""


@pytest.mark.parametrize("config", [Config, RecBoleConfig])
def test_a_class_that_was_not_added_is_told_how(config):
    ksr_recbole.register()
    try:
        with pytest.raises(UserError, match=r"add_model\('Unknown', Unknown, based_on='KSR'\)"):
            config(Unknown, "toy")
        registry.add_model("Known", Unknown, based_on="KSR")
        ksr_recbole.unregister()
        ksr_recbole.register()
        assert config(Unknown, "toy")["model"] == "Known"
        assert config(KSR, "toy")["model"] == "KSR"
    finally:
        ksr_recbole.unregister()


class Masked(GRU):
    """A GRU with a causal mask that it does not use."""

    persistent = True

    def __init__(self, config, dataset) -> None:
        super().__init__(config, dataset)
        mask = torch.full((3, 3), -torch.inf).triu(1)
        self.register_buffer("mask", mask, persistent=self.persistent)


def test_a_buffer_that_no_checkpoint_can_hold_is_refused_before_training(tmp_path, monkeypatch):
    registry.add_model("Masked", Masked, based_on="GRU")
    write_toy(tmp_path)
    values = toy_values(tmp_path, epochs=1)
    with pytest.raises(UserError, match="The buffer mask of the model has a number that is not fi"):
        run("Masked", "toy", config_dict=values)
    monkeypatch.setattr(Masked, "persistent", False)
    assert run("Masked", "toy", config_dict=values)["epochs_trained"] == 1
