"""Checks of config values that are more than a number, a flag or a word.

Args of each check: ``key``, the config key as sentences name it, and ``value``, what was given.
Each returns the value as it is used and raises ``UserError``, which names the key, where it takes
no such value.  Functions that take checks or bounds return a check.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Mapping
from typing import Any

from ksr_recbole.config import literals
from ksr_recbole.config.options import Check, Value, refused
from ksr_recbole.errors import UserError
from ksr_recbole.names import check_name
from ksr_recbole.paths import is_installed

_PATH_LENGTH = 4096


def path(key: str, value: Any) -> str:
    """A path, as text or as a ``PathLike``; as text."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    printable = isinstance(value, str) and not any(ord(each) < 32 for each in value)
    if not printable or not value or len(value) > _PATH_LENGTH or not _can_be_written(value):
        raise refused(key, value, "a path, without control characters")
    return value


def _can_be_written(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def resume(key: str, value: Any) -> Any:
    """``True``, ``False``, ``None`` or the path of a checkpoint; as it is."""
    return value if isinstance(value, bool) or value is None else path(key, value)


def name(key: str, value: Any) -> str:
    """A name that a file can have, such as a dataset's; as it is."""
    return check_name(value, key)


def field(key: str, value: Any) -> str:
    """The name of a column, which the header of an atomic file can hold; as it is."""
    if not isinstance(value, str) or not re.fullmatch(r"[^\s:,\"\x00-\x1f\x7f]{1,100}", value):
        raise refused(key, value, "a column's name, without blanks, colons and commas")
    return value


def separator(key: str, value: Any) -> str:
    r"""One ASCII character, or ``\t`` in two, which is a tab; as one character."""
    value = "\t" if value == "\\t" else value  # as it is typed on a command line
    if not isinstance(value, str) or len(value) != 1 or not value.isascii() or value in "\r\n\0":
        raise refused(key, value, "one ASCII character")
    return value


def encoding(key: str, value: Any) -> str:
    """An encoding of text that Python knows; as it is."""
    try:
        known = codecs.lookup(value)
        if not getattr(known, "_is_text_encoding", True):
            raise LookupError
    except (LookupError, TypeError, ValueError) as error:
        raise refused(key, value, "an encoding that Python knows, such as utf-8") from error
    return value


def intervals(key: str, value: Any) -> str:
    """One interval or several, see :func:`.literals.intervals`; as it is."""
    try:
        literals.intervals(value)
    except (ValueError, AttributeError, TypeError) as error:
        raise refused(
            key, value, "an interval such as [5,inf), or several with ; between"
        ) from error
    return value


def gpu_id(key: str, value: Any) -> str:
    """One GPU or several, as text or numbers; none if it is empty; as text."""
    if isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not re.fullmatch(r"[\w\s,:/-]{0,1000}", value, re.ASCII):
        raise refused(key, value, "the number of a GPU, several as 0,1, or empty for none")
    return value


def device(key: str, value: Any) -> str:
    """``cpu`` or ``cuda``, as text or as a ``torch.device``; as text."""
    if str(value) not in ("cpu", "cuda"):
        raise refused(key, value, "cpu or cuda; gpu_id says which GPU")
    return str(value)


def topk(key: str, value: Any) -> list[int]:
    """A cut-off or several, 1 to 100,000; as a list."""
    cuts = [value] if isinstance(value, int) else value
    good = isinstance(cuts, list | tuple) and len(cuts) > 0
    if not good or not all(_is_cut(each) for each in cuts):
        raise refused(key, value, "a whole number from 1 to 100000, or a list of them")
    return list(cuts)


def _is_cut(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 100_000


def texts(key: str, value: Any) -> list[str]:
    """A word or several; as a list."""
    texts = [value] if isinstance(value, str) else value
    good = isinstance(texts, list | tuple) and len(texts) > 0
    if not good or not all(isinstance(each, str) and 0 < len(each) <= 200 for each in texts):
        raise refused(key, value, "a word or a list of words")
    return list(texts)


def modes(key: str, value: Any) -> Any:
    """Modes in a list, or as text with commas between, which is taken apart later."""
    listed = texts(key, value)
    return value if isinstance(value, str) else listed


def within(low: float, high: float) -> Check:
    """A number from ``low`` to ``high``; as it is."""

    def check(key: str, value: Any) -> Any:
        if not low <= Value(float)(key, value) <= high:
            raise refused(key, value, f"from {low} to {high}")
        return value

    return check


def list_of(each: Check) -> Check:
    """A list or tuple whose values ``each`` takes; as a list."""

    def check(key: str, value: Any) -> list[Any]:
        if not isinstance(value, list | tuple):
            raise refused(key, value, "a list")
        return [each(key, item) for item in value]

    return check


def names(key: str, value: Any) -> list[str]:
    """File suffixes, alone or in a list; as a list."""
    return list_of(name)(key, [value] if isinstance(value, str) else value)


def dict_of(each: Check) -> Check:
    """A dict with text as keys, whose values ``each`` takes; as a dict."""

    def check(key: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise refused(key, value, "a dict")
        return {name: each(f"{key}.{name}", item) for name, item in value.items()}

    return check


def dict_with(parts: Mapping[str, Check]) -> Check:
    """A dict with some of ``parts``, each value checked by its part's check; as a dict."""

    def check(key: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or not value.keys() <= parts.keys():
            raise refused(key, value, f"a dict of {', '.join(parts)}")
        return {name: parts[name](f"{key}.{name}", item) for name, item in value.items()}

    return check


def columns(key: str, value: Any) -> Any:
    """Columns of one file as a list, or ``*`` for all; as it is."""
    return value if value == "*" else list_of(field)(key, value)


def mode(key: str, value: Any) -> Any:
    """A mode such as ``full``, or a dict of one for ``valid`` and one for ``test``; as it is."""
    modes = value.values() if isinstance(value, dict) else [value]
    phases = set(value) if isinstance(value, dict) else {"valid"}
    texts = all(isinstance(mode, str) and 0 < len(mode) <= 60 for mode in modes)
    if not texts or not phases or not phases <= {"valid", "test"}:
        raise refused(
            key, value, "a mode such as full or uni100, or one for valid and one for test"
        )
    return value


def split(key: str, value: Any) -> Any:
    """A dict with ``LS`` and what is left out, or with ``RS`` or ``TS`` and shares; as it is."""
    expected = (
        "{'LS': 'valid_and_test'}, or for RecBole's own models {'RS': [0.8,0.1,0.1]} or "
        "{'TS': [0.8,0.1,0.1]}"
    )
    if not isinstance(value, dict) or len(value) != 1 or set(value) - {"LS", "RS", "TS"}:
        raise refused(key, value, expected)
    [(way, parts)] = value.items()
    if way == "LS" and parts not in ("valid_and_test", "valid_only", "test_only"):
        raise refused(key, value, expected)
    if way != "LS":
        shares = list_of(Value(float, 0))(key, parts)
        if len(shares) != 3 or not sum(shares[: 2 if way == "TS" else 3]):
            raise refused(key, value, expected)
    return value


def interval_or_tokens(key: str, value: Any) -> Any:
    """What a column may hold: intervals of numbers, as text, or a list of tokens, as a list."""
    if isinstance(value, list | tuple) and all(isinstance(each, str | int) for each in value):
        return list(value)
    return intervals(key, value)


def any_plain(key: str, value: Any) -> Any:
    """Anything that :func:`.literals.is_plain` takes; as it is."""
    if not literals.is_plain(value):
        raise refused(key, value, "text, a number, a list or a dict")
    return value


def needing(part: str, check: Check) -> Check:
    """A dict that has ``part``, or an empty one."""

    def checked(key: str, value: Any) -> Any:
        whole = check(key, value)
        if whole and part not in whole:
            raise refused(key, value, f"a dict with {part}")
        return whole

    return checked


def none_for_word(check: Check) -> Check:
    """``None``, also where a YAML file says ``None``, or what ``check`` takes."""
    return lambda key, value: check(key, None if value in ("none", "None") else value)


def none_word(check: Check) -> Check:
    """``none``, as RecBole writes what does not apply, or what ``check`` takes."""
    return lambda key, value: value if value in ("none", "None") else check(key, value)


def text(key: str, value: Any) -> str:
    """A printable text of 1 to 200 characters; as it is."""
    if not isinstance(value, str) or not 0 < len(value) <= 200 or not value.isprintable():
        raise refused(key, value, "a word")
    return value


def wandb(key: str, value: Any) -> bool:
    """Whether to log to Weights & Biases, which is not among what this project needs.

    Raises:
        UserError: it is no bool, or True and wandb is not installed.
    """
    if Value(bool)(key, value) and not is_installed("wandb"):
        raise UserError(
            f"Config key {key} is True, which needs `pip install wandb`; or leave it out."
        )
    return value


def no_negatives(model: str) -> UserError:
    """What is raised where ``train_neg_sample_args`` leaves a loss without negatives."""
    return UserError(
        f"Config key train_neg_sample_args is None, but the loss of {model} needs negatives; leave "
        "it out, or give loss_type: CE to a model that has it."
    )


def level(key: str, value: Any) -> Any:
    """RecBole's levels of its log, in any case."""
    levels = ("info", "debug", "error", "warning", "critical")
    if value is not None and (not isinstance(value, str) or value.lower() not in levels):
        raise refused(key, value, f"one of: {', '.join(levels)}")
    return value
