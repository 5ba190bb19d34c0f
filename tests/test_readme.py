"""README.md: every block of code is executed, every figure is that of a stored result."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from dataset_atomic.cli import main as dataset_atomic
from ksr_recbole import __main__ as ksr
from ksr_recbole import unregister
from ksr_recbole.cli import main as run_recbole
from ksr_recbole.comparison import runner
from ksr_recbole.comparison.cli import main as run_benchmark
from tests import benchmark_fakes
from tests.toy import toy_values, write_toy

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
RESULTS = ROOT / "docs" / "results"


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


def commands() -> list[str]:
    """The lines of all shell blocks but the two that install, without comments and last ``&&``."""
    lines = [line for text in blocks("sh") for line in text.splitlines()]
    return [line.partition("#")[0].strip(" &") for line in lines if not line.startswith("python3 ")]


# Form -----------------------------------------------------------------------------------------


def test_it_is_short():
    assert len(TEXT.split()) <= 900
    long = [text for _, text in BLOCKS if len(text.splitlines()) > 5]
    assert long == []


def test_the_two_commands_are_one_line_each():
    first, second = (line for text in blocks("sh") for line in text.splitlines()
                     if line.startswith("python3 "))  # fmt: skip
    assert first.endswith("run_recbole.py --model=KSR --dataset=ml-100k")
    assert re.match(r"^python3 -m venv .*pytest", second)
    assert second.startswith(first.partition(" && .venv/bin/pip install --no-deps")[0])


def test_pictures_are_there():
    named = re.findall(r"!\[[^\]]+\]\((docs/[^)]+)\)", TEXT)
    assert len(named) >= 2 and [name for name in named if not (ROOT / name).exists()] == []


# Code -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("readme"))


def small(folder: Path) -> dict[str, Any]:
    return {**toy_values(folder, epochs=1, report_modes=["uni5pop5"])}


def words(values: dict[str, Any]) -> list[str]:
    """Config values as arguments."""
    return [f"--{key}={value}" for key, value in values.items() if key != "eval_args"]


@pytest.mark.parametrize("name", ["README.md", "docs/recbole.md"])
def test_recbole_is_imported_after_register(name):
    """Without Ray, which a newcomer does not have, the import fails before it."""
    text = (ROOT / name).read_text(encoding="utf-8")
    [block] = [part for part in text.split("```") if "from recbole.quick_start" in part]
    assert block.index("ksr_recbole.register()") < block.index("from recbole.quick_start")


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python(number, folder, monkeypatch):
    monkeypatch.chdir(folder)
    text = blocks("python")[number]
    given = text.replace('"ml-100k")', '"toy", config_dict=VALUES)').replace('"196"', '"u3"')
    assert given != text
    try:
        exec(compile(given, "README.md", "exec"), {"VALUES": small(folder)})
    finally:
        unregister()


def test_shell(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "run_jobs", benchmark_fakes.run_jobs)
    monkeypatch.setattr(benchmark_fakes, "MODES", ("uni50pop50", "full"))
    Path("sales.csv").write_text(
        "user_id,item_id,timestamp\n" + "".join(f"u{k % 12},i{k % 31},{k}\n" for k in range(186))
    )
    Path("items.csv").write_text(
        "item_id,brand,category\n" + "".join(f"i{k},b{k % 2},c{k % 3}\n" for k in range(31))
    )
    assert run_recbole(["--dataset=toy", "--eval_args.mode=uni5pop5", *words(small(folder))]) == 0
    assert len(commands()) >= 6
    assert [line for line in commands() if not _run(line, folder, tmp_path)] == []
    assert (tmp_path / "196.html").exists()


def test_git_ignores_what_the_commands_write():
    written = ["196.html", "my-model", "model"]
    assert [name for name in written if name not in TEXT] == []
    written = [name if "." in name else f"{name}/" for name in written]
    done = subprocess.run(["git", "-C", ROOT, "check-ignore", *written], capture_output=True)
    assert done.stdout.decode().split() == written


def _run(line: str, folder: Path, here: Path) -> bool:
    """Run a command of the README on small data."""
    assert "&" not in line
    _, *rest = shlex.split(line.replace("ml-100k", "toy").replace("--user=196", "--user=u3"))
    rest = [word for word in rest if word != "-m"]
    program, *arguments = rest
    values = small(folder)
    if program == "dataset_atomic":
        return dataset_atomic([*arguments, f"--out={here / 'made' / 'shop'}"]) == 0
    if program == "ksr_recbole" and arguments[0] == "serve":
        return _served(arguments)
    if program == "ksr_recbole":
        return ksr.main([*arguments, "--dataset=toy", *words(values)]) == 0
    if program == "run_benchmark.py":
        for key in ("checkpoint_dir", "report_modes"):
            values.pop(key)
        return run_benchmark([*arguments, *words(values)]) == 0
    assert program == "run_recbole.py", line
    values |= {"data_path": here / "made"}
    return run_recbole([*arguments, "--eval_args.mode=uni5pop5", *words(values)]) == 0


def _served(arguments: list[str]) -> bool:
    """Whether a service would begin; nothing listens afterwards."""
    pytest.importorskip("fastapi", reason="the service's packages are optional")
    with mock.patch("uvicorn.Server.run") as run:
        return ksr.main([*arguments, "--port=0"]) == 0 and run.call_count == 1


# Figures --------------------------------------------------------------------------------------


def rows(name: str, task: str = "next-item") -> dict[str, list[str]]:
    """MAP, Hit@10 and NDCG@10 of each row of a stored table, as they are shown."""
    tables = json.loads((RESULTS / f"{name}.json").read_text())["tables"]
    [table] = [t for t in tables if (t["task"], t["mode"]) == (task, "uni50pop50")]
    wanted = ("map", "hit@10", "ndcg@10")
    return {
        row["label"]: [f"{row['metrics'][metric]['mean']:.4f}" for metric in wanted]
        for row in table["rows"]
    }


def gain_of_exact_values(table: str, task: str = "next-item") -> str:
    """By how many percent KSR-exact's MAP is above GRU_F-trained's in a stored table."""
    stored = rows(table, task)
    exact, other = (float(stored[model][0]) for model in ("KSR-exact", "GRU_F-trained"))
    return f"{100 * (exact / other - 1):.1f}"


def test_the_results_are_stored_ones():
    stored = rows("ml-1m-three-seeds") | {"KSR-paper": rows("ml-1m-table3")["KSR-paper"]}
    row = r"^\| ([\w+-]+)[^|]*\| (0\.\d+) \| (0\.\d+) \| (0\.\d+) \|"
    shown = re.findall(row, TEXT, re.MULTILINE)
    assert len(shown) == 5
    for label, *values in shown:
        assert values == stored[label], label
    assert f"MAP {stored['KSR-paper'][0]} on ml-1m" in TEXT


def test_speed_is_that_of_the_page():
    page = (ROOT / "docs" / "performance.md").read_text()
    [seconds] = re.findall(r"takes ([\d.]+) s on two cores", TEXT)
    [times] = re.findall(r"RecBole's own KSR takes ([\d.]+) times as long", TEXT)
    [other] = re.findall(r"another machine it takes ([\d.]+) s, and RecBole's own", TEXT)
    assert f"{seconds} s" in page and f"{other} s (EPYC)" in page and f"**{times}**" in page


def test_no_figure_is_left_unchecked():
    """Of those with decimals; each is of a stored result, of a page or the version of something."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`|\]\([^)]*\)", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    shown = set(re.findall(r"(?<![\d.])\d+\.\d+(?![\d.]*\d)", text))
    stored = rows("ml-1m-three-seeds") | {"KSR-paper": rows("ml-1m-table3")["KSR-paper"]}
    known = {value for values in stored.values() for value in values}
    versions = {"3.11", "3.13", "3.14", "2.7", "3.0"}
    speed = re.findall(r"takes ([\d.]+) (?:s|times)\b", text)  # test_speed_is_that_of_the_page
    page = (RESULTS.parent / "results.md").read_text(encoding="utf-8")
    [paper] = re.findall(r"\(the paper: ([\d.]+)\)", TEXT)
    assert f"| KSR in the paper, on its ml-1m | {paper} |" in page
    [(share, users)] = re.findall(
        r"([\d.]+) % of recommended items .* all ([\d,]+) users of ml-1m", TEXT
    )
    gains = re.findall(
        r"on Music\*\*: the MAP of `KSR-exact` is ([\d.]+) % above .*"
        r"one seed: ([\d.]+) %; on ml-1m ([\d.]+) %",
        TEXT,
    )
    assert gains == [
        (
            gain_of_exact_values("lfm1m-exact-memory"),
            gain_of_exact_values("lfm1m-exact-memory-next-session", "next-session"),
            gain_of_exact_values("ml-1m-exact-memory"),
        )
    ]
    assert shown - known - versions - {*speed} == {paper, share, *gains[0]}
    measured = json.loads((RESULTS.parent / "measured/reasons.json").read_text(encoding="utf-8"))
    [ml_1m] = [each for each in measured if (each["model"], each["dataset"]) == ("KSR", "ml-1m")]
    assert (users, share) == (f"{ml_1m['users']:,}", f"{100 * ml_1m['reasons']['readable']:.1f}")


def test_the_output_is_that_of_a_run():
    kept = (ROOT / "docs/measured/first-run.txt").read_text(encoding="utf-8").splitlines()
    [block] = [text for text in blocks("text") if "uni50pop50" in text]
    assert [line for line in block.splitlines() if line not in kept] == []
    [seconds] = [line for line in kept if line.startswith("  seconds")]
    assert 9 * 60 < sum(map(float, re.findall(r"[\d.]+", seconds))) < 11 * 60
    assert "ten minutes on two cores" in TEXT
