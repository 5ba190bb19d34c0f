"""Which GPUs a process sees: the environment's, unless ``gpu_id`` says others."""

from __future__ import annotations

import os

from ksr_recbole.config_types import Configuration
from ksr_recbole.errors import UserError, shown

_VARIABLE = "CUDA_VISIBLE_DEVICES"
_visible: str | None = os.environ.get(_VARIABLE)
"""The variable as this process found it; RecBole's configuration writes it."""
_first: str | None = None
"""The GPU that this process computes on, once it does."""


def of_the_user() -> str | None:
    """``CUDA_VISIBLE_DEVICES`` as this process found it; ``None`` if it was not set."""
    return _visible


def begin_with(visible: str | None) -> None:
    """Make this process one that found ``visible``, such as what :func:`of_the_user` is where it
    was started."""
    global _visible
    _visible = visible
    if visible is None:
        os.environ.pop(_VARIABLE, None)
    else:
        os.environ[_VARIABLE] = visible


def ids_in(gpu_id: str) -> tuple[str, ...]:
    """The GPUs that ``gpu_id`` names, such as ``0,1``; none if it is empty or -1."""
    found = tuple(filter(None, map(str.strip, gpu_id.split(","))))
    # CUDA ends the list at a negative number.
    return found[: next((i for i, each in enumerate(found) if each.startswith("-")), None)]


def check_first(gpu_id: str) -> None:
    """Note the GPU that this process computes on; CUDA looks only once which there are.

    Raises:
        UserError: it is another one than before.
    """
    global _first
    first = ids_in(gpu_id)[0]
    if _first is None:
        _first = first
    if first != _first:
        raise UserError(
            f"Config key gpu_id is {shown(gpu_id)}, but this process computes on GPU "
            f"{shown(_first)} since its first run; start another process for other GPUs."
        )


def taken_in_turn(config: Configuration) -> tuple[str, ...]:
    """The GPUs on which worker processes take turns; none if there is no choice."""
    if config["device"].type != "cuda" or (config["nproc"] or 1) > 1:
        return ()
    given = ids_in(config["gpu_id"])
    return given if len(given) > 1 else ()
