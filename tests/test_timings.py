"""The benchmarks as commands: help, mistakes and how they end.  Nothing is measured here."""

from __future__ import annotations

import importlib
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from ksr_recbole.errors import UserError

FOLDER = Path(__file__).resolve().parents[1] / "timings"
RUN = 'if __name__ == "__main__":'
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if RUN in path.read_text())
WITH_CONFIG = sorted(
    name for name in SCRIPTS if "common.parser(" in (FOLDER / f"{name}.py").read_text()
)


@pytest.fixture(autouse=True)
def _in_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)


@pytest.fixture
def common() -> Any:
    return importlib.import_module("common")


def ended(name: str, *words: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The exit status of a script with some arguments."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    return end.value.code


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_is_shown_and_an_unknown_argument_refused(name, monkeypatch, capsys):
    assert not ended(name, "--help", monkeypatch=monkeypatch)
    assert capsys.readouterr().out.startswith("usage: ")
    assert ended(name, "--nonsense=1", monkeypatch=monkeypatch) == 2
    assert "error: " in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("name", WITH_CONFIG)
def test_a_value_without_a_key_is_refused(name, monkeypatch, capsys):
    assert ended(name, "--set", "epochs", monkeypatch=monkeypatch) == 2
    assert "'epochs' is not KEY=VALUE" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("number", ["0", "-1", "1.5", "x"])
def test_a_number_of_nothing_is_refused(number, monkeypatch, capsys):
    assert ended("many_items", f"--steps={number}", monkeypatch=monkeypatch) == 2
    assert f"'{number}' is not a whole number from 1" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["0", "-1", "nan", "inf", "x"])
def test_an_amount_of_nothing_is_refused(number, monkeypatch, capsys):
    assert ended("internet", f"--items={number}", monkeypatch=monkeypatch) == 2
    assert f"'{number}' is not a number above 0" in capsys.readouterr().err


def test_a_mistake_of_the_user_is_one_sentence(tmp_path, monkeypatch, capsys):
    words = ("--dataset=none", f"--data_path={tmp_path}", "--set", "epochz=3")
    assert ended("losses", *words, monkeypatch=monkeypatch) == 2
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith("error: Unknown config key 'epochz'")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--items", "1", "--interactions=1"), "give at least --interactions=50"),
        (("--items", "30", "--interactions=200"), "An epoch has 1 batch, too few for --steps"),
    ],
)
def test_too_few_interactions_for_the_steps_are_refused(words, told, monkeypatch, capsys):
    assert ended("many_items", "--steps=1", *words, monkeypatch=monkeypatch) == 2
    said = capsys.readouterr().err
    assert told in said and "Traceback" not in said


def test_a_model_that_recbole_does_not_have_is_refused(monkeypatch, capsys):
    assert ended("recbole_models", "Nothing", monkeypatch=monkeypatch) == 2
    assert capsys.readouterr().err.startswith("error: There is no model Nothing")


@pytest.mark.parametrize(("raised", "status"), [(UserError("No."), 2), (KeyboardInterrupt(), 130)])
def test_a_benchmark_ends_as_a_command(common, raised, status, capsys):
    def main() -> None:
        raise raised

    with pytest.raises(SystemExit) as end:
        common.start(main)
    assert end.value.code == status and "Traceback" not in capsys.readouterr().err


def test_the_status_of_a_command_that_was_started_is_handed_on(common, capsys):
    command = [sys.executable, "-c", "import sys; print('error: x', file=sys.stderr); sys.exit(2)"]
    with pytest.raises(SystemExit) as end:
        common.json_of(command)
    assert end.value.code == 2 and capsys.readouterr().err == "error: x\n"
