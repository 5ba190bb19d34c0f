"""Fixtures: a small generated dataset, and configurations that keep their output below tmp_path."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ksr_recbole.threads import usable_cores

if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    # Processes of pytest-xdist share the cores; libraries read this when they are loaded.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // workers)))

from ksr_recbole.compat import import_recboles_quick_start, silence_upstream_warnings
from ksr_recbole.config import Config
from ksr_recbole.dataset.sequence_datasets import KGSequenceDataset
from ksr_recbole.interruptions import SIGNALS
from tests.toy import toy_values, write_toy

# No test cuts the power, and waiting for the disk took a tenth of the suite's time.
pytest.MonkeyPatch().setattr(os, "fsync", lambda descriptor: None)
silence_upstream_warnings()
import_recboles_quick_start()  # so that tests can import it where there is no Ray


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RecBole writes log/ and log_tensorboard/ into the current folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """RecBole's ``init_logger`` changes the root logger for good."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers = handlers


@pytest.fixture
def toy_folder(tmp_path: Path) -> Path:
    """Folder with the toy dataset, to be given as ``data_path``."""
    return write_toy(tmp_path / "data")


@pytest.fixture
def toy_config(toy_folder: Path) -> Callable[..., Config]:
    """``toy_config(key=value, ...)`` gives a configuration of ``KSR-paper`` on the toy dataset."""
    return lambda **changes: Config("KSR-paper", "toy", None, toy_values(toy_folder, **changes))


@pytest.fixture
def toy_dataset(toy_config: Callable[..., Config]) -> KGSequenceDataset:
    """The toy dataset, built."""
    dataset = KGSequenceDataset(toy_config())
    dataset.build()
    return dataset


@pytest.fixture
def quick_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of comparisons and searches are forks of what has the imports already."""
    from ksr_recbole.comparison import pool
    from tests import forked

    monkeypatch.setattr(pool, "get_context", lambda _: forked.context())
    monkeypatch.setattr(pool, "initialise", forked.InEnvironment(forked.initialise))


@pytest.fixture
def not_ignored() -> Iterator[None]:
    """Where the tests run in the background of a shell, Ctrl-C is ignored from the start."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
