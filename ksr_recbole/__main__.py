"""``python -m ksr_recbole COMMAND``, installed as ``ksr-recbole COMMAND``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from ksr_recbole.interruptions import start


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
    "fetch": Command("dataset_atomic.__main__", "download a public dataset", ("fetch",)),
    "convert": Command("dataset_atomic.__main__", "write RecBole's atomic files", ("convert",)),
    "describe": Command(
        "dataset_atomic.__main__", "show what the atomic files contain", ("describe",)
    ),
    "export": Command("ksr_recbole.inference.cli", "write a model directory for Recommender"),
    "serve": Command("ksr_recbole.serve.cli", "a page and a JSON API for a model directory"),
    "explain": Command("ksr_recbole.explanation.cli", "say why items are recommended to a user"),
}
"""Every command by its name."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = words[0] if words else ""
    if name in COMMANDS:
        command = COMMANDS[name]
        return import_module(command.module).main([*command.arguments, *words[1:]])
    # Imported late: see start.
    from ksr_recbole.arguments import Parser
    from ksr_recbole.choices import choose_from
    from ksr_recbole.commands import run_command, tell_error
    from ksr_recbole.errors import UserError
    from ksr_recbole.text import printing

    parser = Parser(prog="ksr-recbole", epilog="Or: python -m ksr_recbole COMMAND ...")
    listed = parser.add_subparsers(metavar="COMMAND", title="commands, each with a --help")
    for known, command in COMMANDS.items():
        listed.add_parser(known, help=command.what)
    if name.startswith("-"):
        return run_command(lambda _: 0, parser, words[:1])
    told = f"There is no command '{name}'" if name else "No command is given"
    with printing():
        return tell_error(UserError(f"{told}{choose_from(name, COMMANDS, 'the commands are')}"))


def script() -> None:
    """The installed ``ksr-recbole``."""
    start("ksr_recbole.__main__")


if __name__ == "__main__":
    script()
