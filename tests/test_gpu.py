"""Whole runs on a fake GPU, which GPU is taken, and what is done if it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import Future

import pytest
import torch

from ksr_recbole import gpus
from ksr_recbole.comparison import pool
from ksr_recbole.config import Config
from ksr_recbole.errors import UserError
from ksr_recbole.model.kernels import exact
from ksr_recbole.quick_start import result, run
from ksr_recbole.quick_start.model_size import check_memory
from ksr_recbole.trainer import trainer as trainer_module
from ksr_recbole.trainer.trainer import ProtocolTrainer
from tests.forked import ROOT
from tests.toy import toy_run, toy_values


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("KSR", ["train_kg_step=0", "value_matrix=shared"]),
        ("KSR-exact", []),
        ("KSR-exact", ["memory_fit=training", "enable_amp=True", "enable_scaler=False"]),
        ("GRU_F", ["loss_type=BPR"]),
    ],
)
def test_a_whole_run_on_a_gpu(model, words, tmp_path):
    """It trains, resumes there and on the CPU, recommends and explains; nothing is mixed."""
    command = [sys.executable, "-m", "tests.fake_gpu", str(tmp_path), model, *words]
    variables = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("trained on cuda fake\n")
    on = {
        device: [
            line.replace(f" on {device} ", " ")
            for line in done.stdout.splitlines()
            if device in line
        ]
        for device in ("cuda", "cpu")
    }
    assert on["cuda"][1:] == on["cpu"] and on["cpu"]


def test_the_gradient_of_an_exact_memory_keeps_no_slots(monkeypatch):
    """The slots of all steps are ``[P, S, V]``."""
    monkeypatch.setattr(exact, "fused", lambda name: None)
    n_values, n_scales, n_steps, n_users = 2_000, 4, 16, 8
    starts = torch.arange(0, 60, 3)
    updates = exact.ExactUpdates(
        torch.arange(n_steps * n_users) % 18, starts, 1 + torch.arange(60), torch.rand(n_scales)
    )
    weights = torch.rand(n_steps * n_users, n_scales, 2, requires_grad=True)
    counts = torch.rand(n_values, requires_grad=True)
    slots = torch.zeros(n_users, n_scales, n_values)
    attributes = torch.arange(n_values) % 2
    reads = exact.Reads(weights, updates, slots, [n_users] * n_steps, attributes, counts)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        found = reads.of_values()
    assert sum(kept.values()) < 4 * n_steps * n_users * n_values
    steps = list(exact._after_each_step(updates, slots, [n_users] * n_steps))
    expected = torch.cat(
        [
            exact.read(running, part, attributes, counts)
            for part, (running, _) in zip(weights.split(n_users), steps, strict=True)
        ]
    )
    torch.testing.assert_close(found, expected)
    gradient = torch.rand_like(found)
    ours = torch.autograd.grad(found, (weights, counts), gradient)
    theirs = torch.autograd.grad(expected, (weights, counts), gradient)
    torch.testing.assert_close(ours, theirs)


@pytest.fixture
def two_gpus(monkeypatch):
    """A machine with GPUs, in a process that has used none."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "kept by this fixture")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(gpus, "_visible", None)
    monkeypatch.setattr(gpus, "_first", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.mark.parametrize(
    ("environment", "given", "visible", "device"),
    [
        (None, {}, "0", "cuda"),
        ("3", {}, "3", "cuda"),
        ("3,4", {}, "3,4", "cuda"),
        ("", {}, "", "cpu"),
        ("-1", {}, "", "cpu"),
        ("3", {"gpu_id": "1"}, "1", "cuda"),
        ("3", {"gpu_id": ""}, "", "cpu"),
        (None, {"gpu_id": (1, 2)}, "1,2", "cuda"),
        (None, {"gpu_id": "2, -1, 0"}, "2", "cuda"),
        (None, {"gpu_id": -1}, "", "cpu"),
    ],
)
def test_the_environment_says_which_gpus_where_gpu_id_does_not(
    environment, given, visible, device, two_gpus
):
    gpus.begin_with(environment)
    config = Config("GRU", "ml-100k", None, given)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == config["gpu_id"] == visible
    assert config["device"].type == device
    assert Config("GRU", "ml-100k", None, given)["gpu_id"] == visible  # again in one process


def test_a_process_computes_on_one_gpu(two_gpus):
    """CUDA looks only once which GPUs there are, so that another ``gpu_id`` would do nothing."""
    Config("GRU", "ml-100k", None, {"gpu_id": "1"})
    Config("GRU", "ml-100k", None, {"gpu_id": ""})
    Config("GRU", "ml-100k", None, {"gpu_id": "1,2"})
    with pytest.raises(UserError, match="gpu_id is 2, but this process computes on GPU 1 since"):
        Config("GRU", "ml-100k", None, {"gpu_id": 2})


def test_workers_take_turns_on_the_gpus(two_gpus, monkeypatch):
    several = Config("GRU", "ml-100k", None, {"gpu_id": "4,7"})
    assert gpus.taken_in_turn(several) == ("4", "7")
    for alone in ({"gpu_id": "4"}, {"gpu_id": ""}, {"gpu_id": "4,7", "nproc": 2}):
        assert gpus.taken_in_turn(Config("GRU", "ml-100k", None, alone)) == ()
    made: list[Worker] = []

    class Worker(pool._Worker):
        def _start(self) -> None:
            made.append(self)
            self._executor = Executor()

        def close(self) -> None:
            pass

    class Executor:
        def submit(self, work, job) -> Future:
            done: Future = Future()
            done.set_result(pool.Report(job.values["gpu_id"]))
            return done

    reports: list[str | None] = []

    class Said:
        started = tick = lambda *_: None

        def ended(self, job, report) -> None:
            reports.append(report.error)

    monkeypatch.setattr(pool, "_Worker", Worker)
    jobs = [pool.Job(None, None, (), {"gpu_id": "4,7"}, False) for _ in range(3)]
    pool.run_jobs(jobs, 3, Said(), ("4", "7"))
    assert sorted(reports) == ["4", "4", "7"] and len(made) == 3


@pytest.mark.parametrize(
    ("error", "lasting"),
    [
        (RuntimeError("CUDA error: device-side assert triggered"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_a_failed_gpu_spoils_its_process_and_no_other_job(error, lasting, monkeypatch, tmp_path):
    monkeypatch.setattr(pool, "_run", lambda job: (_ for _ in ()).throw(error))
    report = pool._reported(None, tmp_path / "log")
    assert (report.passing, report.spoilt) == (lasting, lasting)
    started = []
    monkeypatch.setattr(pool._Worker, "_start", lambda self: started.append(self))
    worker = pool._Worker(1)
    monkeypatch.setattr(worker, "close", lambda: started.append("closed"))
    done: Future = Future()
    done.set_result(report)
    assert worker.report(done) is report
    assert started == ([worker, "closed", worker] if lasting else [worker])


def test_a_run_on_the_cpu_asks_no_gpu(toy_folder, monkeypatch):
    def busy(*_):
        raise RuntimeError("CUDA-capable device(s) is/are busy or unavailable")

    monkeypatch.setattr(torch.cuda, "get_device_name", busy)
    found = toy_run(toy_folder, "GRU", gpu_id="", epochs=1)
    assert found["environment"]["gpu"] is None
    assert "gpu" not in result.environment()


def test_a_full_gpu_is_told(toy_folder, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(ProtocolTrainer, "fit", full)
    with pytest.raises(UserError, match=r"memory of the GPU is full; give a smaller train_batch"):
        run("GRU", "toy", None, toy_values(toy_folder))


def test_the_weights_must_fit_into_the_gpu(toy_config, toy_dataset, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 1000))
    config = toy_config()
    config.final_config_dict["device"] = torch.device("cuda")
    with pytest.raises(UserError, match=r"but this GPU has 0\.0 GiB"):
        check_memory(config, toy_dataset)


@pytest.mark.parametrize(
    ("precision", "allowed"), [("highest", False), ("medium", True), (None, True)]
)
def test_highest_holds_in_the_evaluation_too(precision, allowed, toy_folder, monkeypatch):
    """cuDNN's GRU computes in TF32 unless it is forbidden."""
    seen = []
    rank = trainer_module.evaluate_sampled

    def looking(*words, **more):
        seen.append(torch.backends.cudnn.allow_tf32)
        return rank(*words, **more)

    monkeypatch.setattr(trainer_module, "evaluate_sampled", looking)
    toy_run(toy_folder, "GRU", epochs=1, matmul_precision=precision)
    assert set(seen) == {allowed} and torch.backends.cudnn.allow_tf32
