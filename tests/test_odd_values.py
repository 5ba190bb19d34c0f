"""Every config key with values of every wrong kind: the right value or one sentence."""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path
from shutil import copytree
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import yaml
from recbole.quick_start import run_recbole
from recbole.utils import (
    dataset_arguments,
    evaluation_arguments,
    general_arguments,
    training_arguments,
)

import ksr_recbole
from dataset_atomic.cli import main as atomic
from ksr_recbole.cli import main as recbole
from ksr_recbole.comparison.cli import main as benchmark
from ksr_recbole.config import Config, checks, config, keys, kinds
from ksr_recbole.config.keys import TEXTS, model_options
from ksr_recbole.config.literals import literals
from ksr_recbole.dataset.sequence_datasets import load_dataset
from ksr_recbole.errors import UserError
from ksr_recbole.explanation.cli import main as explain
from ksr_recbole.inference.cli import main as export
from ksr_recbole.names import check_name
from ksr_recbole.paths import CHECKOUT
from ksr_recbole.quick_start import run
from ksr_recbole.quick_start.model_size import check_memory
from ksr_recbole.quick_start.process_keys import PROCESS_KEYS, read_hosts
from ksr_recbole.quick_start.recbole_run import options_named
from ksr_recbole.registry import MODELS, model_class
from ksr_recbole.trainer.option_checks import check_options
from ksr_recbole.tuning.cli import main as tune
from tests import forked
from tests.toy import toy_values

ODD: tuple[Any, ...] = (
    # as words of a command line
    "1/0", "os.runs", "[][1]", "10**9", "", " ", "~", "None", "True", "false", "0", "1", "-1",
    "0.5", "1e999", "-1e40", "inf", "nan", "9" * 400, "9" * 5000, "١٢", "[]", "[1]", "[10]",
    "['a']", "[[1]]", "{}", "{'a': 1}", "{'max_norm': 'x'}", "(1, 2)", "b'x'", "'quoted'",
    "[100,inf)", "[5", "x" * 300, "x" * 20_000, "../evil", "a\tb", "\x1b[2J", "\u202e", "\0",
    "[" * 3000, "full", "item_id", "latin9x", "2026/11/28", "uni5", "[True]", "1000000000",
    # as values of a program or a YAML file
    0, 1, -1, 2**31, 10**9, 10**400, 0.5, -0.0, math.inf, -math.inf, math.nan, 1e300, True, False,
    None, [], [[]], [None], [math.nan], {}, {"a": {"b": [1]}}, {1: 2}, (), (1,), b"x", {1}, 1j,
    object(), Path("12"), print,
)  # fmt: skip
"""Values that fit some keys and are odd for others."""


def all_keys() -> list[str]:
    recboles = general_arguments + training_arguments + evaluation_arguments + dataset_arguments
    ours = {key for model in MODELS for key in model_options(model)}
    return sorted({*kinds.FOR_ALL, *kinds.of_models(), *recboles, *ours} - {"config_file"})


def toy_command(folder: Path) -> list[str]:
    values = toy_values(folder)
    values["eval_args.mode"] = values.pop("eval_args")["mode"]
    return ["--dataset=toy", *(f"--{key}={value}" for key, value in values.items())]


def early_checks(model: str, values: dict[str, Any]) -> Config:
    """What a run does before it reads anything."""
    config = Config(model, values.pop("dataset", "toy"), None, values)
    read_hosts(config)
    check_options(config, model_class(config["model"]))
    return config


def taken(key: str, value: Any) -> bool:
    """Whether a value is one of the key's kind; a refusal is one sentence."""
    try:
        kinds.checked(literals({key: value}, TEXTS), "KSR")
    except UserError as error:
        told = str(error)
        assert told and "\n" not in told and len(told) < 500, (key, value)
        return False
    return True


@pytest.mark.parametrize("key", all_keys())
def test_every_key_takes_odd_values_or_refuses_them(toy_folder, key):
    fitting = [value for value in ODD if taken(key, value)]
    assert len(fitting) < len(ODD), "a key that takes everything is not checked"
    values = toy_values(toy_folder)
    for value in fitting[:: max(1, len(fitting) // 3)]:
        try:
            early_checks("KSR", {**values, key: value})
        except UserError as error:
            told = str(error)
            assert told and "\n" not in told and len(told) < 2000, (key, value)


@pytest.mark.parametrize("value", [5, None, "x", [1], {}, {"mode": 5}, {"mode": "uni5"}])
@pytest.mark.parametrize("key", ["gamma", "eval_args", "train_neg_sample_args", "clip_grad_norm"])
def test_parts_of_keys(toy_folder, key, value):
    for part in ("mode", "sample_num", "max_norm", "", ".", "a.b"):
        for words in ({f"{key}.{part}": value}, {key: value, f"{key}.{part}": 1}):
            try:
                early_checks("KSR", {**toy_values(toy_folder), **words})
            except UserError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize("model", sorted(MODELS))
def test_every_default_is_of_its_kind(model):
    for task in ("next-item", "next-session"):
        for dataset in ("ml-1m", "toy"):
            final = Config(model, dataset, None, {"task": task}).final_config_dict
            known = {k: v for k, v in final.items() if k in {*kinds.FOR_ALL, *kinds.of_models()}}
            assert kinds.checked(known, model).keys() == known.keys()


@pytest.mark.parametrize("name", ["model/KSR.yaml", "overall.yaml", "dataset/default.yaml"])
@pytest.mark.parametrize("content", [b"gamma: [1", b"\xff", b"- a", b"a: !!python/name:os ~"])
def test_a_damaged_file_of_the_project_is_named(name, content, tmp_path, monkeypatch):
    mine = tmp_path / "configs"
    copytree(keys.CONFIGS, mine)
    (mine / name).write_bytes(content)
    for module in (keys, config):
        monkeypatch.setattr(module, "CONFIGS", mine)
    with pytest.raises(UserError, match=f"^Config file {mine / name}(, line 1)? (is not|must)"):
        Config("KSR", "toy")


def test_every_key_of_the_yaml_files_has_a_kind():
    declared = {*kinds.FOR_ALL, *kinds.of_models()}
    final = Config("KSR", "ml-1m").final_config_dict
    made = {"MODEL_TYPE", "MODEL_INPUT_TYPE", "eval_type", "local_rank", "single_spec", "model"}
    drawn = {"valid_neg_sample_args", "test_neg_sample_args"}
    assert set(final) - declared == made | drawn
    assert {key for model in MODELS for key in model_options(model)} <= declared


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("--gamma=1/0", "gamma is '1/0'; it must be a number"),
        ("--gamma=[][1]", "gamma is '[][1]'; it must be a number"),
        ("--encoding=latin9x", "encoding is 'latin9x'; it must be an encoding"),
        ("--USER_ID_FIELD=item_id", "USER_ID_FIELD and ITEM_ID_FIELD are both item_id"),
        ("--clip_grad_norm={'max_norm':'x'}", "clip_grad_norm.max_norm is 'x'; it must be a num"),
        ("--embedding_size=10**9", "embedding_size is '10**9'; it must be a whole number"),
        ("--embedding_size=1000000000", "embedding_size is 1000000000; it must be less than"),
        ("--hidden_size=65000 --num_layers=60", "need "),
        ("--user_inter_num_interval=[100,inf)", "left"),
        ("--item_inter_num_interval=[5", "item_inter_num_interval is '[5'; it must be an interval"),
        ("--topk=[]", "topk is []; it must be a whole number"),
        ("--epochs=1e999", "epochs is inf; it must be a whole number"),
        ("--learning_rate=nan", "learning_rate is 'nan'; it must be a number"),
        ("--learning_rate=1e999", "learning_rate is inf; it must be a finite number"),
        ("--shuffle=1", "shuffle is 1; it must be True or False"),
        ("--seed=True", "seed is True; it must be a whole number"),
        ("--val_interval={'timestamp': '[5'}", "val_interval.timestamp is '[5'"),
        ("--eval_args=5 --eval_args.mode=full", "in parts"),
        ("--dataset=../../..", "cannot be called '../../..'"),
        ("--dataset=/etc", "cannot be called '/etc'"),
        ("--dataset=.hidden", "cannot be called '.hidden'"),
        ("--task=../x", "cannot be called '../x'|no task '../x'"),
        ("--model=../KSR", "no model named '../KSR'"),
    ],
)
def test_odd_words_end_in_one_sentence(toy_folder, capsys, monkeypatch, change, told):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    changes = change.split(" --")
    changes = [changes[0], *(f"--{each}" for each in changes[1:])]
    given = {each.partition("=")[0] for each in changes}
    command = [a for a in toy_command(toy_folder) if a.partition("=")[0] not in given]
    before = {path for path in Path().rglob("*") if toy_folder not in path.parents}
    assert recbole([*command, *changes]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and any(part in error for part in told.split("|")), error
    logs = {p for p in Path().rglob("*") if toy_folder not in p.parents} - before
    assert {path.parts[0] for path in logs} <= {"log", "data", "log_tensorboard", "saved"}


def test_numbers_of_numpy_are_numbers(toy_folder):
    """Programs that search draw them, such as hyperopt."""
    given = {"epochs": np.int64(3), "learning_rate": np.float64(0.25), "seed": np.int32(7)}
    given |= {"topk": [np.int64(5), 10], "freeze_kg": np.bool_(True), "task": np.str_("next-item")}
    given["eval_args"] = {"mode": {"valid": np.str_("uni20"), "test": "uni20"}}
    config = early_checks("KSR", toy_values(toy_folder, **given))
    assert [config["epochs"], config["learning_rate"], config["seed"]] == [3, 0.25, 7]
    assert config["topk"] == [5, 10] and config["freeze_kg"] is True
    assert all(type(config[key]) in (int, float, bool, str, list, dict) for key in given)


def test_a_gpu_that_is_not_there_is_told(toy_folder, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="device is cuda, but"):
        early_checks("KSR", toy_values(toy_folder, device="cuda"))
    assert early_checks("KSR", toy_values(toy_folder, device="cpu"))["device"].type == "cpu"
    with pytest.raises(UserError, match="must be cpu or cuda"):
        early_checks("KSR", toy_values(toy_folder, device="tpu"))


@pytest.mark.parametrize("folder", ["12", "2026/11/28", "os.runs", "1e3", "[1]"])
def test_folders_keep_their_names(toy_folder, folder):
    config = early_checks("KSR", toy_values(toy_folder, results_dir=folder, pretrain_dir=folder))
    assert config["results_dir"] == config["pretrain_dir"] == folder


def test_sizes_are_compared_with_memory_before_anything_is_allocated(toy_folder):
    config = early_checks("KSR", toy_values(toy_folder))
    dataset = load_dataset(config)
    check_memory(config, dataset)
    config["embedding_size"] = 10**12
    with pytest.raises(UserError, match=r"embedding_size 1000000000000.* need .* GiB"):
        check_memory(config, dataset)


BAD_NAMES = (
    "", ".", "..", "../evil", "a/b", "a\\b", "C:evil", "/abs", ".hidden", "-option", " blank",
    "tail ", "a\nb", "a\x1b[2J", "a\x9b", "a\u202eb", "a\u2028b", "a\0b", "x" * 101, "é" * 51,
    "a*", "\ud800", "wh?t", "a.", "nul", "COM1", "Aux.inter", "lpt³",
)  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_are_not_paths(name, toy_folder, capsys):
    with pytest.raises(UserError, match="cannot be called"):
        check_name(name, "dataset")
    before = sorted(Path().rglob("*"))
    given = [f"--dataset={name}"]
    raw = f"--raw={toy_folder / 'toy' / 'toy.inter'}"
    commands = [
        (recbole, given),
        (explain, [*given, "--user=u1"]),
        (export, [*given, "--output=o"]),
        (benchmark, given),
        (tune, given),
        (atomic, ["convert", "csv", *given, "--out=o/p", raw]),
        (atomic, ["convert", name if not name.startswith("-") else "x", raw]),
        (atomic, ["fetch", name if not name.startswith("-") else "x"]),
    ]
    for command, arguments in commands:
        try:
            status = command(arguments)
        except SystemExit as end:
            status = end.code
        error = capsys.readouterr().err.strip().splitlines()
        assert status == 2 and "Traceback" not in "".join(error), (command, name)
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("name", ["ml-100k", "Amazon_Books", "日本", "a.b", "x" * 100, "2026"])
def test_ordinary_names(name):
    assert check_name(name, "dataset") == name


def test_a_whole_run_with_odd_but_right_values(toy_folder):
    assert CHECKOUT is not None
    command = [a for a in toy_command(toy_folder) if not a.startswith("--results_dir")]
    odd = ["--results_dir=2026/11/28", "--clip_grad_norm={'max_norm': 5}", "--state=debug"]
    odd += ["--user_inter_num_interval=[2,inf)", "--device=cpu", "--encoding=utf-8", "--epochs=1"]
    given = {each.partition("=")[0] for each in odd}
    command = [a for a in command if a.partition("=")[0] not in given]
    done = forked.run([CHECKOUT / "run_recbole.py", *command, *odd], Path.cwd())
    assert done.returncode == 0, done.stderr
    assert list(Path("2026/11/28").glob("KSR*.json"))


@pytest.mark.parametrize("option", ["--n_layers=x", "--reg_weight=[1]", "--embedding_size=-5"])
def test_options_of_recboles_models_that_recbole_stops_on(toy_folder, capsys, option):
    command = [
        a for a in toy_command(toy_folder) if a.partition("=")[0] != option.partition("=")[0]
    ]
    command = [a for a in command if "eval_args" not in a]
    assert recbole([*command, "--model=LightGCN", option]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: RecBole's LightGCN stopped") and option[2:8] in error


def test_a_model_of_recboles_that_stops_without_options():
    """As NCL does on fewer users than faiss needs: there is no option to blame."""

    config = MagicMock(external_config_dict={"model": "NCL"})
    with (
        pytest.raises(UserError, match=r"stopped on .*\(RuntimeError: 60 < 1000\)"),
        options_named(config),
    ):
        raise RuntimeError("60 < 1000")


def test_a_logger_that_is_not_installed_is_told(toy_folder, monkeypatch):
    monkeypatch.setattr(checks, "is_installed", lambda name: False)
    with pytest.raises(UserError, match="log_wandb is True, which needs"):
        early_checks("KSR", toy_values(toy_folder, log_wandb=True))


PLAIN = (
    "word", "", "1e-3", 0, 1, 3, -1, 10**9, 0.5, 1e30, math.nan, True, None,
    [1], ["a"], [None], [[{"a": [1]}]], {"a": 1}, {1: 2},
)  # fmt: skip
"""Values that a YAML file can hold."""


def by_command(folder: Path, values: dict[str, Any], key: str, value: Any) -> None:
    run("GRU", values.pop("dataset", "toy"), None, {**values, key: str(value)})


def by_file(folder: Path, values: dict[str, Any], key: str, value: Any) -> None:
    file = folder / "some.yaml"
    file.write_text(yaml.safe_dump({key: value}))
    values.pop(key, None)
    run("GRU", None if key == "dataset" else "toy", [str(file)], values)


def by_registration(folder: Path, values: dict[str, Any], key: str, value: Any) -> None:
    ksr_recbole.register()
    try:
        run_recbole("GRU", "toy", config_dict={**values, key: value})
    finally:
        ksr_recbole.unregister()


@pytest.mark.parametrize("way", [by_command, by_file, by_registration])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_taken_can_be_run_with(toy_folder, monkeypatch, way, seed):
    """A short run with odd values that are of the key's kind: a result or a sentence."""
    monkeypatch.setattr(sys, "argv", ["script.py"])
    keys = [key for key in all_keys() if key not in (*PROCESS_KEYS, "epochs", "dataset")]
    fitting = [(key, value) for key in keys for value in PLAIN if taken(key, value)]
    for key, value in random.Random(seed).sample(fitting, 8):
        values = toy_values(toy_folder, epochs=1, state="critical", report_modes=["uni5pop5"])
        try:
            way(toy_folder, values, key, value)
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000, (key, value)
        except Exception as error:
            raise AssertionError(f"{key}: {value!r}, given {way.__name__}") from error
