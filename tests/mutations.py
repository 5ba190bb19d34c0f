"""Damage of every sort, for files and for what is in them, and limits to suffer it within."""

from __future__ import annotations

import copy
import resource
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from hypothesis import strategies as st

# Bytes ----------------------------------------------------------------------------------------


def _flip(data: bytes, at: int, size: int, byte: int) -> bytes:
    return data[:at] + bytes([data[at] ^ (1 << byte % 8)]) + data[at + 1 :]


def _set(data: bytes, at: int, size: int, byte: int) -> bytes:
    return data[:at] + bytes([byte]) + data[at + 1 :]


def _cut(data: bytes, at: int, size: int, byte: int) -> bytes:
    return data[:at]


def _remove(data: bytes, at: int, size: int, byte: int) -> bytes:
    return data[:at] + data[at + size :]


def _insert(data: bytes, at: int, size: int, byte: int) -> bytes:
    return data[:at] + bytes([byte]) * size + data[at:]


def _fill(data: bytes, at: int, size: int, byte: int) -> bytes:
    return (data[:at] + bytes([byte]) * size)[: len(data)] + data[at + size :]


def _repeat(data: bytes, at: int, size: int, byte: int) -> bytes:
    return data[: at + size] + data[at:]


def _append(data: bytes, at: int, size: int, byte: int) -> bytes:
    return data + bytes([byte]) * size


BYTE_MUTATIONS: tuple[Callable[[bytes, int, int, int], bytes], ...] = (
    *(_flip, _set, _cut, _remove, _insert, _fill, _repeat, _append),
)


@st.composite
def damage(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """A change of some bytes of a file: flipped, set, cut off, removed, inserted or repeated.

    Half of them fall into the first 2,000 bytes, where headers are.
    """
    mutate = draw(st.sampled_from(BYTE_MUTATIONS))
    place = draw(st.floats(0, 1, exclude_max=True))
    early = draw(st.booleans())
    size, byte = draw(st.integers(1, 64)), draw(st.integers(0, 255))

    def apply(data: bytes) -> bytes:
        within = min(len(data), 2000) if early else len(data)
        return mutate(data, int(place * within), size, byte)

    return apply


# Values ---------------------------------------------------------------------------------------


def nested(depth: int) -> list[Any]:
    """A list in a list in a list ..."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


ODD_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1, 7, 10**9, 2**62, 2**70, -(2**63), 0.5, -0.5, 1e308),
    *(float("nan"), float("inf"), -float("inf"), "", "x", "0", "1e9", "../../evil", "\x1b[2J\n"),
    *("a" * 100_000, "__import__('os').system('touch PWNED')", [], [0], [[]], {}, {"x": 1}),
    *([None], ["a", 1], {"0": {}}, nested(50)),
)
"""What may stand where something else is expected; all of it can be written as JSON."""


def paths_in(value: Any, depth: int = 4) -> Iterator[tuple[Any, ...]]:
    """The place of every part of nested mappings and lists, outermost first."""
    if depth == 0 or not isinstance(value, Mapping | list):
        return
    keys = list(value) if isinstance(value, Mapping) else range(min(len(value), 3))
    for key in keys:
        yield (key,)
        yield from ((key, *rest) for rest in paths_in(value[key], depth - 1))


def _copied(content: Any, path: tuple[Any, ...]) -> tuple[Any, Any]:
    """A copy, and what holds the part at ``path`` in it; parts off the path are shared."""
    changed = holder = copy.copy(content)
    for key in path[:-1]:
        holder[key] = copy.copy(holder[key])
        holder = holder[key]
    return changed, holder


def without(content: Any, path: tuple[Any, ...]) -> Any:
    """A copy that lacks the part at ``path``."""
    changed, holder = _copied(content, path)
    del holder[path[-1]]
    return changed


def with_other(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value at ``path``."""
    changed, holder = _copied(content, path)
    holder[path[-1]] = value
    return changed


def odd_tensors(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Tensors that cannot stand in a tensor's place: of other types, shapes and values."""
    wide = tensor.float() if not tensor.is_floating_point() else tensor.long()
    odd = [wide, tensor[None], tensor.reshape(-1), torch.zeros(0), tensor.new_zeros(3, 5, 7)]
    odd += [tensor.double() if tensor.is_floating_point() else tensor.to(torch.int8)]
    if tensor.ndim:
        odd += [tensor[:0], tensor[:-1], torch.cat([tensor, tensor])]
    if tensor.is_floating_point():
        odd += [torch.full_like(tensor, value) for value in (float("nan"), float("inf"))]
    elif tensor.dtype != torch.bool:
        odd += [torch.full_like(tensor, value) for value in (-1, torch.iinfo(tensor.dtype).max)]
    return [t for t in odd if t.dtype != tensor.dtype or not torch.equal(t, tensor)]


# Limits ---------------------------------------------------------------------------------------


class TooSlowError(BaseException):
    """What is under test does not come to an end; no ``except Exception`` holds it back."""


@contextmanager
def bounded(seconds: int = 120, gib: float = 2.0) -> Iterator[None]:
    """Inside the block, computing and additional memory are limited; a test fails that needs more.

    What is counted is the time of the processors, which does not grow on a busy machine.

    Args:
        seconds: the most that this process's threads may compute, all together.
        gib: how much the process's address space may grow.
    """

    def too_slow(*_: Any) -> None:
        raise TooSlowError(f"not done after {seconds} s of computing")

    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGPROF, too_slow)
    resource.setrlimit(resource.RLIMIT_AS, (used + int(gib * 2**30), limits[1]))
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
        resource.setrlimit(resource.RLIMIT_AS, limits)
