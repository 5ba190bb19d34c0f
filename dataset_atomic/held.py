"""Keeps what was read from a file, so that the next reader need not read it again."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from ksr_recbole.one_step import identity

T = TypeVar("T")

_held: ContextVar[dict[Hashable, Any] | None] = ContextVar("held", default=None)


@contextmanager
def holding() -> Iterator[None]:
    """Inside the block, what was read from a file is kept for the next reader.

    A dataset is described before it is loaded, from the same columns.
    """
    token = _held.set({})
    try:
        yield
    finally:
        _held.reset(token)


def held_or(path: str | os.PathLike[str], what: Hashable, read: Callable[[], T]) -> T:
    """What ``read`` gives, or gave the reader before for the same file.

    It is kept for one more reader only, so that memory is free as soon as it can be.

    Args:
        path: the file; if it was replaced or written to meanwhile, it is read again.
        what: what is read of it, and how.
        read: reads it.
    """
    held = _held.get()
    if held is None:
        return read()
    key = (os.fspath(path), identity(path), what)
    if key in held:
        return held.pop(key)
    held[key] = read()
    return held[key]
