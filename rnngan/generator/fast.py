"""The LSTM generator one token at a time, fast.

Much of what a step of `nn.LSTM` costs on a CPU is not its products: the weights are put anew into
the order in which oneDNN multiplies, and every call of torch takes a microsecond or more.
`FastStepper` has the weights put in order once, in bfloat16 where the processor computes in it, and
runs each layer as one call; a piece that is alone goes through NumPy.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from rnngan.generator.lstm import LSTMGenerator, State
from rnngan.layers import BFLOAT16_IS_FAST

Precision = Literal["auto", "bfloat16", "float32"]
"""Of the recurrent layers' weights and states; cells and logits are float32, and so is everything
where one piece is alone on a CPU. `auto` is bfloat16 where the processor computes in it."""

_HAS_PACKED_LSTM = hasattr(torch.ops.mkldnn, "_reorder_mkldnn_rnn_layer_weight")


class FastStepper:
    """Scores the next token of several pieces that grow by one token per call.

    Holds the state of each piece, at first zeros. There is no dropout, in whatever mode the
    generator is. In float32 the logits are the generator's up to rounding.

    Make it, and use it, under `torch.inference_mode()`; make it anew when the weights have changed.

    Shapes: tokens `(batch,)`, logits `(batch, vocab)`.
    """

    def __init__(
        self, generator: LSTMGenerator, *, batch_size: int = 1, precision: Precision = "auto"
    ) -> None:
        rnn, device = generator.rnn, generator.output.weight.device
        self._generator = generator
        self._on_cpu = device.type == "cpu"
        in_bfloat16 = precision == "bfloat16" or (
            precision == "auto" and self._on_cpu and BFLOAT16_IS_FAST
        )
        self._dtype = torch.bfloat16 if in_bfloat16 else torch.float32
        self._batch_size = batch_size
        zeros = torch.zeros(rnn.num_layers, batch_size, rnn.hidden_size, device=device)
        self._network = self._network_for(batch_size)
        self._network.set_state((zeros, zeros))

    def _network_for(self, batch_size: int) -> _Single | _Packed | _Plain:
        if self._on_cpu and batch_size == 1:
            return _Single(self._generator)
        # Where the processor has no bfloat16, oneDNN has no LSTM in it either.
        if self._on_cpu and _HAS_PACKED_LSTM and (BFLOAT16_IS_FAST or self._dtype.itemsize == 4):
            return _Packed(self._generator, self._dtype)
        return _Plain(self._generator, self._dtype)

    def step(self, tokens: Tensor) -> Tensor:
        """Logits after one more token per piece.

        Raises:
            ValueError: More or fewer tokens than pieces.
        """
        if len(tokens) != self._batch_size:  # oneDNN would read beyond the states
            raise ValueError(f"need {self._batch_size} tokens, got {len(tokens)}")
        return self._network.step(tokens)

    def select(self, rows: Tensor) -> None:
        """Go on with these pieces, by index `(new_batch,)`, each as often as it is named."""
        hidden, cell = self._network.state()
        if (len(rows) == 1) != (self._batch_size == 1):
            self._network = self._network_for(len(rows))
        self._batch_size = len(rows)
        self._network.set_state((hidden.index_select(1, rows), cell.index_select(1, rows)))


class _Single:
    """One piece on NumPy.

    Its calls cost a third of torch's, and for one row there is nothing to gain from oneDNN, whose
    every call takes 10 to 20 µs to set up.
    """

    def __init__(self, generator: LSTMGenerator) -> None:
        layers = [[weight.numpy(force=True) for weight in w] for w in generator.rnn.all_weights]
        self._input_weights = [layer[0] for layer in layers]
        self._hidden_weights = [layer[1] for layer in layers]
        self._biases = [layer[2] + layer[3] for layer in layers]
        self._embedding = generator.embedding.weight.numpy(force=True)
        weight, bias = _output(generator)
        self._weight, self._bias = weight.numpy(force=True), bias.numpy(force=True)
        # sigmoid(x) = (1 + tanh(x / 2)) / 2, so one tanh does for all gates.
        size = generator.rnn.hidden_size
        self._scale = np.repeat(np.array([0.5, 0.5, 1.0, 0.5], dtype=np.float32), size)
        self._shift = np.repeat(np.array([0.5, 0.5, 0.0, 0.5], dtype=np.float32), size)

    def set_state(self, state: State) -> None:
        hidden, cell = state
        self._hidden, self._cell = hidden[:, 0].numpy().copy(), cell[:, 0].numpy().copy()

    def state(self) -> State:
        return torch.from_numpy(self._hidden)[:, None], torch.from_numpy(self._cell)[:, None]

    def step(self, tokens: Tensor) -> Tensor:
        inputs = self._embedding[int(tokens)]
        for i, (hidden, cell) in enumerate(zip(self._hidden, self._cell)):
            gates = self._input_weights[i] @ inputs
            gates += self._hidden_weights[i] @ hidden
            gates += self._biases[i]
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
            inputs = hidden
        logits = self._weight @ inputs
        logits += self._bias
        return torch.from_numpy(logits)[None]


class _Packed:
    """Several pieces on oneDNN, the weights in its order."""

    def __init__(self, generator: LSTMGenerator, dtype: torch.dtype) -> None:
        self._size = generator.rnn.hidden_size
        self._dtype = dtype
        self._embedding = generator.embedding.weight.to(dtype)
        self._weights = []
        for weights in generator.rnn.all_weights:
            input_weight, hidden_weight = torch.ops.mkldnn._reorder_mkldnn_rnn_layer_weight(
                weights[0].to(dtype), weights[1].to(dtype), self._size, False, True, False
            )
            self._weights.append((input_weight, hidden_weight, weights[2], weights[3]))
        weight, self._bias = _output(generator)
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight)

    def set_state(self, state: State) -> None:
        hidden, cell = state
        self._hidden = list(hidden.to(self._dtype)[:, None])
        self._cell = list(cell[:, None])

    def state(self) -> State:
        return torch.cat(self._hidden).float(), torch.cat(self._cell)

    def step(self, tokens: Tensor) -> Tensor:
        output = self._embedding.index_select(0, tokens)[None]
        for i, (input_weight, hidden_weight, input_bias, hidden_bias) in enumerate(self._weights):
            output, _, self._cell[i], _ = torch.mkldnn_rnn_layer(
                output,
                input_weight,
                hidden_weight,
                input_bias,
                hidden_bias,
                self._hidden[i],
                self._cell[i],
                False,  # not reversed
                (),
                2,  # an LSTM
                self._size,
                1,  # layer
                True,  # with biases
                False,  # in one direction
                False,  # time first
                False,  # not training
            )
            self._hidden[i] = output
        logits: Tensor = torch.ops.mkldnn._linear_pointwise(
            output[0].float(), self._weight, self._bias, "none", [], ""
        )
        return logits


class _Plain:
    """Through `nn.LSTM`'s function, for other devices and for builds of torch without oneDNN."""

    def __init__(self, generator: LSTMGenerator, dtype: torch.dtype) -> None:
        self._num_layers = generator.rnn.num_layers
        self._dtype = dtype
        self._embedding = generator.embedding.weight.to(dtype)
        self._weights = [w.to(dtype) for weights in generator.rnn.all_weights for w in weights]
        self._weight, self._bias = _output(generator)

    def set_state(self, state: State) -> None:
        self._state = state[0].to(self._dtype), state[1].to(self._dtype)

    def state(self) -> State:
        return self._state[0].float(), self._state[1].float()

    def step(self, tokens: Tensor) -> Tensor:
        output, *state = torch.lstm(
            self._embedding.index_select(0, tokens)[None],
            self._state,
            self._weights,
            has_biases=True,
            num_layers=self._num_layers,
            dropout=0.0,
            train=False,
            bidirectional=False,
            batch_first=False,
        )
        self._state = (state[0], state[1])
        return nn.functional.linear(output[0].float(), self._weight, self._bias)


def _output(generator: LSTMGenerator) -> tuple[Tensor, Tensor]:
    """Weight and bias from last hidden state to logits; a projection between is multiplied in."""
    weight: Tensor = generator.output.weight
    bias: Tensor = generator.output.bias
    if isinstance(generator.projection, nn.Linear):
        bias = torch.addmv(bias, weight, generator.projection.bias)
        weight = weight @ generator.projection.weight
    return weight, bias
