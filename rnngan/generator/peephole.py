"""The LSTM whose gates see the cell.

References:
    Gers & Schmidhuber, "Recurrent nets that time and count", 2000; Graves, "Generating sequences
    with recurrent neural networks", 2013, equations 7-11.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class PeepholeLSTM(nn.RNNBase):
    """Weights of layers upon each other, named as `nn.LSTM` names them.

    Each layer has besides `weight_ch_lK` `(3, hidden)`: what the gates i, f and o see of the cell.
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, *, batch_first: bool = True
    ) -> None:
        super().__init__("LSTM", input_size, hidden_size, num_layers, batch_first=batch_first)
        for layer in range(num_layers):
            self.register_parameter(
                f"weight_ch_l{layer}", nn.Parameter(torch.zeros(3, hidden_size))
            )

    @property
    def all_weights(self) -> list[list[nn.Parameter]]:
        """Weights of each layer: of the input, of the state, two biases, the peepholes."""
        return [
            [*weights, self.get_parameter(f"weight_ch_l{layer}")]
            for layer, weights in enumerate(super().all_weights)
        ]


def peephole_scan(
    inputs: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor], _train: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer over a sequence.

    With p the peepholes
    i = σ(W x_t + U h_{t−1} + p c_{t−1} + b), f likewise, g = tanh(W x_t + U h_{t−1} + b),
    c_t = f c_{t−1} + i g, o = σ(W x_t + U h_{t−1} + p c_t + b), h_t = o tanh(c_t);
    gates in the order i, f, g, o.

    Args:
        inputs: `(batch, time, input)`.
        state: Hidden state and cell, `(batch, hidden)` each.
        weights: As `PeepholeLSTM.all_weights` has them for a layer.

    Returns:
        Hidden states `(batch, time, hidden)`, and the last hidden state and cell.
    """
    of_inputs, of_state, bias, other_bias, peepholes = weights
    # All times in one product; time comes first, so that what a step reads lies together.
    gates = F.linear(inputs.transpose(0, 1), of_inputs, bias + other_bias)
    hidden, cell = state[0].to(gates.dtype), state[1].to(peepholes.dtype)
    with torch.autocast(inputs.device.type, enabled=False):
        states, last = _Scan.apply(  # type: ignore[no-untyped-call]
            gates, hidden, cell, of_state.to(gates.dtype), peepholes
        )
    return states.transpose(0, 1), states[-1], last


class _Scan(torch.autograd.Function):
    """The recurrence, with its gradient written out.

    Shapes: inputs `(time, batch, 4 * hidden)`, what each time adds to the gates; hidden and cell
    `(batch, hidden)`; weight `(4 * hidden, hidden)`; peepholes `(3, hidden)`. Hidden states and
    products are in the precision of inputs and weight, the rest in that of the cell.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, hidden: Tensor, cell: Tensor, weight: Tensor, peepholes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """States `(time, batch, hidden)` and the last cell."""
        time, batch, width = inputs.shape
        size = width // 4
        gates = cell.new_empty(time, batch, 4, size)
        squashed = cell.new_empty(time, batch, size)
        cells = cell.new_empty(time + 1, batch, size)
        states = hidden.new_empty(time + 1, batch, size)
        cells[0], states[0] = cell, hidden
        of_before, of_after = peepholes[:2], peepholes[2]
        transposed = weight.t()
        for t in range(time):
            gate, before, after = gates[t], cells[t], cells[t + 1]
            gate.copy_(torch.addmm(inputs[t], states[t], transposed).view(batch, 4, size))
            i, f, g, o = gate.unbind(1)
            gate[:, :2].addcmul_(before[:, None], of_before).sigmoid_()
            g.tanh_()
            torch.mul(f, before, out=after).addcmul_(i, g)
            o.addcmul_(after, of_after).sigmoid_()
            torch.mul(o, torch.tanh(after, out=squashed[t]), out=states[t + 1])
        ctx.save_for_backward(gates, squashed, cells, states, weight, peepholes)
        return states[1:], cells[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_states: Tensor, of_cell: Tensor) -> tuple[Tensor, ...]:
        """Of all that went in."""
        gates, squashed, cells, states, weight, peepholes = ctx.saved_tensors
        into, keep, out = peepholes
        past_sigmoid, past_tanh = torch.ops.aten.sigmoid_backward, torch.ops.aten.tanh_backward
        of_gates = states.new_empty(gates.shape).flatten(2)
        of_hidden, of_cell = torch.zeros_like(states[0]), of_cell.clone()
        of_into, of_keep, of_out = cells.new_zeros(3, *of_cell.shape)
        # Step by step, although much could be done for all times at once: what a step needs fits
        # into the processor's cache, and whole sequences do not.
        for t in reversed(range(len(gates))):
            before, after = cells[t], cells[t + 1]
            i, f, g, o = gates[t].unbind(1)
            of_hidden += of_states[t]
            of_o = past_sigmoid(of_hidden * squashed[t], o)
            of_cell += past_tanh(of_hidden * o, squashed[t])
            of_cell.addcmul_(of_o, out)
            of_i = past_sigmoid(of_cell * g, i)
            of_f = past_sigmoid(of_cell * before, f)
            of_g = past_tanh(of_cell * i, g)
            of_into.addcmul_(of_i, before)
            of_keep.addcmul_(of_f, before)
            of_out.addcmul_(of_o, after)
            of_cell = (of_cell * f).addcmul_(of_i, into).addcmul_(of_f, keep)
            of_gates[t] = torch.cat([of_i, of_f, of_g, of_o], 1)
            of_hidden = of_gates[t] @ weight

        of_weight = of_gates.flatten(0, 1).t() @ states[:-1].flatten(0, 1)
        of_peepholes = torch.stack([of_into, of_keep, of_out]).sum(1)
        return of_gates, of_hidden, of_cell, of_weight, of_peepholes
