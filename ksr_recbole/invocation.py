"""Commands to be typed next, as they work in the folder of this process."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from ksr_recbole.paths import CHECKOUT

TRAIN = "ksr-recbole run" if CHECKOUT is None else "python run_recbole.py"
"""What trains a model, as sentences name it."""

_MODULE = ["python", "-m", "ksr_recbole"]


def called_by(script: str) -> list[str]:
    """The words this process was called with, before the command's own arguments.

    Args:
        script: the command's script in a checkout, or ``-m`` and module; what is given unless it
            was called by another path, by ``python -m ksr_recbole`` or by ``ksr-recbole``.
    """
    called = Path(sys.argv[0])
    if called.name == "__main__.py" and called.parent.name == "ksr_recbole":
        return [*_MODULE, *sys.argv[1:2]]
    if called.stem == "ksr-recbole":
        return ["ksr-recbole", *sys.argv[1:2]]
    if called.name == Path(script).name:
        return ["python", sys.argv[0]]
    return ["python", *script.split()]


def same_command(script: str) -> list[str]:
    """The words that call the command of this process again; ``script`` as in :func:`called_by`."""
    return _found(called_by(script))


def command_words(name: str) -> list[str]:
    """The words that call one of the commands of ``ksr-recbole``."""
    if Path(sys.argv[0]).stem == "ksr-recbole":
        return ["ksr-recbole", name]
    return _found([*_MODULE, name])


def _found(words: list[str]) -> list[str]:
    """The words so that Python finds a checkout's modules, whatever the folder."""
    if words[1:2] != ["-m"] or CHECKOUT is None or Path.cwd() == CHECKOUT:
        return words
    return ["env", f"PYTHONPATH={CHECKOUT}", *words]


def _program(path: str) -> tuple[Path, Path]:
    """The environment and the program of a Python: there python and python3 are the same."""
    return Path(path).parent, Path(path).resolve()


def typed(words: Sequence[str]) -> str:
    """A command to be pasted: quoted, and by the Python that runs now if it is not ``python``."""
    python, found = "python", shutil.which("python")
    if found is None or _program(found) != _program(sys.executable):
        python = sys.executable.removeprefix(f"{Path.cwd()}{os.sep}")
    return shlex.join([python if word == "python" else word for word in words])
