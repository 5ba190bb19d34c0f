"""Imports run one way: each room of the code knows those below it and none above.

All imports count: those inside functions and those for type checkers too.  ``ROOMS`` is the one
table of the direction; the layout in CONTRIBUTING.md says what each room holds.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

ROOMS = (
    "leaf modules",  # ksr_recbole/*.py: errors, files, cache, registry, ...
    "distributed",  # knows of processes, and nothing of data, models or configurations
    "dataset_atomic",
    "config",
    "dataset",
    "pretraining",
    "model",
    "evaluation",
    "trainer",
    "quick_start",
    "explanation",
    "inference",
    "serve",
    "plugin",
    "comparison",
    "interpretability",
    "tuning",
    "command lines",  # cli.py and __main__.py of every package
    "public API",  # what `import ksr_recbole` offers
    "outside",  # scripts, examples and timings
)
"""From the lowest to the highest; a room imports from lower rooms only."""

NAMED_AS_TEXT = {
    "ksr_recbole/registry.py",  # the model of a name
    "ksr_recbole/comparison/studies.py",  # what a study measures on each model, and its report
    "ksr_recbole/__init__.py",  # public names, imported when first used
    "ksr_recbole/__main__.py",  # commands
}
"""Tables that name modules as text, to be imported when somebody asks for one of them."""

OUTSIDE = ("run_", "examples/", "timings/")


class Edge(NamedTuple):
    """An import: the file and line where it stands, and the module it is of."""

    file: str
    line: int
    module: str


def modules_of(root: Path) -> dict[str, str]:
    """Path by name of every module under ``root`` that is not a test."""
    files = [path.relative_to(root) for path in root.glob("*.py")]
    for folder in ("ksr_recbole", "dataset_atomic", "examples", "timings"):
        files += [path.relative_to(root) for path in (root / folder).rglob("*.py")]
    return {
        ".".join(file.with_suffix("").parts).removesuffix(".__init__"): file.as_posix()
        for file in files
    }


def room_of(file: str) -> str:
    """The room of a file, by its path."""
    folder, _, name = file.rpartition("/")
    if not folder or file.startswith(OUTSIDE):
        return "outside"
    if name in ("cli.py", "__main__.py"):
        return "command lines"
    if folder == "ksr_recbole":
        return "public API" if name == "__init__.py" else "leaf modules"
    package, *rest = folder.split("/")
    return rest[0] if package == "ksr_recbole" else package


def imports_of(root: Path, file: str, modules: Mapping[str, str]) -> Iterator[Edge]:
    """Every import of one of ``modules`` in a file, wherever in the file it stands."""
    inside = Path(file).parent.parts
    for node in ast.walk(ast.parse((root / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = inside[: len(inside) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # A module named as text, such as "ksr_recbole.model.ksr:KSR", is imported by it.
            name = node.value.partition(":")[0]
            names = [name] if name in modules and "." in name else []
            names = [] if file in NAMED_AS_TEXT else names
        else:
            continue
        for name in names:
            while name and name not in modules:
                name = name.rpartition(".")[0]
            if name and modules[name] != file:
                yield Edge(file, node.lineno, name)


def edges_of(root: Path) -> list[Edge]:
    """All imports within the project."""
    modules = modules_of(root)
    return [edge for file in modules.values() for edge in imports_of(root, file, modules)]


def upward(root: Path) -> list[str]:
    """A line for every import of a room that is not below."""
    modules, told = modules_of(root), []
    for edge in edges_of(root):
        importer, imported = room_of(edge.file), room_of(modules[edge.module])
        if importer != imported and ROOMS.index(imported) >= ROOMS.index(importer):
            told.append(f"{edge.file}:{edge.line}: {importer} imports {edge.module} ({imported})")
    return told


def cycle(root: Path) -> list[str]:
    """Modules that import each other in a ring, each the next one; none if there is no ring."""
    modules = modules_of(root)
    known: dict[str, set[str]] = {name: set() for name in modules}
    names = {file: name for name, file in modules.items()}
    for edge in edges_of(root):
        known[names[edge.file]].add(edge.module)
    try:
        TopologicalSorter(known).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_imports_run_one_way():
    assert upward(ROOT) == []


def test_no_modules_import_each_other():
    assert cycle(ROOT) == []


def test_every_room_is_there_and_none_is_unknown():
    assert {room_of(file) for file in modules_of(ROOT).values()} == set(ROOMS)


def test_no_two_files_share_a_name():
    names = [
        Path(file).name
        for file in modules_of(ROOT).values()
        if file.startswith(("ksr_recbole/", "dataset_atomic/"))
    ]
    shared = {name for name in names if names.count(name) > 1}
    assert shared == {"__init__.py", "__main__.py", "cli.py"}


@pytest.mark.parametrize(
    "wrong",
    [
        "from ksr_recbole.trainer.trainer import SequenceTrainer",
        "import ksr_recbole.trainer.trainer as other",
        "from ksr_recbole.trainer import trainer",
        "from ..trainer import trainer",
        "def later():\n    from ksr_recbole.trainer.trainer import SequenceTrainer",
        "import typing\nif typing.TYPE_CHECKING:\n    import ksr_recbole.trainer.trainer",
        "try:\n    pass\nfinally:\n    import ksr_recbole.trainer.trainer",
        "later = 'ksr_recbole.trainer.trainer:SequenceTrainer'",
    ],
)
def test_a_wrong_import_is_found(tmp_path, wrong):
    for file, text in {"dataset/reading.py": wrong, "trainer/trainer.py": "import torch"}.items():
        path = tmp_path / "ksr_recbole" / file
        path.parent.mkdir(parents=True)
        path.write_text(text)
    where = f"ksr_recbole/dataset/reading.py:{len(wrong.splitlines())}"
    assert upward(tmp_path) == [f"{where}: dataset imports ksr_recbole.trainer.trainer (trainer)"]
    assert cycle(tmp_path) == []
    (tmp_path / "ksr_recbole/trainer/trainer.py").write_text("import ksr_recbole.dataset.reading")
    assert set(cycle(tmp_path)) == {"ksr_recbole.dataset.reading", "ksr_recbole.trainer.trainer"}
