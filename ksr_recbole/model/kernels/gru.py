"""The GRU of Eq. 1 over packed sequences.

``nn.GRU`` holds the parameters and runs on the GPU (cuDNN, which knows this layout).  On the
CPU its backward pass is built from small operations recorded step by step.  Here one fused
kernel goes through all steps in each direction, and the weights' gradients are one product at
the end.  Where PyTorch's matrix product cannot be called from a kernel, a step is one product
and one kernel.
"""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp import custom_bwd, custom_fwd
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from ksr_recbole.core_sharing import crowded
from ksr_recbole.model.kernels.aligned import empty_rows
from ksr_recbole.model.kernels.fused import fused
from ksr_recbole.model.kernels.packing import Packing


def run_gru(
    gru: nn.GRU, inputs: Tensor, index: Tensor | None, hidden: Tensor, packing: Packing
) -> tuple[Tensor, Tensor]:
    """Run a GRU over packed sequences.

    Args:
        gru: the layers.
        inputs: input vectors, each once however many steps read it, ``[m, D]``.
        index: row of ``inputs`` that each step reads, packed, ``int64 [P]``; ``None``: each step
            reads its own row.
        hidden: states before the first step by lane, ``[num_layers, B, H]``.
        packing: the layout of the steps.

    Returns:
        States of the last layer after each step, ``[P, H]``, packed, and of all layers after
        each lane's last step, ``[num_layers, B, H]``.
    """
    if not packing.widths:  # no sequence has a step
        return inputs.new_zeros(0, gru.hidden_size), hidden
    running = packing.widths[0]
    before, idle = hidden[:, :running].contiguous(), hidden[:, running:]
    if inputs.device.type == "cpu":
        outputs, after = _run_on_cpu(gru, inputs, index, before, packing)
    else:
        sequence = PackedSequence(_rows_of(inputs, index), torch.tensor(packing.widths))
        (outputs, *_), after = gru(sequence, before)
    return outputs, after if idle.shape[1] == 0 else torch.cat([after, idle], dim=1)


def _run_on_cpu(
    gru: nn.GRU, inputs: Tensor, index: Tensor | None, hidden: Tensor, packing: Packing
) -> tuple[Tensor, Tensor]:
    finals = []
    for layer in range(gru.num_layers):
        weights = [getattr(gru, f"{name}_l{layer}") for name in _PARAMETERS]
        outputs = _Layer.apply(inputs, index, hidden[layer], *weights, packing.widths)
        finals.append(outputs[packing.last])
        inputs, index = outputs, None
    return outputs, torch.stack(finals)


def _rows_of(inputs: Tensor, index: Tensor | None) -> Tensor:
    return inputs if index is None else inputs[index]


_PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class _Layer(torch.autograd.Function):
    """One layer over packed rows, in PyTorch's gate order: r, z, n.

    The input's share of the gates is computed once for each input vector.  A row of the work
    space belongs to one step of one lane: the parts ``s | r | z | n``, where ``s`` is the
    state's share of ``n``.  Going backward, they are replaced by their gradients.  So the first
    three parts become the gradient of the recurrent product (in the order n, r, z) and the
    last three that of the input's.
    """

    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx, inputs, index, hidden, w_input, w_state, b_input, b_state, widths):
        size, steps = hidden.shape[1], torch.arange(len(inputs)) if index is None else index
        # The states before the first step stand before the others, so that what each step
        # started from is one selection of rows.
        states = inputs.new_empty(len(hidden) + len(steps), size)
        states[: len(hidden)], outputs = hidden, states[len(hidden) :]
        work = inputs.new_empty(len(steps), 4 * size)
        # Only in the new state's gate does the reset gate come between the two biases.
        bias = b_input + F.pad(b_state[: 2 * size], (0, size))
        table = F.linear(inputs, w_input, bias)
        constants = (table, w_state.t().contiguous(), b_state[2 * size :])
        _forward(*constants, steps, hidden, outputs, work, widths)
        ctx.save_for_backward(inputs, index, hidden, w_input, w_state, states)
        ctx.widths, ctx.work = widths, work
        return outputs

    @staticmethod
    @custom_bwd(device_type="cpu")
    @once_differentiable
    def backward(ctx, gradient):
        if ctx.work is None:
            raise RuntimeError("The gradients have replaced what the GRU saved; run it again.")
        inputs, index, hidden, w_input, w_state, states = ctx.saved_tensors
        size, widths, work = hidden.shape[1], ctx.widths, ctx.work
        ctx.work = None
        running = torch.zeros_like(hidden)
        variables = (gradient.contiguous(), running, w_state.roll(size, 0))
        outputs = states[len(hidden) :]
        _backward(*variables, hidden, outputs, work, widths)
        bias, recurrent = work.sum(0), _recurrent_gradients(work)
        gates = _gate_gradients(work)
        if index is not None:
            gates = _sums_by_input(work, index, len(inputs))
        inputs_gradient = None
        if ctx.needs_input_grad[0]:
            inputs_gradient = empty_rows(inputs, *inputs.shape)
            torch.mm(gates, w_input, out=inputs_gradient)
        return (
            inputs_gradient,
            None,
            running,
            gates.t() @ inputs,
            (recurrent.t() @ states[_rows_before(widths)]).roll(-size, 0),
            bias[size:],
            bias[: 3 * size].roll(-size, 0),
            None,
        )


def _recurrent_gradients(work: Tensor) -> Tensor:
    """After the backward pass: the gradient of the recurrent product, n, r, z, ``[n, 3 H]``."""
    return work[:, : work.shape[1] // 4 * 3]


def _gate_gradients(work: Tensor) -> Tensor:
    """After the backward pass: the gradient of the input's share, r, z, n, ``[n, 3 H]``."""
    return work[:, work.shape[1] // 4 :]


def _sums_by_input(work: Tensor, index: Tensor, n_inputs: int) -> Tensor:
    """The gradients of the gates, summed over the steps that read an input, ``[m, 3 H]``.

    What is multiplied with them afterwards has a row for each input instead of each step.
    """
    size = work.shape[1] // 4
    sums = work.new_zeros(n_inputs, 3 * size)
    kernels = _kernels(work)
    if kernels is None:
        return sums.index_add_(0, index, _gate_gradients(work))
    kernels.add_rows(_array(work), size, _array(index), _array(sums))
    return sums


def _rows_before(widths: list[int]) -> Tensor:
    """Row of ``states`` that each packed row started from: its lane's, one step earlier."""
    counts = torch.tensor([widths[0], *widths[:-1]])
    shifts = torch.repeat_interleave(counts, torch.tensor(widths), output_size=sum(widths))
    return torch.arange(len(shifts)) + widths[0] - shifts


# The recurrence -------------------------------------------------------------------------------


def _forward(
    table: Tensor,
    weights: Tensor,
    bias: Tensor,
    index: Tensor,
    hidden: Tensor,
    states: Tensor,
    work: Tensor,
    widths: list[int],
) -> None:
    """As :func:`ksr_recbole.model.kernels.gru_numba.forward`."""
    kernels = _kernels(hidden)
    if kernels is not None and kernels.WHOLE:
        tensors = (table, weights, bias, index, hidden, states, work)
        kernels.forward(*map(_array, tensors), np.array(widths))
        return
    cell = _cell(kernels)
    product = table.new_empty(len(hidden), weights.shape[1])
    constants = [cell.view(x) for x in (table, product, bias)]
    indices, before, after, rows_of_work = map(cell.view, (index, hidden, states, work))
    previous, begin = hidden, 0
    for width in widths:
        rows = slice(begin, begin + width)
        torch.mm(previous[:width], weights, out=product[:width])
        cell.forward_step(*constants, indices[rows], before, after[rows], rows_of_work[rows])
        previous, before = states[rows], after[rows]
        begin += width


def _backward(
    gradient: Tensor,
    running: Tensor,
    weights: Tensor,
    hidden: Tensor,
    states: Tensor,
    work: Tensor,
    widths: list[int],
) -> None:
    """As :func:`ksr_recbole.model.kernels.gru_numba.backward`."""
    kernels = _kernels(hidden)
    if kernels is not None and kernels.WHOLE:
        tensors = (gradient, running, weights, hidden, states, work)
        kernels.backward(*map(_array, tensors), np.array(widths))
        return
    cell, begin = _cell(kernels), len(work)
    grad, run_grad, first = map(cell.view, (gradient, running, hidden))
    after, rows_of_work = map(cell.view, (states, work))
    for t in range(len(widths) - 1, -1, -1):
        width = widths[t]
        begin -= width
        rows = slice(begin, begin + width)
        before = after[begin - widths[t - 1] :] if t else first
        cell.backward_step(grad[rows], run_grad, before, rows_of_work[rows])
        running[:width].addmm_(_recurrent_gradients(work[rows]), weights)


def _kernels(tensor: Tensor) -> ModuleType | None:
    return fused("gru") if tensor.dtype == torch.float32 else None


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy()


# One step -------------------------------------------------------------------------------------


def _cell(kernels: Any) -> Any:
    """A step in Numba's kernels, or else PyTorch's: ``view``, ``forward_step``, ``backward_step``.

    Args:
        kernels: :mod:`ksr_recbole.model.kernels.gru_numba`, if it can be used.
    """
    if kernels is None:
        return _TORCH
    alone = crowded()  # every kernel less is one wait less for a thread that is not running

    def forward_step(*arrays: Any) -> None:
        small = alone or arrays[-2].size <= kernels.ON_ONE_THREAD
        (kernels.forward_step_by_one if small else kernels.forward_step)(*arrays)

    def backward_step(*arrays: Any) -> None:
        small = alone or arrays[0].size <= kernels.ON_ONE_THREAD
        (kernels.backward_step_by_one if small else kernels.backward_step)(*arrays)

    return SimpleNamespace(view=_array, forward_step=forward_step, backward_step=backward_step)


def _forward_step(
    table: Tensor,
    product: Tensor,
    bias: Tensor,
    index: Tensor,
    before: Tensor,
    after: Tensor,
    work: Tensor,
) -> None:
    """As :func:`ksr_recbole.model.kernels.gru_numba.forward_step`."""
    width, size = after.shape
    product, before = product[:width], before[:width]
    s, r, z, n = work.split(size, dim=1)
    gates = table[index]
    torch.add(gates[:, :size], product[:, :size], out=r).sigmoid_()
    torch.add(gates[:, size : 2 * size], product[:, size : 2 * size], out=z).sigmoid_()
    torch.add(product[:, 2 * size :], bias, out=s)
    torch.addcmul(gates[:, 2 * size :], r, s, out=n).tanh_()
    torch.lerp(n, before, z, out=after)  # (1 - z) n + z h


def _backward_step(gradient: Tensor, running: Tensor, before: Tensor, work: Tensor) -> None:
    """As :func:`ksr_recbole.model.kernels.gru_numba.backward_step`."""
    width, size = gradient.shape
    running, before = running[:width], before[:width]
    s, r, z, n = work.clone().split(size, dim=1)
    total = running + gradient
    d_new = total * (1 - z) * (1 - n * n)
    d_reset, d_update = d_new * s * r * (1 - r), total * (before - n) * z * (1 - z)
    torch.cat([d_new * r, d_reset, d_update, d_new], dim=1, out=work)
    torch.mul(total, z, out=running)


_TORCH = SimpleNamespace(
    view=lambda t: t.detach(), forward_step=_forward_step, backward_step=_backward_step
)
