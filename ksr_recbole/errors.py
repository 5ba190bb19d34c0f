"""The one exception a user is meant to read."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Collection

from ksr_recbole.text import clean_line

_LONGEST_WORD, _LONGEST = 500, 4000
"""Characters of a word, such as a path, and of a sentence."""

_LONG_WORD = re.compile(rf"\S{{{_LONGEST_WORD + 1},}}")


def _without_middle(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    end = longest // 3
    return f"{text[: longest - end]}...({len(text)} characters)...{text[-end:]}"


class UserError(Exception):
    """A mistake the user can mend, told in one sentence.

    The sentence names the file, line, key or value at fault, what was expected, and how to
    fix it.  Command lines print it and exit with :data:`EXIT_STATUS`, without a traceback.
    Whatever a sentence quotes, it stays short enough to be read: longer words and sentences lose
    their middle, and say so.
    """

    def __init__(self, sentence: object = "") -> None:
        text = _LONG_WORD.sub(lambda word: _without_middle(word[0], _LONGEST_WORD), str(sentence))
        super().__init__(_without_middle(text, _LONGEST))


class UnusableCheckpointError(UserError):
    """A checkpoint that is missing, damaged, or of another model, data or settings."""


class UnknownKeyError(UserError):
    """A config key that does not exist.

    Args:
        sentence: what is wrong.
        key: the key.
        known: those that exist.
    """

    def __init__(self, sentence: object = "", key: str = "", known: Collection[str] = ()) -> None:
        super().__init__(sentence)
        self.key, self.known = key, known


class DamagedFileError(Exception):
    """A file of this project is not what it should be; the message says why, in a few words."""


class ProcessEndedError(UserError):
    """A process of a distributed run was ended from outside, or cannot be reached any more."""


def reason_of(error: BaseException) -> str:
    """Why a file cannot be used, for a sentence that names it: without its path, in one line."""
    told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (told.splitlines() or ["?"])[0]


def one_line(error: BaseException) -> str:
    """An error's message without line breaks, and safe for a terminal."""
    return clean_line(" ".join(str(error).split()))


def shown(value: object, longest: int = 80) -> str:
    """A value from outside for a sentence: without line breaks and not too long."""
    text = " ".join((value if isinstance(value, str) else _written(value)).split()) or "(empty)"
    return text if len(text) <= longest else f"{text[:longest]}...({len(text)} characters)"


def _written(value: object) -> str:
    try:
        return repr(value)
    except (ValueError, RecursionError):  # a number of too many digits, or a list in itself
        return f"a {type(value).__name__} that cannot be written out"


def sentence_of(error: UserError | OSError) -> str:
    """What a user reads of an error; of the system's, the file and the reason."""
    if not isinstance(error, OSError):
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}."


_IN_THE_WAY = {
    errno.EEXIST: "something else than a folder has this name",
    errno.ENOTDIR: "a part of the path is no folder",
}
"""What the system says in words of its own where a folder is made."""


def why_not_written(error: OSError) -> str:
    """Why a file or folder cannot be written, for a sentence that names it."""
    code = error.errno or 0
    if error.strerror == os.strerror(code) and code in _IN_THE_WAY:
        return _IN_THE_WAY[code]
    return error.strerror or str(error)


def cannot_write(target: str | os.PathLike[str], error: OSError) -> UserError:
    """The sentence for a file that cannot be written.

    Args:
        target: the file, where the error names none.
        error: what the system said.
    """
    return UserError(
        f"Cannot write {error.filename or target}: {why_not_written(error)}; "
        "choose a folder you may write to, on a disk with free space."
    )


EXIT_STATUS = 2
"""Exit status of a command that ended in a :class:`UserError`."""
