"""The GRU of Eq. 1 over sequences of unequal length, without computing on padding.

``nn.GRU`` holds the parameters and runs on the GPU (cuDNN).  On the CPU its backward pass is
built from small operations recorded step by step; here the steps are written out once, all
sequences still running form one matrix product per step, and the weights' gradients are one
product at the end.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def run_gru(gru: nn.GRU, inputs: Tensor, hidden: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Run a ``batch_first`` GRU over padded sequences.

    Args:
        gru: the layers.
        inputs: ``[B, T, D]``.
        hidden: states before the first step, ``[num_layers, B, H]``.
        lengths: steps of each sequence, ``int64 [B]``, from 0 to ``T``; the rest is padding.

    Returns:
        States of the last layer after each step, ``[B, T, H]`` (undefined on padding), and of
        all layers after the last step, ``[num_layers, B, H]`` (undefined where a sequence is
        shorter than ``T``).
    """
    if inputs.device.type != "cpu":
        return gru(inputs, hidden)
    # Step by step: row k of the packed matrix is lane `lanes[k]` at step `steps[k]`.
    order = torch.argsort(lengths, descending=True, stable=True)
    running = lengths[order][None, :] > torch.arange(inputs.shape[1])[:, None]  # [T, B]
    steps, places = running.nonzero(as_tuple=True)
    lanes = order[places]
    widths = [width for width in running.sum(1).tolist() if width]
    packed, finals = inputs[lanes, steps], []
    for layer in range(gru.num_layers):
        weights = [getattr(gru, f"{name}_l{layer}") for name in _PARAMETERS]
        gates = F.linear(packed, weights[0], weights[2])
        packed, final = _Steps.apply(gates, hidden[layer][order], weights[1], weights[3], widths)
        finals.append(torch.empty_like(final).index_copy(0, order, final))
    outputs = inputs.new_zeros(*inputs.shape[:2], gru.hidden_size)
    return outputs.index_put((lanes, steps), packed), torch.stack(finals)


_PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class _Steps(torch.autograd.Function):
    """The recurrence of one layer over packed rows, in PyTorch's gate order: r, z, n."""

    @staticmethod
    def forward(ctx, gates: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, widths: list):
        size, begin = hidden.shape[1], 0
        state = hidden.clone()
        outputs = gates.new_empty(len(gates), size)
        reset_update = gates.new_empty(len(gates), 2 * size)
        new, from_state = torch.empty_like(outputs), torch.empty_like(outputs)
        transposed = weight.t()
        for width in widths:
            rows = slice(begin, begin + width)
            previous = state[:width]
            recurrent = torch.addmm(bias, previous, transposed)
            torch.add(gates[rows, : 2 * size], recurrent[:, : 2 * size], out=reset_update[rows])
            rz = reset_update[rows].sigmoid_()
            from_state[rows] = recurrent[:, 2 * size :]
            n = torch.addcmul(
                gates[rows, 2 * size :], rz[:, :size], from_state[rows], out=new[rows]
            ).tanh_()
            torch.lerp(n, previous, rz[:, size:], out=outputs[rows])  # (1 - z) n + z h
            state[:width] = outputs[rows]
            begin += width
        ctx.save_for_backward(hidden, weight, outputs, reset_update, new, from_state)
        ctx.widths = widths
        return outputs, state

    @staticmethod
    def backward(ctx, outputs_gradient: Tensor, state_gradient: Tensor):
        hidden, weight, outputs, reset_update, new, from_state = ctx.saved_tensors
        size = hidden.shape[1]
        before = torch.cat([hidden[: ctx.widths[0]], outputs[_previous_rows(ctx.widths)]])
        reset, update = reset_update[:, :size], reset_update[:, size:]
        # What does not depend on the running gradient is computed for all steps at once.
        to_new = (1 - update) * (1 - new * new)
        to_update = (before - new) * update * (1 - update)
        to_reset = from_state * reset * (1 - reset)
        gates_gradient = outputs.new_empty(len(outputs), 3 * size)
        recurrent_gradient = torch.empty_like(gates_gradient)
        running = state_gradient.clone()
        begin = len(outputs)
        for width in reversed(ctx.widths):
            rows = slice(begin - width, begin)
            gradient = running[:width].add_(outputs_gradient[rows])
            step = recurrent_gradient[rows]
            d_new = torch.mul(gradient, to_new[rows], out=gates_gradient[rows, 2 * size :])
            torch.mul(d_new, to_reset[rows], out=step[:, :size])
            torch.mul(gradient, to_update[rows], out=step[:, size : 2 * size])
            torch.mul(d_new, reset[rows], out=step[:, 2 * size :])
            torch.addmm(gradient * update[rows], step, weight, out=running[:width])
            begin -= width
        gates_gradient[:, : 2 * size] = recurrent_gradient[:, : 2 * size]
        weight_gradient = recurrent_gradient.t() @ before
        return gates_gradient, running, weight_gradient, recurrent_gradient.sum(0), None


def _previous_rows(widths: list[int]) -> Tensor:
    """Packed row of the same lane one step earlier, for every row after the first step."""
    if len(widths) < 2:
        return torch.zeros(0, dtype=torch.int64)
    rows = torch.arange(sum(widths[1:])) + widths[0]
    return rows - torch.repeat_interleave(torch.tensor(widths[:-1]), torch.tensor(widths[1:]))
