"""The wheel: everything is in it, and it runs away from the checkout."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from ksr_recbole.versions import RECBOLE_NEEDS, WANTED
from tests.toy import toy_values, write_toy

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of the wheel, as an installation has it in site-packages."""
    folder = tmp_path_factory.mktemp("wheel")
    command = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def _python(installed: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = (
        f"import sys; sys.path.insert(0, {str(installed)!r}); "
        "from ksr_recbole.__main__ import main; sys.exit(main())"
    )
    return subprocess.run(
        [sys.executable, "-P", "-c", program, *arguments], cwd=cwd, capture_output=True, text=True
    )


def test_the_wheel_has_every_module_and_every_configuration(installed: Path) -> None:
    there = {path.relative_to(installed).as_posix() for path in installed.rglob("*.*")}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for package in ("ksr_recbole", "dataset_atomic")
        for suffix in (
            "*.py",
            "*.html",
            "*.css",
            "*.js",
            "py.typed",
            "ml_100k_crosswalk.tsv",
            "*.tsv.gz",
            "LICENSE.md",
        )
        for path in (ROOT / package).rglob(suffix)
    }
    wanted |= {
        f"ksr_recbole/{path.relative_to(ROOT).as_posix()}"
        for suffix in ("*.yaml", "*.hyper")
        for path in (ROOT / "configs").rglob(suffix)
    }
    assert len(wanted) > 100
    assert wanted <= there, f"not in the wheel: {sorted(wanted - there)}"
    strangers = {name for name in there - wanted if not name.split("/")[0].endswith(".dist-info")}
    assert strangers == set()


def test_an_installed_package_trains_a_model(installed: Path, tmp_path: Path) -> None:
    write_toy(tmp_path / "data")
    values = toy_values(tmp_path / "data", epochs=1)
    values = {key: value for key, value in values.items() if not key.endswith("_dir")}
    arguments = [f"--{key}={value}" for key, value in values.items() if key != "eval_args"]
    done = _python(
        installed, tmp_path, "run", "--dataset=toy", "--eval_args.mode=uni5pop5", *arguments
    )
    assert done.returncode == 0, done.stderr
    assert [path.suffix for path in (tmp_path / "results").iterdir()] == [".json"]
    assert [path.suffix for path in (tmp_path / "saved").iterdir()] == [".pth"]


def test_datasets_of_an_installed_package_lie_in_the_current_folder(
    installed: Path, tmp_path: Path
) -> None:
    done = _python(installed, tmp_path, "convert", "ml-100k")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "dataset_atomic" / "ml-100k" / "ml-100k.inter").is_file()


def test_commands_are_listed_and_a_wrong_one_is_told(installed: Path, tmp_path: Path) -> None:
    done = _python(installed, tmp_path, "--help")
    assert done.returncode == 0
    for name in ("run", "benchmark", "convert"):
        assert re.search(rf"\n +{name}\b", done.stdout)
        assert _python(installed, tmp_path, name, "--help").returncode == 0
    done = _python(installed, tmp_path, "rnu")
    assert done.returncode == 2
    assert done.stderr.startswith("error: There is no command 'rnu'; did you mean run?")
    assert _python(installed, tmp_path).returncode == 2


def test_dependencies_are_those_that_work() -> None:
    declared = {Requirement(line).name: Requirement(line) for line in PROJECT["dependencies"]}
    # RecBole is installed without its dependencies, one of which is an old Ray.
    assert not {"recbole", "ray"} & set(declared)
    for package in set(WANTED) - {"recbole"}:
        assert declared[package].specifier == WANTED[package]
    assert set(RECBOLE_NEEDS) <= set(declared)
    pins = [
        Requirement(line)
        for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    extras = PROJECT["optional-dependencies"]
    pinned = (Requirement(line) for name in ("fast", "serve") for line in extras[name])
    declared |= {requirement.name: requirement for requirement in pinned}
    assert {pin.name for pin in pins} == set(declared)
    for pin in pins:
        (version,) = (spec.version for spec in pin.specifier)
        assert declared[pin.name].specifier.contains(version)


def test_versions_agree() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\nversion: {PROJECT['version']}\n" in citation
    assert f"\n## {PROJECT['version']} " in changes
