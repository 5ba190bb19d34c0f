"""The bytes of a checkpoint: a safetensors file whose header holds everything that is no tensor.

Nothing in it can run code when it is read.  One digest over all its bytes is checked before
anything else, and the shape of the whole content before anything of it is used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import psutil
import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from torch import Tensor

from ksr_recbole import digests
from ksr_recbole.errors import DamagedFileError
from ksr_recbole.files import read_regular
from ksr_recbole.records import Each, Either, Number, Whole, check_shape, parse_object
from ksr_recbole.trainer.weights import not_finite

KIND = "ksr_recbole checkpoint"
FORMAT = 2

_TENSOR = "tensor of name"
"""The only key of what stands in the header where a tensor is."""

_SHAPE = {
    "model": str,
    "dataset": str,
    "data": str,
    "settings": dict,
    "given": dict,
    "epoch": Whole(-1),
    "best_epoch": Whole(-1),
    "cur_step": Whole(),
    "best_valid_score": Number(finite=False),
    "best_valid_result": Either(Each(Number(finite=False))),
    "finished": bool,
    "state_dict": Each(Tensor),
    "last": {
        "state_dict": Each(Tensor),
        "average": Each(Tensor),
        "optimizer": Each(Each(Either(Tensor))),
        "rng": Tensor,
        "numpy_rng": list,
        "cuda_rng": Each(Tensor, list),
    },
}
"""Everything that a checkpoint holds, and nothing else."""

_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What safetensors calls the types of tensors."""

_WITH_TENSORS = frozenset({"state_dict", "last"})
_DEPTH = 5
"""Mappings and lists around a tensor: ``last``, ``optimizer``, a parameter, a moment."""


# Writing --------------------------------------------------------------------------------------


def kind_not_held(value: object) -> str | None:
    """What a value is, in a word, where a checkpoint cannot hold it as a tensor; else ``None``."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    if value.layout != torch.strided:
        return "sparse"
    return None if value.dtype in _TYPES else str(value.dtype).removeprefix("torch.")


def to_bytes(content: Mapping[str, Any]) -> list[bytes | memoryview]:
    """A checkpoint's file, in pieces to be written one after the other.

    The library that reads it would copy every tensor three times to write it.
    """
    tensors: dict[str, Tensor] = {}
    plain = json.dumps(_without_tensors(content, "", tensors, {}))
    about = {"kind": KIND, "format": str(FORMAT), "content": plain, digests.OWN: digests.BLANK}
    header: dict[str, Any] = {"__metadata__": about}
    data: list[memoryview] = []
    offset = 0
    # The widest numbers first, so that every tensor begins at a multiple of its numbers' size.
    for name, tensor in sorted(tensors.items(), key=lambda pair: -pair[1].element_size()):
        data.append(tensor.reshape(-1).view(torch.uint8).numpy().data)
        end = offset + data[-1].nbytes
        entry = {"dtype": _TYPES[tensor.dtype], "shape": list(tensor.shape)}
        header[name] = {**entry, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    return digests.with_own(head, data)


def _without_tensors(
    value: Any, name: str, tensors: dict[str, Tensor], known: dict[tuple[Any, ...], str]
) -> Any:
    """``value`` as JSON holds it; what it has of tensors goes to ``tensors``, each once."""
    if isinstance(value, Tensor):
        value = value.detach()
        same = (value.device, value.data_ptr(), value.dtype, value.shape, value.stride())
        if same not in known or value.numel() == 0:
            tensors[name] = value.cpu().contiguous()
            known[same] = name
            return {_TENSOR: name}
        return {_TENSOR: known[same]}
    if isinstance(value, Mapping):
        parts = {str(key): inner for key, inner in value.items()}
        return {k: _without_tensors(v, f"{name}/{k}", tensors, known) for k, v in parts.items()}
    if isinstance(value, list | tuple):
        return [_without_tensors(v, f"{name}/{k}", tensors, known) for k, v in enumerate(value)]
    return value


# Reading --------------------------------------------------------------------------------------


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a checkpoint, its tensors on the CPU.

    Raises:
        DamagedFileError: it is none, or not as it was written.
        OSError: it cannot be read.
    """
    data = read_regular(path, psutil.virtual_memory().total // 2)
    # A length comes first, which can look like the others' first bytes; then our header opens.
    if data[8:9] != b"{" and data.startswith((b"PK", b"\x80")):
        raise DamagedFileError(
            "it is a file of PyTorch, as RecBole and earlier versions of this project write them"
        )
    digests.check_own(data)
    return _checked(_content_of(data))


def _content_of(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    try:
        tensors = from_safetensors(data)
        header = parse_object(data[8 : 8 + length].decode())["__metadata__"]
        kind, version, text = (header[key] for key in ("kind", "format", "content"))
    except DamagedFileError:
        raise
    except (SafetensorError, RuntimeError, ArithmeticError, LookupError, ValueError) as error:
        raise DamagedFileError(f"it cannot be read ({str(error)[:200]!a})") from error
    except (TypeError, MemoryError) as error:
        raise DamagedFileError("it cannot be read") from error
    if kind != KIND or version != str(FORMAT):
        raise DamagedFileError(f"it is not of format {FORMAT}, the one this version writes")
    content, used = parse_object(text), set[str]()
    for part in _WITH_TENSORS & content.keys():
        content[part] = _with_tensors(content[part], tensors, used)
    if unused := tensors.keys() - used:
        raise DamagedFileError(f"it has extra tensors, such as {ascii(min(unused))[:80]}")
    return content


def _with_tensors(value: Any, tensors: Mapping[str, Tensor], used: set[str], depth: int = 0) -> Any:
    """A part of the content with its tensors where they were."""
    if depth > _DEPTH:
        raise DamagedFileError("it is nested too deep")
    if isinstance(value, list):
        return [_with_tensors(inner, tensors, used, depth + 1) for inner in value]
    if not isinstance(value, dict):
        return value
    if value.keys() != {_TENSOR}:
        return {k: _with_tensors(v, tensors, used, depth + 1) for k, v in value.items()}
    name = value[_TENSOR]
    if not isinstance(name, str) or name not in tensors:
        raise DamagedFileError("it names a tensor that is missing")
    used.add(name)
    return tensors[name]


def _checked(content: dict[str, Any]) -> dict[str, Any]:
    """The content, once all of it is as it must be for any model.

    Raises:
        DamagedFileError: naming the part at fault.
    """
    check_shape(content, _SHAPE)
    for found, wanted in ((content, _SHAPE), (content["last"], _SHAPE["last"])):
        if extra := found.keys() - wanted.keys():  # type: ignore[attr-defined]
            raise DamagedFileError(f"it has an extra part, {ascii(min(extra))[:80]}")
    if not content["state_dict"]:
        raise DamagedFileError("its state_dict is empty")
    if content["best_epoch"] > content["epoch"]:
        raise DamagedFileError("its best_epoch is greater than its epoch")
    if content["best_valid_score"] != content["best_valid_score"]:
        raise DamagedFileError("its best_valid_score is not a number")
    last = content["last"]
    for name, weights in (
        ("state_dict", content["state_dict"]),
        ("last.state_dict", last["state_dict"]),
        ("last.average", last["average"]),
    ):
        if part := not_finite(weights):
            raise DamagedFileError(f"{name}.{part} is not finite")
    _check_generators(last)
    return content


def _check_generators(last: Mapping[str, Any]) -> None:
    """Try the states of random number generators on generators of our own."""
    try:
        torch.Generator().set_state(last["rng"])
        numpy_state(last["numpy_rng"])
    except (RuntimeError, TypeError, ValueError, LookupError, OverflowError) as error:
        raise DamagedFileError("its state of random numbers is not valid") from error
    states = [last["rng"], *last["cuda_rng"]]
    if any(state.dtype != torch.uint8 or state.ndim != 1 for state in states):
        raise DamagedFileError("its state of random numbers is not valid")


def kept_numpy_state() -> list[Any]:
    """What a checkpoint keeps of NumPy's global generator.

    RecBole draws negative triples from it.  Kept are its words, ``int64 [624]``, its position in
    them, whether it has a Gaussian number in store, and that number.
    """
    _, words, position, has_gauss, gauss = np.random.get_state()
    return [torch.from_numpy(np.asarray(words, np.int64)), position, has_gauss, gauss]


def numpy_state(kept: list[Any]) -> tuple[Any, ...]:
    """What ``numpy.random.set_state`` takes.

    Args:
        kept: what a checkpoint holds in the place of :func:`kept_numpy_state`.

    Raises:
        ValueError: it is no state of the generator.
    """
    words, position, has_gauss, gauss = kept
    if not isinstance(words, Tensor) or words.dtype != torch.int64 or words.shape != (624,):
        raise ValueError
    check = {"position": Whole(), "has_gauss": Whole(), "gauss": Number()}
    try:
        values = {"position": position, "has_gauss": has_gauss, "gauss": gauss}
        check_shape(values, check)
    except DamagedFileError as error:
        raise ValueError from error
    if position > 624 or has_gauss > 1 or not (words.min() >= 0 and words.max() < 2**32):
        raise ValueError
    return ("MT19937", words.numpy().astype(np.uint32), position, has_gauss, gauss)
