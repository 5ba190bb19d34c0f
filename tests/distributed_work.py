"""What the processes of tests/test_distributed.py do; they import this file and not pytest."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from ksr_recbole.distributed import group
from ksr_recbole.errors import UserError


def run_all(folder: Path, cases: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Results of several runs, one after the other."""
    from ksr_recbole.quick_start.run import run_in_process

    os.chdir(folder)
    return [run_in_process(arguments) for arguments in cases]


def collect(folder: Path) -> None:
    """Note what ``group`` gives to process 0; then process 1 alone finds a mistake."""
    here = group.place()

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


def measured(trainer: Any, test_data: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A measure in which all processes take part."""
    result = trainer.rank(test_data, "full")
    return {"mean rank": float(result.ranks.mean())}, {"ranks": result.ranks}
