"""What processes send each other: plain values as JSON, tensors and arrays as their bytes.

``torch.distributed`` sends objects as pickles, and reading a pickle can run code.  So nothing
that comes over the network is unpickled here.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ksr_recbole.errors import UserError, shown

LONGEST = 1 << 30
"""Bytes of the longest description of a value; tensors come after it."""

_DTYPES = {name: kind for name, kind in vars(torch).items() if isinstance(kind, torch.dtype)}


def broadcast(value: Any, source: int) -> Any:
    """Send a value from one process to all; every process must call this.

    Args:
        value: ``None``, numbers, strings, tensors, NumPy arrays, and lists, tuples and dicts of
            these.  Only the source's is sent.
        source: number of the process that sends.

    Returns:
        The source's value; in other processes its tensors are on the CPU.

    Raises:
        TypeError: in the source, for a value of another type.
        UserError: elsewhere, if no message came.
    """
    tensors: list[Tensor] = []
    if dist.get_rank() == source:
        text = json.dumps(_to_json(value, tensors)).encode()
        dist.broadcast(torch.tensor(len(text)), source)
        dist.broadcast(torch.tensor(np.frombuffer(text, np.uint8)), source)
    else:
        length = torch.tensor(0)
        dist.broadcast(length, source)
        if not 0 < int(length) <= LONGEST:
            raise _no_message(f"{int(length)} bytes long")
        received = torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(received, source)
        value, tensors = read_message(received.numpy().tobytes())
    for tensor in tensors:
        if tensor.numel():
            dist.broadcast(tensor.view(-1).view(torch.uint8), source)
    return value


def _to_json(value: Any, tensors: list[Tensor]) -> Any:
    """``value`` as JSON can hold it; its tensors, for which their shapes stand, are collected."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray):
        (described,) = _to_json(torch.tensor(value), tensors).values()
        return {"array": described}
    if isinstance(value, Tensor):
        tensors.append(value.detach().cpu().contiguous())
        return {"tensor": [str(value.dtype).removeprefix("torch."), *value.shape]}
    if isinstance(value, dict):  # as pairs, since a key of JSON is always a string
        return {"dict": [[_to_json(part, tensors) for part in pair] for pair in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_to_json(part, tensors) for part in value]}
    raise TypeError(f"{type(value).__name__} cannot be sent to other processes")


def read_message(content: bytes) -> tuple[Any, list[Tensor]]:
    """The value that a message describes, and its tensors, whose content comes after it.

    Raises:
        UserError: the message is none that :func:`broadcast` writes.
    """
    tensors: list[Tensor] = []
    try:
        return _from_json(json.loads(content), tensors), tensors
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        raise _no_message(str(error)) from error


def _no_message(problem: str) -> UserError:
    return UserError(
        f"Another process of this run sent something that cannot be read ({shown(problem, 80)}); "
        "start all processes again with the same version, on a private network."
    )


def _from_json(json_value: Any, tensors: list[Tensor]) -> Any:
    """The value that :func:`_to_json` described; its tensors are collected, still to be filled."""
    if not isinstance(json_value, dict):
        return json_value
    ((kind, content),) = json_value.items()
    if kind in ("tensor", "array"):
        dtype, *shape = content
        tensors.append(torch.empty(shape, dtype=_DTYPES[dtype]))
        return tensors[-1] if kind == "tensor" else tensors[-1].numpy()
    if kind == "dict":
        return {_from_json(k, tensors): _from_json(v, tensors) for k, v in content}
    parts = [_from_json(part, tensors) for part in content]
    return {"tuple": tuple, "list": list}[kind](parts)
