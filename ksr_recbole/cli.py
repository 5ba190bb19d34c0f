"""The command line of ``run_recbole.py``."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ksr_recbole.compat import check_versions, silence_upstream_warnings
from ksr_recbole.errors import EXIT_STATUS, UserError

USAGE = """\
usage: {program}
         [--model=KSR] [--dataset=ml-100k] [--config_files="a.yaml b.yaml"] [--KEY=VALUE ...]

Trains and tests a model on a dataset. Any RecBole config key can be set as --KEY=VALUE;
the keys of this project are documented in configs/. Often used:
  --epochs=N --learning_rate=X --seed=N --gpu_id=N   as in RecBole
  --eval_args.mode=full      select the best epoch by full ranking
  --kge_method=TransH        TransE, TransH, TransR or TransD
  --resume                   go on from the newest checkpoint (or --resume=FILE)
  --nproc=N                  N processes; docs/distributed.md, also for several machines
"""

SCRIPT = "run_recbole.py"

FAILED = 1
"""Exit status of a command that ran to its end without all the results asked for."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it, and after SIGTERM."""


_NAMES = frozenset({"model", "models", "dataset", "task", "study", "user"})
"""Arguments of which an empty value, as of an unset shell variable, must not mean the default."""

_SWITCHES = frozenset({"resume", "trust_checkpoint"})


def parse_arguments(
    arguments: Sequence[str], switches: Collection[str] = _SWITCHES
) -> dict[str, str]:
    """``--key=value`` arguments as a dict; of the ``switches``, ``--key`` alone means ``True``.

    Raises:
        UserError: an argument of another form, a key given twice, or an empty name.
    """
    parsed: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not key:
            raise UserError(f"Cannot read the argument '{argument}'; write it as --key=value.")
        if not equals and key not in switches:
            raise UserError(f"The argument --{key} needs a value; write it as --{key}=VALUE.")
        if key in _NAMES and not value:
            raise UserError(f"The argument --{key} is empty; give a name, or leave it out.")
        if key in parsed:
            raise UserError(f"The argument --{key} is given twice; give it once.")
        parsed[key] = value if equals else "True"
    return parsed


def invocation(script: str) -> list[str]:
    """The words a command was called with, before its own arguments.

    Args:
        script: the command's script in a checkout, or ``-m`` and module; what is given unless it
            was called by ``python -m ksr_recbole`` or ``ksr-recbole``.
    """
    called = Path(sys.argv[0])
    if called.name == "__main__.py" and called.parent.name == "ksr_recbole":
        return ["python", "-m", "ksr_recbole", *sys.argv[1:2]]
    if called.stem == "ksr-recbole":
        return ["ksr-recbole", *sys.argv[1:2]]
    return ["python", *script.split()]


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
    try:
        with terminated_like_interrupted():
            check_versions()
            silence_upstream_warnings()
            return command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_STATUS
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}.", file=sys.stderr)
        return EXIT_STATUS
    except KeyboardInterrupt as interruption:
        again = [a for a in arguments if not a.startswith("--resume")]
        if file := getattr(interruption, "checkpoint", None):
            again.append(f"--resume={file}")
        go_on = shlex.join([*invocation(script), *again])
        print(f"\nInterrupted; what was finished is kept. Go on with: {go_on}", file=sys.stderr)
        return INTERRUPTED


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
    if {"-h", "--help"} & set(given):
        print(usage.format(program=shlex.join(invocation(script))), end="")
        return 0
    return guarded(lambda: run(given), script, given)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``run_recbole.py`` and return its exit status."""
    return run_command(_run, USAGE, SCRIPT, arguments)


def _run(arguments: Sequence[str]) -> int:
    values = parse_arguments(arguments)
    # Imported late: RecBole fails to import with the versions refused before.
    from ksr_recbole.quick_start import run

    run(
        model=values.pop("model", None),
        dataset=values.pop("dataset", None),
        config_file_list=values.pop("config_files", "").split(),
        config_dict=values,
    )
    return 0
