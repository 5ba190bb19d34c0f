"""No text from outside is evaluated: words are literals, files and checkpoints plain values."""

from __future__ import annotations

import ast
import os
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import recbole.quick_start
import torch
from recbole.config import Config as RecBoleConfig
from recbole.quick_start import run_recbole
from recbole.trainer import HyperTuning

import ksr_recbole
from ksr_recbole import compat, registry
from ksr_recbole.cli import main as recbole_command
from ksr_recbole.comparison.trial_files import read_trials
from ksr_recbole.config import Config
from ksr_recbole.config.literals import intervals, literal, literals, read_yaml
from ksr_recbole.errors import UserError
from ksr_recbole.explanation.cli import main as explain
from ksr_recbole.inference.cli import main as export
from ksr_recbole.paths import CHECKOUT, source_of
from ksr_recbole.quick_start import recbole_models, run
from ksr_recbole.trainer import checkpoint
from tests.toy import toy_run, toy_values

EVIL = "[__import__('pathlib').Path('PWNED').touch(), 10.0][1]"
"""Evaluated, it leaves a file and is the right value."""

PACKAGES = ("ksr_recbole", "dataset_atomic")


@pytest.fixture(autouse=True)
def _nothing_ran(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "argv", ["script.py"])
    yield
    assert not Path("PWNED").exists()


@pytest.fixture
def registered() -> Iterator[None]:
    ksr_recbole.register()
    yield
    ksr_recbole.unregister()


def test_what_is_tried_here_would_run():
    assert eval(EVIL) == 10.0 and Path("PWNED").exists()
    Path("PWNED").unlink()


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("10", 10), ("1e-3", 1e-3), ("[1, 2]", [1, 2]), ("10,20", (10, 20)), ("None", None),
        ("~", None), ("true", True),
        ("False", False), ("'12'", "12"), ("{'a': [1]}", {"a": [1]}), (" 7", 7),
    ],
)  # fmt: skip
def test_words_are_literals(word, value):
    assert literal(word) == value and type(literal(word)) is type(value)


@pytest.mark.parametrize(
    "word",
    [
        "1/0", "os.runs", "[][1]", "2**9", "10**9", "KSR", "", "~/x", "~~", "b'x'", "{1, 2}", "1j",
        "...", "print(1)",
        "lambda: 1", "[x for x in [1]]", "f'{1}'", "\0", "1\0", "[" * 5000, "9" * 5000,
        "-" * 9000 + "1", "+1" * 4000, "{" * 300 + "}" * 300, "not 1",
        "1" * 20_000, "'\\d", EVIL, "{[]: 1}", "{{}: 1}", "sys", "inf",
        "[a", "[a,]", "[a,,b]", "[a b]", "[a/b]", "[3,inf]", "[a()]", "[]x", "[a]b", "[a,b]",
    ],
)  # fmt: skip
def test_other_words_stay_text(word):
    assert literal(word) == word


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("[Recall, MRR]", ["Recall", "MRR"]), (" [a-b.c] ", ["a-b.c"]), ("[1, 2]", [1, 2]),
        ("['a','b']", ["a", "b"]), ("[True,None]", [True, None]),
        *((word, word) for word in ("[a,]", "[a b]", "[a()]", "[3,inf]", "[a]b", "[a/b]", EVIL)),
    ],
)  # fmt: skip
def test_a_list_without_its_quotes_is_a_list_of_words(word, value):
    assert literals({"metrics": word}) == {"metrics": value}
    assert literals({"results_dir": word}, {"results_dir"}) == {"results_dir": word}


def test_words_of_texts_stay_text():
    words = {"pretrain_dir": "12", "results_dir": "2026/11/28", "data_cache_dir": "None"}
    kept = {"pretrain_dir": "12", "results_dir": "2026/11/28", "data_cache_dir": None}
    assert literals(words, words.keys()) == kept
    assert literals({"resume": "True"}, {"resume"}) == {"resume": True}
    assert literals({"resume": "2026"}, {"resume"}) == {"resume": "2026"}


@pytest.mark.parametrize(
    "text",
    ["", "[5", "[5]", "5,6", "[,]", "[a,b]", "[nan,1]", "[6,5]", "[5,6];", "[٣,4]", "[[1,2]"],
)
def test_what_is_no_interval(text):
    with pytest.raises(ValueError):
        intervals(text)


def test_intervals():
    assert intervals("[5,inf)") == [("[", 5.0, float("inf"), ")")]
    assert intervals("(0,1]; [3,4)") == [("(", 0.0, 1.0, "]"), ("[", 3.0, 4.0, ")")]


def test_a_config_file_holds_plain_values(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("gamma: 1e-3\ntopk: [10]\ndataset: 123\nresults_dir: 2026-11-28\n")
    values = read_yaml(file, {"dataset", "results_dir"})
    assert values == {
        "gamma": 1e-3, "topk": [10], "dataset": "123", "results_dir": "2026-11-28"
    }  # fmt: skip
    file.write_text(
        "dataset: 0100\na: '1:30'\nb: [0, -0, 00, 0.5, 010.5, 0x40, 0b11, 1_000]\nc: yes\n"
    )
    assert read_yaml(file, {"dataset"}) == {
        "dataset": "0100", "a": "1:30", "b": [0, 0, 0, 0.5, 10.5, 64, 3, 1000], "c": True
    }  # fmt: skip
    file.write_bytes(b"")
    assert read_yaml(file) == {}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a: 1\nb: !!python/object/apply:pathlib.Path.touch ['PWNED']\n", "line 2 .*object"),
        (b"a: !!python/name:os.system\n", "line 1 .*object"),
        (b"a: !mine 1\n", "line 1 .*object"),
        (b"a: 1\nb: 2\na: 3\n", "line 3 is not valid YAML: the key a is given twice"),
        (b"- 1\n", "must hold `key: value` lines"),
        (b"word", "must hold `key: value` lines"),
        (b"a: 1\n1: 2\n", r"line 2 .*the key 1 is no text in YAML \(int\); put quotes around it"),
        (b"on: 3\n", r"line 1 .*the key on is no text in YAML \(bool\); put quotes"),
        (b"~: 3\n", r"line 1 .*the key ~ is no text in YAML \(null\)"),
        (b"a: 1\n\tb: 2\n", "line 2 is not valid YAML"),
        (b"a: [1\n", "is not valid YAML"),
        (b"a: 1\nb: caf\xe9\n", "line 2 .*UTF-8"),
        (b"a: \x00\n", "is not valid YAML"),
        (b"a: &x [1]\nb: [*x, *x]\n", "line 2 .*refers to another"),
        (b"a: &x [*x]\n", "line 1 .*refers to another"),
        (b"a: " + b"[" * 5000, "is not valid YAML"),
        (b"? [1, 2]\n: 3\n", "line 1 is not valid YAML: a key is no word"),
        (b"a: 1\nb: 2026-99-99\n", "line 2 is not valid YAML: a value cannot be read"),
        (b"a: !!bool x\n", "line 1 is not valid YAML: a value cannot be read"),
        (b"a: !!binary YQ==\n", "a is b'a', which is no text"),
        (b"gamma: 2026-11-28\n", "gamma is datetime.*quotes"),
        (b"a: 1\nb: 1:30\n", r"line 2 .*1:30 is the number 90 in YAML \(to the base 60\)"),
        (b"a: 1:30.5\n", "1:30.5 is the number 90.5"),
        (b"a: [5, -0100]\n", r"-0100 is the number -64 in YAML \(to the base 8\); write"),
        (b"a: {b: 1:30}\n", "line 1 .*1:30 is the number 90"),
        (b"a: 1\n---\na: 2\n", "line 2 is not valid YAML|is not valid YAML"),
    ],
)
def test_a_config_file_that_is_refused(tmp_path, content, told):
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    for read in (read_yaml, read_trials, lambda path: Config("KSR", "toy", [str(path)])):
        with pytest.raises(UserError, match=told) as refused:
            read(file)
        assert str(file) in str(refused.value) and "\n" not in str(refused.value)
        assert len(str(refused.value)) < 400


@pytest.mark.parametrize("place", ["settings", "given"])
def test_strings_of_a_checkpoint_are_strings(toy_folder, capsys, registered, place):
    path = toy_run(toy_folder)["checkpoint"]
    content = checkpoint.load(path)
    content["settings"].pop("gamma")
    content[place]["gamma"] = EVIL
    checkpoint.save(path, content)
    for command in (explain, export):
        rest = ["--user=u1"] if command is explain else ["--output=exported"]
        assert command([f"--checkpoint={path}", *rest]) == 2
        assert "gamma" in capsys.readouterr().err
    with pytest.raises(UserError, match="gamma"):
        recbole.quick_start.load_data_and_model(path)


def test_strings_of_a_yaml_file_and_of_the_api_are_not_evaluated(toy_folder, tmp_path):
    file = tmp_path / "evil.yaml"
    file.write_text(f'gamma: "{EVIL}"\n')
    for files, values in (([str(file)], {}), (None, {"gamma": EVIL})):
        with pytest.raises(UserError, match="gamma"):
            run("KSR", "toy", files, {**toy_values(toy_folder), **values})


def test_what_recbole_evaluates_for_our_models_is_read_as_literals(
    toy_folder, registered, monkeypatch, tmp_path
):
    values = toy_values(toy_folder)
    assert RecBoleConfig("KSR", "toy", None, {**values, "gamma": "2.5"})["gamma"] == 2.5
    for given in ({"gamma": EVIL}, {"topk": EVIL}):
        with pytest.raises(UserError, match=next(iter(given))):
            run_recbole("KSR", "toy", None, {**values, **given}, saved=False)
    monkeypatch.setattr(sys, "argv", ["script.py", f"--gamma={EVIL.replace('=', '')}"])
    with pytest.raises(UserError, match="gamma"):
        run_recbole("KSR", "toy", None, values, saved=False)


def test_yaml_files_of_our_models_make_no_objects(toy_folder, registered, tmp_path):
    values, file = {"data_path": str(toy_folder)}, tmp_path / "mine.yaml"
    bomb = "a: &a [x, x]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(3))
    for text in ("gamma: !!python/name:os.system\n", "topk: !!python/tuple [1]\n", bomb):
        for named, given in ((text, "KSR"), (f"model: KSR\n{text}", None)):
            file.write_text(named)
            with pytest.raises(UserError, match=r"mine\.yaml, line"):
                RecBoleConfig(given, "toy", [str(file)], values)
    file.write_text("model: KSR\ngamma: 1e-3\n")
    assert RecBoleConfig(None, "toy", [str(file)], values)["gamma"] == 1e-3
    file.write_text("model: LightGCN\nmine: !!python/tuple [1]\nreg_weight: 1e-3\n")
    config = RecBoleConfig(None, "toy", [str(file)], values)
    assert (config["mine"], config["reg_weight"]) == ((1,), 1e-3)


def test_recboles_own_models_keep_recboles_way(toy_folder, registered, monkeypatch):
    values = {"data_path": str(toy_folder), "embedding_size": "4 * 2"}
    monkeypatch.setattr(sys, "argv", ["script.py", "--epochs=1+1"])
    config = RecBoleConfig("LightGCN", "toy", None, values)
    assert (config["embedding_size"], config["epochs"]) == (8, 2)


def test_choices_of_recboles_search_are_literals(registered, tmp_path):
    pytest.importorskip("hyperopt")
    file = tmp_path / "KSR.hyper"
    file.write_text("gamma choice [1.0,10.0]\n")
    assert "gamma" in HyperTuning._build_space_from_file(str(file))
    file.write_text(f"gamma choice {EVIL.replace(', 10.0][1]', ',10.0]')}\n")
    with pytest.raises(UserError, match="is not a list of choices"):
        HyperTuning._build_space_from_file(str(file))


def source_files() -> list[Path]:
    assert CHECKOUT is not None
    found = [path for package in PACKAGES for path in (CHECKOUT / package).rglob("*.py")]
    assert len(found) > 100
    return found


PICKLING = {"pickle", "cPickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}
"""Modules that run code from what they read."""

LOADING = {"torch.load", "torch.save", "np.load", "np.save", "pl.read_pickle", "pd.read_pickle"}
"""Calls that may do so, by the names that modules have here."""


def pickling_in(path: Path) -> set[str]:
    """What a source file imports and calls of :data:`PICKLING` and :data:`LOADING`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
            found.add(str(node.module).split(".")[0])
        elif isinstance(node, ast.Call):
            found.add(ast.unparse(node.func))
    return found & (PICKLING | LOADING)


def test_only_what_keeps_recbole_from_pickles_knows_of_them():
    """``compat`` refuses pickles in RecBole's place, unless the user trusts them."""
    found = {path.name: pickling for path in source_files() if (pickling := pickling_in(path))}
    assert found == {"compat.py": {"pickle", "torch.load", "torch.save", "np.load"}}


def test_no_source_file_evaluates():
    for path in source_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "compile", "yaml.full_load"), path
                assert not called.startswith(("pickle.load", "yaml.unsafe")), path


# RecBole's own code ----------------------------------------------------------------------------

RECBOLES = {
    ("config/configurator.py", "eval"): 1,  # Config and choose_config read literals
    ("config/configurator.py", "yaml.load"): 2,  # Config and choose_config have a safe loader
    ("data/dataset/dataset.py", "yaml.load"): 1,  # a file of RecBole's
    ("data/utils.py", "pickle.load"): 2,  # without_pickles
    ("model/context_aware_recommender/kd_dagfm.py", "eval"): 1,  # _class_of
    ("model/context_aware_recommender/kd_dagfm.py", "torch.load"): 1,  # _torch_of_recbole
    ("model/general_recommender/convncf.py", "torch.load"): 1,
    ("model/general_recommender/ldiffrec.py", "np.load"): 1,  # _numpy_of_recbole
    ("model/general_recommender/nais.py", "torch.load"): 1,
    ("model/general_recommender/neumf.py", "torch.load"): 2,
    ("model/general_recommender/ract.py", "torch.load"): 2,
    ("model/sequential_recommender/s3rec.py", "torch.load"): 1,
    ("quick_start/quick_start.py", "torch.load"): 1,  # ours are read before; unpickling
    ("trainer/hyper_tuning.py", "eval"): 1,  # choices
    ("trainer/trainer.py", "__import__"): 2,  # of constants
    ("trainer/trainer.py", "torch.load"): 2,  # _torch_of_recbole
}
"""Calls in RecBole that can run code from text or from a file, and what answers each."""

DANGEROUS = re.compile(
    r"(eval|exec|compile|__import__|os\.(system|popen|exec\w*|spawn\w*)|subprocess\.\w+"
    r"|(pickle|dill|joblib|marshal|shelve|torch|np|numpy)\.loads?|yaml\.\w*load\w*"
    r"|pd\.read_pickle|torch\.jit\.load|torch\.hub\.\w+)"
)


def test_every_place_in_recbole_that_can_run_code_is_known():
    root, found = source_of("recbole").parent, Counter()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and DANGEROUS.fullmatch(ast.unparse(node.func)):
                found[path.relative_to(root).as_posix(), ast.unparse(node.func)] += 1
    assert found == RECBOLES
    loaders = {name for name, call in found if call == "torch.load"} - {
        "quick_start/quick_start.py"
    }
    modules = {"recbole." + name.removesuffix(".py").replace("/", ".") for name in loaders}
    assert modules == compat._LOADERS


class Touch:
    """Unpickled, it leaves a file."""

    def __reduce__(self):
        return Path.touch, (Path("PWNED"),)


def _tried(toy_folder, capsys, *words: str) -> str:
    """The sentence that a run ends with."""
    values = {**toy_values(toy_folder), "eval_args.mode": "full"}
    del values["eval_args"]
    values["report_modes"] = "full"
    given = {word.partition("=")[0] for word in words}
    rest = [f"--{key}={value}" for key, value in values.items() if f"--{key}" not in given]
    assert recbole_command(["--dataset=toy", *words, *rest]) == 2
    error = capsys.readouterr().err
    assert error.count("error: ") == 1 and "Traceback" not in error
    return error.partition("error: ")[2]


def test_the_name_of_a_network_in_recbole_is_a_name(toy_folder, capsys):
    error = _tried(toy_folder, capsys, "--model=KD_DAGFM", f"--teacher={EVIL}")
    assert "teacher" in error
    module = import_module(registry.model_class("KD_DAGFM").__module__)
    assert module.eval("CIN") is module.CIN
    for text in (EVIL, "nn", "torch", "deepcopy", "nn.Module", ""):
        with pytest.raises(UserError, match=r"is not a network .* CIN, CINComp, CrossNet"):
            module.eval(text)


def test_arrays_that_recbole_loads_are_no_pickles(toy_folder, capsys, monkeypatch):
    monkeypatch.setattr(recbole_models, "is_installed", lambda name: True)  # kmeans_pytorch
    array = np.array([Touch()], dtype=object)
    np.save(toy_folder / "toy" / "item_emb.npy", array, allow_pickle=True)
    error = _tried(toy_folder, capsys, "--model=LDiffRec", "--n_cate=2", "--out_dims=[8]")
    assert "pickles are not read" in error


def _pickle(path: Path) -> None:
    torch.save({"state_dict": Touch()}, path)


def _bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10**7)


@pytest.mark.parametrize(
    "special", [_pickle, _bomb, os.mkfifo, Path.mkdir, Path.touch, lambda path: None]
)
@pytest.mark.parametrize(
    ("model", "key", "more"),
    [
        ("NeuMF", "mf_pretrain_path", ["--use_pretrain=True", "--mlp_pretrain_path=x"]),
        ("ConvNCF", "pre_model_path", ["--train_method=after_pretrain"]),
        ("RaCT", "pre_model_path", ["--train_stage=finetune"]),
    ],
)
def test_weights_that_recbole_loads_are_tensors(toy_folder, capsys, model, key, more, special):
    path = toy_folder / "weights.pth"
    special(path)
    error = _tried(toy_folder, capsys, f"--model={model}", f"--{key}={path}", *more)
    assert "weights.pth cannot be read as the weights of a model" in error
