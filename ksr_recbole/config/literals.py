"""Words as values, and YAML files as plain values: read as literals, never evaluated."""

from __future__ import annotations

import ast
import math
import re
import warnings
from collections.abc import Collection, Mapping
from copy import deepcopy
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from recbole.config import Config as RecBoleConfig

from ksr_recbole.errors import UserError, shown
from ksr_recbole.files import read_regular

_LONGEST = 10_000
"""Characters of a word that may be a number, a list or a dict; by default a longer one is text."""

LONGEST_FILE = 1_000_000
"""Bytes of a config file."""

_PLAIN = (str, int, float, bool, type(None))


def literal(word: str, longest: int = _LONGEST) -> Any:
    """A word as RecBole reads it: a Python literal (``10``, ``[1, 2]``, ``None``), or the word.

    ``~`` is ``None``, as in YAML.  ``true`` and ``false`` may be written in any case.  Nothing is
    evaluated: ``1/0``, ``2**9`` and ``os.name`` stay text.

    Args:
        word: the word.
        longest: a word of more characters stays text.
    """
    text = word.strip()
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text == "~":
        return None
    if len(text) > longest:
        return word
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the parser's, on such words as '\d'
            value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return word
    return value if is_plain(value) else word


def text_of(key: str, word: str) -> Any:
    """A word as text, such as a path: ``12`` stays text; quotes around it go, ``None`` is none."""
    value = literal(word)
    kept = value is None or isinstance(value, str) or _is_switch(key, value)
    return value if kept else word


def _is_switch(key: str, value: Any) -> bool:
    """``resume`` is a path or a truth value."""
    return key == "resume" and isinstance(value, bool)


def literals(words: Mapping[str, Any], texts: Collection[str] = ()) -> dict[str, Any]:
    """Config values that were written as words; other values are kept.

    Args:
        words: config values by key.
        texts: the keys whose values are text, see :func:`text_of`.
    """
    return {
        key: value
        if not isinstance(value, str)
        else (text_of(key, value) if key in texts or _is_interval(key, value) else _of_shell(value))
        for key, value in words.items()
    }


def _of_shell(word: str) -> Any:
    """:func:`literal`, or the list from whose words a shell has taken the quotes (``[a,b]``)."""
    value = literal(word)
    name = r"[A-Za-z_][\w.+-]*"
    found = re.fullmatch(rf"\s*\[\s*({name}(?:\s*,\s*{name})*)\s*\]\s*", word)
    return re.split(r"\s*,\s*", found[1]) if found and value == word else value


def _is_interval(key: str, word: str) -> bool:
    """Whether a word is an interval of ``val_interval.COLUMN``; ``[3,5]`` looks like a list too."""
    if not key.startswith("val_interval."):
        return False
    try:
        return bool(intervals(word))
    except ValueError:
        return False


def is_plain(value: Any, depth: int = 20) -> bool:
    """Whether a value is text, a number, a truth value, ``None``, or lists and dicts of them."""
    if isinstance(value, _PLAIN):
        return True
    if depth == 0:
        return False
    if isinstance(value, list | tuple):
        return all(is_plain(each, depth - 1) for each in value)
    if isinstance(value, dict):
        return all(isinstance(key, _PLAIN) for key in value) and all(
            is_plain(each, depth - 1) for each in value.values()
        )
    return False


def intervals(text: str) -> list[tuple[str, float, float, str]]:
    """RecBole's intervals: ``[5,inf)``, or several as ``[0,1];(3,4]``.

    Returns:
        Left bracket, ends and right bracket of each.

    Raises:
        ValueError: it is something else.
    """
    found = []
    for part in text.split(";"):
        match = re.fullmatch(r"\s*([\[(])([^,\[\]()]+),([^,\[\]()]+)([\])])\s*", part)
        if match is None or not text.isascii():
            raise ValueError(part)
        low, high = float(match[2]), float(match[3])
        if math.isnan(low) or math.isnan(high) or low > high:
            raise ValueError(part)
        found.append((match[1], low, high, match[4]))
    return found


class _Mark:
    """Where something stands in a YAML file."""

    def __init__(self, node: yaml.Node) -> None:
        self.line = node.start_mark.line


class _Refused(yaml.YAMLError):
    """What YAML allows and a config file must not hold."""

    def __init__(self, node: yaml.Node, reason: str) -> None:
        super().__init__(reason)
        self.problem_mark, self.problem = _Mark(node), reason


class RecBoleLoader(yaml.SafeLoader):
    """A loader that reads numbers as RecBole does (``1e-3``) and makes plain values only.

    RecBole's checkpoints refer to it by this name, since they hold a whole ``Config``.
    """

    yaml_implicit_resolvers = RecBoleConfig._build_yaml_loader(None).yaml_implicit_resolvers


@cache
def _strict_loader(texts: frozenset[str]) -> type[yaml.SafeLoader]:
    """The loader of users' files: a key given twice is an error, what ``texts`` name stays text."""

    class Loader(RecBoleLoader):
        def get_single_node(self) -> yaml.Node | None:
            node = super().get_single_node()
            if isinstance(node, yaml.MappingNode):
                _check_names([key for key, _ in node.value])
            return node

        def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
            if self.check_event(yaml.AliasEvent):
                # A few lines of them can stand for more values than fit into memory.
                raise _Refused(self.peek_event(), "a value refers to another one by *name")
            return super().compose_node(parent, index)

        def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
            try:
                value = super().construct_object(node, deep)
            except yaml.YAMLError:
                raise
            except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
                raise _Refused(node, "a value cannot be read") from error
            _check_base(node, value)
            return value

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            if isinstance(node, yaml.MappingNode):
                _check_pairs(node, texts)
            return super().construct_mapping(node, deep)  # type: ignore[arg-type]

    return Loader


def _check_pairs(node: yaml.MappingNode, texts: frozenset[str]) -> None:
    seen = set()
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _Refused(key, "a key is no word")
        if key.value in seen:
            raise _Refused(key, f"the key {shown(key.value)} is given twice")
        seen.add(key.value)
        if not isinstance(value, yaml.ScalarNode) or value.tag not in _SCALARS:
            continue
        if key.value in texts and not (key.value == "resume" and value.tag.endswith(":bool")):
            value.tag = "tag:yaml.org,2002:str"


def _check_names(keys: list[yaml.Node]) -> None:
    """Refuse a config key that YAML reads as something else than text, as ``on`` and ``1``."""
    for key in keys:
        if isinstance(key, yaml.ScalarNode) and key.tag not in _NAMES:
            kind = key.tag.rpartition(":")[2]
            word = shown(key.value)
            raise _Refused(key, f"the key {word} is no text in YAML ({kind}); put quotes around it")


def _check_base(node: yaml.Node, value: Any) -> None:
    """Refuse a number that YAML 1.1 reads to another base than what it looks like says.

    ``1:30`` is the number 90 to it, and ``0100`` is 64.  Who writes ``0x40`` means it.

    Raises:
        _Refused: it is such a number.
    """
    if not isinstance(value, int | float) or not isinstance(node, yaml.ScalarNode):
        return
    word = node.value
    octal = isinstance(value, int) and re.fullmatch("[-+]?0[0-7_]*[1-7][0-7_]*", word)
    if octal or ":" in word:
        raise _Refused(
            node,
            f"{shown(word)} is the number {value} in YAML (to the base {8 if octal else 60}); "
            "write the number itself, or put quotes around it if it is text",
        )


_NAMES = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "merge"))
"""What YAML takes a config key for."""

_SCALARS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("int", "float", "bool", "timestamp"))
"""What YAML takes words for that look like it."""


def read_yaml(path: Path, texts: Collection[str] = (), what: str = "Config file") -> dict[str, Any]:
    """The values in a YAML file; none if it is empty.

    Args:
        path: the file.
        texts: the keys whose values are text, even if they look like numbers or dates.
        what: what the file is, for the sentences.

    Raises:
        UserError: it cannot be read, is no YAML or holds something else than ``key: value``.
    """
    try:
        content = read_regular(path, LONGEST_FILE)
    except OSError as error:
        name = f"{what[0].lower()}{what[1:]}"
        raise UserError(f"Cannot read {name} {path}: {error.strerror}.") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"{what} {path}, line {line} is not valid YAML: it is not written in UTF-8."
        ) from error
    try:
        values = deepcopy(_content_of(text, frozenset(texts)))
    except (yaml.YAMLError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{what} {path}{_why_not_yaml(error)}") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{what} {path} must hold `key: value` lines.")
    for key, value in values.items():
        if not is_plain(value):
            raise UserError(
                f"{what} {path}: {shown(key)} is {shown(value)}, which is no text, number, list or "
                "dict; put quotes around it if it is text."
            )
    return values


def keys_in(path: Path) -> set[str]:
    """The keys in a YAML file that is shipped, read by libyaml where PyYAML has it.

    Reading the 150 files of RecBole and this project as :func:`read_yaml` does takes a third of
    a second.
    """
    try:
        return set(yaml.load(read_regular(path), Loader=_FASTEST) or {})
    except (OSError, yaml.YAMLError):  # which that function explains
        return set(read_yaml(path))


_FASTEST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@lru_cache(maxsize=64)
def _content_of(text: str, texts: frozenset[str]) -> Any:
    # PyYAML takes 5 ms for a file of this project, and each of many configurations reads some ten.
    return yaml.load(text, Loader=_strict_loader(texts))


def _why_not_yaml(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f", line {mark.line + 1}" if mark is not None else ""
    if isinstance(error, yaml.constructor.ConstructorError) and "!" in str(error):
        return f"{where} is not valid here: it makes an object ({shown(error.problem)})."
    reason = getattr(error, "problem", None) or getattr(error, "reason", None)
    return f"{where} is not valid YAML: {shown(reason or 'a value cannot be read')}."


def without_numpy(value: Any) -> Any:
    """A value, in which NumPy's numbers are Python's: programs draw them, such as hyperopt's."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: without_numpy(each) for key, each in value.items()}
    # A tuple with names has another way to be made.
    return type(value)(map(without_numpy, value)) if type(value) in (list, tuple) else value
