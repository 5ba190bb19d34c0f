"""Drop-in registration: RecBole's own functions with this package's models, and exact undoing."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import rmtree
from types import ModuleType

import numpy as np
import psutil
import pytest
import recbole.data.dataset
import recbole.model.general_recommender.bpr as stock_bpr
import recbole.model.sequential_recommender.ksr as stock_module
import recbole.quick_start
import recbole.trainer
import torch
from recbole.config import Config as RecBoleConfig
from recbole.quick_start import objective_function, run_recbole
from recbole.trainer import HyperTuning
from recbole.utils import get_model, get_trainer, list_to_latex
from recbole.utils.case_study import full_sort_scores, full_sort_topk
from scipy.stats import ttest_rel

import ksr_recbole
from ksr_recbole import compat, versions
from ksr_recbole.config import Config
from ksr_recbole.config.config import DATASETS
from ksr_recbole.errors import UserError
from ksr_recbole.model.ksr import KSR
from ksr_recbole.model.rum import RUMItem
from ksr_recbole.quick_start import run
from ksr_recbole.registry import MODELS, own_models
from ksr_recbole.trainer import checkpoint
from ksr_recbole.trainer.sequence_trainer import SequenceTrainer
from tests.toy import toy_values

STOCK_KSR = stock_module.KSR


@pytest.fixture(autouse=True)
def _as_in_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not pytest's command line, which RecBole's Config would read, nor a second's wait a run."""
    monkeypatch.setattr(sys, "argv", ["script.py"])
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: 0.0)


@pytest.fixture
def registered() -> Iterator[None]:
    ksr_recbole.register()
    yield
    ksr_recbole.unregister()


@pytest.fixture
def trained(toy_folder: Path, registered: None) -> Path:
    """A checkpoint that RecBole's ``run_recbole`` left."""
    run_recbole("KSR", "toy", config_dict=toy_values(toy_folder))
    return next((toy_folder / "saved").glob("KSR-toy-*.pth"))


def recbole_state() -> dict[tuple[str, str], int]:
    """Identity of everything that RecBole's modules and its ``Config`` hold, and the modules."""
    compat.recbole_on_new_libraries()  # stays, whether registered or not
    modules = {name: m for name, m in sys.modules.items() if name.split(".")[0] == "recbole"}
    state = {
        (name, attribute): id(value)
        for name, module in modules.items()
        for attribute, value in vars(module).items()
    }
    return state | {("Config", name): id(value) for name, value in vars(RecBoleConfig).items()}


# Runs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["KSR", "GRU++"])
def test_recboles_run_gives_what_ours_gives(toy_folder, registered, model):
    ours = run(model, "toy", None, toy_values(toy_folder))
    theirs = run_recbole(model, "toy", config_dict=toy_values(toy_folder))
    assert set(theirs) == {
        "best_valid_score", "valid_score_bigger", "best_valid_result", "test_result"
    }  # fmt: skip
    assert theirs["test_result"] == ours["test_result"]
    assert theirs["best_valid_score"] == ours["best_valid_score"]
    assert theirs["valid_score_bigger"] is True


def test_recboles_run_without_a_checkpoint_tests_the_best_epoch(toy_folder, registered):
    values = {"epochs": 8, "learning_rate": 0.5, "learner": "adam"}
    ours = run("KSR", "toy", None, toy_values(toy_folder, **values))
    assert ours["best_epoch"] < ours["epochs_trained"] - 1
    given = toy_values(toy_folder, **values)
    theirs = run_recbole("KSR", "toy", config_dict=given, saved=False)
    assert theirs["test_result"] == ours["test_result"]


def test_pretraining_in_recboles_run_leaves_the_result_as_it_is(toy_folder, registered):
    first = run_recbole("KSR", "toy", config_dict=toy_values(toy_folder))
    from_cache = run_recbole("KSR", "toy", config_dict=toy_values(toy_folder))
    assert first == from_cache


def stock_values(folder: Path) -> dict:
    """RecBole's own models on the toy data, with one item for each entity as they need it."""
    link = folder / "toy" / "toy.link"
    lines = [line for line in link.read_text().splitlines() if line != "i2\te1"]
    link.write_text("\n".join(lines) + "\n")
    return {
        "data_path": str(folder),
        "epochs": 1,
        "embedding_size": 8,
        "load_col": {
            "inter": ["user_id", "item_id", "timestamp"],
            "kg": ["head_id", "relation_id", "tail_id"],
            "link": ["item_id", "entity_id"],
        },
        "gpu_id": "",
        "show_progress": False,
    }


@pytest.mark.parametrize("model", ["BPR", "CKE", "GRU4Rec"])
def test_recboles_other_models_stay_as_they_are(toy_folder, model):
    values = stock_values(toy_folder)
    if model == "GRU4Rec":
        values |= {"train_neg_sample_args": None, "hidden_size": 8}

    def result() -> dict:
        return run_recbole(model, "toy", config_dict=dict(values), saved=False)

    alone = np.lib.NumpyVersion(np.__version__) < "2.0.0"  # stock RecBole fails with NumPy 2
    before = result() if alone else None
    ksr_recbole.register()
    try:
        between = result()
        assert get_model(model).__module__.startswith("recbole.")
    finally:
        ksr_recbole.unregister()
    assert between["test_result"]
    if alone:
        assert before == between == result()
    else:
        with pytest.raises(AttributeError, match=r"np\.float_"):
            result()


def test_recboles_group_and_significance_scripts(toy_folder, registered):
    rows = []
    for model in ("KSR", "RUM_F"):
        result = recbole.quick_start.run(model, "toy", config_dict=toy_values(toy_folder))
        rows.append({"Model": model, **result["test_result"]})
    _, latex = list_to_latex(rows, bigger_flag=True, subset_columns=list(result["test_result"]))
    assert "KSR" in latex and "RUM" in latex
    samples = [
        [
            run_recbole(model, "toy", config_dict=toy_values(toy_folder, seed=seed))["test_result"]
            for seed in (1, 2)
        ]
        for model in ("KSR", "GRU")
    ]
    ours, baseline = ([each["mrr"] for each in results] for results in samples)
    assert np.isfinite(ttest_rel(ours, baseline, alternative="less").pvalue)


def test_recboles_tuning_script(toy_folder, tmp_path, registered):
    file = tmp_path / "KSR.hyper"
    file.write_text("learning_rate choice [0.001,0.01]\n")
    base = tmp_path / "base.yaml"
    values = {**toy_values(toy_folder), "model": "KSR", "dataset": "toy"}
    base.write_text("\n".join(f"{key}: {value!r}" for key, value in values.items()))
    tuning = HyperTuning(
        objective_function, params_file=str(file), fixed_config_file_list=[str(base)]
    )
    tuning.run()
    tuning.export_result(output_file=str(tmp_path / "out"))
    assert len(tuning.params_list) == 2
    assert tuning.best_score == max(tuning.score_list)


# Names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", own_models())
def test_every_name_is_found_where_recbole_looks(registered, name):
    module, attribute = MODELS[name].target.split(":")
    assert get_model(name) is getattr(importlib.import_module(module), attribute)
    assert issubclass(get_trainer(get_model(name).type, name), SequenceTrainer)
    assert RecBoleConfig(name, "ml-100k")["model"] == name


def test_registering_twice_is_once_and_unregistering_restores_everything():
    ksr_recbole.unregister()
    before = recbole_state()
    ksr_recbole.register()
    once = recbole_state()
    ksr_recbole.register()
    assert recbole_state() == once != before
    ksr_recbole.unregister()
    assert recbole_state() == before
    ksr_recbole.unregister()
    assert recbole_state() == before
    assert get_model("KSR") is STOCK_KSR
    with pytest.raises((ValueError, ImportError)):  # RecBole looks into LightGBM's module last
        get_model("GRU++")


def test_registering_does_not_import_what_slows_every_training():
    code = (
        "import sys, torch, ksr_recbole; ksr_recbole.register()\n"
        "from recbole.config import Config\n"
        "assert Config('KSR', 'toy').model_class.__module__ == 'ksr_recbole.model.ksr'\n"
        "assert not torch.is_anomaly_enabled()\n"
        "assert Config('StockKSR', 'toy', None, {'train_neg_sample_args': None})"
        ".model_class.__module__ == 'recbole.model.sequential_recommender.ksr'\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_functions_that_were_imported_by_name_are_replaced_too(monkeypatch):
    user = ModuleType("a_users_module")
    monkeypatch.setitem(sys.modules, "a_users_module", user)
    original = recbole.quick_start.load_data_and_model
    user.load = original
    ksr_recbole.register()
    late = ModuleType("imported_later")
    monkeypatch.setitem(sys.modules, "imported_later", late)
    late.load = recbole.quick_start.load_data_and_model
    assert user.load is late.load is not original
    ksr_recbole.unregister()
    assert user.load is late.load is original


def test_an_unsupported_version_is_refused_and_nothing_is_registered(monkeypatch):
    before = recbole_state()
    monkeypatch.setitem(versions.WANTED, "recbole", versions.SpecifierSet("==9.9"))
    with pytest.raises(UserError, match=r"recbole 1\.2\.1 was found, but recbole==9\.9 is wanted"):
        ksr_recbole.register()
    assert recbole_state() == before


def test_a_registration_that_fails_half_way_leaves_nothing(monkeypatch):
    from ksr_recbole.plugin import recbole_hooks

    before = recbole_state()
    monkeypatch.setattr(recbole_hooks, "_add_config", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ksr_recbole.register()
    assert recbole_state() == before


# Stock KSR ----------------------------------------------------------------------------------


def test_stock_ksr_stays_reachable_by_name_and_by_class(monkeypatch):
    values = {"train_neg_sample_args": None}
    with monkeypatch.context() as patch:  # with NumPy 2 stock RecBole needs what register() does
        patch.setattr(
            RecBoleConfig,
            "compatibility_settings",
            lambda _: compat.recbole_on_new_libraries(),
        )
        plain = RecBoleConfig("KSR", "toy", config_dict=values).final_config_dict
    ksr_recbole.register()
    try:
        for given in ("StockKSR", STOCK_KSR):
            config = RecBoleConfig(given, "toy", config_dict=values)
            assert config.model_class is get_model(config["model"]) is STOCK_KSR
            assert {**config.final_config_dict, "model": "KSR"} == plain
        assert stock_module.KSR is STOCK_KSR
        dataset = recbole.data.dataset.StockKSRDataset
        assert dataset is recbole.data.dataset.customized_dataset.KSRDataset
        assert not issubclass(get_trainer(STOCK_KSR.type, "StockKSR"), SequenceTrainer)
    finally:
        ksr_recbole.unregister()


class BPR(stock_bpr.BPR):
    """A user's own class, named as one of RecBole's."""

    made = 0

    def __init__(self, config, dataset) -> None:
        super().__init__(config, dataset)
        BPR.made += 1


def test_a_user_s_own_class_is_what_recboles_run_trains(toy_folder, registered, monkeypatch):
    monkeypatch.setattr(BPR, "made", 0)
    values = {**stock_values(toy_folder), "epochs": 1}
    assert run_recbole(BPR, "toy", config_dict=values, saved=False)["test_result"]
    assert BPR.made == 1 and get_model("BPR") is BPR
    RecBoleConfig("BPR", "toy", config_dict=values)  # by its name it is RecBole's again
    assert get_model("BPR") is stock_bpr.BPR


@pytest.mark.parametrize("config", [Config, RecBoleConfig])
def test_a_class_that_only_has_the_name_of_ours_is_refused(registered, config):
    own = type("GRU", (stock_bpr.BPR,), {})
    with pytest.raises(UserError, match=r"The class GRU of .* has the name of a model of ksr_rec"):
        config(own, "toy")


def test_our_run_takes_classes_that_their_names_find():
    for own in (BPR, dict):
        with pytest.raises(UserError, match=rf"run_recbole\(model={own.__name__}\)"):
            Config(own, "toy")
    assert Config(stock_bpr.BPR, "toy")["model"] == "BPR"
    assert Config(STOCK_KSR, "toy")["model"] == "StockKSR"  # it was this package's without a word


# Configuration ------------------------------------------------------------------------------


def test_recboles_config_has_our_defaults_and_data(registered):
    config = RecBoleConfig("KSR", "ml-100k")
    ours = Config("KSR", "ml-100k")
    assert config.final_config_dict == ours.final_config_dict
    assert config["data_path"] == str(DATASETS / "ml-100k")
    assert isinstance(config, RecBoleConfig)


def test_users_values_win(registered, tmp_path, monkeypatch):
    file = tmp_path / "mine.yaml"
    file.write_text("gamma: 3.0\nmodel: KSR\neval_args:\n  mode: full\nseed: 1\n")
    monkeypatch.setattr(sys, "argv", ["script.py", "--seed=3", "--model_list=KSR,BPR"])
    config = RecBoleConfig(dataset="toy", config_file_list=[str(file)], config_dict={"seed": 2})
    assert (config["model"], config["gamma"], config["seed"]) == ("KSR", 3.0, 3)
    assert config["eval_args"]["mode"] == {"valid": "full", "test": "full"}
    assert config["eval_args"]["order"] == "TO"


def test_a_part_of_eval_args_can_be_given_by_a_dotted_key(registered):
    given = {"eval_args": {"order": "TO"}, "eval_args.mode": "uni10"}
    config = RecBoleConfig("KSR", "toy", config_dict=given)
    assert config["eval_args"]["mode"]["test"] == "uni10"
    assert given["eval_args"] == {"order": "TO"}


def test_an_unknown_key_is_kept_with_a_warning(registered, caplog):
    config = RecBoleConfig("KSR", "toy", config_dict={"gama": 3})
    assert config["gama"] == 3
    told = "did you mean gamma? It has no effect on KSR."
    assert "Unknown config key 'gama'" in caplog.text and told in caplog.text
    assert [remark for remark in config.remarks() if "gama" in remark] == []


@pytest.mark.parametrize(
    ("word", "told"),
    [("--leraning_rate=1", "did you mean learning_rate?"),
     ("--eval_setting=TO_LS,full", "is of an earlier RecBole"),
     ("--min_user_inter_num=5", "is of an earlier RecBole")],
)  # fmt: skip
def test_an_unknown_word_of_a_command_has_its_warning(registered, caplog, monkeypatch, word, told):
    monkeypatch.setattr(sys, "argv", ["script.py", word])
    config = RecBoleConfig("GRU", "toy")
    assert told in caplog.text and config.remarks() == []


@pytest.mark.parametrize("key", ["group_by_user", "leraning_rate"])
def test_a_key_that_nothing_reads_has_one_warning(registered, caplog, key):
    """Where it stands is no matter; one of another model is known and has its remark."""
    config = RecBoleConfig("KSR", "toy", config_dict={key: 3, "n_heads": 2})
    assert sum(key in record.getMessage() for record in caplog.records) == 1
    (remark,) = config.remarks()
    assert "n_heads has no effect on KSR: it is no option of it" in remark


IDLE = {
    "threshold": {"rating": 3}, "normalize_all": True, "worker": 2, "gamma": 3, "gpu_id": "0",
    "device": "cpu", "eval_args": {"mode": "uni500", "group_by": "none"}, "enable_amp": True,
    "use_gpu": True, "wandb_project": "mine", "unused_col": {"inter": ["timestamp"]}, "epochs": 1,
}  # fmt: skip
"""Values that do nothing with GRU, and a mode for which the catalogue is too small."""


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What loggers warn of, wherever their handlers write it."""
    told: list[str] = []
    monkeypatch.setattr(logging.Logger, "warning", lambda _, text, *__, **___: told.append(text))
    return told


def test_what_our_run_warns_of_recboles_run_warns_of_too(toy_folder, registered, warned):
    def said() -> set[str]:
        told = set(warned)
        warned.clear()
        return told

    values = toy_values(toy_folder, **IDLE)
    del values["report_modes"], values["results_dir"]
    run("GRU", "toy", None, {**values, "results_dir": str(toy_folder), "report_modes": ["full"]})
    ours = said()
    assert len(ours) >= len(IDLE) - 2 and any("uniform and" in each for each in ours)
    run_recbole("GRU", "toy", config_dict=dict(values))
    assert said() == ours


def test_what_only_our_run_reads_is_said_by_recboles(toy_folder, registered, warned):
    run_recbole("GRU", "toy", config_dict=toy_values(toy_folder, epochs=1, nproc=1))
    for key in ("report_modes", "results_dir", "nproc"):
        assert f"Config key {key} has no effect with RecBole's run_recbole" in " ".join(warned)


PARTS_IN_TWO_PLACES = [
    ({"eval_args": {"mode": "full"}}, {"eval_args.order": "TO"}),
    ({"eval_args.mode": "full"}, {"eval_args": {"order": "TO"}}),
    ({"eval_args": {"order": "TO"}}, {"eval_args": {"mode": "full"}}),
    ({}, {"eval_args.mode": "full", "eval_args": {"order": "TO"}}),
    ({}, {"eval_args": {"order": "TO"}, "eval_args.mode": "full"}),
    ({"eval_args.mode": "full", "eval_args": {"order": "TO"}}, {}),
]
"""A file's values and those given next to it: the mode is full and the order TO in each."""


@pytest.mark.parametrize("make", [Config, RecBoleConfig])
@pytest.mark.parametrize(("in_file", "given"), PARTS_IN_TWO_PLACES)
def test_parts_given_in_two_places_are_kept(in_file, given, make, registered, toy_folder):
    file = toy_folder / "mine.yaml"
    file.write_text("".join(f"{key}: {value}\n" for key, value in in_file.items()))
    values = {k: v for k, v in toy_values(toy_folder).items() if k != "eval_args"}
    config = make("KSR", "toy", [str(file)], {**values, **given})
    assert config["eval_args"]["mode"] == {"valid": "full", "test": "full"}
    assert config["eval_args"]["order"] == "TO"


@pytest.mark.parametrize("make", [Config, RecBoleConfig])
def test_parts_of_several_files_are_kept_and_the_last_one_wins(make, registered, toy_folder):
    texts = [
        "train_neg_sample_args: {distribution: popularity, sample_num: 5}\n",
        "train_neg_sample_args.sample_num: 3\n",
        "train_neg_sample_args: {sample_num: 2}\n",
    ]
    files = [toy_folder / f"{number}.yaml" for number in range(3)]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    values = toy_values(toy_folder, loss_type="BPR")
    drawn = make("KSR", "toy", list(map(str, files)), values)["train_neg_sample_args"]
    assert (drawn["distribution"], drawn["sample_num"]) == ("popularity", 2)


@pytest.mark.parametrize("make", [Config, RecBoleConfig])
def test_a_part_keeps_the_other_parts_of_any_key_that_a_file_gives(make, registered, toy_folder):
    """As a whole it takes their place."""
    file = toy_folder / "mine.yaml"
    file.write_text("val_interval: {rating: '[3,inf)'}\n")
    values = toy_values(toy_folder)

    def intervals(**given: object) -> object:
        named = {key.replace("__", "."): value for key, value in given.items()}
        return make("KSR", "toy", [str(file)], {**values, **named})["val_interval"]

    both = {"rating": "[3,inf)", "timestamp": "[5,inf)"}
    assert intervals(val_interval__timestamp="[5,inf)") == both
    assert intervals(val_interval={"timestamp": "[5,inf)"}) == {"timestamp": "[5,inf)"}


def test_the_number_of_threads_is_that_of_the_configuration(registered, monkeypatch):
    asked = []
    monkeypatch.setattr("ksr_recbole.config.config.use_threads", asked.append)
    RecBoleConfig("KSR", "toy", config_dict={"num_threads": 1})
    assert asked == [1]


def test_a_model_larger_than_the_memory_is_refused(toy_folder, registered):
    values = toy_values(toy_folder, hidden_size=65000, num_layers=60)
    with pytest.raises(UserError, match=r"need .* GiB"):
        run_recbole("GRU", "toy", config_dict=values)


def test_a_class_of_ours_is_configured_by_its_name(registered):
    assert RecBoleConfig(KSR, "toy")["model"] == "KSR"
    assert RecBoleConfig(RUMItem, "toy")["model"] == "RUM_I"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"save_dataset": True}, "save_dataset is True"),
        ({"dataloaders_save_path": "x.pth"}, "dataloaders_save_path is x.pth"),
        ({"local_rank": 1}, "run with nproc or world_size"),
        ({"resume": True}, "resume is True, but RecBole's run_recbole cannot resume KSR"),
        ({"task": "next-week"}, "There is no task 'next-week'"),
        ({"eval_args": {"mode": "labeled"}}, "is not a mode known here"),
    ],
)
def test_what_our_models_cannot_do_is_refused(registered, values, sentence):
    with pytest.raises(UserError, match=sentence):
        RecBoleConfig("KSR", "toy", config_dict=values)


def test_a_subclass_of_recboles_config_is_refused(registered):
    class MyConfig(RecBoleConfig):
        pass

    with pytest.raises(UserError, match="MyConfig is a subclass"):
        MyConfig("KSR", "toy")
    assert MyConfig("BPR", "toy")["model"] == "BPR"


def test_a_dataset_that_does_not_exist_is_told_in_a_sentence(registered):
    with pytest.raises(UserError, match=r"named 'ml-100'.* dataset_atomic convert csv --d"):
        run_recbole("KSR", "ml-100", config_dict={"gpu_id": "", "show_progress": False})


def test_a_trainer_before_its_data_is_refused(registered):
    config = RecBoleConfig("KSR", "toy")
    with pytest.raises(UserError, match="made before its data"):
        get_trainer(config["MODEL_TYPE"], "KSR")(config, torch.nn.Linear(1, 1))


# Checkpoints --------------------------------------------------------------------------------


def load(path: Path) -> tuple:
    return recbole.quick_start.load_data_and_model(str(path))


def test_load_data_and_model_gives_the_trained_model(toy_folder, trained, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["script.py", "--gamma=1.0"])  # of another script
    config, model, dataset, train_data, valid_data, test_data = load(trained)
    assert config["model"] == "KSR" and config["epochs"] == 2 and config["gamma"] == 10.0
    stored = checkpoint.load(trained)
    for name, value in model.state_dict().items():
        assert torch.equal(value, stored["state_dict"][name]), name
    trainer = get_trainer(config["MODEL_TYPE"], "KSR")(config, model)
    values = toy_values(toy_folder)
    assert trainer.evaluate(test_data, False) == run("KSR", "toy", None, values)["test_result"]
    assert len(train_data) and valid_data and dataset.user_num == 31


def test_loading_a_checkpoint_pretrains_nothing(toy_folder, trained):
    """What the vectors became is in the checkpoint, so an empty cache costs nothing."""
    cache = Path(toy_values(toy_folder)["pretrain_dir"])
    rmtree(cache)
    config, model, _, _, _, test_data = load(trained)
    assert not list(cache.glob("*"))
    stored = checkpoint.load(trained)["state_dict"]
    assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items())
    assert get_trainer(config["MODEL_TYPE"], "KSR")(config, model).evaluate(test_data, False)


def test_a_checkpoint_with_other_rows_is_told_in_a_sentence(trained):
    content = checkpoint.load(trained)
    table = content["state_dict"]["entity_embedding.weight"]
    content["state_dict"]["entity_embedding.weight"] = table[:-1].clone()
    checkpoint.save(trained, content)
    with pytest.raises(UserError, match=f"has {len(table) - 1} rows instead of {len(table)}"):
        load(trained)


def test_a_checkpoint_of_other_data_is_refused(toy_folder, trained):
    inter = toy_folder / "toy" / "toy.inter"
    inter.write_text("".join(inter.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match="was trained on other toy files"):
        load(trained)


def test_a_damaged_or_missing_checkpoint_is_told_in_a_sentence(trained):
    trained.write_bytes(trained.read_bytes()[:-100])
    with pytest.raises(UserError, match="is damaged or not a checkpoint"):
        load(trained)
    with pytest.raises(UserError, match="does not exist"):
        load(trained.with_name("none.pth"))


def test_a_checkpoint_that_lacks_a_part_is_told_in_a_sentence(trained):
    content = checkpoint.load(trained)
    del content["given"]
    checkpoint.save(trained, content)
    with pytest.raises(UserError, match="it has no given"):
        load(trained)


class Evil:
    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, ("unpickled",)


def test_nothing_is_unpickled(registered, tmp_path):
    torch.save({"format": 1, "config": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="not a checkpoint of this package"):
        load(tmp_path / "evil.pth")
    assert not (tmp_path / "unpickled").exists()


def test_a_checkpoint_of_recboles_models_is_read_where_it_is_trusted(
    toy_folder, tmp_path, monkeypatch, registered
):
    monkeypatch.chdir(tmp_path)  # checkpoint_dir is RecBole's own, in the working folder
    values = stock_values(toy_folder)
    tested = run_recbole("BPR", "toy", config_dict=dict(values))["test_result"]
    without = run_recbole("BPR", "toy", config_dict=dict(values), saved=False)["test_result"]
    assert tested == without
    [written] = (tmp_path / "saved").glob("BPR-*.pth")

    def metrics(path: Path) -> dict:
        config, model, _, _, _, test_data = load(path)
        trainer = get_trainer(config["MODEL_TYPE"], "BPR")(config, model)
        return trainer.evaluate(test_data, load_best_model=False)

    assert metrics(written) == tested  # this process wrote it
    moved = written.rename(tmp_path / "moved.pth")
    with pytest.raises(UserError, match=r"register\(trust_checkpoint=True\)"):
        load(moved)
    ksr_recbole.register(trust_checkpoint=True)
    assert metrics(moved) == tested
    ksr_recbole.register()
    with pytest.raises(UserError, match="trust_checkpoint"):
        load(moved)


def test_a_process_of_its_own_gets_no_notices_of_recboles(toy_folder, tmp_path):
    """Neither of our models nor of RecBole's, from loading the data to the test."""
    code = (
        "import ksr_recbole, sys\n"
        "from ksr_recbole.quick_start import run\n"
        f"sys.argv = ['script.py']\n"
        f"run('KSR', 'toy', None, {toy_values(toy_folder)!r})\n"
        "ksr_recbole.register()\n"
        "from recbole.quick_start import run_recbole\n"
        f"run_recbole('BPR', 'toy', config_dict={stock_values(toy_folder)!r})\n"
    )
    root = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONWARNINGS": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr and "ChainedAssignment" not in done.stderr


# Case studies -------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["next-item", "next-session"])
@pytest.mark.parametrize("phase", ["valid", "test"])
def test_case_studies_rank_as_our_full_ranking(toy_folder, registered, task, phase):
    values = toy_values(toy_folder, task=task, session_length=7200.0)
    trained = run("GRU_F", "toy", None, values)["checkpoint"]
    config, model, _, _, valid_data, test_data = load(Path(trained))
    data = valid_data if phase == "valid" else test_data
    ranked = get_trainer(config["MODEL_TYPE"], "GRU_F")(config, model).rank(data, "full")
    users, first = np.unique(ranked.users, return_index=True)
    scores, items = full_sort_topk(users, model, data, k=data.dataset.item_num, device="cpu")
    assert items.shape == (len(users), data.dataset.item_num)
    sequences, split = data.dataset.sequences, data.dataset.split
    start, end = split.target_range(phase, sequences)
    for row, user in enumerate(users):
        own = sequences.items[sequences.offsets[user] :]
        seen, positives = set(own[: start[user]]), set(own[start[user] : end[user]])
        order = [int(i) for i, s in zip(items[row], scores[row], strict=True) if s > -np.inf]
        assert not seen & set(order) and 0 not in order
        places = sorted(order.index(item) + 1 for item in positives)
        assert places == sorted(ranked.ranks[ranked.users == user])
    assert first[0] == 0


def test_the_scores_of_a_single_user(trained):
    _, model, dataset, _, _, test_data = load(trained)
    user = dataset.token2id("user_id", ["u3"])
    scores = full_sort_scores(user, model, test_data)
    assert scores.shape == (1, dataset.item_num)
    assert scores[0, 0] == -np.inf and torch.isfinite(scores).any()
    with pytest.raises(UserError, match="User id 0 of toy has no history"):
        full_sort_scores([0], model, test_data)
