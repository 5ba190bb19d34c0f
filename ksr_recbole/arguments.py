"""The arguments of every command: argparse, and RecBole's free ``--key=value``."""

from __future__ import annotations

import argparse
import os
import platform
import re
import shlex
import tomllib
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from ksr_recbole.choices import closest, nearest
from ksr_recbole.errors import UnknownKeyError, UserError, shown
from ksr_recbole.invocation import called_by
from ksr_recbole.paths import CHECKOUT, version_of
from ksr_recbole.text import wrapped

FILES = "--config_files"
"""The option that takes several words."""

_NEGATIVE = re.compile(r"-\.?\d")
_IN_PARAGRAPH = re.compile(r"\S")
_FIRST_COLUMN = re.compile(r"^ +\S.*?  +(?=\S)|^ *")
_KEY = re.compile("--[^=]")
_ONE_DASH = re.compile("-[A-Za-z][^=]")
_MISSING = re.compile(r"argument (?:\S+/)?(--\S+): expected (?:one|at least one) argument")
_TAKES_NONE = re.compile(r"argument (?:\S+/)?(--\S+): ignored explicit argument")


class _Once(argparse.Action):
    """An option's value, given once; an empty one, as of an unset shell variable, is a mistake.

    Args:
        take: makes the value of the text and the option's name.
    """

    def __init__(self, take: Callable[[str, str], Any] = lambda text, _: text, **options: Any):
        super().__init__(**options)
        self._take, self._taken = take, False

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        name = self.option_strings[-1] if self.option_strings else str(self.metavar)
        if self._taken:
            raise UserError(f"The argument {name} is given twice; give it once.")
        self._taken = True
        if values == "" or (isinstance(values, list) and "" in values):
            raise UserError(f"The argument {name} is empty; give a value, or leave it out.")
        setattr(namespace, self.dest, self._take(values, name.removeprefix("--")))


class _Key(_Once):
    """A RecBole config key, whose value may be empty; it goes into ``values``."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        if self.dest in namespace.values:
            raise UserError(f"The argument --{self.dest} is given twice; give it once.")
        namespace.values[self.dest] = values


class _Version(argparse.Action):
    def __call__(self, parser: Any, *_: Any) -> None:
        print(version_line())
        parser.exit()


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the terminal.

    Lines of a description that follow each other are one paragraph.  A line that begins with
    blanks stands alone, and what does not fit into it is aligned with its second column.
    """

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines: list[str] = []
        for line in text.strip("\n").splitlines():
            if lines and _IN_PARAGRAPH.match(lines[-1]) and _IN_PARAGRAPH.match(line):
                lines[-1] += f" {line}"
            else:
                lines.append(line)
        return "".join(f"{indent}{self._fitting(line, width - len(indent))}\n" for line in lines)

    @staticmethod
    def _fitting(line: str, width: int) -> str:
        [before] = _FIRST_COLUMN.findall(line)
        # In a narrow terminal the second column would leave no room.
        return wrapped(line, width, " " * min(len(before), width // 2))


class Parser(argparse.ArgumentParser):
    """argparse with one sentence for a mistake, ``--version``, and options that are given once.

    An instance parses one command line.

    Args:
        script: the command's script in a checkout, or ``-m`` and module; for the usage line.
        keys: text for the help on further RecBole config keys; if empty, such keys are an error.
        options: as of :class:`argparse.ArgumentParser`.
    """

    def __init__(self, script: str = "", keys: str = "", **options: Any) -> None:
        if script:
            options.setdefault("prog", shlex.join(called_by(script)))
        if keys:
            others = f"Any other RecBole config key can be set as --KEY=VALUE, {keys}."
            options.setdefault("epilog", others)
        super().__init__(allow_abbrev=False, formatter_class=_Help, **options)
        self.script = script
        self._given: set[str] = set()
        self.color = False  # Python 3.14 would colour the help, with codes that we show as text
        self.keys = bool(keys)
        self.register("action", None, _Once)
        self.register("action", "key", _Key)
        self.add_argument("--version", action=_Version, nargs=0,
                          help="show the versions of this package, RecBole, PyTorch and Python, "
                          "and exit")  # fmt: skip

    def add_names(self, model: bool = True, files: bool = True) -> None:
        """The options that nearly every command has."""
        if model:
            self.add_argument("-m", "--model", metavar="NAME", help="the model (default: KSR)")
        self.add_argument(
            "-d", "--dataset", metavar="NAME",
            help="the dataset (default: ml-100k). If its files are in FOLDER/NAME, add "
            "--data_path=FOLDER",
        )  # fmt: skip
        if files:
            self.add_argument(
                FILES, nargs="+", metavar="YAML",
                help='one or more config files, also as "a.yaml b.yaml"; a later file wins',
                take=lambda words, _: file_list(words[0]) if len(words) == 1 else words,
            )  # fmt: skip

    def add_switch(self, name: str, about: str) -> None:
        """An option that is given alone, or with True as RecBole's keys are.

        It would take a positional argument that follows for its value.
        """
        self.add_argument(name, nargs="?", const="True", metavar="True", take=switched_on,
                          default=False, help=about)  # fmt: skip

    def error(self, message: str) -> Any:
        """What argparse finds, as a sentence.

        Raises:
            UserError: always.
        """
        if found := _MISSING.match(message):
            raise UserError(f"The argument {found[1]} needs a value; write it as {found[1]}=VALUE.")
        if found := _TAKES_NONE.match(message):
            raise UserError(f"The argument {found[1]} takes no value; write it alone.")
        raise UserError(f"{message[0].upper()}{message[1:]}; see `{self.prog} --help`.")

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """The options; ``values`` holds the config keys, ``words`` all that was given.

        Raises:
            UserError: an argument that cannot be read, is given twice, or is empty.
            SystemExit: help or version was asked for, and printed.
        """
        self._given = {word.partition("=")[0].removeprefix("--") for word in words}
        given, other = self.parse_known_args(
            self._spelled(words), argparse.Namespace(values={}, words=words, config_files=[])
        )
        # argparse drops "--" and would take -model=KSR for -m odel=KSR.
        if other := other or [word for word in words if word == "--" or _ONE_DASH.match(word)]:
            right = "write it as --key=value" if self.keys else f"see `{self.prog} --help`"
            near = "" if self.keys else nearest(other[0].partition("=")[0], self._named(words))
            raise UserError(f"Cannot read the argument '{other[0]}'{near or f'; {right}.'}")
        return given

    def naming_own_options(self, run: Callable[[], int]) -> int:
        """Do something; an unknown config key may be an option of this command, misspelt.

        Args:
            run: what to do; gives the exit status.

        Raises:
            UserError: naming the option, if it is nearer than any config key.
        """
        try:
            return run()
        except UnknownKeyError as error:
            options = [name.removeprefix("--") for name in self._named(())]
            own = closest(error.key, [*options, *error.known])
            if own not in options or error.key not in self._given:
                raise
            raise UserError(
                f"Unknown argument '--{shown(error.key)}'; did you mean --{own}?"
            ) from error

    def _named(self, words: Sequence[str]) -> list[str]:
        """The long names of the options, with those of the subcommand that the words begin with."""
        named: list[str] = []
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                inner = action.choices.get(words[0]) if words else None
                named += inner._named(()) if isinstance(inner, Parser) else []
            elif action.help is not argparse.SUPPRESS:
                named += [name for name in action.option_strings if name.startswith("--")]
        return named

    def _spelled(self, words: Sequence[str]) -> list[str]:
        """The words as argparse reads them everywhere; a key it does not know becomes an option."""
        spelled: list[str] = []
        for word in words:
            head, equals, value = word.partition("=")
            if head == FILES and equals:  # after = argparse takes one word only
                spelled += [head, value]
            elif _NEGATIVE.match(word) and spelled and re.fullmatch("--?[^=]+", spelled[-1]):
                spelled[-1] += f"={word}"  # Python 3.11 takes -1e-3 for an option
            else:
                spelled.append(word)
            if self.keys and _KEY.match(word):
                with suppress(argparse.ArgumentError):  # it is known
                    self.add_argument(head, action="key", dest=head[2:], help=argparse.SUPPRESS)
        return spelled


def count_of(text: str, option: str) -> int:
    """A positive whole number given as ``--option=text``.

    Raises:
        UserError: it is something else.
    """
    # Python reads no number of 5,000 digits.
    if not re.fullmatch("0{0,9}[1-9][0-9]{0,8}", text):
        raise UserError(
            f"--{option} is '{shown(text)}'; it must be a positive whole number up to 999999999."
        )
    return int(text)


def path_of(text: str, option: str) -> Path:
    """A path given as ``--option=text``."""
    return Path(text)


def listed(text: str) -> list[str]:
    """The names in a list with commas, without blanks around them, and no empty one."""
    return [name for part in text.split(",") if (name := part.strip())]


def file_list(text: str) -> list[str]:
    """The files of ``--config_files="a.yaml b.yaml"``.

    A name with blanks in it can stand there as it is if there is such a file, or in quotes.
    """
    if not os.path.isfile(text) and re.search("[\"']", text):
        with suppress(ValueError):  # a quote that is not closed belongs to a name
            return shlex.split(text)
    words = text.split(" ")
    files = []
    while words:
        ends = (end for end in range(len(words), 1, -1) if os.path.isfile(" ".join(words[:end])))
        end = next(ends, 1)
        files.append(" ".join(words[:end]))
        words = words[end:]
    return [file for file in files if file.strip()]


def switched_on(text: str, switch: str) -> bool:
    """The value of a switch.

    Raises:
        UserError: it is neither ``True`` nor ``False``.
    """
    if text not in ("True", "False"):
        raise UserError(
            f"The argument --{switch} is '{shown(text)}'; it is given alone, or left out."
        )
    return text == "True"


def without(arguments: Sequence[str], *keys: str) -> list[str]:
    """Arguments of a command without those of the ``keys``, however they are written."""
    kept: list[str] = []
    dropping = False
    for word in arguments:
        if word.startswith("-") and not _NEGATIVE.match(word):
            dropping = word.partition("=")[0].removeprefix("--") in keys
        if not dropping:
            kept.append(word)
    return kept


def version_line() -> str:
    """The versions a report of a fault needs."""
    recbole, torch = (version_of(name) or "not installed" for name in ("recbole", "torch"))
    python = platform.python_version()
    return f"ksr-recbole {own_version()} (RecBole {recbole}, PyTorch {torch}, Python {python})"


def own_version() -> str:
    """This package's version, in a checkout that of its pyproject.toml."""
    if CHECKOUT is not None and (project := CHECKOUT / "pyproject.toml").is_file():
        return tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"]
    return metadata.version("ksr-recbole")
