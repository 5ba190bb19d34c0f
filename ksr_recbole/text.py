"""Text for a terminal: the one place through which all that a command prints goes.

Titles, names, file names, config values and other processes' messages are foreign text.  It may
hold control characters that recolour a terminal, move its cursor, set its title or turn the order
of letters around.  :func:`printing` puts a stream in front of standard output and standard error
that replaces them.  Code that draws on purpose (a bar, a table, a coloured line) writes
to :func:`terminal` and cleans its own foreign text with :func:`clean`.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any, TextIO, TypeVar

T = TypeVar("T")

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and line feed, delete, C1
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f"  # direction of letters, line separators
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # invisible notes and tags
    "\ud800-\udfff]"  # halves of letters, which bytes of a file name become and no stream takes
)
_BREAKS = re.compile("[\t\n]")
_RESET = "\x1b[0m"
_NARROWEST = 20
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def clean(text: str) -> str:
    r"""Text whose control characters are visible: ``\x1b`` for ESC, ``\u202e`` for a bidi one.

    Tabs and line feeds stay.
    """
    return _HIDDEN.sub(_escaped, text)


def clean_line(text: str) -> str:
    """The same, in one line: tabs and line feeds become visible too."""
    return _BREAKS.sub(_escaped, clean(text))


def cleaned(value: T) -> T:
    """A text, or a tuple or dataclass of such values, with every text in it one clean line."""
    found: Any = value
    if isinstance(value, str):
        found = clean_line(value)
    elif isinstance(value, tuple):
        found = tuple(map(cleaned, value))
    elif is_dataclass(value) and not isinstance(value, type):
        found = replace(value, **{f.name: cleaned(getattr(value, f.name)) for f in fields(value)})
    return found


def counted(number: int, noun: str, several: str = "") -> str:
    """A number with its noun: ``1 user``, ``2 users``, ``1,000 entities``.

    Args:
        number: how many.
        noun: what one is called.
        several: what several are called; by default the noun with an s.
    """
    return f"{number:,} {noun if number == 1 else several or f'{noun}s'}"


def without_colour(text: str) -> str:
    """Text without the colour codes that RecBole puts into its messages."""
    return _COLOUR.sub("", text)


def markdown_row(cells: Iterable[str]) -> str:
    """A row of a table in Markdown, in which a ``|`` inside a cell does not end it."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


_STREAMS = {"<stdout>": "standard output", "<stderr>": "standard error"}
"""What Python calls them, and what a reader does."""


class CleanStream:
    """A text stream that cleans what is written to it; all else is the stream below.

    Args:
        stream: what it writes to, such as ``sys.stdout``.
    """

    def __init__(self, stream: TextIO) -> None:
        self.below = stream

    def write(self, text: str) -> int:
        """Write the cleaned text; what the encoding does not have is escaped too."""
        if text == _RESET:  # colorama writes it at the end of a process; there is no colour here
            return len(text)
        shown = clean(text)
        encoding = getattr(self.below, "encoding", None) or "utf-8"
        with self._named():
            self.below.write(shown.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        """Write out what the stream below holds."""
        with self._named():
            self.below.flush()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """An error of the system inside the block says which stream it is about."""
        try:
            yield
        except OSError as error:
            error.filename = _STREAMS.get(getattr(self.below, "name", ""))
            raise

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.below, name)


def columns_of(stream: Any) -> int | None:
    """How many characters fit into a line of a stream that is a terminal; others have no width."""
    try:
        if not stream.isatty():
            return None
    except (AttributeError, ValueError):  # no stream, or one that was closed
        return None
    return max(_NARROWEST, shutil.get_terminal_size().columns)


def wrapped(line: str, width: int | None, indent: str = "") -> str:
    """A line broken at blanks; a word that is too long, such as a path, stays whole.

    Args:
        line: the line.
        width: characters of a line; ``None`` leaves it as it is.
        indent: what the second line and those after it begin with.
    """
    if width is None or len(line) <= width:
        return line
    return textwrap.fill(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def say(line: str, stream: TextIO) -> None:
    """Print a line at once, on a terminal as lines of its width."""
    print(wrapped(line, columns_of(stream)), file=stream, flush=True)


@contextmanager
def printing() -> Iterator[None]:
    """Inside the block everything printed is cleaned."""
    before = sys.stdout, sys.stderr
    ours = sys.stdout, sys.stderr = _cleaning(before[0]), _cleaning(before[1])
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for old, new in zip(before, ours, strict=True):
            if old is None:
                new.close()


def _cleaning(stream: Any) -> Any:
    if stream is None:  # the parent process has closed it
        # Opened at the stream's own number, which the next file would get, prints and all.
        stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    return stream if isinstance(stream, CleanStream) else CleanStream(stream)


def print_nowhere(stream: TextIO) -> None:
    """Drop what is left in a stream's buffer and comes later, so that it fails nowhere else."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def below(stream: Any) -> Any:
    """The stream that a :class:`CleanStream` writes to; any other stream itself."""
    return stream.below if isinstance(stream, CleanStream) else stream


def terminal() -> Any:
    """Standard error for what draws on purpose, with foreign text that is clean already."""
    return below(sys.stderr)


@contextmanager
def uncovered() -> Iterator[None]:
    """Inside the block ``sys.stdout`` and ``sys.stderr`` are the streams below."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(below, before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
