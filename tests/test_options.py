"""Options as fields: checked without a model, said once, extended in a few lines."""

from __future__ import annotations

import ast
import importlib.util
import math
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from recbole.utils import early_stopping

from ksr_recbole.config import Config, checks, shared
from ksr_recbole.config.keys import model_options
from ksr_recbole.config.kinds import checked, options_of
from ksr_recbole.config.options import AboveZero, Value, real
from ksr_recbole.errors import UserError
from ksr_recbole.model.gru_recommender import GRUOptions
from ksr_recbole.model.ksr import KSR, KSROptions
from ksr_recbole.model.rum import RUMItemOptions
from ksr_recbole.registry import MODELS, add_model, own_models
from tests.toy import toy_values

ROOT = Path(__file__).resolve().parents[1]


@cache
def make_options() -> Any:
    """The script ``docs/make_options.py``."""
    spec = importlib.util.spec_from_file_location("make_options", ROOT / "docs/make_options.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_comments_and_tables_are_those_of_the_classes(capsys):
    assert make_options().main(["--check"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("gamma: 3 # * (int) Old.", "# * (float) Scale of the attention, Eq. 6."),
        ("gamma: 3", "# (float) Scale of the attention, Eq. 6."),
        ("attributes: ~  # (dict) x", "# (list) Relations used as attributes"),
    ],
)
def test_a_comment_that_is_out_of_date_is_written_anew(line, expected):
    script = make_options()
    (made,) = script.commented(line, script.declared_for("KSR")).splitlines()
    assert made != line and expected in made
    assert yaml.safe_load(made) == yaml.safe_load(line)


def test_what_departs_from_the_papers_setting_is_marked():
    default, paper = (
        (ROOT / f"configs/model/{name}.yaml").read_text(encoding="utf-8")
        for name in ("KSR", "KSR-paper")
    )
    marked = {line.split(":")[0] for line in default.splitlines() if "# * (" in line}
    assert marked == yaml.safe_load(paper).keys() - {"based_on"}


def test_what_is_no_option_stays():
    text = "# gamma: 3\n\nunknown: 3  # mine\n  gamma: 4 # a part of another key\n"
    script = make_options()
    assert script.commented(text, script.declared_for("KSR")) == text


@pytest.mark.parametrize("model", ["KSR", "GRU", "RUM_I", "RUM_F", "BPR", "NeuMF", "CKE", "FPMC"])
def test_a_field_s_default_is_the_model_s(model):
    own = options_of(model).defaults()
    values = model_options(model)
    assert {k: v for k, v in values.items() if k in own} == {k: own[k] for k in own if k in values}


@pytest.mark.parametrize("file", ["overall", "pretraining", "task/next-item"])
def test_a_shared_field_s_default_is_the_file_s(file):
    declared: dict[str, Any] = {}
    for each in make_options().SHARED:
        declared |= each.defaults()
    values = yaml.safe_load((ROOT / "configs" / f"{file}.yaml").read_text(encoding="utf-8"))
    known = {key: value for key, value in values.items() if key in declared}
    assert known and known == {key: declared[key] for key in known}


def test_training_stops_as_stopping_step_says():
    meaning = make_options().meanings(shared.TrainingOptions)["stopping_step"]
    assert meaning.startswith("Stop once more than this many validations in a row were not better")
    waited, stop, validations = 0, False, 0
    while not stop:
        validations += 1
        _, waited, stop, _ = early_stopping(0.1, 0.2, waited, max_step=5)
    assert validations == 5 + 1


@pytest.mark.parametrize("model", MODELS)
def test_every_option_of_a_model_is_declared_and_means_something(model):
    said = make_options().declared_for(model)
    assert set(model_options(model)) <= set(said)
    assert all(kind and meaning for kind, meaning in said.values())


@pytest.mark.parametrize("model", own_models())
def test_every_declared_option_is_read_by_the_code_of_the_models(model):
    trees = [ast.parse(file.read_text()) for file in (ROOT / "ksr_recbole/model").glob("*.py")]
    read = {n.attr for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    assert {each.name for each in fields(options_of(model))} <= read


# Checks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "values", "told"),
    [
        (KSROptions, {"gamma": -1}, "gamma is -1"),
        (KSROptions, {"gamma": "x"}, "gamma is 'x'; it must be a number"),
        (KSROptions, {"embedding_size": 0}, "embedding_size is 0; it must be at least 1"),
        (KSROptions, {"num_layers": True}, "num_layers is True; it must be a whole number"),
        (KSROptions, {"kb_score": False}, "kb_input and kb_score are both False"),
        (KSROptions, {"value_matrix": "shared", "freeze_kg": False}, "value_matrix is shared"),
        (GRUOptions, {"freeze_item": True}, "freeze_item is True with item_init: random"),
        (GRUOptions, {"hidden_size": 8}, "a user vector has 8 columns and an item vector 256"),
        (RUMItemOptions, {"loss_type": "CE"}, "loss_type is 'CE'; it must be one of: BPR"),
        (RUMItemOptions, {"kb_score": False}, "RUM is compared with KB embeddings"),
        (shared.TrainingOptions, {"learner": "lbfgs"}, "learner is 'lbfgs'"),
        (shared.TrainingOptions, {"train_rec_step": 0, "train_kg_step": 0}, "are both 0"),
        (shared.RunOptions, {"num_threads": 10**6}, "num_threads is 1000000"),
        (shared.PretrainingOptions, {"kge_norm": 3}, "kge_norm is 3; it must be one of: 1, 2"),
    ],
)
def test_options_are_checked_however_they_are_made(options, values, told):
    for make in (lambda: options(**values), lambda: replace(options(), **values)):
        with pytest.raises(UserError) as error:
            make()
        assert told in str(error.value)


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (Value(int, 1, 5), (1, 4), (0, 5)),
        (Value(float, 0, 1), (0, 0.999), (-1e-9, 1, 1.0)),
        (AboveZero(1), (1e-9, 1, 1.0), (0, 1.001)),
        (checks.within(0, 1), (0, 1, 1.0), (-1e-9, 1.001)),
        (checks.topk, (1, 100_000), (0, 100_001)),
    ],
    ids=["whole", "real", "above zero", "within", "topk"],
)
def test_bounds_of_numbers_belong_to_them_as_they_say(check, good, bad):
    for value in good:
        assert check("key", value) in (value, [value])
    for value in bad:
        with pytest.raises(UserError, match="Config key key is"):
            check("key", value)


def test_stopping_step_may_be_0_and_what_tilde_stands_for():
    assert shared.TrainingOptions(stopping_step=0).stopping_step == 0
    options = shared.SampleOptions()
    assert (options.sample_size(10_000), options.popularity, options.calibration) == (
        512, 0.5, 0.75,
    )  # fmt: skip


def test_options_never_change():
    options = KSROptions(gamma=3)
    assert options.gamma == 3.0 and isinstance(options.gamma, float)
    with pytest.raises(FrozenInstanceError):
        options.gamma = 4.0


def test_options_of_a_configuration_need_no_model(toy_folder, monkeypatch):
    monkeypatch.setattr(KSR, "__init__", None)
    config = Config("KSR", "toy", None, toy_values(toy_folder, gamma=3))
    assert KSR.read_options(config) == KSROptions(
        gamma=3.0, embedding_size=8, hidden_size=8, kg_embedding_size=4, train_batch_size=64
    )
    config["gamma"] = None  # never the field's default instead
    with pytest.raises(UserError, match="gamma is None"):
        KSR.read_options(config)


def test_what_has_no_effect_needs_no_value():
    config = {**GRUOptions.defaults(), "kg_embedding_size": None, "kb_scale": None}
    assert GRUOptions.of(config) == GRUOptions()
    with pytest.raises(UserError, match="kg_embedding_size is None"):
        GRUOptions.of({**config, "kb_input": True})


# Models of one's own -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ShyOptions(KSROptions):
    shyness: float = real(0.25, minimum=0, below=1)
    """How shy it is."""


class ShyKSR(KSR):
    Options = ShyOptions
    options: ShyOptions


def test_a_model_of_one_s_own_declares_its_options(toy_folder):
    before = dict(MODELS)
    try:
        add_model("ShyKSR", ShyKSR, based_on="KSR")
        assert model_options("ShyKSR") == {**model_options("KSR"), "shyness": 0.25}
        config = Config("ShyKSR", "toy", None, toy_values(toy_folder, shyness=0.5))
        options = ShyKSR.read_options(config)
        assert isinstance(options, ShyOptions) and options.shyness == 0.5
        with pytest.raises(UserError, match=r"shyness is 2\.0; it must be less than 1"):
            Config("ShyKSR", "toy", None, toy_values(toy_folder, shyness=2))
        add_model("ShyKSR", ShyKSR, based_on="KSR", shyness=0.75, gamma=2.0)
        assert model_options("ShyKSR")["shyness"] == 0.75
    finally:
        MODELS.clear()
        MODELS.update(before)


def test_where_two_models_differ_the_model_s_own_kind_counts():
    assert checked({"loss_type": "CE"}, "KSR") == {"loss_type": "CE"}
    with pytest.raises(UserError, match="loss_type is 'CE'"):
        checked({"loss_type": "CE"}, "RUM_I")
    with pytest.raises(UserError, match="memory_slots is 'x'"):
        checked({"memory_slots": "x"}, "KSR")


@pytest.mark.parametrize(
    ("model", "given", "idle"),
    [
        ("KSR", {"time_scales": [3]}, ["time_scales"]),
        ("KSR-exact", {"gamma": 5, "gate_bias": 0, "time_scales": [3]}, ["gamma", "gate_bias"]),
        ("KSR", {"gamma": 5, "memory_scale": 2}, []),
        ("GRU_F", {"kb_scale": 2, "kb_input": False, "kb_score": False}, ["kb_scale"]),
        ("GRU_F", {"kb_scale": 2}, []),
    ],
)
def test_an_option_that_means_nothing_with_the_others_is_said(toy_folder, model, given, idle):
    config = Config(model, "toy", None, toy_values(toy_folder, **given))
    said = [remark for remark in config.remarks() if "its other options" in remark]
    assert [remark.split()[2] for remark in said if remark.split()[2] in given] == idle


def test_what_the_settings_of_studies_differ_in_reaches_the_models(toy_folder):
    from ksr_recbole.comparison.studies import STUDIES

    reached = set()
    for study in STUDIES.values():
        for setting in study.settings:
            given = toy_values(toy_folder, **setting.overrides)
            config = Config(setting.model, "toy", None, given)
            options = options_of(setting.model).of(config)
            for key in setting.overrides.keys() & {field.name for field in fields(options)}:
                assert getattr(options, key) == setting.overrides[key], (setting.label, key)
                reached.add(key)
    assert reached >= {"value_matrix", "loss_type", "score_mlp_layers", "kb_score", "kb_scale"}


def test_a_whole_number_may_be_written_with_a_point():
    """YAML files that programs write have it; a part of a number or text is refused."""
    check = Value(int, 1, 10)
    assert check("epochs", 3.0) == 3 and isinstance(check("epochs", 3.0), int)
    for value in (2.5, "1", "1.0", math.inf, math.nan, 1e300, 0.0, 10.0, True):
        with pytest.raises(UserError, match="Config key epochs is"):
            check("epochs", value)


@pytest.mark.parametrize("name", ["food", "ml-1m", "lastfm"])
def test_the_name_of_a_dataset_is_no_key(name):
    """RecBole has files with the address of each."""
    with pytest.raises(UserError, match=f"Unknown config key '{name}'"):
        Config("KSR", "toy", None, {name: 3})
