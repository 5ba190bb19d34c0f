"""``python -m ksr_recbole COMMAND``, installed as ``ksr-recbole COMMAND``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from ksr_recbole.choices import choose_from
from ksr_recbole.cli import tell_error, version_line
from ksr_recbole.errors import UserError
from ksr_recbole.text import printing


class Command(NamedTuple):
    """A command.

    Attributes:
        module: where its ``main(arguments)``, which gives the exit status, is.
        what: what it does, for the list of commands.
        arguments: what comes before the arguments given.
    """

    module: str
    what: str
    arguments: tuple[str, ...] = ()


COMMANDS = {
    "run": Command("ksr_recbole.cli", "train and test a model"),
    "benchmark": Command("ksr_recbole.comparison.cli", "compare methods as in Table 3; studies"),
    "tune": Command("ksr_recbole.tuning.cli", "search a model's settings on validation"),
    "fetch": Command("dataset_atomic.cli", "download a public dataset", ("fetch",)),
    "convert": Command("dataset_atomic.cli", "write RecBole's atomic files", ("convert",)),
    "describe": Command("dataset_atomic.cli", "say what atomic files hold", ("describe",)),
    "export": Command("ksr_recbole.inference.cli", "write a model directory for Recommender"),
    "explain": Command("ksr_recbole.explanation.cli", "say why, by the memory of a user"),
}
"""Every command by its name."""


def usage() -> str:
    """The list of commands."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.what}" for name, command in COMMANDS.items()]
    head = "usage: ksr-recbole COMMAND [--help] ...   (or: python -m ksr_recbole COMMAND ...)"
    return "\n".join([head, "       ksr-recbole --version", "", *lines, ""])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and arguments[0] in ("-h", "--help"):
        print(usage(), end="")
        return 0
    if arguments and arguments[0] == "--version":
        print(version_line())
        return 0
    name = arguments[0] if arguments else ""
    if name not in COMMANDS:
        told = f"There is no command '{name}'" if name else "No command is given"
        with printing():
            return tell_error(UserError(f"{told}{choose_from(name, COMMANDS, 'the commands are')}"))
    command = COMMANDS[name]
    return import_module(command.module).main([*command.arguments, *arguments[1:]])


if __name__ == "__main__":
    sys.exit(main())
