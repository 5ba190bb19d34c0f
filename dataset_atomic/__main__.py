"""``python -m dataset_atomic``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ksr_recbole.interruptions import start


def main(arguments: Sequence[str] | None = None) -> int:
    """Say what is loaded, which takes a second, and run a command; its exit status."""
    # Imported late: see start.
    from ksr_recbole.commands import say_loading
    from ksr_recbole.text import printing

    words = list(sys.argv[1:] if arguments is None else arguments)
    if not {"-h", "--help", "--version"} & set(words):
        with printing():
            say_loading(" ".join(words[:2]) or "Atomic files", libraries="Polars")
    from dataset_atomic import cli

    return cli.main(words)


if __name__ == "__main__":
    start("dataset_atomic.__main__")
