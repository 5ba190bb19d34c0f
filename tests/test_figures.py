"""The pictures of the documentation show the stored results."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def figures() -> dict:
    return runpy.run_path(str(ROOT / "docs" / "figures.py"))


def test_every_picture_is_of_the_stored_results(figures):
    assert [picture.path(look).name for picture, look in figures["out_of_date"]()] == []
    names = {p.path(look).name for p in figures["pictures"]() for look in figures["LOOKS"]}
    assert names == {path.name for path in (ROOT / "docs" / "figures").glob("*.svg")}
    pages = "".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    unused = [p.name for p in figures["pictures"]() if f"{p.name}-light.svg" not in pages]
    assert unused == []


def test_an_interval_is_the_one_of_a_table(figures):
    stored = json.loads((ROOT / "docs/results/ml-1m-three-seeds.json").read_text())
    [table] = [t for t in stored["tables"] if t["mode"] == "uni50pop50"]
    cells = figures["rows"]("ml-1m-three-seeds", "next-item")
    for row in table["rows"][:2]:
        mean, half = figures["interval"](cells[row["label"]], "map")
        assert mean == pytest.approx(row["metrics"]["map"]["mean"], abs=1e-12)
        assert 0.005 < half < 0.02  # 6,040 users


def test_a_picture_is_made_again_byte_for_byte(figures):
    [model] = [p for p in figures["pictures"]() if p.name == "busy"]
    assert figures["svg"](model, "dark") == figures["svg"](model, "dark")
    assert model.digest in figures["svg"](model, "light")
    changed = type(model)(model.name, 1, 1, {"other": 1}, model.draw)
    assert changed.digest != model.digest


def test_times_in_the_pictures_are_those_of_the_pages():
    page, notebook = (
        (ROOT / "docs" / name).read_text() for name in ("performance.md", "notebook.md")
    )
    times = json.loads((ROOT / "docs/measured/speed.json").read_text())
    for n, seconds, memory in zip(
        *(times["scaling"][k] for k in ("interactions", "epoch_seconds", "peak_memory_mib")),
        strict=True,
    ):
        assert f"| {n:,} |" in page and f"| {seconds} s |" in page and f"| {memory:,} MiB |" in page
    for kind in ("idle_seconds", "busy_seconds"):
        for low, middle, high in times["busy"][kind]:
            assert f"| {middle:.2f} s ({low:.2f}-{high:.2f}) |" in notebook


def test_the_ladder_is_drawn_once_its_rows_are_named(figures, tmp_path, monkeypatch):
    panel = {"title": "ml-1m", "table": "ml-1m-three-seeds", "task": "next-item",
             "steps": {"Eq. 2": "GRU", "memory": "KSR"}}  # fmt: skip
    made = figures["_panel"](panel)
    assert [len(cells) for cells in made["steps"].values()] == [3, 3]
    picture = figures["Picture"]("ladder", 4, 3, {"panels": [made]}, figures["ladder"])
    assert "Eq. 2" in figures["svg"](picture, "light")


def test_a_step_of_the_ladder_may_be_named_by_its_cells(figures):
    panel = {"title": "ml-1m", "table": "ml-1m-three-seeds", "task": "next-item"}
    by_row = figures["_panel"](panel | {"steps": {"memory": "KSR"}})
    cells = by_row["steps"]["memory"]
    names = [f"{folder}/{name.rsplit('-', 1)[0]}/{key}" for folder, name, key in cells]
    assert figures["_panel"](panel | {"steps": {"memory": names}}) == by_row
    assert figures["interval"](cells, "map") != figures["interval"](cells[:1], "map")


def test_what_is_out_of_date_is_told(figures, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(figures["main"].__globals__, "FIGURES", tmp_path)
    monkeypatch.setattr(sys, "argv", ["figures.py", "--check"])
    assert figures["main"]() == 1 and "run python docs/figures.py" in capsys.readouterr().out
