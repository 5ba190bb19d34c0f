"""Processes that are ready at once: forks of one that has imported what every command imports.

They are processes as a user's are, with their own files, signals and exit status.  A test of what
happens *before* or *while* something is imported needs :mod:`subprocess` instead.
"""

from __future__ import annotations

import atexit
import os
import runpy
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from unittest import mock

from torch.multiprocessing import start_processes

ROOT = Path(__file__).resolve().parents[1]
PRELOADED = [
    "torch._dynamo",
    "pykeen.models",
    "pykeen.training",
    "ksr_recbole.quick_start.run",
    "ksr_recbole.comparison.cli",
    "ksr_recbole.comparison.runner",
    "ksr_recbole.explanation.cli",
    "ksr_recbole.inference.cli",
    "ksr_recbole.tuning.cli",
    "tests.conftest",
    "tests.killed",
]
"""Modules that the server imports; none of them starts a thread."""


@cache
def context() -> ForkServerContext:
    """The context whose processes are forks; its server is started if there is none."""
    found = get_context("forkserver")
    found.set_forkserver_preload(PRELOADED)
    with mock.patch.dict(os.environ, PYTHONPATH=str(ROOT)):
        forkserver.ensure_running()
    return found


class InEnvironment:
    """A function that sees this process's variables of the moment when it is sent to another."""

    def __init__(self, work: Callable[..., Any], variables: Mapping[str, str] | None = None):
        self._work, self._variables = work, variables

    def __reduce__(self) -> tuple[Any, ...]:
        return InEnvironment, (self._work, dict(self._variables or os.environ))

    def __call__(self, *words: Any) -> Any:
        os.environ.clear()
        os.environ.update(self._variables or {})
        return self._work(*words)


def initialise(threads: int, visible_gpus: str | None) -> None:
    """Prepare a worker of the pool, as itself does."""
    from ksr_recbole.comparison import pool

    pool.initialise(threads, visible_gpus)


def spawn(work: Callable[..., Any], words: tuple[Any, ...], n: int, join: bool) -> Any:
    """As :func:`torch.multiprocessing.spawn`, with forks."""
    context()
    return start_processes(InEnvironment(work), words, n, join, start_method="forkserver")


class Command:
    """A command that runs, with what :class:`subprocess.Popen` has.

    Args:
        words: what would follow ``python``: the path of a script or ``-m`` and a module, arguments.
        cwd: where it runs.
        env: its environment, by default this one.
        terminal: the name of a pseudo-terminal for input and output; without one they are kept.
    """

    def __init__(
        self,
        words: Sequence[str | Path],
        cwd: Path,
        env: Mapping[str, str] | None = None,
        terminal: str | None = None,
    ) -> None:
        kept = Path(mkdtemp())
        weakref.finalize(self, shutil.rmtree, kept, ignore_errors=True)
        self._files = (kept / "out", kept / "err")
        streams = [terminal] * 3 if terminal else [os.devnull, *map(str, self._files)]
        start = context()
        # Where this server is, for the command's own workers; Python 3.14's wants a key too.
        server = {"_forkserver_address": forkserver._forkserver._forkserver_address}
        if sys.version_info >= (3, 14):
            server = {}
        given = (list(map(str, words)), str(cwd), streams, server)
        self._process = start.Process(target=InEnvironment(_run, env), args=given)
        self._process.start()
        self.pid = self._process.pid
        self.send_signal = partial(os.kill, self.pid)
        self.kill = self._process.kill

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """Wait for the end; standard output and error."""
        self._process.join(timeout)
        if self.returncode is None:
            self.kill()
            raise subprocess.TimeoutExpired("command", timeout, self.said().encode())
        out, err = [file.read_text() if file.exists() else "" for file in self._files]
        return out, err

    def said(self) -> str:
        """Standard output and error so far."""
        return "".join(file.read_text() for file in self._files if file.exists())

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._process.join()


def run(words: Sequence[str | Path], cwd: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    """A command that has ended, as of :func:`subprocess.run`."""
    with Command(words, cwd, **more) as command:
        out, err = command.communicate()
    return subprocess.CompletedProcess(words, command.returncode, out, err)


def _run(words: list[str], cwd: str, streams: list[str], server: dict[str, Any]) -> None:
    """Be the command."""
    os.chdir(cwd)
    for number, name in enumerate(streams):
        file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOCTTY, 0o644)
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0)  # noqa: SIM115
    sys.stdout.reconfigure(line_buffering=os.isatty(1))
    if server:
        from ksr_recbole.comparison import pool

        # Not forks of this process: libraries have begun to work in it.
        vars(forkserver._forkserver).update(server, ensure_running=lambda: None)
        pool.get_context = lambda _: get_context("forkserver")
        pool.initialise = InEnvironment(initialise)
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            sys.path.insert(0, str(Path(words[0]).parent))
            runpy.run_path(words[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
