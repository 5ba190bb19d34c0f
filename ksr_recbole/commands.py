"""What the command lines share: what they say first, and how they end."""

from __future__ import annotations

import select
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from ksr_recbole.arguments import Parser, without
from ksr_recbole.compat import silence_upstream_warnings
from ksr_recbole.errors import EXIT_STATUS, UserError, sentence_of
from ksr_recbole.interruptions import EXIT_STATUS as INTERRUPTED
from ksr_recbole.interruptions import NOTHING_LEFT, interruptible
from ksr_recbole.invocation import same_command, typed
from ksr_recbole.text import clean_line, print_nowhere, printing, say
from ksr_recbole.threads import limit_libraries
from ksr_recbole.versions import check_versions

FAILED = 1
"""Exit status of a command that ran to its end without all the results asked for."""


def say_loading(
    what: str, stream: TextIO | None = None, libraries: str = "PyTorch and RecBole"
) -> None:
    """Say what a command is about before it loads libraries, which takes up to some seconds.

    Args:
        what: such as ``"KSR on ml-100k"``.
        stream: by default standard output.
        libraries: what is loaded, the slowest one last.
    """
    if libraries.split()[-1].lower() not in sys.modules:
        with suppress(OSError):  # the end of the command tells what cannot be printed
            say(f"{what}: loading {libraries} ...", stream or sys.stdout)


def task_of(given: Namespace) -> str:
    """What a run is about, for :func:`say_loading`; config files may name another model."""
    if not given.config_files or (given.model and given.dataset):
        return f"{given.model or 'KSR'} on {given.dataset or 'ml-100k'}"
    files = " ".join(given.config_files)
    known = given.model or given.dataset
    return f"{known} with {files}" if known else files


def guarded(command: Callable[[], int], script: str, arguments: Sequence[str]) -> int:
    """Run a command that needs RecBole and return its exit status.

    A mistake gives one sentence, an interruption the command that resumes.

    Args:
        command: what to do once the versions are known to work; gives the exit status.
        script: the command's script in a checkout, for the command that resumes.
        arguments: what it was given.
    """

    def run() -> int:
        check_versions()
        silence_upstream_warnings()
        limit_libraries()
        try:
            return command()
        except (UserError, OSError) as error:
            # The same command would train anew once there is room on the disk.
            if not isinstance(error.__cause__ or error, OSError) or not _checkpoint(error):
                raise
            kept = f"What was trained is kept; then continue with: {again_after(error)}"
            raise UserError(f"{sentence_of(error)} {kept}") from error

    def again_after(error: BaseException) -> str:
        """The same command; a given checkpoint stays the one to resume from if none is newer."""
        words = list(arguments)
        if file := _checkpoint(error):
            words = [*without(arguments, "resume"), f"--resume={file}"]
        return typed([*same_command(script), *words])

    def how_to_resume(interruption: BaseException) -> str:
        same = again_after(interruption)
        if _checkpoint(interruption) is None and list(arguments) == without(arguments, "resume"):
            return f"Interrupted; there is nothing to resume from. Start anew with: {same}"
        return f"Interrupted; what was finished is kept. Continue with: {same}"

    return ended(run, how_to_resume)


def _checkpoint(error: BaseException) -> str | None:
    """The file to resume from; ``None`` if training left none, empty if it had not begun."""
    return getattr(error, "checkpoint", "")


def ended(
    command: Callable[[], int],
    interrupted: Callable[[BaseException], str] = lambda _: NOTHING_LEFT,
) -> int:
    """Run any command and return its exit status; a mistake gives one sentence.

    Args:
        command: what to do; gives the exit status.
        interrupted: the sentence after Ctrl-C.
    """
    with printing(), interruptible() as interruptions:
        try:
            status = command()
        except (KeyboardInterrupt, Exception) as error:
            interruptions.over = True
            # Libraries turn an interruption into errors of their own, as Polars does.
            if interruptions.came or isinstance(error, KeyboardInterrupt):
                status = INTERRUPTED
                with suppress(OSError):  # the terminal may be closed
                    print(f"\n{interrupted(error)}", file=sys.stderr)
            elif isinstance(error, BrokenPipeError):
                return _enough_read(error)
            elif isinstance(error, (UserError, OSError)):
                status = tell_error(error)
            else:
                raise
        interruptions.over = True
        return _written_out(status)


def _written_out(status: int) -> int:
    """The exit status once all that was printed is written.

    Where that fails, as on a full disk, Python would end with a traceback and a status of its own.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError as error:
        return _enough_read(error)
    except OSError as error:
        print_nowhere(sys.stdout)
        if status != EXIT_STATUS:  # else the mistake was told
            status = tell_error(error)
    try:
        sys.stderr.flush()
    except OSError:  # nobody can be told
        print_nowhere(sys.stderr)
    return status


def _enough_read(error: BrokenPipeError) -> int:
    """The exit status after the reader of the output has left, as ``head`` does.

    That is no mistake, so nothing is printed.  Any other broken pipe is one.
    """
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        reader_left = any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError, AttributeError):  # no stream of the system's, or another system
        reader_left = False
    if not reader_left:
        return tell_error(error)
    print_nowhere(sys.stdout)
    return 128 + signal.SIGPIPE


def tell_error(error: UserError | OSError) -> int:
    """Print a mistake as one line, on a terminal as lines of its width; the exit status."""
    with suppress(OSError):  # the disk that standard error goes to may be full too
        say(f"error: {clean_line(sentence_of(error))}", sys.stderr)
    return EXIT_STATUS


def tell_written(text: str, paths: Sequence[Path], complete: bool) -> int:
    """Print a table and the files written with it; the exit status.

    Args:
        text: the table.
        paths: the files.
        complete: whether there is a result of all that was asked for.
    """
    print(text)
    say("Written: " + ", ".join(map(str, paths)), sys.stdout)
    return 0 if complete else FAILED


def run_command(
    run: Callable[[Namespace], int],
    parser: Parser,
    arguments: Sequence[str] | None,
    needs_recbole: bool = True,
) -> int:
    """Show a command's help or version, or run it :func:`guarded`; its exit status.

    Args:
        run: what to do with the arguments; gives the exit status.
        parser: reads them.
        arguments: by default those of the process.
        needs_recbole: whether it only works with the versions of RecBole and others that are
            checked before; otherwise it is :func:`ended` only.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    with printing():
        try:
            given = parser.read(words)
        except UserError as error:
            return tell_error(error)
        except SystemExit:  # help or version was printed
            return _written_out(0)

    def command() -> int:
        return parser.naming_own_options(lambda: run(given))

    return guarded(command, parser.script, words) if needs_recbole else ended(command)
