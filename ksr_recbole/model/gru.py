"""The GRU of Eq. 1 over packed sequences.

``nn.GRU`` holds the parameters and runs on the GPU (cuDNN, which knows this layout).  On the
CPU its backward pass is built from small operations recorded step by step.  Here a step is one
matrix product and one fused kernel in each direction, and the weights' gradients are one
product at the end.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from ksr_recbole.model.packing import Packing

try:
    from ksr_recbole.model import gru_numba
except ImportError:  # numba is optional; the plain PyTorch version computes the same
    gru_numba = None

def run_gru(gru: nn.GRU, inputs: Tensor, hidden: Tensor, packing: Packing) -> tuple[Tensor, Tensor]:
    """Run a GRU over packed sequences.

    Args:
        gru: the layers.
        inputs: ``[P, D]``, packed.
        hidden: states before the first step by lane, ``[num_layers, B, H]``.
        packing: the layout of ``inputs``.

    Returns:
        States of the last layer after each step, ``[P, H]``, packed, and of all layers after
        each lane's last step, ``[num_layers, B, H]``.
    """
    running = packing.widths[0]
    before, idle = hidden[:, :running].contiguous(), hidden[:, running:]
    if inputs.device.type == "cpu":
        outputs, after = _run_on_cpu(gru, inputs, before, packing)
    else:
        sequence = PackedSequence(inputs, torch.tensor(packing.widths))
        (outputs, *_), after = gru(sequence, before)
    return outputs, after if idle.shape[1] == 0 else torch.cat([after, idle], dim=1)


def _run_on_cpu(
    gru: nn.GRU, packed: Tensor, hidden: Tensor, packing: Packing
) -> tuple[Tensor, Tensor]:
    finals = []
    for layer in range(gru.num_layers):
        w_input, w_state, b_input, b_state = (
            getattr(gru, f"{name}_l{layer}")
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        # Only in the new state's gate does the reset gate come between the two biases.
        inner = 2 * gru.hidden_size
        bias = b_input + F.pad(b_state[:inner], (0, gru.hidden_size))
        gates = F.linear(packed, w_input, bias)
        keep = torch.is_grad_enabled()
        packed = _Steps.apply(gates, hidden[layer], w_state, b_state[inner:], packing.widths, keep)
        finals.append(packed[packing.last])
    return packed, torch.stack(finals)


class _Steps(torch.autograd.Function):
    """The recurrence of one layer over packed rows, in PyTorch's gate order: r, z, n."""

    @staticmethod
    def forward(
        ctx, gates: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, widths: list, keep: bool
    ):
        size = hidden.shape[1]
        outputs = gates.new_empty(len(gates), size)
        saved = gates.new_empty(len(gates) if keep else 0, 4 * size)
        product = gates.new_empty(len(hidden), 3 * size)
        transposed = weight.t().contiguous()
        cell = _cell(gates)
        gate, b, output, save, products = map(cell.view, (gates, bias, outputs, saved, product))
        previous, before, begin = hidden, cell.view(hidden), 0
        for width in widths:
            rows = slice(begin, begin + width)
            torch.mm(previous[:width], transposed, out=product[:width])
            kept = save[rows] if keep else save
            cell.forward_step(gate[rows], products, b, before, output[rows], kept)
            previous, before = outputs[rows], output[rows]
            begin += width
        ctx.save_for_backward(hidden, weight, outputs)
        ctx.widths, ctx.saved = widths, saved
        return outputs

    @staticmethod
    def backward(ctx, gradient: Tensor):
        if ctx.saved is None:
            raise RuntimeError("The gradients have replaced what the GRU saved; run it again.")
        (hidden, weight, outputs), widths = ctx.saved_tensors, ctx.widths
        saved, ctx.saved = ctx.saved, None
        size = hidden.shape[1]
        running = torch.zeros_like(hidden)
        # The order in which the backward step leaves the gradients: n, r, z.
        reordered = weight.roll(size, 0)
        cell = _cell(outputs)
        tensors = (gradient.contiguous(), running, hidden, outputs, saved)
        grad, run_grad, first, output, save = map(cell.view, tensors)
        begin = len(outputs)
        for t in range(len(widths) - 1, -1, -1):
            width = widths[t]
            begin -= width
            rows = slice(begin, begin + width)
            before = output[begin - widths[t - 1] :][:width] if t else first
            cell.backward_step(grad[rows], run_grad, before, save[rows])
            running[:width].addmm_(saved[rows, : 3 * size], reordered)
        before = torch.cat([hidden, outputs[_previous_rows(widths)]])
        weight_gradient = (saved[:, : 3 * size].t() @ before).roll(-size, 0)
        return saved[:, size:], running, weight_gradient, saved[:, :size].sum(0), None, None


def _previous_rows(widths: list[int]) -> Tensor:
    """Packed row of the same lane one step earlier, for every row after the first step."""
    if len(widths) < 2:
        return torch.zeros(0, dtype=torch.int64)
    rows = torch.arange(sum(widths[1:])) + widths[0]
    return rows - torch.repeat_interleave(torch.tensor(widths[:-1]), torch.tensor(widths[1:]))


# One step -------------------------------------------------------------------------------------


def _cell(tensor: Tensor) -> Any:
    """The kernels for a tensor's type: ``view``, ``forward_step``, ``backward_step``."""
    if gru_numba is None or tensor.dtype != torch.float32:
        return _TORCH
    return SimpleNamespace(
        view=lambda t: t.detach().numpy(),
        forward_step=gru_numba.forward_step,
        backward_step=gru_numba.backward_step,
    )


def _forward_step(
    gates: Tensor, product: Tensor, bias: Tensor, before: Tensor, after: Tensor, saved: Tensor
) -> None:
    """As :func:`ksr_recbole.model.gru_numba.forward_step`."""
    n, size = after.shape
    product, before = product[:n], before[:n]
    r, z = torch.sigmoid(gates[:, : 2 * size] + product[:, : 2 * size]).split(size, dim=1)
    s = product[:, 2 * size :] + bias
    new = torch.tanh(gates[:, 2 * size :] + r * s)
    torch.lerp(new, before, z, out=after)
    if len(saved):
        torch.cat([r, z, new, s], dim=1, out=saved)


def _backward_step(gradient: Tensor, running: Tensor, before: Tensor, saved: Tensor) -> None:
    """As :func:`ksr_recbole.model.gru_numba.backward_step`."""
    running, before = running[: len(saved)], before[: len(saved)]
    r, z, n, s = saved.clone().split(before.shape[1], dim=1)
    total = running + gradient
    d_new = total * (1 - z) * (1 - n * n)
    d_update = total * (before - n) * z * (1 - z)
    torch.cat([d_new * r, d_new * s * r * (1 - r), d_update, d_new], dim=1, out=saved)
    torch.mul(total, z, out=running)


_TORCH = SimpleNamespace(
    view=lambda t: t.detach(), forward_step=_forward_step, backward_step=_backward_step
)
