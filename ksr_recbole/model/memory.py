"""The knowledge-enhanced key-value memory: write and read over whole sequences (Sec. 4.2.3).

The write (Eq. 7-9) depends on the KB embeddings alone: neither the GRU nor the attention enters
it.  While those embeddings are frozen the value matrices are therefore data, not a function of
any parameter, and no gradient flows through time; the read (Eq. 5) needs the gradient of the
attention weights only, at each step by itself.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ksr_recbole.errors import UserError

try:
    from ksr_recbole.model import memory_numba
except ImportError:  # numba is optional; the plain PyTorch version computes the same
    memory_numba = None

Backend = Literal["auto", "torch", "numba"]


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
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """Write the item of each step, then read with that step's weights, for ``T`` steps.

    The read at step ``t`` sees the items up to and including ``t``, as in Sec. 4.3.

    Args:
        weights: attention weights, ``[B, T, A]``.
        entities: KB embeddings of the items, ``[B, T, E]``.
        relations: relation embeddings of the attributes, ``[A, E]``.
        values: value matrices before the first step, ``[B, A, E]``.
        backend: ``"numba"`` (CPU, frozen KB embeddings), ``"torch"`` (anything), or
            ``"auto"``: numba where it applies and is installed, otherwise torch.

    Returns:
        Attribute-based preference :math:`m_t`, ``[B, T, E]``, and the value matrices after the
        last step, ``[B, A, E]``.

    Raises:
        UserError: ``backend="numba"`` where it does not apply or is not installed.
    """
    trained = entities.requires_grad or relations.requires_grad or values.requires_grad
    applies = memory_numba is not None and not trained and weights.device.type == "cpu"
    if backend == "numba" and not applies:
        raise UserError(
            "Config key memory_backend is numba, which needs the numba package, the CPU and "
            "frozen KB embeddings; use auto or torch."
        )
    if applies and backend != "torch":
        return memory_numba.write_then_read(weights, entities, relations, values)
    states = []
    with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
        for entity in entities.unbind(1):
            values = write(values, entity, relations)
            states.append(values)
    history = torch.stack(states, dim=1)  # [B, T, A, E]
    return torch.einsum("bta,btae->bte", weights, history), values  # Eq. 5


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
    weights = entities.new_zeros(1, len(entities), len(relations))
    return write_then_read(weights, entities[None], relations, values, backend)[1][0]
