"""``python -m ksr_recbole COMMAND``, installed as ``ksr-recbole``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from ksr_recbole.errors import EXIT_STATUS
from ksr_recbole.registry import nearest

COMMANDS = {
    "run": ("ksr_recbole.cli", "train and test a model"),
    "benchmark": ("ksr_recbole.benchmark.cli", "compare methods as in Table 3, or run a study"),
    "tune": ("ksr_recbole.tuning.cli", "search a model's settings on validation"),
}
"""Command to the module whose ``main(arguments)`` gives the exit status, and what it does."""


def usage() -> str:
    """The list of commands."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: ksr-recbole COMMAND [--help] ...   (or: python -m ksr_recbole COMMAND ...)",
            "",
            *lines,
            "",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and arguments[0] in ("-h", "--help"):
        print(usage(), end="")
        return 0
    name = arguments[0] if arguments else ""
    if name not in COMMANDS:
        told = f"there is no command '{name}'{nearest(name, COMMANDS) or ';'}" if name else ""
        print(
            f"error: {told or 'no command is given;'} the commands are {', '.join(COMMANDS)}.",
            file=sys.stderr,
        )
        return EXIT_STATUS
    return import_module(COMMANDS[name][0]).main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
