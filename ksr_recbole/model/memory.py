"""The knowledge-enhanced key-value memory: write and read over whole sequences (Sec. 4.2.3).

The write (Eq. 7-9) depends on the KB embeddings alone: neither the GRU nor the attention enters
it.  While those embeddings are frozen the value matrices are therefore data, not a function of
any parameter, and no gradient flows through time; the read (Eq. 5) needs the gradient of the
attention weights only, at each step by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Literal, get_args

import torch
from torch import Tensor

from ksr_recbole.errors import UserError
from ksr_recbole.model.fused import fused

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
    if module is None and backend != "auto":
        raise UserError(
            f"Config key memory_backend is {backend}, but {backend} cannot be imported; install "
            "it or use auto or torch."
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


def write(values: Tensor, entities: Tensor, relations: Tensor) -> Tensor:
    """One write of an item into each user's value matrix, Eq. 7-9.

    Args:
        values: value matrices before, ``[B, A, E]``.
        entities: KB embeddings of the items, ``[B, E]``.
        relations: relation embeddings of the attributes, ``[A, E]``.

    Returns:
        Value matrices after, ``[B, A, E]``.
    """
    updates = entities[:, None, :] + relations  # Eq. 7
    gates = torch.sigmoid((values * updates).sum(-1, keepdim=True))  # Eq. 8
    return (1 - gates) * values + gates * updates  # Eq. 9


def write_then_read(
    weights: Tensor,
    entities: Tensor,
    relations: Tensor,
    values: Tensor,
    widths: Sequence[int],
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """Write the item of each step, then read with that step's weights.

    The read at step ``t`` sees the items up to and including ``t``, as in Sec. 4.3.  Rows are
    packed, see :mod:`ksr_recbole.model.packing`.

    Args:
        weights: attention weights, ``[P, A]``.
        entities: KB embeddings of the items, ``[P, E]``.
        relations: relation embeddings of the attributes, ``[A, E]``.
        values: value matrices before the first step by lane, ``[B, A, E]``.
        widths: lanes still running at each step.
        backend: see :func:`kernels`.

    Returns:
        Attribute-based preference :math:`m_t`, ``[P, E]``, and the value matrices after each
        lane's last step, ``[B, A, E]``.

    Raises:
        UserError: a backend that cannot run here.
    """
    kernel = kernels(backend, values.device, _trained(entities, relations, values))
    if kernel is not None:
        return kernel.write_then_read(weights, entities, relations, values, widths)
    reads = []
    for weight, entity in zip(weights.split(widths), entities.split(widths), strict=True):
        running = _write_step(values, entity, relations)
        reads.append(torch.einsum("ba,bae->be", weight, running))  # Eq. 5
        values = replace_first(values, running)
    return torch.cat(reads), values


def write_all(
    entities: Tensor,
    relations: Tensor,
    values: Tensor,
    widths: Sequence[int],
    backend: Backend = "auto",
) -> Tensor:
    """The value matrices after each lane's last step, as :func:`write_then_read`'s second."""
    kernel = kernels(backend, values.device, _trained(entities, relations, values))
    if kernel is not None:
        return kernel.write_all(entities, relations, values, widths)
    for entity in entities.split(widths):
        values = replace_first(values, _write_step(values, entity, relations))
    return values


def _write_step(values: Tensor, entity: Tensor, relations: Tensor) -> Tensor:
    with torch.set_grad_enabled(_trained(values, entity, relations) and torch.is_grad_enabled()):
        return write(values[: len(entity)], entity, relations)


def replace_first(values: Tensor, running: Tensor) -> Tensor:
    """``values`` with its first lanes replaced by those still running."""
    return running if len(running) == len(values) else torch.cat([running, values[len(running) :]])


def _trained(*tensors: Tensor) -> bool:
    return any(tensor.requires_grad for tensor in tensors)


@torch.no_grad()
def shared_values(entities: Tensor, relations: Tensor, backend: Backend = "auto") -> Tensor:
    """The one value matrix of all users (``value_matrix: shared``, Sec. 5.3 and Table 4).

    The paper only says that the matrix is shared.  Here it is the memory after one stream of
    writes, every training interaction of all users in the order of time; it is then read by
    everyone and no longer written.

    Args:
        entities: KB embeddings of the items in stream order, ``[N, E]``.
        relations: relation embeddings of the attributes, ``[A, E]``.
        backend: as in :func:`write_then_read`.

    Returns:
        ``[A, E]``.
    """
    values = entities.new_zeros(1, *relations.shape)
    return write_all(entities, relations, values, [1] * len(entities), backend)[0]
