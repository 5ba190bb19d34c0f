"""Several processes: what they share, that they equal one process, and how they end."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from ksr_recbole import registry
from ksr_recbole.config import Config
from ksr_recbole.dataset.dataloader import TrainLoader, data_preparation
from ksr_recbole.dataset.sequence_datasets import load_dataset
from ksr_recbole.distributed import group, launching, meeting, sharding
from ksr_recbole.distributed.group import Process
from ksr_recbole.distributed.hosts import Hosts
from ksr_recbole.distributed.launching import launch
from ksr_recbole.distributed.meeting import Meeting, connect
from ksr_recbole.errors import ProcessEndedError, UserError
from ksr_recbole.model.ksr import KSR
from ksr_recbole.quick_start import run
from ksr_recbole.quick_start.process_keys import read_hosts
from ksr_recbole.registry import model_class
from ksr_recbole.trainer import checkpoint
from tests import distributed_work, forked
from tests.models import Averaging, Counting, random_vectors
from tests.test_run import ROOT, failure, toy_command
from tests.toy import toy_values, write_toy

TWO = Hosts(nproc=2, world_size=2)


@pytest.fixture
def quick_processes(monkeypatch) -> None:
    """Processes of a run are forks of what has the imports already."""
    forked.context()  # before there are threads
    monkeypatch.setattr(launching, "spawn", forked.spawn)


ONE_PROCESS = {"nproc": 1, "world_size": -1, "group_offset": 0, "ip": "localhost", "port": None}


# Which processes there are ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"nproc": 0}, "nproc is 0"),
        ({"nproc": "two"}, "nproc is 'two'; it must be a whole number"),
        ({"nproc": 1.5}, "nproc is 1.5; it must be a whole number"),
        ({"nproc": 2, "world_size": 1}, "world_size of at least 2"),
        ({"nproc": 2, "world_size": 4, "group_offset": 3}, "between 0 and 2"),
        ({"nproc": 2, "group_offset": 1}, "between 0 and 0"),
        ({"group_offset": -1}, "group_offset is -1"),
        ({"port": "http"}, "port is 'http'"),
        ({"port": 65536}, "less than 65536"),
    ],
)
def test_processes_that_cannot_be(values, part):
    with pytest.raises(UserError, match=part):
        read_hosts({**ONE_PROCESS, **values})


def test_processes_that_can_be():
    assert not read_hosts(ONE_PROCESS).distributed
    assert read_hosts({**ONE_PROCESS, "nproc": 3}) == Hosts(3, 3)
    several = read_hosts({**ONE_PROCESS, "nproc": 2, "world_size": 4, "group_offset": 2})
    assert several == Hosts(2, 4, port=5678, offset=2)
    assert several.several and not several.first


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--nproc=0"], "nproc is 0"),
        (["--nproc=2", "--model=CKE"], "CKE cannot be trained by several processes"),
        (["--nproc=2", "--model=LightGCN", "--eval_args.mode=full"], "LightGCN is a model of"),
        (["--nproc=2", "--local_rank=1"], "local_rank"),
    ],
)
def test_what_is_refused_before_any_process_starts(capsys, toy_folder, arguments, part):
    command = toy_command(toy_folder)
    given = {a.split("=")[0] for a in arguments} | {"--report_modes"}
    assert part in failure(capsys, [a for a in command if a.split("=")[0] not in given] + arguments)


# Shares of a batch --------------------------------------------------------------------------


@pytest.mark.parametrize("n_rows", [1, 2, 3, 7, 100])
def test_rows_are_dealt_evenly(monkeypatch, n_rows):
    monkeypatch.setattr(sharding, "this_process", lambda: Process(0, 3))
    owner = sharding.owners(n_rows)
    counts = np.bincount(owner, minlength=3)
    assert counts.sum() == n_rows and counts.max() - counts.min() <= 1
    lengths = np.sort(np.random.default_rng(0).integers(1, 60, n_rows))[::-1]
    targets = np.bincount(owner, weights=lengths, minlength=3)
    assert targets.max() - targets.min() <= lengths[0]


def batches_of(monkeypatch: pytest.MonkeyPatch, loader: TrainLoader, here: Process) -> Iterator:
    """The batches that one process of several would get."""
    iterator = iter(loader)
    while True:
        monkeypatch.setattr(sharding, "this_process", lambda: here)
        batch = next(iterator, None)
        monkeypatch.undo()
        if batch is None:
            return
        yield batch


def gradients(model: torch.nn.Module, batch: Any) -> list[torch.Tensor]:
    """Gradient of the share's loss as it enters the sum."""
    weight = batch[sharding.WEIGHT][0] if sharding.WEIGHT in batch else 1.0
    loss = model.calculate_loss(batch) * weight
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


MODELS = {
    "KSR": {"loss_type": "BPR", "chunk_length": 3, "train_neg_sample_args.sample_num": 2},
    "KSR-paper": {"loss_type": "CE", "chunk_length": 3, "freeze_kg": False},
    "GRU++": {"loss_type": "CE"},
    "GRU_F": {"loss_type": "sampled_CE", "sampled_items": 9, "chunk_length": 5},
    "GRU": {"loss_type": "gBCE", "sampled_items": 9},
    "RUM_I": {},
    "RUM_F": {},
    "BPR": {},
    "NeuMF": {"dropout_prob": 0.0},
    "FPMC": {},
}


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_shares_add_up_to_those_of_the_batch(toy_folder, monkeypatch, name):
    changes = {"dropout_prob": 0.0, "train_batch_size": 20, **MODELS[name]}
    config = Config(name, "toy", None, toy_values(toy_folder, **changes))
    dataset = load_dataset(config)
    train, _, _ = data_preparation(config, dataset)
    dataset.pretrained = random_vectors({"embedding_size": 8, "kg_embedding_size": 4}, dataset)
    torch.manual_seed(0)
    model = model_class(name)(config, dataset).double()
    replicas = [deepcopy(model) for _ in range(3)]
    shares = [batches_of(monkeypatch, train, Process(rank, 3)) for rank in range(3)]
    weights, n_rows = set(), 0
    for batch, *parts in zip(train, *shares, strict=True):
        whole = gradients(model, batch)
        of_parts = [gradients(*pair) for pair in zip(replicas, parts, strict=True)]
        for expected, *found in zip(whole, *of_parts, strict=True):
            assert torch.allclose(expected, sum(found), rtol=1e-6, atol=1e-9)
        kept = [part for part in parts if part[sharding.WEIGHT][0] > 0]
        assert sum(map(len, kept)) == len(batch)
        users = torch.cat([part["user_id"] for part in kept]).sort().values
        assert torch.equal(users, batch["user_id"].sort().values)
        weights |= {float(part[sharding.WEIGHT][0]) for part in parts}
        n_rows += len(batch)
    assert n_rows and len(weights) > (name not in ("KSR", "KSR-paper"))
    if name in ("KSR", "KSR-paper"):
        assert weights == {0.0, 1.0}, "no process was left without a row"


# Equal to one process -----------------------------------------------------------------------

COMMON = {"dropout_prob": 0.0, "learner": "adam", "epochs": 3, "train_batch_size": 100}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "KSR, BPR": ("KSR", {"loss_type": "BPR", "chunk_length": 5}),
    "KSR, CE": ("KSR", {"loss_type": "CE"}),
    "GRU++, BPR": ("GRU++", {"loss_type": "BPR"}),
    "GRU++, CE": ("GRU++", {"loss_type": "CE", "chunk_length": 5}),
    "averaged weights": ("GRU++", {"loss_type": "CE", "ema_decay": 0.9}),
    "clipped, early stopping": (
        "KSR",
        {"clip_grad_norm": {"max_norm": 0.01}, "stopping_step": 1, "epochs": 9},
    ),
    "triples too": ("KSR", {"freeze_kg": False, "train_kg_step": 1, "epochs": 4}),
    "next-session": ("KSR", {"task": "next-session", "session_length": 7200}),
    "NeuMF": ("NeuMF", {}),
    "FPMC": ("FPMC", {}),
}


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Results of every case, in one process and in two; each run has a folder of its own."""
    base = tmp_path_factory.mktemp("equal")
    data = write_toy(base / "data")

    def arguments(folder: str, model: str, changes: dict[str, Any]) -> tuple[Any, ...]:
        own = {key: str(base / "runs" / folder) for key in ("checkpoint_dir", "results_dir")}
        return model, "toy", None, toy_values(data, **{**COMMON, **own, **changes})

    def longer(folder: str, **changes: Any) -> tuple[Any, ...]:
        return arguments(folder, "KSR", {**CASES["KSR, CE"][1], "epochs": 5, **changes})

    def dropping(folder: str, epochs: int, resume: bool) -> tuple[Any, ...]:
        changes = {"epochs": epochs, "resume": resume, "dropout_prob": 0.5}
        return arguments(folder, "GRU++", {**CASES["GRU++, CE"][1], **changes})

    empty = {key: str(base / key) for key in ("pretrain_dir", "data_cache_dir")}
    alone = [arguments(f"one {name}", *case) for name, case in CASES.items()]
    together = [arguments(f"two {name}", *case) for name, case in CASES.items()]
    together.append(arguments("anew", "KSR", {**CASES["KSR, BPR"][1], **empty}))
    together += [dropping("whole", 4, False), dropping("part", 2, False), dropping("part", 4, True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(base)
        patch.setattr(launching, "spawn", forked.spawn)
        one = distributed_work.run_all(base, [*alone, longer("longer")])
        short = shutil.copy(one[list(CASES).index("KSR, CE")]["checkpoint"], base / "copy.pth")
        together.append(longer("resumed", resume=short))
        two = launch(distributed_work.run_all, (base, together), TWO)
    anew, whole, _, gone_on, resumed = two[len(CASES) :]
    pairs = dict(zip(CASES, zip(one, two, strict=False), strict=False))
    pairs |= {"resumed": (one[-1], resumed), "made anew": (one[0], anew)}
    return pairs | {"with dropout": (whole, gone_on)}


@pytest.mark.parametrize("case", [*CASES, "resumed", "made anew", "with dropout"])
def test_two_processes_equal_one(both, case):
    one, two = both[case]
    assert two["epochs_trained"] == one["epochs_trained"]
    assert two["best_epoch"] == one["best_epoch"]
    assert two["candidates"] == one["candidates"]
    assert two["data_fingerprint"] == one["data_fingerprint"]
    for mode, phases in one["metrics"].items():
        for phase, metrics in phases.items():
            assert two["metrics"][mode][phase] == pytest.approx(metrics, abs=1e-6)
            first, second = (r["eval_results"][mode][phase] for r in (one, two))
            assert np.array_equal(first.users, second.users)
            assert np.array_equal(first.ranks, second.ranks)
    weights = [checkpoint.load(r["checkpoint"])["last"]["state_dict"] for r in (one, two)]
    for name, tensor in weights[0].items():
        assert torch.allclose(tensor, weights[1][name], rtol=1e-3, atol=1e-4), name


def test_two_processes_with_dropout_resume_exactly(both):
    whole, resumed = both["with dropout"]
    kept = [checkpoint.load(r["checkpoint"])["last"]["state_dict"] for r in (whole, resumed)]
    for name, tensor in kept[0].items():
        assert torch.equal(tensor, kept[1][name]), name


def test_early_stopping_was_tested(both):
    assert both["clipped, early stopping"][0]["epochs_trained"] < 9


def test_only_the_main_process_leaves_files(both):
    two = both["KSR, BPR"][1]
    folder = Path(two["checkpoint"]).parent
    assert sorted(file.suffix for file in folder.iterdir()) == [".json", ".pth"]
    base = folder.parents[1]
    for name in ("log", "log_tensorboard"):
        assert list((base / name).rglob("KSR-toy-*"))
        assert not list((base / name).rglob("KSR-[0-9]*"))  # as the other's would be named
    assert json.loads(Path(two["result_file"]).read_text())["metrics"] == two["metrics"]


@pytest.mark.parametrize("model", [Counting, Averaging])
def test_a_buffer_of_which_each_process_has_its_own_is_refused(
    toy_folder, monkeypatch, quick_processes, model
):
    entry = registry.Entry(model, based_on="GRU++", needs_kg=False)
    monkeypatch.setitem(registry.MODELS, "Mine", entry)
    values = toy_values(toy_folder, epochs=1, dropout_prob=0.0)
    alone = run("Mine", "toy", None, values)
    if model is Averaging:
        with pytest.raises(UserError, match=r"buffer mean of the model .* one process"):
            run("Mine", "toy", None, values, nproc=2)
    else:
        together = run("Mine", "toy", None, values, nproc=2)
        assert together["best_valid_score"] == pytest.approx(alone["best_valid_score"], abs=1e-6)
        last = [checkpoint.load(r["checkpoint"])["state_dict"] for r in (alone, together)]
        assert last[0]["a_count"] == last[1]["a_count"] > 0


# What processes tell each other -------------------------------------------------------------


def test_every_process_is_given_the_same_and_the_mistake_of_one_is_the_runs(tmp_path, monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("ksr_recbole.threads.cpu_quota", lambda root: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(6), raising=False)
    with pytest.raises(UserError, match="Only this process sees the mistake"):
        launch(distributed_work.collect, (tmp_path,), TWO)
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["main"] == "from 0"
    assert told["turns"] == 0 + 1  # process 1 came after process 0 and found its file
    assert told["threads"] == "3"
    assert told["refused"][0] == "the sentence"
    assert "Process 1 has rank = 1, but process 0 has 0" in told["refused"][1]


def test_alone_every_function_is_itself():
    numbers = np.arange(3)
    assert group.summed(numbers) is numbers
    assert group.from_main(lambda: 5) == group.in_turn(lambda: 5) == 5
    group.require_equal({"a": 1})
    group.tell_parent("checkpoint", None)


# The end of a run ---------------------------------------------------------------------------


def test_a_killed_process_ends_the_run():
    with pytest.raises(ProcessEndedError, match=r"Process 1 of 2 .*SIGKILL"):
        launch(distributed_work.die, (1,), TWO)


def test_ctrl_c_ends_all_and_the_run_can_go_on(toy_folder, tmp_path):
    values = {"epochs": 4, "dropout_prob": 0.0, "show_progress": False}
    whole = run("KSR", "toy", None, toy_values(toy_folder, **values))
    command = [sys.executable, str(ROOT / "run_recbole.py"), *toy_command(toy_folder)]
    stopped = tmp_path / "stopped"
    given = {"epochs": 100_000, "stopping_step": 100_000, "dropout_prob": 0.0, "nproc": 2}
    given["checkpoint_dir"] = str(stopped)
    command = [a for a in command if a.split("=")[0].removeprefix("--") not in given]
    command += [f"--{key}={value}" for key, value in given.items()]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where the tests run in the background of a shell, Ctrl-C is ignored from the start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    children = _wait_for_epoch(stopped, process)
    os.killpg(process.pid, signal.SIGINT)
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 130, error
    assert "Traceback" not in error and error.count("epoch 0 training") == 1
    _wait_for_end(children)
    assert not list(stopped.glob(".*"))
    hint = error.strip().splitlines()[-1]
    file = next(part for part in hint.split() if part.startswith("--resume="))
    content = checkpoint.load(Path(file.removeprefix("--resume=")))
    assert content["epoch"] >= 0 and not content["finished"]
    if content["epoch"] < 4:
        go_on = {**values, "resume": file.removeprefix("--resume=")}
        resumed = run("KSR", "toy", None, toy_values(toy_folder, **go_on))
        assert resumed["test_result"] == pytest.approx(whole["test_result"], abs=1e-6)


def _wait_for_epoch(folder: Path, process: subprocess.Popen) -> list[int]:
    """Wait for a checkpoint of a finished epoch; the processes started."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        for file in folder.glob("*.pth"):
            if checkpoint.load(file)["epoch"] >= 0:
                tasks = Path(f"/proc/{process.pid}/task/{process.pid}/children")
                return [int(pid) for pid in tasks.read_text().split()]
        time.sleep(0.05)
    raise AssertionError("no epoch was finished")


def _wait_for_end(pids: list[int]) -> None:
    deadline = time.monotonic() + 30
    while left := [pid for pid in pids if _runs(pid)]:
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.1)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


# Several machines ---------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def hosts_of(port: int, n: int = 2) -> list[Hosts]:
    return [Hosts(1, n, "127.0.0.1", port, offset) for offset in range(n)]


def in_threads(*calls: Any) -> list[Exception | Any]:
    """What calls that wait for each other return or raise."""
    outcomes: list[Any] = [None] * len(calls)

    def call(k: int) -> None:
        try:
            outcomes[k] = calls[k]()
        except Exception as error:
            outcomes[k] = error

    threads = [threading.Thread(target=call, args=(k,)) for k in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    return outcomes


def test_two_machines_over_loopback_equal_one(
    toy_folder, tmp_path, capfd, monkeypatch, quick_processes
):
    def values(name: str) -> dict[str, Any]:
        own = {key: str(tmp_path / name / key) for key in ("checkpoint_dir", "results_dir")}
        return toy_values(toy_folder, dropout_prob=0.0, **own)

    # A model and a measure that the new processes learn of from this one.
    twin = registry.Entry(KSR, based_on="KSR", options={"gamma": 5.0})
    monkeypatch.setitem(registry.MODELS, "Twin", twin)
    asked = {"measure": distributed_work.measured}
    alone = run("Twin", "toy", None, values("alone"), **asked)
    capfd.readouterr()
    common = {"nproc": 1, "world_size": 2, "ip": "127.0.0.1", "port": free_port()}
    calls = [
        lambda k=k: run(
            "Twin", "toy", None, values(f"machine{k}"), **asked, **common, group_offset=k
        )
        for k in (0, 1)
    ]
    first, second = in_threads(*calls)
    for result in (first, second):
        for mode, phases in alone["metrics"].items():
            for phase, metrics in phases.items():
                assert result["metrics"][mode][phase] == pytest.approx(metrics, abs=1e-6)
        assert result["measures"] == alone["measures"]
        assert np.array_equal(result["measured_arrays"]["ranks"], alone["measured_arrays"]["ranks"])
    assert second["checkpoint"] == first["checkpoint"]
    left = [sorted((tmp_path / f"machine{k}").rglob("*.*")) for k in (0, 1)]
    assert [file.suffix for file in left[0]] == [".pth", ".json"] and not left[1]
    assert "Processes 1 to 1 of 2 start here" in capfd.readouterr().err


def test_a_killed_process_ends_the_run_on_the_other_machine(quick_processes):
    calls = [
        lambda hosts=hosts: launch(distributed_work.die, (1,), hosts)
        for hosts in hosts_of(free_port())
    ]
    for outcome in in_threads(*calls):
        assert isinstance(outcome, ProcessEndedError)
        assert "Process 1 of 2" in str(outcome) and "SIGKILL" in str(outcome)


def test_machines_that_do_not_fit():
    port = free_port()
    first, other = Hosts(1, 2, "127.0.0.1", port), Hosts(1, 3, "127.0.0.1", port, 1)
    outcomes = in_threads(lambda: Meeting(first, 3), lambda: Meeting(other, 3))
    assert {type(outcome) for outcome in outcomes} == {UserError}
    assert any("world_size is 3" in str(o) or "world_size is 2" in str(o) for o in outcomes)
    port = free_port()
    a, b = (Hosts(1, 3, "127.0.0.1", port, offset) for offset in (0, 1))
    outcomes = in_threads(*(lambda hosts=hosts: Meeting(hosts, 4) for hosts in (a, b, b)))
    assert any("Process 1 of 3 is started twice" in str(outcome) for outcome in outcomes)
    assert "Only 2 of 3 processes" in str(outcomes[0])


# Strangers ----------------------------------------------------------------------------------


def listeners_of(pid: int, port: int) -> list[str]:
    """The addresses on which a process listens at a port."""
    found = psutil.Process(pid).net_connections("tcp")
    return [c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN and c.laddr.port == port]


def met(port: int) -> list[Meeting]:
    """Two machines that have found each other."""
    return in_threads(*(lambda hosts=hosts: Meeting(hosts, 60) for hosts in hosts_of(port)))


def attack(port: int) -> int:
    """Write into the store whatever its commands or processes might read; how much it was."""
    stranger = connect("127.0.0.1", port)
    cards = {stranger.compare_set(f"process/{rank}", "", "").decode() for rank in range(2)}
    hashes = [card[k : k + 64] for card in cards for k in range(0, len(card), 64)]
    texts = [b"\x1b[2J gone", b"", b"\xff" * 70, b"[" * 100_000, b"x" * 8_000_000]
    texts += [half.encode() + b"gone" for half in hashes]
    names = [f"{event}/{half}" for event in ("failed", "left") for half in hashes]
    names += ["failure", "joined", "left", "world_size", "process/0", "process/1"]
    for name in names:
        for text in texts:
            stranger.set(name, text)
    for size in (0, 1, 9, 4000):
        with socket.create_connection(("127.0.0.1", port)) as plain:
            plain.sendall(os.urandom(size))
    return len(names) * len(texts)


def test_the_store_listens_at_the_address_given_only():
    for ip in ("127.0.0.1", "127.0.0.2"):
        port = free_port()
        calls = [
            lambda k=k, ip=ip, port=port: Meeting(Hosts(1, 2, ip, port, k), 60) for k in range(2)
        ]
        first, second = in_threads(*calls)
        assert listeners_of(os.getpid(), port) == [ip] == [first.address]
        assert first.interface == second.interface == Meeting(TWO).interface
    alone = Meeting(TWO)
    assert listeners_of(os.getpid(), alone.port) == ["127.0.0.1"]


def test_an_address_of_another_machine():
    with pytest.raises(UserError, match=r"ip is '192\.0\.2\.1'.*not an address of this machine"):
        Meeting(Hosts(1, 2, "192.0.2.1", free_port(), 0), 1)


@pytest.mark.parametrize("ip", ["10.0.0..1", f"{'a' * 64}.example", ".", "no such host"])
@pytest.mark.parametrize("offset", [0, 1])
def test_an_address_with_a_typing_error(ip, offset):
    with pytest.raises(UserError, match="which is not the address or name of a machine"):
        Meeting(Hosts(1, 2, ip, free_port(), offset), 1)


@pytest.mark.parametrize("ip", ["0.0.0.0", "0", "::"])
@pytest.mark.parametrize("offset", [0, 1])
def test_all_addresses_of_a_machine_tell_no_network(monkeypatch, ip, offset):
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    with pytest.raises(UserError, match=f"ip is '{ip}'.* means every address"):
        Meeting(Hosts(1, 2, ip, free_port(), offset), 1)
    assert Meeting(Hosts(2, 2, ip)).interface  # on one machine only loopback is used
    if ip == "::":
        return  # there may be no such address
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    port = free_port()
    first, other = Hosts(1, 2, ip, port, 0), Hosts(1, 2, "127.0.0.1", port, 1)
    meetings = in_threads(lambda: Meeting(first, 60), lambda: Meeting(other, 60))
    assert [type(each) for each in meetings] == [Meeting, Meeting]


def test_a_stranger_neither_ends_a_run_nor_prints(monkeypatch):
    port = free_port()
    first, second = met(port)
    assert attack(port) == 14 * 9
    assert first.posted() is None and second.posted() is None
    waits: list[float] = []
    with monkeypatch.context() as patch:
        clock = SimpleNamespace(monotonic=lambda: sum(waits), sleep=waits.append)
        patch.setattr(meeting, "time", clock)
        first.leave()
    # The stranger has not made it believe that the other is gone.
    assert sum(waits) > meeting.FAREWELL_SECONDS
    second.post("Process 1 of 2 ended.")
    assert first.await_post() == "Process 1 of 2 ended."
    assert second.posted() is None
    first.post("\x1b]0;title\x07 \u202eevil\n\x9b" + "x" * 10_000)
    told = second.posted()
    assert told.startswith("?]0;title? ?evil??xxx") and told.isprintable()
    assert len(told) == meeting.MESSAGE_LENGTH + len("...")


def test_a_stranger_in_the_place_of_a_machine():
    port = free_port()

    def stranger() -> None:
        while not (store := _store_at(port)):
            time.sleep(0.05)
        store.set("process/1", "\x1b[2J")

    outcome, _ = in_threads(lambda: Meeting(hosts_of(port)[0], 60), stranger)
    assert isinstance(outcome, UserError) and "not part of this run" in str(outcome)
    assert str(outcome).isprintable()


def _store_at(port: int) -> Any:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return None
    return connect("127.0.0.1", port)


def test_a_run_withstands_strangers_and_unpickles_nothing(tmp_path, quick_processes):
    port = free_port()
    attacked: list[int] = []

    def stranger() -> None:
        files = [tmp_path / f"{rank}.json" for rank in range(2)]
        while not all(file.exists() for file in files):
            time.sleep(0.05)
        attacked.append(attack(port))
        listening = [json.loads(file.read_text()) for file in files]
        for address, at in itertools.chain(*listening):
            assert address in ("127.0.0.1", "::ffff:127.0.0.1", "::1")
            for size in (0, 1, 8, 4000):
                with socket.create_connection(("127.0.0.1", at)) as plain:
                    plain.sendall(os.urandom(size))
            attacked.append(at)

    runs = [
        lambda hosts=hosts: launch(distributed_work.withstand, (tmp_path,), hosts)
        for hosts in hosts_of(port)
    ]
    *received, failed = in_threads(*runs, stranger)
    assert failed is None and len(attacked) > 2
    for texts in received:
        assert set(texts) == {distributed_work.described(distributed_work.values())}


def test_nobody_at_the_other_end():
    _, second = hosts_of(free_port())
    with pytest.raises(UserError, match=r"Nobody answers at 127\.0\.0\.1 port .* --group_offset=0"):
        Meeting(second, 0.5)
    with pytest.raises(UserError, match="'no such name'"):
        Meeting(Hosts(1, 2, "no such name", 5678, 1), 0.5)


@pytest.mark.parametrize("answer", [None, b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(4000)])
def test_another_program_at_the_other_end(monkeypatch, answer):
    monkeypatch.setattr(meeting, "REPLY_SECONDS", 1.0)
    kept: list[socket.socket] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                kept.append(server.accept()[0])
                if answer is not None:
                    kept[-1].sendall(answer)
                    kept[-1].close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        _, second = hosts_of(server.getsockname()[1])
        with pytest.raises(UserError, match="not the command that starts process 0"):
            Meeting(second, 1)
        server.shutdown(socket.SHUT_RDWR)
    assert kept


def test_a_machine_that_falls_silent(tmp_path):
    """Ctrl-C works, and the silence is noticed, though the other's store answers nothing more."""
    port = free_port()
    command = [sys.executable, str(ROOT / "tests" / "distributed_work.py"), str(port)]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": "."}) as other:
        try:
            here = Meeting(hosts_of(port)[1], 600)
            assert here.posted() is None
            before = _unanswered()  # of other tests of this process
            other.send_signal(signal.SIGSTOP)
            # On a busy machine a thread can answer once more before it stops.
            threads = [psutil.Process(each.id) for each in psutil.Process(other.pid).threads()]
            while any(each.status() != psutil.STATUS_STOPPED for each in threads):
                time.sleep(0.01)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(meeting, "REPLY_SECONDS", 2.0)
                patch.setattr(meeting, "threading", SimpleNamespace(Thread=_Limited))
                assert "cannot be reached any more" in here.posted()
            [first] = _unanswered() - before  # it was not waited for any longer
            known = before | {first}
            threading.Thread(target=_interrupt_another, args=(known,), daemon=True).start()
            with pytest.raises(KeyboardInterrupt):
                here.posted()
            assert len(_unanswered() - known) == 1
        finally:
            other.kill()


class _Limited(threading.Thread):
    """A thread whose end may not be waited for without limit."""

    def join(self, timeout: float | None = None) -> None:
        assert timeout is not None
        super().join(timeout)


def _unanswered() -> set[threading.Thread]:
    """Threads that wait for an answer of a store."""
    return {each for each in threading.enumerate() if "(attempt)" in each.name}


def _interrupt_another(known: set[threading.Thread]) -> None:
    """Ctrl-C, once there is a thread that waits besides the known ones."""
    while not _unanswered() - known:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)


def test_a_port_in_use(capsys, toy_folder):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        error = failure(capsys, [*toy_command(toy_folder), "--nproc=2", f"--port={port}"])
    assert f"port {port}" in error and "in use" in error and "--port=N" in error
