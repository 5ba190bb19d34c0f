"""What the processes of tests/test_distributed.py do; they import this file and not pytest."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import torch

from ksr_recbole.distributed import group
from ksr_recbole.errors import UserError


def run_all(folder: Path, cases: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Results of several runs, one after the other."""
    from ksr_recbole.quick_start.run import run_in_process

    os.chdir(folder)
    return [run_in_process(arguments, True) for arguments in cases]


def collect(folder: Path) -> dict[str, Any]:
    """What each function of ``group`` gives to this process and to the others."""
    here = group.place()

    def noted() -> list[str]:
        found = sorted(path.name for path in folder.iterdir())
        (folder / f"by-{here.rank}").touch()
        return found

    return {
        "main": group.from_main(lambda: f"from {here.rank}"),
        "turns": [group.summed(torch.tensor(len(group.in_turn(noted))).numpy()).item()],
        "threads": os.environ["OMP_NUM_THREADS"],
        "refused": [_refused(lambda: group.from_main(_refuse)), _refused(_differ)],
    }


def _refuse() -> None:
    raise UserError("the sentence")


def _differ() -> None:
    group.require_equal({"size": 2, "rank": group.place().rank})


def _refused(work: Any) -> str:
    try:
        work()
    except UserError as error:
        return str(error)
    return ""


def die(rank: int) -> None:
    """One process is killed while the others wait for it."""
    if group.place().rank == rank:
        os.kill(os.getpid(), signal.SIGKILL)
    group.from_main(lambda: None)
    group.require_equal({})
    time.sleep(600)


def refuse(rank: int) -> None:
    """One process finds a mistake while the others wait for it."""
    group.tell_parent("checkpoint", "the file")
    if group.place().rank == rank:
        raise UserError("Only this process sees the mistake.")
    group.require_equal({})
