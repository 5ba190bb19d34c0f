"""Takes the README's two pictures: the page of ``explain`` and the live table of a comparison.

    python docs/pictures.py --page=196.html   # a page that explain wrote
    python docs/pictures.py --table           # of the finished cells in docs/results

The page is opened in an installed Chromium.  The table is drawn by the code that draws it in a
terminal, with the figures of finished cells: how it looks when a third of them is still to come.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # if the package is not installed

from ksr_recbole.comparison.cells import Cell
from ksr_recbole.comparison.live import LiveTable
from ksr_recbole.comparison.store import Store

DOCS = Path(__file__).resolve().parent
PICTURES = DOCS / "pictures"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH = 1280


def photograph(page: Path, height: int) -> Path:
    """Open a page in a browser without a window; the picture of its upper part."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"No browser is installed; one of {', '.join(BROWSERS)} is needed.")
    target = PICTURES / "explain.png"
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, "--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu",
                   f"--user-data-dir={profile}", f"--window-size={WIDTH},{height}",
                   f"--screenshot={target}", page.resolve().as_uri()]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    _fewer_colours(target)
    return target


def _fewer_colours(path: Path) -> None:
    """64 colours do for a page, and make a quarter of the bytes."""
    from PIL import Image

    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(64)
    small.save(path, optimize=True)


def draw_table() -> Path:
    """The live table of ml-100k's comparison with three seeds, as SVG."""
    from rich.console import Console

    document = json.loads((DOCS / "results" / "ml-100k-freebase-table3.json").read_text("utf-8"))
    entries = [each for each in document["cells"] if each["task"] == "next-item"][:30]
    store = Store.of(DOCS / "results", Path(entries[0]["file"]).parts[-3])
    cells = {(c["label"], c["task"], c["seed"]): _cell(c) for c in entries}
    in_order = sorted(cells.values(), key=lambda cell: cell.seed)
    table = LiveTable(SimpleNamespace(), *_state(document, store, cells, in_order[:20]))
    spent = sum(state.seconds for state in table.states.values()) / 2  # two at a time
    table._clock = lambda: spent - 40
    for cell in in_order[20:22]:
        table.started(SimpleNamespace(cell=cell))
    table._clock = lambda: spent
    console = Console(record=True, width=56, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table.draw())
    target = PICTURES / "benchmark.svg"
    title = "python run_benchmark.py --models=paper --seeds=3"
    target.write_text(console.export_svg(title=title, unique_id="ksr"), encoding="utf-8")
    return target


def _cell(entry: dict[str, Any]) -> Cell:
    model = entry["result"]["model"]
    return Cell(model, "ml-100k", entry["task"], entry["seed"], {}, entry["key"])


def _state(document: dict, store: Store, cells: dict, done: list[Cell]) -> tuple[Any, ...]:
    """A plan that asks for the cells, what is known of them, and a clock."""
    rows = list(dict.fromkeys(label for label, _, _ in cells))
    study = SimpleNamespace(phase="test", settings=[SimpleNamespace(label=r) for r in rows])
    request = SimpleNamespace(dataset="ml-100k", study=study, tasks=("next-item",),
                              seeds=document["seeds"], jobs=2)  # fmt: skip
    plan = SimpleNamespace(request=request, store=store, cells=cells, modes=document["modes"])
    outcomes = {cell.name: store.load(cell) for cell in done}
    return plan, outcomes, lambda: 0.0


def main() -> None:
    """Take one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", type=Path, help="what explain --html=FILE wrote")
    parser.add_argument("--height", type=int, default=800, help="of the page's part (800)")
    parser.add_argument("--table", action="store_true", help="the live table")
    given = parser.parse_args()
    PICTURES.mkdir(exist_ok=True)
    if given.page:
        print(photograph(given.page, given.height))
    if given.table:
        print(draw_table())


if __name__ == "__main__":
    main()
