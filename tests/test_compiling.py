"""Numba's cache of kernels: whatever is wrong with it, the kernel is compiled and right."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from numba.core import caching, config

from ksr_recbole.model.kernels import compiling
from ksr_recbole.model.kernels.compiling import cached_njit

ROOT = Path(__file__).resolve().parents[1]


def double(x):
    return 2 * x


def kept(folder: Path, suffix: str) -> Path:
    [path] = folder.rglob(f"*.{suffix}")
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    # Numba reads variables again when it compiles, and does not compile once this one differs from
    # what its threads were started with.
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("NUMBA_NUM_THREADS", str(config.NUMBA_NUM_THREADS))
    compiling._say.cache_clear()
    return tmp_path


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("damaged", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b"x" + b])
def test_a_damaged_cache_is_made_again(folder, caplog, suffix, damaged: Callable[[bytes], bytes]):
    assert cached_njit()(double)(3) == 6
    path = kept(folder, suffix)
    path.write_bytes(damaged(path.read_bytes()))
    assert cached_njit()(double)(3) == 6
    assert caplog.text.count("Numba's cache cannot be used (") == 1
    third = cached_njit()(double)
    assert third(3) == 6 and third.stats.cache_hits


@pytest.mark.parametrize("problem", ["no folder", "a full disk", "no object"])
def test_without_a_cache_a_kernel_is_compiled(folder, monkeypatch, caplog, problem):
    def fail(*_: object) -> None:
        if problem == "no object":
            raise RuntimeError("no compiled object yet")
        raise OSError(errno.ENOSPC, "No space left on device")

    if problem == "no folder":
        monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])
    else:
        monkeypatch.setattr(caching.IndexDataCacheFile, "_save_data", fail)
    assert cached_njit()(double)(3) == 6
    assert caplog.text.count("Numba's cache cannot be used (") == 1


TWO_FILES = """
from ksr_recbole.model.kernels.compiling import cached_njit
from other import helper
@cached_njit()
def kernel(x):
    return helper(x)
print(kernel(1))
"""


def test_a_kernel_is_compiled_anew_when_another_file_changes(tmp_path):
    """What that file has is compiled into the kernel."""
    (tmp_path / "kernels.py").write_text(TWO_FILES)
    found = []
    for number in (1, 1, 100):
        source = f"from numba import njit\n@njit\ndef helper(x):\n    return x + {number}\n"
        (tmp_path / "other.py").write_text(source)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "kernels.py"], cwd=tmp_path, capture_output=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path / "kept")},
            text=True, check=True,
        )  # fmt: skip
        found.append(int(done.stdout))
    assert found == [2, 2, 101]
