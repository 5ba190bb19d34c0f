"""What the processes of tests/test_distributed.py do; they import this file and not pytest."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from ksr_recbole.distributed import group
from ksr_recbole.errors import UserError


def run_all(folder: Path, cases: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Results of several runs, one after the other; several processes send each other no pickle."""
    from ksr_recbole.quick_start.run import run_in_process

    os.chdir(folder)
    if group.this_process().size > 1:
        _refuse_pickles()
    return [run_in_process(arguments, True, None, {}) for arguments in cases]


def _refuse_pickles() -> None:
    """Let every object that torch.distributed sends or receives fail."""
    import torch.distributed.distributed_c10d as c10d

    assert c10d._pickler and c10d._unpickler
    c10d._pickler = c10d._unpickler = None


def values() -> dict[Any, Any]:
    """One of each kind of value that processes may send each other."""
    return {
        "plain": [None, True, 1, -0.5, "\x1b\u00e9\ud800", (), {}, [[(1, "a")]]],
        2: {"infinite": math.inf, "steps": (0.9, 0.999)},
        "tensors": [
            torch.arange(6).view(2, 3).T,
            torch.tensor(True),
            torch.zeros(0, 3),
            torch.ones(3, dtype=torch.bfloat16),
        ],
        "arrays": (np.arange(3, dtype=np.uint32), np.array(2.5), np.zeros((0, 2), bool)),
    }


def described(value: Any) -> str:
    """Everything about a value: types, shapes and contents."""
    if isinstance(value, dict):
        return f"dict {[(repr(k), described(v)) for k, v in value.items()]}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} {[described(v) for v in value]}"
    shape = (value.dtype, value.shape) if isinstance(value, torch.Tensor | np.ndarray) else ()
    return f"{type(value).__name__} {shape} {value!r}"


def withstand(folder: Path) -> list[str]:
    """Send values for some seconds; where this machine's processes listen is noted first."""
    _refuse_pickles()
    ours = psutil.Process().net_connections("tcp")
    listening = [c.laddr for c in ours if c.status == psutil.CONN_LISTEN]
    (folder / f"{group.this_process().rank}.part").write_text(json.dumps(listening))
    (folder / f"{group.this_process().rank}.part").rename(
        folder / f"{group.this_process().rank}.json"
    )
    received = []
    deadline = time.monotonic() + 4
    while group.from_main(lambda: time.monotonic() < deadline):
        received.append(described(group.from_main(values)))
        time.sleep(0.05)
    return received


def collect(folder: Path) -> None:
    """Note what ``group`` gives to process 0; then process 1 alone finds a mistake."""
    here = group.this_process()

    def noted() -> int:
        found = len(list(folder.iterdir()))
        (folder / f"by-{here.rank}").touch()
        return found

    told = {
        "main": group.from_main(lambda: f"from {here.rank}"),
        "turns": group.summed(np.array(group.in_turn(noted))).item(),
        "threads": os.environ["OMP_NUM_THREADS"],
        "refused": [_refused(lambda: group.from_main(_refuse)), _refused(_differ)],
    }
    if here.main:
        (folder / "told.json").write_text(json.dumps(told))
    group.require_equal({})
    if here.rank == 1:
        raise UserError("Only this process sees the mistake.")
    group.require_equal({})


def _refuse() -> None:
    raise UserError("the sentence")


def _differ() -> None:
    group.require_equal({"size": 2, "rank": group.this_process().rank})


def _refused(work: Any) -> str:
    try:
        work()
    except UserError as error:
        return str(error)
    return ""


def die(rank: int) -> None:
    """One process is killed while the others wait for it."""
    if group.this_process().rank == rank:
        os.kill(os.getpid(), signal.SIGKILL)
    group.from_main(lambda: None)
    group.require_equal({})
    time.sleep(600)


def measured(trainer: Any, test_data: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A measure in which all processes take part."""
    result = trainer.rank(test_data, "full")
    return {"mean rank": float(result.ranks.mean())}, {"ranks": result.ranks}


if __name__ == "__main__":  # the first of two machines, which joins and then does nothing
    from ksr_recbole.distributed.hosts import Hosts
    from ksr_recbole.distributed.meeting import Meeting

    meeting = Meeting(Hosts(1, 2, "127.0.0.1", int(sys.argv[1]), 0), 60)
    time.sleep(600)
