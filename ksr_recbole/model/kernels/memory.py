"""The knowledge-enhanced key-value memory: write and read over whole sequences (Sec. 4.2.3).

The write (Eq. 7-9) depends on the KB embeddings alone: neither the GRU nor the attention enters
it.  While those embeddings are frozen the value matrices are therefore data, not a function of
any parameter, and no gradient flows through time; the read (Eq. 5) needs the gradient of the
attention weights only, at each step by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Literal, get_args

import torch
from torch import Tensor

from ksr_recbole.errors import UserError
from ksr_recbole.model.kernels.fused import compiles, fused

Backend = Literal["auto", "torch", "numba", "triton"]
BACKENDS: tuple[str, ...] = get_args(Backend)
"""Values of the config key ``memory_backend``."""


def kernels(backend: Backend, device: torch.device, trained: bool) -> ModuleType | None:
    """The fused kernels to run with, or ``None`` for plain PyTorch.

    Args:
        backend: ``"numba"`` (CPU), ``"triton"`` (CUDA), ``"torch"`` (plain), or ``"auto"``: the
            fused one for the device where it is installed, otherwise plain.
        device: where the value matrices are.
        trained: the KB embeddings or the projection need gradients; only plain PyTorch
            computes those.

    Raises:
        UserError: ``"numba"`` or ``"triton"`` where it is not installed or not for the device.
    """
    wanted = {"cpu": "numba", "cuda": "triton"}.get(device.type, "torch")
    if backend == "torch":
        return None
    if backend != "auto" and backend != wanted:
        raise UserError(
            f"Config key memory_backend is {backend}, but the model runs on {device.type}, for "
            f"which auto, torch{'' if wanted == 'torch' else f' and {wanted}'} are possible."
        )
    if trained and backend != "auto":
        raise UserError(
            f"Config key memory_backend is {backend}, which needs freeze_kg: True and "
            "project_entities: False; use auto or torch."
        )
    if trained or wanted == "torch":
        return None
    module = fused("memory", wanted)
    if wanted == "triton" and module is not None and not compiles():
        module = None
    if module is None and backend != "auto":
        raise UserError(
            f"Config key memory_backend is {backend}, but {backend} cannot be imported, or "
            "cannot compile here; install it, or use auto or torch."
        )
    return module


def attention_weights(query: Tensor, keys: Tensor, gamma: float) -> Tensor:
    """Weights of the attributes, Eq. 6.

    Args:
        query: transformed hidden states, ``[..., K]``.
        keys: key matrix, ``[A, K]``.
        gamma: scaling factor, 10 in the paper.

    Returns:
        ``[..., A]``, summing to one over the attributes.
    """
    return torch.softmax(gamma * (query @ keys.T), dim=-1)


@dataclass(frozen=True)
class Updates:
    """What the steps write into the memory, each different item once.

    Attributes:
        table: update vectors :math:`e_a^i` (Eq. 7) of ``m`` items, ``[m, A, E]``.
        index: row of ``table`` that each step writes, packed, ``int64 [P]``.
        gate_bias: added to the gates' argument (Eq. 8), 0 in the paper.
    """

    table: Tensor
    index: Tensor
    gate_bias: float = 0.0

    def of_steps(self, widths: Sequence[int]) -> Iterator[Tensor]:
        """Update vectors of each step's items, ``[B, A, E]``."""
        return (self.table[rows] for rows in self.index.split(widths))


def translations(entities: Tensor, relations: Tensor) -> Tensor:
    """Update vectors of items, Eq. 7.

    Args:
        entities: KB embeddings of the items, ``[m, E]``.
        relations: relation embeddings of the attributes, ``[A, E]``.

    Returns:
        ``[m, A, E]``.
    """
    return entities[:, None, :] + relations


def write(values: Tensor, updates: Tensor, gate_bias: float = 0.0) -> Tensor:
    """One write of an item into each user's value matrix, Eq. 8-9.

    Args:
        values: value matrices before, ``[B, A, E]``.
        updates: update vectors of the items, ``[B, A, E]``.
        gate_bias: see :class:`Updates`.

    Returns:
        Value matrices after, ``[B, A, E]``.
    """
    gates = torch.sigmoid((values * updates).sum(-1) + gate_bias)  # Eq. 8
    return torch.lerp(values, updates, gates[:, :, None])  # Eq. 9


def write_then_read(
    weights: Tensor,
    updates: Updates,
    values: Tensor,
    widths: Sequence[int],
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """Write the item of each step, then read with that step's weights.

    The read at step ``t`` sees the items up to and including ``t``, an order that the paper
    leaves open.  Rows are packed, see :mod:`ksr_recbole.model.kernels.packing`.

    Args:
        weights: attention weights, ``[P, A]``.
        updates: what each step writes.
        values: value matrices before the first step by lane, ``[B, A, E]``.
        widths: lanes still running at each step.
        backend: see :func:`kernels`.

    Returns:
        Attribute-based preference :math:`m_t`, ``[P, E]``, and the value matrices after each
        lane's last step, ``[B, A, E]``.

    Raises:
        UserError: a backend that cannot run here.
    """
    kernel = _kernels_for(values, updates, backend)
    if kernel is not None:
        return kernel.write_then_read(weights, updates, values, widths)
    reads = [values.new_zeros(0, values.shape[2])]  # no sequence may have a step
    steps = zip(weights.split(widths), updates.of_steps(widths), strict=True)
    for weight, update in steps:
        running = _write_step(values, update, updates.gate_bias)
        reads.append(torch.einsum("ba,bae->be", weight, running))  # Eq. 5
        values = replace_first(values, running)
    return torch.cat(reads), values


def write_all(
    updates: Updates, values: Tensor, widths: Sequence[int], backend: Backend = "auto"
) -> Tensor:
    """The value matrices after each lane's last step, as :func:`write_then_read`'s second."""
    kernel = _kernels_for(values, updates, backend)
    if kernel is not None:
        return kernel.write_all(updates, values, widths)
    for update in updates.of_steps(widths):
        values = replace_first(values, _write_step(values, update, updates.gate_bias))
    return values


def _kernels_for(values: Tensor, updates: Updates, backend: Backend) -> ModuleType | None:
    """As :func:`kernels`; ``None`` also for numbers that are no float32."""
    if values.dtype != torch.float32 or updates.table.dtype == torch.float64:
        return None
    return kernels(backend, values.device, _trained(updates.table, values))


def _write_step(values: Tensor, update: Tensor, gate_bias: float) -> Tensor:
    with torch.set_grad_enabled(_trained(values, update) and torch.is_grad_enabled()):
        return write(values[: len(update)], update, gate_bias)


def replace_first(values: Tensor, running: Tensor) -> Tensor:
    """``values`` with its first lanes replaced by those still running."""
    return running if len(running) == len(values) else torch.cat([running, values[len(running) :]])


def _trained(*tensors: Tensor) -> bool:
    return any(tensor.requires_grad for tensor in tensors)


@torch.no_grad()
def shared_values(updates: Updates) -> Tensor:
    """The one value matrix of all users (``value_matrix: shared``, Sec. 5.3 and Table 4).

    The paper only says that the matrix is shared.  Here it is the memory after one stream of
    writes, every training interaction of all users in the order of time; it is then read by
    everyone and no longer written.

    Args:
        updates: what the stream writes, step by step.

    Returns:
        ``[A, E]``.
    """
    values = updates.table.new_zeros(1, *updates.table.shape[1:])
    return write_all(updates, values, [1] * len(updates.index))[0]
