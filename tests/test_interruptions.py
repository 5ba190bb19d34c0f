"""Signals at any moment of a command: one sentence, one exit status, nothing that stays."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from ksr_recbole import commands
from ksr_recbole.comparison import pool
from ksr_recbole.interruptions import NOTHING_LEFT, SIGNALS, interruptible

ROOT = Path(__file__).parents[1]


pytestmark = pytest.mark.usefixtures("not_ignored")


def told(capsys) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line]


@pytest.mark.parametrize("number", SIGNALS)
def test_each_signal_ends_a_command_with_a_sentence(number, capsys):
    """A terminal that was closed ended it without one, and without clearing up."""
    assert commands.ended(lambda: signal.raise_signal(number)) == 130
    assert told(capsys) == [NOTHING_LEFT]
    assert signal.getsignal(number) is signal.default_int_handler


def test_a_second_one_does_not_stop_the_clearing_up(capsys):
    cleared = []

    def command():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            for number in SIGNALS:
                signal.raise_signal(number)
            cleared.append(True)

    assert commands.ended(command) == 130
    assert cleared and told(capsys) == [NOTHING_LEFT]


def test_one_that_comes_later_ends_a_clearing_up_that_hangs(capsys, monkeypatch):
    monkeypatch.setattr("ksr_recbole.interruptions._SAME_SECONDS", 0.0)

    def command():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            time.sleep(99)

    assert commands.ended(command) == 130
    assert told(capsys) == [NOTHING_LEFT]


def test_one_that_a_library_takes_for_an_error_is_no_traceback(capsys):
    """Polars made a TypeError of it: '<unprintable str object>' is not a Polars data type."""

    def command():
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt as interruption:
            raise TypeError("a library's own") from interruption

    assert commands.ended(command) == 130
    assert told(capsys) == [NOTHING_LEFT]
    with pytest.raises(TypeError):
        commands.ended(lambda: len(3))


def test_while_the_sentence_is_told_nothing_interrupts(capsys, monkeypatch):
    monkeypatch.setattr("ksr_recbole.interruptions._SAME_SECONDS", 0.0)

    def sentence(_):
        signal.raise_signal(signal.SIGINT)
        return "told"

    assert commands.ended(lambda: signal.raise_signal(signal.SIGINT), sentence) == 130
    assert told(capsys) == ["told"]


def test_under_nohup_a_closed_terminal_is_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with interruptible() as found:
        signal.raise_signal(signal.SIGHUP)
    assert not found.came and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def started(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """A process that is the command of a module with this code."""
    (folder / "the_command.py").write_text(f"import atexit, os, signal, time\n{code}")
    program = f"import ksr_recbole.interruptions as it, sys; sys.path.insert(0, {str(folder)!r})"
    return subprocess.run(
        [sys.executable, "-c", f"{program}; it.start('the_command')"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


@pytest.mark.parametrize("number", SIGNALS)
def test_while_it_is_imported_a_command_ends_without_a_traceback(number, tmp_path):
    done = started(tmp_path, f"os.kill(os.getpid(), {number:d})\ntime.sleep(99)")
    assert (done.returncode, done.stderr) == (130, f"\n{NOTHING_LEFT}\n")


def test_after_its_end_a_command_is_not_interrupted_any_more(tmp_path):
    code = "def main():\n    atexit.register(lambda: os.kill(os.getpid(), 2))\n    return 1"
    done = started(tmp_path, code)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


@pytest.mark.parametrize(
    "name",
    ["run_recbole", "run_benchmark", "run_hyper", "ksr_recbole.__main__",
     "dataset_atomic.__main__"],
)  # fmt: skip
def test_every_command_is_ready_before_it_imports_what_takes_a_second(name):
    program = (
        "import runpy, sys, ksr_recbole.interruptions as it\n"
        "it.start = lambda of: print(of, *({'numpy', 'argparse'} & set(sys.modules)))\n"
        f"runpy.run_module({name!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True,
                          check=True)  # fmt: skip
    module, *loaded = done.stdout.split()
    assert module and not loaded


def note(path: str) -> None:
    """Write down what a worker does with signals before it is prepared."""
    Path(path).write_text(" ".join(str(signal.getsignal(n) == signal.SIG_IGN) for n in SIGNALS))


def test_a_worker_that_is_still_imported_leaves_ctrl_c_to_its_parent(tmp_path, monkeypatch):
    """It printed a traceback between the sentences of its parent."""

    def executor(**given):
        given |= {"initializer": note, "initargs": (str(tmp_path / "noted"),)}
        return ProcessPoolExecutor(**given)

    monkeypatch.setattr(pool, "ProcessPoolExecutor", executor)
    worker = pool._Worker(1)
    assert len(worker._processes) == 1
    worker.close()
    left = dict(zip(SIGNALS, (tmp_path / "noted").read_text().split(), strict=True))
    assert left == {n: str(n != signal.SIGTERM) for n in SIGNALS}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_worker_that_is_still_imported_is_ended_at_once(monkeypatch):
    """It was waited for, up to a minute, and the command never ended if Ctrl-C came meanwhile."""

    def executor(**given):
        return ProcessPoolExecutor(**given | {"initializer": time.sleep, "initargs": (99,)})

    monkeypatch.setattr(pool, "ProcessPoolExecutor", executor)
    worker = pool._Worker(1)
    (process,) = worker._processes
    worker.kill()
    worker.close()
    assert process.exitcode == -signal.SIGTERM
