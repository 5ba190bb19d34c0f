"""The state of an optimizer in a checkpoint."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ksr_recbole.errors import UnusableCheckpointError
from ksr_recbole.trainer.weights import difference

_PROBE = (2, 3)
"""A shape that no number for a whole parameter has, such as the number of steps."""

_NEVER_NEGATIVE = frozenset({"step", "exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum"})
"""Entries that count or add up squares; their roots are taken."""


def optimizer_state(
    path: str | os.PathLike[str],
    optimizer: torch.optim.Optimizer,
    kept: Mapping[str, Mapping[str, Tensor | None]],
) -> dict[int, dict[str, Any]]:
    """What ``load_state_dict`` of an optimizer takes as ``state``.

    Args:
        path: the checkpoint's file, for the sentence.
        optimizer: the run's own.
        kept: what the checkpoint has of it, by the parameter's number.

    Raises:
        UnusableCheckpointError: it is not the state of such an optimizer for such parameters.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    trained = {
        str(n): parameter for n, parameter in enumerate(parameters) if parameter.requires_grad
    }
    known, stepped = _entries(optimizer, steps=0), _entries(optimizer, steps=1)
    problem = None
    for number, parameter in trained.items():
        if problem is None and (number in kept or known):
            of_tensors = {k: v for k, v in kept.get(number, {}).items() if v is not None}
            wanted = {name: _like(tensor, parameter) for name, tensor in stepped.items()}
            problem = difference(of_tensors, wanted) or _problem_in_numbers(of_tensors)
    if extra := kept.keys() - trained.keys():
        problem = f"there is no trained parameter {ascii(min(extra))[:40]}"
    if problem:
        raise UnusableCheckpointError(
            f"Checkpoint {path} does not hold the state of {type(optimizer).__name__} for this "
            f"model ({problem}); train again, or give another."
        )
    return {int(number): dict(entries) for number, entries in kept.items()}


def forget_frozen(optimizer: torch.optim.Optimizer) -> None:
    """Drop what an optimizer keeps of parameters that are not trained, as Adagrad does.

    They stay among its parameters, so that the others keep their numbers in checkpoints.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if not parameter.requires_grad:
                optimizer.state.pop(parameter, None)


def _problem_in_numbers(entries: Mapping[str, Tensor]) -> str | None:
    """Which entry would make the next step NaN, or ``None``."""
    for name, tensor in entries.items():
        if not tensor.isfinite().all() or (name in _NEVER_NEGATIVE and (tensor < 0).any()):
            return f"{name} has numbers that it cannot have"
    return None


def _entries(optimizer: torch.optim.Optimizer, steps: int) -> dict[str, Tensor]:
    """What an optimizer of this kind keeps of a parameter after some steps, by name."""
    probe = torch.nn.Parameter(torch.zeros(_PROBE))
    probe.grad = torch.zeros(_PROBE)
    accepted = inspect.signature(type(optimizer)).parameters.keys() & optimizer.defaults.keys()
    like = type(optimizer)([probe], **{key: optimizer.defaults[key] for key in accepted})
    for _ in range(steps):
        like.step()
    return {k: v for k, v in like.state[probe].items() if isinstance(v, Tensor)}


def _like(entry: Tensor, parameter: Tensor) -> Tensor:
    """A tensor of the type and shape that an entry has for a parameter, without memory."""
    of_parameter = entry.shape == _PROBE
    shape, dtype = (
        (parameter.shape, parameter.dtype) if of_parameter else (entry.shape, entry.dtype)
    )
    return torch.empty(shape, dtype=dtype, device="meta")
