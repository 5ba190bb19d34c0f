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
    """
    tensors: list[Tensor] = []
    if dist.get_rank() == source:
        text = json.dumps(_to_json(value, tensors)).encode()
        dist.broadcast(torch.tensor(len(text)), source)
        dist.broadcast(torch.tensor(np.frombuffer(text, np.uint8)), source)
    else:
        length = torch.tensor(0)
        dist.broadcast(length, source)
        received = torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(received, source)
        value = _from_json(json.loads(received.numpy().tobytes()), tensors)
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


def _from_json(json_value: Any, tensors: list[Tensor]) -> Any:
    """The value that :func:`_to_json` described; its tensors are collected, still to be filled."""
    if not isinstance(json_value, dict):
        return json_value
    ((kind, content),) = json_value.items()
    if kind in ("tensor", "array"):
        dtype, *shape = content
        tensors.append(torch.empty(shape, dtype=getattr(torch, dtype)))
        return tensors[-1] if kind == "tensor" else tensors[-1].numpy()
    if kind == "dict":
        return {_from_json(k, tensors): _from_json(v, tensors) for k, v in content}
    parts = [_from_json(part, tensors) for part in content]
    return tuple(parts) if kind == "tuple" else parts
