"""Item and user vectors in one file, for a nearest-neighbour index elsewhere."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save as to_safetensors

from ksr_recbole.errors import UserError
from ksr_recbole.files import replacing

SUFFIXES = (".npz", ".safetensors")


def write_item_and_user_vectors(
    path: str | os.PathLike[str],
    items: Sequence[str],
    item_vectors: np.ndarray,
    users: Sequence[str],
    user_vectors_of: Callable[[Sequence[str]], np.ndarray],
) -> None:
    """Write vectors and their tokens in one step.

    Args:
        path: the file; its ending tells the format, one of :data:`SUFFIXES`.
        items: a token for each row of ``item_vectors``.
        item_vectors: ``float32 [n, d]``.
        users: user tokens.
        user_vectors_of: gives their vectors, ``float32 [len(users), d]``.

    Raises:
        UserError: another ending, or the file cannot be written.
    """
    suffix = Path(path).suffix
    if suffix not in SUFFIXES:
        raise UserError(f"Vectors are written as {' or '.join(SUFFIXES)}; {path} ends in neither.")
    arrays = {"item_vectors": item_vectors, "user_vectors": user_vectors_of(users)}
    with replacing(path) as (temporary,):
        if suffix == ".npz":
            with open(temporary, "wb") as file:  # numpy would add .npz to a name
                named = {"items": np.array(items), "users": np.array(users), **arrays}
                np.savez(file, **named)  # type: ignore[arg-type]  # a flag of NumPy 2
        else:
            tokens = {"items": json.dumps(list(items)), "users": json.dumps(list(users))}
            temporary.write_bytes(to_safetensors(arrays, tokens))
