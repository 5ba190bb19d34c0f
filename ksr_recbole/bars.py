"""Progress bars: as wide as the terminal, redrawn in place, and none where there is no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from ksr_recbole.text import clean_line, terminal, without_colour

_COLUMNS = 80
"""Width of a terminal that does not know its own."""


_hidden = False


def hide() -> None:
    """Draw no bars in this process, because another one of the run draws them."""
    global _hidden
    _hidden = True


def on_terminal() -> bool:
    """Whether bars are drawn: standard error is a terminal."""
    stream = terminal()
    return not _hidden and stream is not None and stream.isatty()


class Bar(tqdm):
    """tqdm's bar, on standard error.

    A width that the caller fixes is ignored.  A pipe or a file gets no bar: it would hold a line
    for every redrawing.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        options |= {"file": terminal(), "ncols": None, "dynamic_ncols": True}
        options["disable"] = bool(options.get("disable")) or not on_terminal()
        if description := options.get("desc"):
            options["desc"] = clean_line(without_colour(str(description)))
        super().__init__(*args, **options)

    @property
    def format_dict(self) -> dict[str, Any]:
        """What a bar is made of; a terminal of width 0 is one that does not know its width."""
        values = super().format_dict
        return {**values, "ncols": values.get("ncols") or _COLUMNS}


@contextmanager
def recbole_bars() -> Iterator[None]:
    """Inside the block RecBole's trainers draw this bar; theirs is 100 columns wide, or broken."""
    from recbole.trainer import trainer

    before, trainer.tqdm = trainer.tqdm, Bar
    try:
        yield
    finally:
        trainer.tqdm = before
