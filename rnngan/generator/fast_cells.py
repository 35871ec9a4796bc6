"""One step of each kind of layer at inference: of a single piece on NumPy, of several on torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from rnngan.generator.cells import GRU, LSTM, PEEPHOLE_LSTM, RNN, Cell

FloatArray = npt.NDArray[np.float32]
Linear = Callable[[Tensor], Tensor]
"""The product of `(batch, input)` with a weight, plus a bias."""


class SingleLayer(ABC):
    """A layer of one piece.

    NumPy's calls cost a third of torch's, and for one row there is nothing to gain from oneDNN,
    whose every call takes 10 to 20 µs to set up.
    """

    state: list[FloatArray]
    """As the cell has it, `(hidden,)` each; changed in place."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        arrays = [weight.numpy(force=True) for weight in weights]
        self._of_inputs, self._of_state = arrays[:2]
        self._bias_of_inputs, self._bias_of_state, *self._more = arrays[2:]
        self._bias = self._bias_of_inputs + self._bias_of_state

    @abstractmethod
    def step(self, inputs: FloatArray) -> FloatArray:
        """The hidden state after inputs `(input,)`."""

    def _gates(self, inputs: FloatArray) -> FloatArray:
        """What inputs and state add up to."""
        gates: FloatArray = self._of_inputs @ inputs
        gates += self._of_state @ self.state[0]
        gates += self._bias
        return gates


class _SingleLSTM(SingleLayer):
    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__(weights)
        # sigmoid(x) = (1 + tanh(x / 2)) / 2, so one tanh does for all gates.
        size = len(self._bias) // 4
        self._scale = np.repeat(np.array([0.5, 0.5, 1.0, 0.5], dtype=np.float32), size)
        self._shift = np.repeat(np.array([0.5, 0.5, 0.0, 0.5], dtype=np.float32), size)

    def step(self, inputs: FloatArray) -> FloatArray:
        hidden, cell = self.state
        gates = self._gates(inputs)
        gates *= self._scale
        np.tanh(gates, out=gates)
        gates *= self._scale
        gates += self._shift
        into, keep, new, out = gates.reshape(4, -1)
        cell *= keep
        new *= into
        cell += new
        np.tanh(cell, out=hidden)
        hidden *= out
        return hidden


class _SinglePeepholeLSTM(SingleLayer):
    def step(self, inputs: FloatArray) -> FloatArray:
        hidden, cell = self.state
        (peepholes,) = self._more
        gates = self._gates(inputs).reshape(4, -1)
        gates[:2] += peepholes[:2] * cell
        into, keep = _sigmoid(gates[:2])
        cell *= keep
        cell += into * np.tanh(gates[2])
        gates[3] += peepholes[2] * cell
        np.multiply(_sigmoid(gates[3]), np.tanh(cell), out=hidden)
        return hidden


class _SingleGRU(SingleLayer):
    def step(self, inputs: FloatArray) -> FloatArray:
        (hidden,) = self.state
        size = len(hidden)
        gates = self._of_inputs @ inputs
        gates += self._bias_of_inputs
        of_state = self._of_state @ hidden
        of_state += self._bias_of_state
        gates[: 2 * size] += of_state[: 2 * size]
        reset, keep = _sigmoid(gates[: 2 * size]).reshape(2, size)
        new = np.tanh(gates[2 * size :] + reset * of_state[2 * size :])
        hidden -= new
        hidden *= keep
        hidden += new
        return hidden


class _SingleRNN(SingleLayer):
    def step(self, inputs: FloatArray) -> FloatArray:
        return np.tanh(self._gates(inputs), out=self.state[0])


def _sigmoid(x: FloatArray) -> FloatArray:
    """1 / (1 + exp(−x)), of what may change."""
    x *= np.float32(0.5)
    np.tanh(x, out=x)
    x *= np.float32(0.5)
    x += np.float32(0.5)
    return x


def linear(weight: Tensor, bias: Tensor, *, packed: bool) -> Linear:
    """A product, with the weight in oneDNN's order or as it is."""
    if not packed:
        return lambda inputs: F.linear(inputs, weight, bias)
    ready = torch.ops.mkldnn._reorder_linear_weight(weight)
    return lambda inputs: torch.ops.mkldnn._linear_pointwise(inputs, ready, bias, "none", [], "")


class Layer(ABC):
    """A layer of several pieces.

    The precision of the products is that of the inputs; the state is in float32 unless said.

    Args:
        weights: As the cell has them.
        dtype: Of inputs, outputs and products.
        packed: The weights are put in oneDNN's order.
    """

    state: list[Tensor]
    """As the cell has it, `(batch, hidden)` each; what a step finds there it does not change."""

    @abstractmethod
    def __init__(self, weights: Sequence[Tensor], dtype: torch.dtype, *, packed: bool) -> None: ...

    @abstractmethod
    def step(self, inputs: Tensor) -> Tensor:
        """Hidden states after inputs `(batch, input)`."""


class _LSTM(Layer):
    """One call of oneDNN, or of torch; the hidden state is in the precision of the inputs."""

    def __init__(self, weights: Sequence[Tensor], dtype: torch.dtype, *, packed: bool) -> None:
        self._size = weights[1].shape[1]
        self._dtype, self._packed = dtype, packed
        of_inputs, of_state, *biases = (weight.to(dtype) for weight in weights)
        if packed:
            of_inputs, of_state = torch.ops.mkldnn._reorder_mkldnn_rnn_layer_weight(
                of_inputs, of_state, self._size, False, True, False
            )
            biases = list(weights[2:])  # oneDNN's are in float32
        self._weights = of_inputs, of_state, biases[0], biases[1]

    def step(self, inputs: Tensor) -> Tensor:
        hidden, cell = self.state[0].to(self._dtype)[None], self.state[1][None]
        output: Tensor
        if self._packed:
            output, _, cell, _ = torch.mkldnn_rnn_layer(
                inputs[None],
                *self._weights,
                hidden,
                cell,
                False,  # not reversed
                (),
                2,  # an LSTM; oneDNN's other kinds do not run through this function
                self._size,
                1,  # layer
                True,  # with biases
                False,  # in one direction
                False,  # time first
                False,  # not training
            )
        else:
            output, _, cell = torch.lstm(
                inputs[None],
                (hidden, cell.to(self._dtype)),
                self._weights,
                has_biases=True,
                num_layers=1,
                dropout=0.0,
                train=False,
                bidirectional=False,
                batch_first=False,
            )
        self.state = [output[0], cell[0]]
        return output[0]


class _PeepholeLSTM(Layer):
    def __init__(self, weights: Sequence[Tensor], dtype: torch.dtype, *, packed: bool) -> None:
        self._gates = _of_both(weights, dtype, packed)
        self._dtype = dtype
        self._of_before, self._of_after = weights[4][:2], weights[4][2]

    def step(self, inputs: Tensor) -> Tensor:
        hidden, cell = self.state
        gates = self._gates(torch.cat([inputs, hidden.to(self._dtype)], 1)).float()
        gates = gates.view(len(gates), 4, -1)
        gates[:, :2].addcmul_(cell[:, None], self._of_before).sigmoid_()
        into, keep, new, out = gates.unbind(1)
        cell = (cell * keep).addcmul_(into, new.tanh_())
        hidden = cell.tanh().mul_(out.addcmul_(cell, self._of_after).sigmoid_())
        self.state = [hidden, cell]
        return hidden.to(self._dtype)


class _GRU(Layer):
    def __init__(self, weights: Sequence[Tensor], dtype: torch.dtype, *, packed: bool) -> None:
        of_inputs, of_state, bias, bias_of_state = (weight.to(dtype) for weight in weights)
        self._of_inputs = linear(of_inputs, bias, packed=packed)
        self._of_state = linear(of_state, bias_of_state, packed=packed)
        self._dtype = dtype

    def step(self, inputs: Tensor) -> Tensor:
        (hidden,) = self.state
        size = hidden.shape[1]
        gates = self._of_inputs(inputs).float()
        of_state = self._of_state(hidden.to(self._dtype)).float()
        reset, keep = (gates[:, : 2 * size] + of_state[:, : 2 * size]).sigmoid_().chunk(2, 1)
        new = gates[:, 2 * size :].addcmul_(reset, of_state[:, 2 * size :]).tanh_()
        hidden = new.lerp(hidden, keep)
        self.state = [hidden]
        return hidden.to(self._dtype)


class _RNN(Layer):
    def __init__(self, weights: Sequence[Tensor], dtype: torch.dtype, *, packed: bool) -> None:
        self._sum = _of_both(weights, dtype, packed)
        self._dtype = dtype

    def step(self, inputs: Tensor) -> Tensor:
        hidden = self._sum(torch.cat([inputs, self.state[0].to(self._dtype)], 1)).tanh_()
        self.state = [hidden]
        return hidden


def _of_both(weights: Sequence[Tensor], dtype: torch.dtype, packed: bool) -> Linear:
    """One product of inputs and hidden state side by side."""
    weight, bias = torch.cat([weights[0], weights[1]], 1), weights[2] + weights[3]
    return linear(weight.to(dtype), bias.to(dtype), packed=packed)


SINGLE_LAYERS: dict[Cell, type[SingleLayer]] = {
    LSTM: _SingleLSTM,
    GRU: _SingleGRU,
    RNN: _SingleRNN,
    PEEPHOLE_LSTM: _SinglePeepholeLSTM,
}
LAYERS: dict[Cell, type[Layer]] = {
    LSTM: _LSTM,
    GRU: _GRU,
    RNN: _RNN,
    PEEPHOLE_LSTM: _PeepholeLSTM,
}
