"""RecBole on the libraries of today: what they removed is seen by RecBole alone, and is right."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module, metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from recbole.data.dataset import SequentialDataset

from ksr_recbole import compat, versions
from ksr_recbole.config import Config
from ksr_recbole.dataset.recbole_dataset import recbole_dataset
from ksr_recbole.errors import UserError
from ksr_recbole.quick_start import run
from tests.toy import SMALL, write_toy

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
GRAPH_MODELS = ("SpectralCF", "GCMC", "LightGCN", "NGCF", "NCL", "KGIN", "MCCLK")
"""The models of RecBole that call ``dok_matrix._update``."""


def _folders(tmp_path: Path) -> dict[str, str]:
    return {f"{name}_dir": str(tmp_path / name) for name in ("checkpoint", "results", "pretrain")}


# What can be installed --------------------------------------------------------------------------


def _resolved(python: str, *files: str) -> subprocess.CompletedProcess[str]:
    """What would be installed from wheels alone, dependencies too, by a Python of that version.

    uv reads the wheels' metadata only and evaluates markers for the Python that is named; pip would
    download PyTorch and evaluate them for the Python that runs.
    """
    pytest.importorskip("uv", reason="uv is not installed; tests/requirements.txt has it")
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--system-certs"]
    command += ["--only-binary", ":all:", "--python-version", python, *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    if done.returncode and re.search("error sending request|dns error|Connect", done.stderr):
        pytest.skip(f"there is no network: {done.stderr.splitlines()[0]}")
    return done


@cache
def _resolved_by_all() -> dict[str, subprocess.CompletedProcess[str]]:
    """What each Python would install, asked at once, since the package index answers slowly."""
    files = ("requirements.txt", "tests/requirements.txt")
    with ThreadPoolExecutor() as pool:
        return dict(zip(PYTHONS, pool.map(lambda p: _resolved(p, *files), PYTHONS), strict=True))


@pytest.mark.parametrize("python", PYTHONS)
def test_both_commands_of_the_readme_can_be_installed_by(python: str) -> None:
    done = _resolved_by_all()[python]
    assert done.returncode == 0, done.stderr
    for line in Path(ROOT, "requirements.txt").read_text().splitlines():
        if not line.startswith("#"):
            assert f"\n{line.lower()}\n" in done.stdout


def test_pins_that_contradict_each_other_are_found(tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("triton==3.9.0; sys_platform == 'linux'\n")
    done = _resolved("3.13", "requirements.txt", str(tmp_path / "other.txt"))
    assert done.returncode == 1 and "unsatisfiable" in done.stderr


def test_a_package_that_recbole_needs_is_named_with_what_to_type(monkeypatch) -> None:
    real = metadata.version
    for package in (*versions.RECBOLE_NEEDS, "recbole"):

        def version(name: str, gone: str = package) -> str:
            if name == gone:
                raise metadata.PackageNotFoundError(name)
            return real(name)

        with monkeypatch.context() as patch:
            patch.setattr(metadata, "version", version)
            with pytest.raises(UserError, match=rf"^{package} is not installed.*`pip install "):
                versions.check_versions()


@pytest.mark.parametrize(("python", "refused"), [("3.10.2", True), ("3.14.0rc1", False)])
def test_another_python_is_refused(monkeypatch, python: str, refused: bool) -> None:
    monkeypatch.setattr(sys, "version_info", tuple(python.replace("rc", ".rc").split(".")[:3]))
    if refused:
        with pytest.raises(UserError, match=r"^Python 3\.10\.2 was found.*3\.11 to 3\.14"):
            versions.check_versions()
    else:
        versions.check_versions()


# Nothing but RecBole changes ---------------------------------------------------------------------


def test_other_code_sees_the_libraries_as_they_are(tmp_path: Path) -> None:
    script = f"""
import sys
import numpy, pandas, scipy.sparse
before = [dict(vars(m)) for m in (numpy, scipy.sparse, scipy.sparse.dok_matrix)]
from tests.toy import SMALL, write_toy
from ksr_recbole.quick_start import run
import ksr_recbole
ksr_recbole.register()
write_toy(__import__("pathlib").Path({str(tmp_path)!r}))
values = {{**SMALL, **{_folders(tmp_path)!r}, "data_path": {str(tmp_path)!r}, "epochs": 1}}
values.pop("eval_args")
run("LightGCN", "toy", config_dict={{k: v for k, v in values.items() if k != "report_modes"}})
lazy = {{"__warningregistry__"}}
for module, seen in zip((numpy, scipy.sparse, scipy.sparse.dok_matrix), before):
    now = vars(module)
    changed = {{k for k in seen if now.get(k, None) is not seen[k] and k not in lazy}}
    assert not changed, (module, changed)
assert not hasattr(numpy, "float") and not hasattr(numpy, "str")
assert pandas.Series(["a"]).dtype == pandas.Series(["b"]).dtype
assert pandas.get_option("display.width") == 80
import recbole.quick_start
assert "ray" not in sys.modules or sys.modules["ray"].__spec__ is not None
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


def test_recboles_names_of_numpy_are_those_recbole_means() -> None:
    Config("KSR", "ml-100k", None, {"gpu_id": ""})
    from recbole.evaluator import metrics

    assert metrics.np is not np and metrics.np.zeros is np.zeros
    for name, kind in (("float", np.float64), ("long", np.int_), ("bool", np.bool_)):
        assert getattr(metrics.np, name) is kind


# Graph models ------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["utils.logger", "utils.utils", "trainer.trainer", "data.utils"])
def test_a_folder_may_come_while_recbole_looks_for_it(module, tmp_path: Path, monkeypatch) -> None:
    """Of two runs that start together, one makes the folder of the other's log."""
    compat.recbole_on_new_libraries()
    ensure_dir = import_module(f"recbole.{module}").ensure_dir
    monkeypatch.setattr("os.path.exists", lambda path: False)
    ensure_dir(str(tmp_path / "log" / "KSR"))
    ensure_dir(str(tmp_path / "log"))
    assert (tmp_path / "log" / "KSR").is_dir()


def test_the_matrix_of_graph_models_holds_what_is_put_in() -> None:
    matrix = compat._sparse_of_recbole().dok_matrix((3, 4), dtype=np.float32)
    matrix._update({(0, 1): 1.0, (2, 3): 2.0})
    expected = scipy.sparse.coo_matrix(([1.0, 2.0], ([0, 2], [1, 3])), shape=(3, 4)).toarray()
    assert np.array_equal(matrix.toarray(), expected)
    assert np.array_equal(matrix.tocoo().toarray(), expected)
    assert np.array_equal(np.asarray((matrix > 0).sum(axis=1)).ravel(), [1, 0, 1])


@pytest.mark.parametrize("model", GRAPH_MODELS)
def test_graph_models_run(model: str, tmp_path: Path) -> None:
    write_toy(tmp_path)
    values = {**SMALL, **_folders(tmp_path), "data_path": str(tmp_path), "epochs": 1}
    for key in ("eval_args", "report_modes"):
        values.pop(key)
    own = {"MCCLK": {"reg_weight": 1e-4}, "NCL": {"num_clusters": 4}}.get(model, {})
    try:
        result = run(model, "toy", config_dict={**values, **own})
    except (ImportError, UserError) as error:
        needed = {"NCL": "faiss", "MCCLK": "torch_scatter", "KGIN": "torch_scatter"}[model]
        assert needed in str(error)
        return
    assert 0 <= result["test_result"]["recall@10"] <= 1


# Missing values ----------------------------------------------------------------------------------


def _with_gaps(folder: Path) -> dict[str, object]:
    """A dataset with a missing number, a missing token and a missing sequence of each kind."""
    write_toy(folder)
    path = folder / "toy" / "toy.inter"
    header, *rows = path.read_text().splitlines()
    lines = [f"{row}\t{'' if k % 7 == 0 else k % 5}" for k, row in enumerate(rows)]
    path.write_text("\n".join([f"{header}\trating:float", *lines]) + "\n")
    tastes = [
        f"i{k}\t{'' if k % 3 == 0 else 'a b'}\t{'' if k % 4 == 0 else 'x'}\t{'' if k % 5 else 1.5}"
        for k in range(1, 61)
    ]
    (folder / "toy" / "toy.item").write_text(
        "item_id:token\tgenres:token_seq\tkind:token\tlength:float\n" + "\n".join(tastes) + "\n"
    )
    columns = {
        "inter": ["user_id", "item_id", "timestamp", "rating"],
        "item": ["item_id", "genres", "kind", "length"],
    }
    return {"data_path": str(folder), "load_col": columns, "gpu_id": ""}


def _filled(dataset: object) -> None:
    for feat in (dataset.inter_feat, dataset.item_feat):
        for field in feat.columns:
            assert not any(isinstance(v, float) and np.isnan(v) for v in feat[field]), field
    given = pd.Series([k % 5 for k in range(len(dataset.inter_feat)) if k % 7])
    ratings = dataset.inter_feat["rating"].to_numpy()
    assert ratings[0] == pytest.approx(given.mean())
    empty = [len(genres) for genres in dataset.item_feat["genres"]]
    assert 0 in empty and 2 in empty


@pytest.mark.parametrize("model", ["GRU4Rec", "LightGCN", "CKE"])
def test_missing_values_are_filled_as_recbole_means_it(model: str, tmp_path: Path) -> None:
    values = {**_with_gaps(tmp_path), **_folders(tmp_path)}
    if model == "GRU4Rec":
        values["train_neg_sample_args"] = None
    if model == "CKE":
        graph = {"kg": ["head_id", "relation_id", "tail_id"], "link": ["item_id", "entity_id"]}
        values["load_col"] = {**values["load_col"], **graph}
    _filled(recbole_dataset(Config(model, "toy", None, values)))


def test_missing_values_are_filled_under_stock_recbole(tmp_path: Path) -> None:
    import ksr_recbole

    values = {**_with_gaps(tmp_path), "train_neg_sample_args": None}
    ksr_recbole.register()
    try:
        from recbole.config import Config as StockConfig

        values["data_path"] = str(tmp_path)
        config = StockConfig("GRU4Rec", "toy", None, values)
        _filled(SequentialDataset(config))
    finally:
        ksr_recbole.unregister()


# No pickle is read -------------------------------------------------------------------------------


class _Touch:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize(
    "name", ["toy-SequentialDataset.pth", "toy-for-GRU4Rec-dataloader.pth", "toy-Dataset.pth"]
)
def test_a_strangers_pickle_in_the_checkpoint_folder_runs_nothing(name, tmp_path: Path) -> None:
    write_toy(tmp_path)
    folders = _folders(tmp_path)
    Path(folders["checkpoint_dir"]).mkdir()
    (Path(folders["checkpoint_dir"]) / name).write_bytes(pickle.dumps(_Touch(str(tmp_path / "X"))))
    values = {**SMALL, **folders, "data_path": str(tmp_path), "epochs": 1}
    for key in ("eval_args", "report_modes"):
        values.pop(key)
    values["train_neg_sample_args"] = None
    if "loader" in name:
        with pytest.raises(UserError, match=f"{name}, a pickle, which can run any code"):
            run("GRU4Rec", "toy", config_dict=values)
    else:
        run("GRU4Rec", "toy", config_dict=values)
    assert not (tmp_path / "X").exists()
