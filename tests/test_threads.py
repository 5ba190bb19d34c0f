"""The number of threads, in fresh processes and from made-up control groups."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from ksr_recbole import core_sharing, threads
from ksr_recbole.comparison.cells import of_consequence
from ksr_recbole.config import Config
from ksr_recbole.distributed.launching import _environment
from ksr_recbole.errors import UserError
from ksr_recbole.processes import threads_per_worker
from ksr_recbole.quick_start import run
from tests.models import let_numba_compile
from tests.toy import toy_values

ROOT = Path(__file__).resolve().parents[1]

several_cores = pytest.mark.skipif(threads.usable_cores() < 2, reason="one core only")


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    """No variable is given, and what a test sets is taken back, PyTorch's number too."""
    for name in threads.THREAD_VARIABLES:
        # Set first, so that the value is put back even if the test itself sets it.
        monkeypatch.setenv(name, "1")
        monkeypatch.delenv(name)
    monkeypatch.setattr(threads, "_set_here", {})
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# The quota ------------------------------------------------------------------------------------


def tree(root: Path, groups: str, files: dict[str, str]) -> Path:
    """A root folder with /proc/self/cgroup and files below /sys/fs/cgroup."""
    for name, text in {"proc/self/cgroup": groups}.items() | {
        (f"sys/fs/cgroup/{name}", text) for name, text in files.items()
    }:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V1 = "4:memory:/job\n3:cpu,cpuacct:/job/one\n"


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"}, 3),
        ("0::/a/b\n", {"a/cpu.max": "100000 100000", "a/b/cpu.max": "400000 100000"}, 1),
        ("0::/docker/4711\n", {"cpu.max": "250000 100000\n"}, 2),  # the host's path, not seen here
        ("0::/../..\n", {"cpu.max": "300000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/a\n", {"unified/a/cpu.max": "200000 100000\n"}, 2),
        (V1, {"cpu,cpuacct/job/one/cpu.cfs_quota_us": "-1\n"}, None),
        (
            V1,
            {
                "cpu,cpuacct/job/cpu.cfs_quota_us": "150000\n",
                "cpu,cpuacct/job/cpu.cfs_period_us": "50000\n",
                "cpu,cpuacct/job/one/cpu.cfs_quota_us": "-1\n",
                "cpu,cpuacct/job/one/cpu.cfs_period_us": "50000\n",
            },
            3,
        ),
        (V1, {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ("4:memory:/job\n", {"job/cpu.cfs_quota_us": "100000"}, None),
        ("0::/\n", {"cpu.max": "none of this\n"}, None),
        ("0::/\n", {"cpu.max": "200000 0\n"}, None),
        ("0::/\n", {"cpu.max": "0 100000\n"}, None),
        ("0::/\n", {"cpu.max": ""}, None),
        ("nonsense\n\n::::\n", {}, None),
    ],
)
def test_the_quota_is_the_smallest_of_all_groups_above(tmp_path, groups, files, quota):
    assert threads.cpu_quota(tree(tmp_path, groups, files)) == quota


def test_no_quota_without_control_groups(tmp_path):
    assert threads.cpu_quota(tmp_path) is None


# The smallest of all --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "cores", "quota", "number"),
    [
        (None, 8, "max", 8),
        (None, 8, "300000", 3),
        (None, 2, "300000", 2),
        ("1", 8, "300000", 1),
        ("64", 8, "max", 8),
        ("4,2", 8, "max", 4),
        ("0", 8, "max", 8),
        ("many", 8, "max", 8),
        ("-3", 8, "max", 8),
        ("", 8, "max", 8),
    ],
)
def test_the_smallest_limit_counts(tmp_path, monkeypatch, variable, cores, quota, number):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores), raising=False)
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    root = tree(tmp_path, "0::/\n", {"cpu.max": f"{quota} 100000\n"})
    assert threads.available_threads(root) == number


def test_what_was_set_here_is_not_taken_for_the_users(monkeypatch, capsys):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4), raising=False)
    monkeypatch.setattr(threads, "cpu_quota", lambda root: None)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # fewer, for one library
    monkeypatch.setenv("POLARS_MAX_THREADS", "64")
    monkeypatch.setenv("MKL_NUM_THREADS", "a word")
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    threads.limit_libraries()
    told = {name: os.environ[name] for name in threads.THREAD_VARIABLES}
    assert told == {**dict.fromkeys(threads.THREAD_VARIABLES, "4"), "OPENBLAS_NUM_THREADS": "1"}
    assert "MKL_NUM_THREADS is 'a word'" in capsys.readouterr().err
    assert "OMP_NUM_THREADS" not in threads.given_variables()
    assert [threads_per_worker(jobs) for jobs in (1, 2, 3, 20)] == [4, 2, 1, 1]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(3), raising=False)
    assert threads.available_threads() == 3  # not the four of before


def test_processes_of_a_run_share_what_was_set_here_and_keep_what_was_given(monkeypatch):
    from ksr_recbole.quick_start.process_keys import read_hosts

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(6), raising=False)
    monkeypatch.setattr(threads, "cpu_quota", lambda root: None)
    monkeypatch.setenv("POLARS_MAX_THREADS", "5")
    threads.limit_libraries()
    hosts = read_hosts(Config("KSR", "ml-100k", None, {"nproc": 2}))
    before = dict(os.environ)
    with _environment(hosts, None):
        assert os.environ["OMP_NUM_THREADS"] == os.environ["NUMBA_NUM_THREADS"] == "3"
        assert os.environ["POLARS_MAX_THREADS"] == "5"
    assert dict(os.environ) == before


# The config key -------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -1, 1_000_000, "two", "", 1.5, [1], True, {"a": 1}])
def test_num_threads_must_be_a_number_of_threads(value):
    told = r"Config key num_threads is .+; it must be (a whole number|at least 1)"
    with pytest.raises(UserError, match=told):
        Config("KSR", "ml-100k", None, {"num_threads": value})


def test_num_threads_may_be_written_as_other_whole_numbers():
    found = Config("KSR", "ml-100k", None, {"num_threads": 1.0})["num_threads"]
    assert found == 1 and type(found) is int


def test_a_result_does_not_depend_on_it():
    assert of_consequence({"num_threads": 2, "gamma": 1.0}) == {"gamma": 1.0}


# In fresh processes ---------------------------------------------------------------------------

USED = """
import json, sys
from ksr_recbole.threads import limit_libraries, used_threads
if "late" in sys.argv:
    import torch
    if "numba" in sys.argv:
        import numba
else:
    limit_libraries()
import torch
from ksr_recbole.config import Config
from ksr_recbole.model.kernels.fused import fused
for value in json.loads(sys.argv[1]):
    Config("KSR", "ml-100k", None, {"num_threads": value, "state": "ERROR"})
    kernels = fused("scores")
    users, table = torch.ones(64, 8, requires_grad=True), torch.ones(8, 8, requires_grad=True)
    kernels.sampled_scores(users, table, torch.zeros(64, 2, dtype=torch.int64)).sum().backward()
    print(json.dumps(used_threads()))
"""


def used(values: list[int | None], *how: str, cores: int | None = None, **variables: str) -> list:
    """What :func:`used_threads` says in a new process after parallel kernels have run."""
    environment = {k: v for k, v in os.environ.items() if k not in threads.THREAD_VARIABLES}
    affinity = sorted(os.sched_getaffinity(0))[:cores]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", USED, json.dumps(values), *how],
        cwd=ROOT,
        env={**environment, **variables},
        text=True,
        capture_output=True,
        preexec_fn=lambda: os.sched_setaffinity(0, affinity),
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return [(line["threads"], line["numba_threads"]) for line in lines]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no CPU affinity here")
class TestFreshProcess:
    @pytest.fixture(autouse=True)
    def _needs_numba(self):
        pytest.importorskip("numba")

    @several_cores
    @pytest.mark.parametrize("how", [(), ("late", "numba")])
    def test_the_variable_holds_after_a_parallel_kernel(self, how):
        assert used([None], *how, OMP_NUM_THREADS="1") == [(1, 1)]

    @several_cores
    @pytest.mark.parametrize("how", [(), ("late",), ("late", "numba")])
    def test_the_key_overrides_all_and_can_change(self, how):
        variables = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")[: 2 - len(how)], "1")
        assert used([2, 1, 2], *how, **variables) == [(2, 2), (1, 1), (2, 2)]

    @several_cores
    @pytest.mark.parametrize("how", [(), ("late", "numba")])
    def test_the_affinity_holds(self, how):
        assert used([None], *how, cores=1, OMP_NUM_THREADS="2") == [(1, 1)]
        if not how:
            assert used([None], cores=2) == [(2, 2)] or threads.cpu_quota() == 1

    @several_cores
    def test_a_library_may_have_fewer(self):
        assert used([None], OMP_NUM_THREADS="2", NUMBA_NUM_THREADS="1") == [(2, 1)]


# Next to others -------------------------------------------------------------------------------


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)


def test_others_are_noticed_and_their_end_too(monkeypatch, two_threads):
    monkeypatch.setattr(core_sharing, "LOOK_SECONDS", 0.01)
    waiting = threading.Event()
    monkeypatch.setattr(core_sharing._Usage, "others_wait", lambda self: waiting.is_set())

    def becomes(state: bool) -> bool:
        return any(core_sharing.crowded() == state or pause.wait(0.01) for _ in range(500))

    pause = threading.Event()
    before = threading.active_count()
    with core_sharing.sharing_cores():
        assert not core_sharing.crowded()
        waiting.set()
        assert becomes(True)
        with core_sharing.sharing_cores():  # a training inside a training
            pass
        assert core_sharing.crowded()
        waiting.clear()
        assert becomes(False)
        waiting.set()
        assert becomes(True)
    assert not core_sharing.crowded()
    assert threading.active_count() == before


@several_cores
def test_the_test_shares_the_cores_as_training_does(toy_folder):
    def shares(trainer, data):
        return {"shares": core_sharing._watched.locked()}, {}

    values = toy_values(toy_folder, num_threads=2)
    result = run("KSR", "toy", None, values, measure=shares)
    assert result["measures"] == {"shares": True}
    assert not core_sharing._watched.locked()


def test_one_thread_waits_for_nobody():
    torch.set_num_threads(1)
    before = threading.active_count()
    with core_sharing.sharing_cores():
        assert threading.active_count() == before


@pytest.mark.parametrize(
    ("worked", "own", "cores", "n", "waits"),
    [
        (2.0, 2.0, 2, 2, False),  # alone
        (2.0, 1.0, 2, 2, True),  # half of both cores
        (2.0, 1.9, 2, 2, False),  # a system's small work
        (3.0, 2.0, 4, 2, False),  # others have cores of their own
        (4.0, 1.0, 4, 2, True),
    ],
)
def test_who_waits(monkeypatch, worked, own, cores, n, waits):
    monkeypatch.setattr(core_sharing, "usable_cores", lambda: cores)
    readings = iter([(0.0, 0.0, 0.0), (1.0, worked, own)])
    monkeypatch.setattr(core_sharing._Usage, "_now", lambda self: next(readings))
    assert core_sharing._Usage(n).others_wait() is waits


@pytest.mark.parametrize("size", [1, 7, 64, 256])
@pytest.mark.parametrize("lanes", [1, 5, 33])
def test_one_thread_computes_the_same_bits(monkeypatch, size, lanes):
    kernels = pytest.importorskip("ksr_recbole.model.kernels.gru_numba")
    let_numba_compile(monkeypatch)
    rng = np.random.default_rng(size + lanes)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    given = (draw(9, 3 * size), draw(lanes, 3 * size), draw(size), rng.integers(0, 9, lanes))
    before, gradient, running = (draw(lanes, size) for _ in range(3))
    results = []
    for suffix in ("", "_by_one"):
        after, work = np.zeros((lanes, size), np.float32), np.zeros((lanes, 4 * size), np.float32)
        getattr(kernels, f"forward_step{suffix}")(*given, before, after, work)
        saved, left = work.copy(), running.copy()
        getattr(kernels, f"backward_step{suffix}")(gradient, left, before, work)
        results.append((after, saved, work, left))
    for one, other in zip(*results, strict=True):
        assert np.array_equal(one, other)
