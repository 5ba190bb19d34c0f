"""The processes of a run, as each of them sees the others; alone, every function is itself.

All functions here but :func:`this_process` must be called by every process, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from ksr_recbole.distributed import message
from ksr_recbole.errors import UserError, sentence_of, shown

WAIT = timedelta(days=7)
"""How long a process waits for another, which may be pretraining.

A process that ends closes its connections, so the others need no time limit to notice.
"""

T = TypeVar("T")


class Process(NamedTuple):
    """A process of a run.

    Attributes:
        rank: its number; 0 is the main process, which writes files and logs.
        size: number of processes.
        local_rank: its number on its machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def main(self) -> bool:
        """Whether this is the main process."""
        return self.rank == 0


_this = Process()
_parent: Callable[[tuple[str, Any]], None] | None = None


def this_process() -> Process:
    """This process; the only one unless it was started by :mod:`launching`."""
    return _this


@contextmanager
def joined(
    store: dist.Store, here: Process, backend: str, tell: Callable[[tuple[str, Any]], None]
) -> Iterator[None]:
    """Be one of a run's processes for the time of a block.

    Args:
        store: where the processes meet.
        here: this process.
        backend: of torch.distributed, ``gloo`` or ``cpu:gloo,cuda:nccl``.
        tell: takes a name and a value for the parent process.
    """
    global _this, _parent
    if "nccl" in backend:
        torch.cuda.set_device(here.local_rank)
    dist.init_process_group(
        backend, store=store, rank=here.rank, world_size=here.size, timeout=WAIT
    )
    _this, _parent = here, tell
    try:
        yield
    finally:
        _this, _parent = Process(), None
    dist.destroy_process_group()  # not after an error: it would wait for the others


def tell_parent(name: str, value: Any) -> None:
    """Tell the process that started this one, if this is one of several."""
    if _parent is not None:
        _parent((name, value))


def lost(error: BaseException) -> bool:
    """Whether an error says that another process cannot be reached any more."""
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and "gloo" in str(error)


def from_main(work: Callable[[], T]) -> T:
    """Do ``work`` in the main process and give every process what it returned.

    Args:
        work: returns what :func:`ksr_recbole.distributed.message.broadcast` can send.

    Raises:
        UserError: what ``work`` raised, in every process.
    """
    if _this.size == 1:
        return work()
    outcome = _outcome(work) if _this.main else None
    value, mistake = message.broadcast(outcome, source=0)
    _raise(mistake)
    return value


def in_turn(work: Callable[[], T]) -> T:
    """Do ``work`` in every process, so that later ones find the files of the earlier ones.

    First comes the main process, then the first process of each other machine, then the rest.

    Raises:
        UserError: what ``work`` raised in any process, in every one.
    """
    if _this.size == 1:
        return work()
    turn = 0 if _this.main else 1 if _this.local_rank == 0 else 2
    value: Any = None
    mistake: list[str] | None = None
    for now in range(3):
        if now == turn:
            value, mistake = _outcome(work)
        for anyones in _from_all(mistake):
            _raise(anyones)
    return value


def _outcome(work: Callable[[], Any]) -> list[Any]:
    """What ``work`` returns, and the class and sentence of a mistake of the user's."""
    try:
        return [work(), None]
    except (UserError, OSError) as error:
        kind = type(error) if isinstance(error, UserError) else UserError
        return [None, [kind.__name__, sentence_of(error)]]


def _raise(mistake: list[str] | None) -> None:
    if mistake is not None:
        name, sentence = mistake
        kinds = {kind.__name__: kind for kind in UserError.__subclasses__()}
        raise kinds.get(name, UserError)(sentence)


def _from_all(value: Any) -> list[Any]:
    """Every process's value, in the order of their numbers."""
    return [message.broadcast(value, source) for source in range(_this.size)]


def require_equal(values: Mapping[str, Any]) -> None:
    """Make sure that all processes train the same model on the same data.

    Raises:
        UserError: a value differs from the main process's, in every process.
    """
    if _this.size == 1:
        return
    first, *others = _from_all(dict(values))
    for rank, other in enumerate(others, start=1):
        for key in sorted(set(first) | set(other)):
            if first.get(key) != other.get(key):
                raise UserError(
                    f"Process {rank} has {key} = {shown(other.get(key))}, but process 0 has "
                    f"{shown(first.get(key))}; start the run on all machines with the same data, "
                    "config files and arguments (all except group_offset)."
                )


def differing(values: Mapping[str, Any]) -> list[str]:
    """The keys whose values are not the same in all processes, in order."""
    if _this.size == 1:
        return []
    first, *others = _from_all(dict(values))
    keys = {key for each in (first, *others) for key in each}
    return sorted(key for key in keys if any(o.get(key) != first.get(key) for o in others))


def summed(numbers: np.ndarray) -> np.ndarray:
    """The sum of all processes' arrays of one shape, by element; exact for whole numbers."""
    if _this.size == 1:
        return numbers
    total = torch.tensor(numbers)
    dist.all_reduce(total)
    return total.numpy()
