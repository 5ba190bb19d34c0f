"""Writes what the classes of options say into the comments of configs/ and docs/options.md.

    python docs/make_options.py          # writes
    python docs/make_options.py --check  # says which files are out of date, and ends with 1

The meaning, the type and the bounds of an option are said once, by a field of a class
(ksr_recbole/config/shared.py, and the ``Options`` of a model's class).  A YAML file says a value.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import Field, fields
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # if the package is not installed

from ksr_recbole.config import shared
from ksr_recbole.config.keys import model_options
from ksr_recbole.config.kinds import options_of
from ksr_recbole.config.options import Options
from ksr_recbole.paths import CHECKOUT, CONFIGS
from ksr_recbole.registry import MODELS

PAGE = Path(__file__).resolve().with_name("options.md")
BEGIN, END = "<!-- made by docs/make_options.py -->\n", "<!-- end -->\n"
COMMENT_AT = 32
"""Column of the comments in YAML files, if the value leaves room."""

SHARED = (
    *shared.SHARED_OPTIONS,
    shared.PretrainingOptions,
    shared.TrainingOptions,
    shared.SampleOptions,
)
_LINE = re.compile(r"(?P<given>(?P<key>\w+):(?: (?:[^#]*[^#\s])?)?) *(?:#.*)?")


@cache
def meanings(options: type[Options]) -> dict[str, str]:
    """What each field of a class means: the string below it, or below that of a base class."""
    said: dict[str, str] = {}
    for each in reversed(options.__mro__[:-1]):
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        assert isinstance(body, ast.ClassDef)
        for line, below in zip(body.body, body.body[1:], strict=False):
            if isinstance(line, ast.AnnAssign) and isinstance(below, ast.Expr):
                text = ast.literal_eval(below.value)
                said[ast.unparse(line.target)] = " ".join(text.split())
    return said


def type_of(each: Field[Any]) -> str:
    """A field's type in a word: ``int``, ``bool or str``; that it may be left out is no type."""
    kinds = [re.sub(r"\[.*", "", part) for part in re.split(r" \| (?![^\[]*\])", str(each.type))]
    if not kinds[0].islower():  # a Literal, or its name
        kinds = [type(each.metadata["default"]).__name__]
    return " or ".join(kind for kind in kinds if kind != "None")


def declared_for(model: str | None) -> dict[str, tuple[str, str]]:
    """Key to type and meaning, a model's own options before those that all share."""
    classes = [*SHARED, *([options_of(model)] if model else [])]
    return {
        each.name: (type_of(each), meanings(options)[each.name])
        for options in classes
        for each in fields(options)
    }


# YAML files --------------------------------------------------------------------------------------


def commented(text: str, said: Mapping[str, tuple[str, str]]) -> str:
    """A YAML file's text with the comments of its keys, given as type and meaning, made anew."""
    lines = []
    for line in text.splitlines():
        found = _LINE.fullmatch(line)
        if found and found["key"] in said:
            kind, meaning = said[found["key"]]
            star = "* " if "# * " in line else ""  # departs from the paper
            line = f"{found['given']:<{COMMENT_AT - 1}} # {star}({kind}) {meaning}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def yaml_files() -> Iterator[tuple[Path, str]]:
    """The YAML files that name options, and what they should say."""
    for path in sorted(CONFIGS.rglob("*.yaml")):
        relative = path.relative_to(CONFIGS)
        if len(relative.parts) > 2 or relative.parts[0] in ("dataset", "tuning"):
            continue  # what was chosen for one use; the comments there say why
        model = path.stem if relative.parts[0] == "model" else None
        yield path, commented(path.read_text(encoding="utf-8"), declared_for(model))


# The page ----------------------------------------------------------------------------------------


def page() -> str:
    """``docs/options.md`` with its tables made anew."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    return before + BEGIN + "\n".join(_sections()) + "\n\n" + END + rest.partition(END)[2]


def _sections() -> Iterator[str]:
    by_class: dict[type[Options], list[str]] = {}
    for model in MODELS:
        for each in reversed(options_of(model).__mro__):
            if issubclass(each, Options) and each is not Options:
                by_class.setdefault(each, []).append(model)
    for options, models in by_class.items():
        yield from _section(options, models)
    for options in SHARED:
        yield from _section(options, list(MODELS) if options is shared.TrainingOptions else [])


def _section(options: type[Options], models: list[str]) -> Iterator[str]:
    named = inspect.getsource(options)
    own = [each for each in fields(options) if re.search(rf"^    {each.name}:", named, re.M)]
    title = (inspect.getdoc(options) or "").splitlines()[0].replace("`", "").rstrip(".")
    yield f"\n### {title}\n"
    yield "| key | type | values | default | meaning |\n|---|---|---|---|---|"
    for each in own:
        cells = (
            f"`{each.name}`",
            type_of(each),
            each.metadata["expected"],
            _default(each, models),
            meanings(options)[each.name],
        )
        yield "| " + " | ".join(re.sub(r"([|<])", r"\\\1", cell) for cell in cells) + " |"


def _default(each: Field[Any], models: list[str]) -> str:
    """The field's default, and the models whose YAML file gives another one."""
    default = each.metadata["default"]
    other: dict[str, list[str]] = {}
    for model in models:
        values = model_options(model)
        if each.name in values and values[each.name] != default:
            other.setdefault(_written(values[each.name]), []).append(model)
    text = _written(default)
    return text + "".join(f"; {value} in {', '.join(names)}" for value, names in other.items())


def _written(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_written(each)}" for key, each in value.items())
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    return "~" if value is None else str(value)


def main(arguments: list[str]) -> int:
    """Write the files, or say which would change; gives the exit status."""
    wanted = {**dict(yaml_files()), PAGE: page()}
    changed = [p for p, text in wanted.items() if p.read_text(encoding="utf-8") != text]
    for path in changed:
        if "--check" not in arguments:
            path.write_text(wanted[path], encoding="utf-8")
        print(path.relative_to(CHECKOUT))
    return 1 if changed and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
