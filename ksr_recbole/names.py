"""Names that become parts of file names: what a dataset, a model or a column may be called."""

from __future__ import annotations

import re
import unicodedata

from ksr_recbole.errors import UserError, shown

_LONGEST = 100
"""Bytes of a name in UTF-8; a file's name is longer, and most systems allow 255."""

_NOT_IN_A_NAME = frozenset('/\\:*?"<>|')

_DEVICE = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9¹²³])(\..*)?", re.IGNORECASE | re.DOTALL)
"""Names that Windows gives to devices, whatever follows after a dot."""


def check_name(name: object, what: str) -> str:
    """A name that stays a name wherever it becomes part of a path.

    Args:
        name: what was given.
        what: what it is the name of, for the sentence, such as ``"dataset"``.

    Raises:
        UserError: it is empty, too long, begins with a dot or a hyphen, begins or ends with a
            blank, ends with a dot, has a separator, a wildcard or a control character in it, or
            is a device of Windows such as ``nul``.
    """
    if isinstance(name, str) and _is_name(name):
        return name
    raise UserError(
        f"The {what} cannot be called {shown(repr(name))}. A name has 1 to {_LONGEST} bytes, no "
        'control characters and none of / \\ : * ? " < > |. It does not begin with a dot, hyphen '
        "or blank, does not end with a dot or blank, and is not a device of Windows such as nul."
    )


def _is_name(name: str) -> bool:
    try:
        length = len(name.encode("utf-8"))
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    if not 0 < length <= _LONGEST or name[0] in ".-" or name != name.strip():
        return False
    if name.endswith(".") or _DEVICE.fullmatch(name):
        return False
    return not _NOT_IN_A_NAME & set(name) and not any(map(_is_control, name))


def _is_control(character: str) -> bool:
    """Whether it is no character to be seen: control, format (bidirectional), line separator."""
    category = unicodedata.category(character)
    return category.startswith("C") or category in ("Zl", "Zp")


_FIRST_NAMES = {"ml-100k-freebase": "ml-100k"}
"""Datasets that had another name when their first cells were finished."""


def first_name(dataset: str) -> str:
    """The name of a dataset in RecBole's defaults and in the keys and folders of cells.

    ml-100k had the wheel's Freebase graph before it got one with names; what was finished then is
    that of ``ml-100k-freebase`` now.  Its settings and keys are those of the first name, so that
    finished cells are found; the digests of the files in a key tell the two graphs apart.
    """
    return _FIRST_NAMES.get(dataset, dataset)
