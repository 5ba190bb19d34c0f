"""The command line of ``run_recbole.py``."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import signal
import sys
import threading
import tomllib
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from ksr_recbole.compat import check_versions, silence_upstream_warnings
from ksr_recbole.errors import EXIT_STATUS, UserError
from ksr_recbole.paths import CHECKOUT
from ksr_recbole.text import clean_line, printing
from ksr_recbole.threads import limit_libraries

USAGE = """\
usage: {program}
         [--model=KSR] [--dataset=ml-100k] [--config_files="a.yaml b.yaml"] [--KEY=VALUE ...]

Trains and tests a model on a dataset. Any RecBole config key can be set as --KEY=VALUE or as
--KEY VALUE; the keys of this project are documented in configs/. Often used:
  -m KSR, -d ml-100k         short for --model and --dataset
  --epochs=N --learning_rate=X --seed=N --gpu_id=N   as in RecBole
  --eval_args.mode=full      select the best epoch by full ranking
  --protocol=paper           evaluate a model of RecBole's own (SASRec, ...) as those compared here
  --kge_method=TransH        TransE, TransH, TransR or TransD
  --resume                   go on from the newest checkpoint (or --resume=FILE)
  --nproc=N                  N processes; docs/distributed.md, also for several machines
  --version                  the versions of this package, RecBole, PyTorch and Python
"""

SCRIPT = "run_recbole.py"

FAILED = 1
"""Exit status of a command that ran to its end without all the results asked for."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it, and after SIGTERM."""


_NAMES = frozenset({"model", "models", "dataset", "task", "study", "user"})
"""Arguments of which an empty value, as of an unset shell variable, must not mean the default."""

_SWITCHES = frozenset({"resume", "trust_checkpoint"})

_SHORT = {"-m": "--model", "-d": "--dataset"}
"""RecBole's short names."""

_FILES = "config_files"
"""The argument that takes several words."""

_ASKED = frozenset({"-h", "--help", "--version"})
"""What a command answers instead of running."""

_NEGATIVE = re.compile(r"-\.?\d")


def parse_arguments(
    arguments: Sequence[str], switches: Collection[str] = _SWITCHES
) -> dict[str, str]:
    """``--key=value`` or ``--key value`` arguments as a dict, as RecBole's command lines take them.

    Of the ``switches``, ``--key`` alone means ``True``.  Several words after ``--config_files``
    become one value, which :func:`file_list` takes apart.

    Raises:
        UserError: an argument of another form, a key given twice, or an empty name.
    """
    parsed: dict[str, str] = {}
    words = deque(arguments)
    while words:
        argument = words.popleft()
        head, equals, value = argument.partition("=")
        key = _SHORT.get(head, head).removeprefix("--")
        if not key or not (head.startswith("--") or head in _SHORT):
            raise UserError(f"Cannot read the argument '{argument}'; write it as --key=value.")
        values = [value] if equals else []
        while words and _is_value(words[0]) and (not values or key == _FILES):
            values.append(words.popleft())
        if not values and key not in switches:
            raise UserError(f"The argument --{key} needs a value; write it as --{key}=VALUE.")
        if key in _NAMES and not values[0]:
            raise UserError(f"The argument --{key} is empty; give a name, or leave it out.")
        if key in parsed:
            raise UserError(f"The argument --{key} is given twice; give it once.")
        parsed[key] = shlex.join(values) if len(values) > 1 else [*values, "True"][0]
    return parsed


def _is_value(word: str) -> bool:
    """Whether a word is the value of the argument before it: no option, but maybe below zero."""
    return not word.startswith("-") or _NEGATIVE.match(word) is not None


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


def without(arguments: Sequence[str], *keys: str) -> list[str]:
    """Arguments of a command but those of the ``keys``, whichever way they are written."""
    kept: list[str] = []
    dropping = False
    for word in arguments:
        if not _is_value(word):
            dropping = word.partition("=")[0].removeprefix("--") in keys
        if not dropping:
            kept.append(word)
    return kept


def version_line() -> str:
    """The versions a report of a fault needs."""
    found = {}
    for name in ("recbole", "torch"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    python = platform.python_version()
    return (
        f"ksr-recbole {_own_version()} (RecBole {found['recbole']}, PyTorch {found['torch']}, "
        f"Python {python})"
    )


def _own_version() -> str:
    if CHECKOUT is not None and (project := CHECKOUT / "pyproject.toml").is_file():
        return tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"]
    return metadata.version("ksr-recbole")


def say_loading(what: str, stream: TextIO | None = None) -> None:
    """Say what a command is about before RecBole and PyTorch are loaded, which takes seconds.

    Args:
        what: such as ``"KSR on ml-100k"``.
        stream: by default standard output.
    """
    if "recbole" not in sys.modules:
        print(f"{what}: loading PyTorch and RecBole ...", file=stream or sys.stdout, flush=True)


def task_of(values: Mapping[str, str], model: str = "KSR") -> str:
    """What a run is about, for :func:`say_loading`; config files may name another model."""
    if values.get(_FILES) and not {"model", "dataset"} <= set(values):
        return f"Configuration {values[_FILES]}"
    return f"{values.get('model', model)} on {values.get('dataset', 'ml-100k')}"


def invocation(script: str) -> list[str]:
    """The words a command was called with, before its own arguments.

    Args:
        script: the command's script in a checkout, or ``-m`` and module; what is given unless it
            was called by another path, by ``python -m ksr_recbole`` or by ``ksr-recbole``.
    """
    called = Path(sys.argv[0])
    if called.name == "__main__.py" and called.parent.name == "ksr_recbole":
        return ["python", "-m", "ksr_recbole", *sys.argv[1:2]]
    if called.stem == "ksr-recbole":
        return ["ksr-recbole", *sys.argv[1:2]]
    if called.name == Path(script).name:
        return ["python", sys.argv[0]]
    return ["python", *script.split()]


def typed(words: Sequence[str]) -> str:
    """A command to be pasted: quoted, and by the Python that runs now if it is not ``python``."""
    python = "python"
    if shutil.which(python) != sys.executable:
        python = sys.executable.removeprefix(f"{Path.cwd()}{os.sep}")
    return shlex.join([python if word == "python" else word for word in words])


def command_words(name: str) -> list[str]:
    """The words that call one of the commands of ``ksr-recbole``."""
    if Path(sys.argv[0]).stem == "ksr-recbole":
        return ["ksr-recbole", name]
    words = ["python", "-m", "ksr_recbole", name]
    if CHECKOUT is None or Path.cwd() == CHECKOUT:
        return words
    return ["env", f"PYTHONPATH={CHECKOUT}", *words]


def count_of(text: str, option: str) -> int:
    """A positive whole number given as ``--option=text``.

    Raises:
        UserError: it is something else.
    """
    if not (text.isdecimal() and text.isascii() and int(text) > 0):
        raise UserError(f"--{option} is '{text}'; it must be a positive whole number.")
    return int(text)


def switched_on(text: str, switch: str) -> bool:
    """The value of a switch.

    Raises:
        UserError: it is neither ``True`` nor ``False``.
    """
    if text not in ("True", "False"):
        raise UserError(f"The argument --{switch} is {text}; it is given alone, or left out.")
    return text == "True"


def guarded(command: Callable[[], int], script: str, arguments: Sequence[str]) -> int:
    """Run a command and return its exit status.

    A mistake is told in one sentence, an interruption with the command that goes on.

    Args:
        command: what to do once the versions are known to work; gives the exit status.
        script: the command's script in a checkout, for the command that goes on.
        arguments: what it was given.
    """
    with printing():
        try:
            with terminated_like_interrupted():
                check_versions()
                silence_upstream_warnings()
                limit_libraries()
                return command()
        except (UserError, OSError) as error:
            return tell_error(error)
        except KeyboardInterrupt as interruption:
            again = without(arguments, "resume")
            if file := getattr(interruption, "checkpoint", None):
                again.append(f"--resume={file}")
            go_on = typed([*invocation(script), *again])
            told = f"Interrupted; what was finished is kept. Go on with: {go_on}"
            print(f"\n{told}", file=sys.stderr)
            return INTERRUPTED


def tell_error(error: UserError | OSError) -> int:
    """Print a mistake as one line; the exit status."""
    told = str(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        told = f"{where}{error.strerror or error}."
    print(f"error: {clean_line(told)}", file=sys.stderr)
    return EXIT_STATUS


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Inside the block SIGTERM, which schedulers and ``timeout`` send, is taken for Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def tell_written(text: str, paths: Sequence[Path], complete: bool) -> int:
    """Print a table and the files written beside it; the exit status.

    Args:
        text: the table.
        paths: the files.
        complete: whether there is a result of all that was asked for.
    """
    print(text)
    print("Written: " + ", ".join(map(str, paths)))
    return 0 if complete else FAILED


def run_command(
    run: Callable[[Sequence[str]], int],
    usage: str,
    script: str,
    arguments: Sequence[str] | None,
) -> int:
    """Show a command's help, or run it :func:`guarded`; its exit status.

    Args:
        run: what to do with the arguments; gives the exit status.
        usage: the help, ``{program}`` standing for what the command was called with.
        script: see :func:`invocation`.
        arguments: by default those of the process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if (_ASKED - {"--version"}) & set(given):
        print(usage.format(program=shlex.join(invocation(script))), end="")
        return 0
    if "--version" in given:
        print(version_line())
        return 0
    return guarded(lambda: run(given), script, given)


def script_arguments(usage: str, script: str) -> dict[str, str]:
    """The arguments of a script that has no function to call; its help or a mistake ends it.

    Args:
        usage: as of :func:`run_command`.
        script: see :func:`invocation`.
    """
    given: dict[str, str] = {}

    def read(words: Sequence[str]) -> int:
        given.update(parse_arguments(words))
        return 0

    status = run_command(read, usage, script, None)
    if status or _ASKED & set(sys.argv[1:]):
        sys.exit(status)
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``run_recbole.py`` and return its exit status."""
    return run_command(_run, USAGE, SCRIPT, arguments)


def _run(arguments: Sequence[str]) -> int:
    values = parse_arguments(arguments)
    say_loading(task_of(values))
    # Imported late: RecBole fails to import with the versions refused before.
    from ksr_recbole.quick_start import run

    result = run(
        model=values.pop("model", None),
        dataset=values.pop("dataset", None),
        config_file_list=file_list(values.pop(_FILES, "")),
        config_dict=dict(values),
    )
    if lines := next_commands(result, arguments):
        print("What can be done next:", *lines, sep="\n  ", file=sys.stderr)
    return 0


def next_commands(result: Mapping[str, Any], arguments: Sequence[str]) -> list[str]:
    """Commands that go on from a run's result: explain, export and train longer.

    Args:
        result: what the run returned.
        arguments: those the run was given.
    """
    checkpoint = result.get("checkpoint")
    if not checkpoint or not os.path.isfile(checkpoint):  # of a model of RecBole, or elsewhere
        return []
    from ksr_recbole.model.ksr import KSR
    from ksr_recbole.registry import model_class, own_models

    of_it, commands = f"--checkpoint={checkpoint}", []
    if issubclass(model_class(result["model"]), KSR):
        commands.append([*command_words("explain"), of_it, f"--user={result['example_user']}"])
    if result["model"] in own_models():
        directory = Path(checkpoint).with_suffix("")
        commands.append([*command_words("export"), of_it, f"--output={directory}"])
    reached = result["epochs_trained"] >= result["config"]["epochs"]
    key = "epochs" if reached else "stopping_step"
    longer = f"--{key}={max(1, 2 * result['config'][key])}"
    again = without(arguments, "resume", key)
    commands.append([*invocation(SCRIPT), *again, longer, f"--resume={checkpoint}"])
    return [typed(words) for words in commands]
