"""The LSTM generator one token at a time, fast.

Much of what a step of `nn.LSTM` costs on a CPU is not its products: the weights are put anew into
the order in which oneDNN multiplies, and every call of torch takes a microsecond or more.
`FastStepper` has the weights put in order once, in bfloat16 where the processor computes in it, and
runs each layer as one call; a piece that is alone goes through NumPy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rnngan.generator.attention import CausalAttention, Memory
from rnngan.generator.lstm import LSTMGenerator, State
from rnngan.layers import BFLOAT16_IS_FAST

Precision = Literal["auto", "bfloat16", "float32"]
"""Of the recurrent layers' weights and states; cells, the attention's memory and logits are
float32, and so is everything where one piece is alone on a CPU. `auto` is bfloat16 where the
processor computes in it."""

Linear = Callable[[Tensor], Tensor]
FloatArray = npt.NDArray[np.float32]

_HAS_PACKED_LSTM = hasattr(torch.ops.mkldnn, "_reorder_mkldnn_rnn_layer_weight")
_LEAST_ROOM = 128
"""Places that an attention has room for at first."""


class FastStepper:
    """Scores the next token of several pieces that grow by one token per call.

    Holds the state of each piece, at first that before any token. There is no dropout, in whatever
    mode the generator is. In float32 the logits are the generator's up to rounding.

    Make it, and use it, under `torch.inference_mode()`; make it anew when the weights have changed.

    Shapes: tokens `(batch,)`, logits `(batch, vocab)`.
    """

    def __init__(
        self, generator: LSTMGenerator, *, batch_size: int = 1, precision: Precision = "auto"
    ) -> None:
        self._generator = generator
        self._on_cpu = generator.output.weight.device.type == "cpu"
        in_bfloat16 = precision == "bfloat16" or (
            precision == "auto" and self._on_cpu and BFLOAT16_IS_FAST
        )
        self._dtype = torch.bfloat16 if in_bfloat16 else torch.float32
        self._batch_size = batch_size
        self._network = self._network_for(batch_size)
        self.set_state(generator.start(batch_size))

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
        self._go_on(self._network.state(), rows)

    def state(self) -> State:
        """Where every piece stands, in float32; what the stepper does later leaves it as it is."""
        return self._network.state()

    def set_state(self, state: State) -> None:
        """Go on from a state of this stepper, another or the generator, with all its pieces."""
        self._go_on(state, torch.arange(state.hidden.shape[1], device=state.hidden.device))

    def _go_on(self, state: State, rows: Tensor) -> None:
        if (len(rows) == 1) != (self._batch_size == 1):
            self._network = self._network_for(len(rows))
        self._batch_size = len(rows)
        self._network.set_state(state, rows)


class _Single:
    """One piece on NumPy.

    Its calls cost a third of torch's, and for one row there is nothing to gain from oneDNN, whose
    every call takes 10 to 20 µs to set up.
    """

    def __init__(self, generator: LSTMGenerator) -> None:
        layers = [[weight.numpy(force=True) for weight in w] for w in generator.layers()]
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
        self._attention: _SingleAttention | None = None
        if generator.attention is not None:
            self._attention = _SingleAttention(generator.attention, generator.embedding.weight)

    def set_state(self, state: State, rows: Tensor) -> None:
        self._hidden = state.hidden.index_select(1, rows)[:, 0].numpy()
        self._cell = state.cell.index_select(1, rows)[:, 0].numpy()
        if self._attention is not None and state.memory is not None:
            self._attention.set_memory(state.memory, rows)

    def state(self) -> State:
        hidden, cell = (torch.tensor(part)[:, None] for part in (self._hidden, self._cell))
        return State(hidden, cell, self._attention.memory() if self._attention else None)

    def step(self, tokens: Tensor) -> Tensor:
        token = int(tokens)
        inputs = self._embedding[token]
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
            if i == 0 and self._attention is not None:
                context = self._attention.look_back(hidden, token)
                inputs = np.concatenate([hidden, context])
        if self._attention is not None and i:
            inputs = np.concatenate([hidden, context])
        logits = self._weight @ inputs
        logits += self._bias
        return torch.from_numpy(logits)[None]


class _SingleAttention:
    """The attention of one piece."""

    def __init__(self, attention: CausalAttention, embedding: Tensor) -> None:
        weight, bias, of_tokens = _attention_weights(attention, embedding)
        self._weight, self._bias = weight.numpy(force=True), bias.numpy(force=True)
        self._of_tokens = of_tokens.numpy(force=True)
        self._factor = np.float32(of_tokens.shape[-1] ** -0.5)

    def set_memory(self, memory: Memory, rows: Tensor) -> None:
        self._num_places = memory.values.shape[2]
        self._keys, self._values = (part[0].numpy() for part in _with_room(memory, rows))

    def memory(self) -> Memory:
        keys, values = (torch.from_numpy(part)[None] for part in (self._keys, self._values))
        return Memory(keys[:, :, : self._num_places + 1], values[:, :, : self._num_places])

    def look_back(self, hidden: FloatArray, token: int) -> FloatArray:
        if self._num_places + 2 > self._keys.shape[1]:
            self.set_memory(self.memory(), torch.zeros(1, dtype=torch.long))
        projected = self._weight @ hidden
        projected += self._bias
        query, key, value = projected.reshape(3, *self._of_tokens.shape[1:])
        value += self._of_tokens[token]
        self._values[:, self._num_places] = value
        self._num_places += 1
        self._keys[:, self._num_places] = key
        query *= self._factor
        scores = self._keys[:, : self._num_places] @ query[:, :, None]
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        found: FloatArray = scores.transpose(0, 2, 1) @ self._values[:, : self._num_places]
        return found.ravel()


class _Several(ABC):
    """Several pieces on torch; the subclasses say how a layer and a product are computed."""

    def __init__(self, generator: LSTMGenerator, dtype: torch.dtype) -> None:
        self._size = generator.rnn.hidden_size
        self._dtype = dtype
        self._embedding = generator.embedding.weight.to(dtype)
        self._output = self._linear(*_output(generator))
        self._attention: _Attention | None = None
        if generator.attention is not None:
            weight, bias, of_tokens = _attention_weights(
                generator.attention, generator.embedding.weight
            )
            project = self._linear(weight.to(dtype), bias.to(dtype))
            self._attention = _Attention(project, of_tokens)

    def set_state(self, state: State, rows: Tensor) -> None:
        self._hidden = list(state.hidden.index_select(1, rows).to(self._dtype)[:, None])
        self._cell = list(state.cell.index_select(1, rows)[:, None])
        if self._attention is not None and state.memory is not None:
            self._attention.set_memory(state.memory, rows)

    def state(self) -> State:
        hidden, cell = torch.cat(self._hidden).float(), torch.cat(self._cell)
        return State(hidden, cell, self._attention.memory() if self._attention else None)

    def step(self, tokens: Tensor) -> Tensor:
        output = self._embedding.index_select(0, tokens)[None]
        for i in range(len(self._hidden)):
            output = self._layer(i, output)
            if i == 0 and self._attention is not None:
                context = self._attention.look_back(output[0], tokens)
                output = torch.cat([output, context[None].to(self._dtype)], dim=2)
        output = output[0].float()
        if self._attention is not None:
            output = torch.cat([output[:, : self._size], context], dim=1)
        return self._output(output)

    @abstractmethod
    def _layer(self, i: int, inputs: Tensor) -> Tensor:
        """One step of a layer, `(1, batch, hidden)`; its hidden and cell state move on."""

    @abstractmethod
    def _linear(self, weight: Tensor, bias: Tensor) -> Linear:
        """The product with a weight, plus a bias."""


class _Attention:
    """The attention of several pieces, in float32."""

    def __init__(self, project: Linear, of_tokens: Tensor) -> None:
        self._project = project
        self._of_tokens = of_tokens

    def set_memory(self, memory: Memory, rows: Tensor) -> None:
        self._num_places = memory.values.shape[2]
        self._keys, self._values = _with_room(memory, rows)

    def memory(self) -> Memory:
        places = self._num_places
        return Memory(self._keys[:, :, : places + 1], self._values[:, :, :places])

    def look_back(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        if self._num_places + 2 > self._keys.shape[2]:
            self.set_memory(self.memory(), torch.arange(len(tokens), device=tokens.device))
        projected = self._project(hidden).float().view(-1, 3, *self._of_tokens.shape[1:])
        query, key, value = projected.unbind(1)
        value += self._of_tokens.index_select(0, tokens)
        self._values[:, :, self._num_places] = value
        self._num_places += 1
        self._keys[:, :, self._num_places] = key
        found = F.scaled_dot_product_attention(
            query[:, :, None],
            self._keys[:, :, : self._num_places],
            self._values[:, :, : self._num_places],
        )
        return found.flatten(1)


class _Packed(_Several):
    """On oneDNN, the weights in its order."""

    def __init__(self, generator: LSTMGenerator, dtype: torch.dtype) -> None:
        super().__init__(generator, dtype)
        self._weights = []
        for weights in generator.layers():
            input_weight, hidden_weight = torch.ops.mkldnn._reorder_mkldnn_rnn_layer_weight(
                weights[0].to(dtype), weights[1].to(dtype), self._size, False, True, False
            )
            self._weights.append((input_weight, hidden_weight, weights[2], weights[3]))

    def _layer(self, i: int, inputs: Tensor) -> Tensor:
        output: Tensor
        output, _, self._cell[i], _ = torch.mkldnn_rnn_layer(
            inputs,
            *self._weights[i],
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
        return output

    def _linear(self, weight: Tensor, bias: Tensor) -> Linear:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        return lambda inputs: torch.ops.mkldnn._linear_pointwise(
            inputs, packed, bias, "none", [], ""
        )


class _Plain(_Several):
    """Through `nn.LSTM`'s function, for other devices and for builds of torch without oneDNN."""

    def __init__(self, generator: LSTMGenerator, dtype: torch.dtype) -> None:
        super().__init__(generator, dtype)
        self._weights = [[w.to(dtype) for w in weights] for weights in generator.layers()]

    def set_state(self, state: State, rows: Tensor) -> None:
        super().set_state(state, rows)
        self._cell = [cell.to(self._dtype) for cell in self._cell]

    def _layer(self, i: int, inputs: Tensor) -> Tensor:
        output: Tensor
        output, self._hidden[i], self._cell[i] = torch.lstm(
            inputs,
            (self._hidden[i], self._cell[i]),
            self._weights[i],
            has_biases=True,
            num_layers=1,
            dropout=0.0,
            train=False,
            bidirectional=False,
            batch_first=False,
        )
        return output

    def _linear(self, weight: Tensor, bias: Tensor) -> Linear:
        return lambda inputs: F.linear(inputs, weight, bias)


def _output(generator: LSTMGenerator) -> tuple[Tensor, Tensor]:
    """Weight and bias from `hidden`'s vectors to logits; a projection between is multiplied in."""
    weight: Tensor = generator.output.weight
    bias: Tensor = generator.output.bias
    if isinstance(generator.projection, nn.Linear):
        bias = torch.addmv(bias, weight, generator.projection.bias)
        weight = weight @ generator.projection.weight
    return weight, bias


def _attention_weights(
    attention: CausalAttention, embedding: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What gives queries, keys and values: weight and bias of states, and a row for every token.

    Shapes: weight `(3 * width, hidden)`, bias `(3 * width,)`, rows `(vocab, heads, size)`.
    """
    rows = F.linear(embedding, attention.of_tokens.weight)
    by_head = rows.view(len(rows), attention.num_heads, -1)
    return attention.of_states.weight, attention.of_states.bias, by_head


def _with_room(memory: Memory, rows: Tensor) -> Memory:
    """Those rows of a memory, in tensors with room for as many places again, and some."""
    heads, places, size = memory.values.shape[1:]
    shape = len(rows), heads, 2 * places + _LEAST_ROOM, size
    roomy = Memory(memory.keys.new_empty(shape), memory.values.new_empty(shape))
    for part, filled in zip(roomy, memory):
        torch.index_select(filled, 0, rows, out=part[:, :, : filled.shape[2]])
    return roomy
