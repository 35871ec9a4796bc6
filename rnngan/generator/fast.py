"""A recurrent generator one token at a time, fast.

Much of what a step of `nn.LSTM` costs on a CPU is not its products: the weights are put anew into
the order in which oneDNN multiplies, and every call of torch takes a microsecond or more.
`FastStepper` has the weights put in order once, in bfloat16 where the processor computes in it, and
runs a layer in few calls, that of an LSTM in one; a piece that is alone goes through NumPy.
`rnngan.generator.fast_cells` has the kinds of layers.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rnngan.generator.attention import CausalAttention, Memory
from rnngan.generator.convolution import CausalConvolutions
from rnngan.generator.fast_cells import (
    LAYERS,
    SINGLE_LAYERS,
    FloatArray,
    Linear,
    linear,
)
from rnngan.generator.recurrent import RecurrentGenerator, State
from rnngan.layers import BFLOAT16_IS_FAST

Precision = Literal["auto", "bfloat16", "float32"]
"""Of the recurrent layers' products and what they put out; cells, the attention's memory and logits
are float32, and so is everything where one piece is alone on a CPU. `auto` is bfloat16 where the
processor computes in it."""

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
        self, generator: RecurrentGenerator, *, batch_size: int = 1, precision: Precision = "auto"
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

    def _network_for(self, batch_size: int) -> _Single | _Several:
        if self._on_cpu and batch_size == 1:
            return _Single(self._generator)
        # Where the processor has no bfloat16, oneDNN has no LSTM in it either.
        packed = (
            self._on_cpu and _HAS_PACKED_LSTM and (BFLOAT16_IS_FAST or self._dtype.itemsize == 4)
        )
        return _Several(self._generator, self._dtype, packed=packed)

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
        if isinstance(self._network, _Several) and len(rows) == self._batch_size:
            self._network.reorder(rows)
        else:
            self._go_on(self._network.state(), rows)

    def state(self) -> State:
        """Where every piece stands, in float32; what the stepper does later leaves it as it is."""
        return self._network.state().map(torch.clone)

    def set_state(self, state: State) -> None:
        """Go on from a state of this stepper, another or the generator, with all its pieces."""
        self._go_on(state, torch.arange(state.batch_size, device=state.layers[0][0].device))

    def _go_on(self, state: State, rows: Tensor) -> None:
        if (len(rows) == 1) != (self._batch_size == 1):
            self._network = self._network_for(len(rows))
        self._batch_size = len(rows)
        self._network.set_state(state, rows)


class _Single:
    """One piece on NumPy; its convolutions, if there are any, on torch."""

    def __init__(self, generator: RecurrentGenerator) -> None:
        layer = SINGLE_LAYERS[generator.cell]
        self._layers = [layer(weights) for weights in generator.layers()]
        self._embedding = generator.embedding.weight.numpy(force=True)
        weight, bias = _output(generator)
        self._weight, self._bias = weight.numpy(force=True), bias.numpy(force=True)
        self._front: _Front | None = None
        if generator.front is not None:
            self._front = _Front(generator.front, torch.float32, packed=False)
        self._attention: _SingleAttention | None = None
        if generator.attention is not None:
            self._attention = _SingleAttention(generator.attention, generator.embedding.weight)

    def set_state(self, state: State, rows: Tensor) -> None:
        picked = _picked(state, rows)
        for layer, tensors in zip(self._layers, picked.layers):
            layer.state = [tensor[0].numpy() for tensor in tensors]
        if self._front is not None:
            self._front.state = picked.front
        if self._attention is not None and state.memory is not None:
            self._attention.set_memory(state.memory, rows)

    def state(self) -> State:
        return State(
            tuple(
                tuple(torch.tensor(part)[None] for part in layer.state) for layer in self._layers
            ),
            self._front.state if self._front else (),
            self._attention.memory() if self._attention else None,
        )

    def step(self, tokens: Tensor) -> Tensor:
        token = int(tokens)
        inputs = self._embedding[token]
        if self._front is not None:
            inputs = self._front.step(torch.from_numpy(inputs)[None])[0].numpy()
        for i, layer in enumerate(self._layers):
            inputs = hidden = layer.step(inputs)
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


class _Several:
    """Several pieces on torch."""

    def __init__(self, generator: RecurrentGenerator, dtype: torch.dtype, *, packed: bool) -> None:
        layer = LAYERS[generator.cell]
        self._layers = [layer(weights, dtype, packed=packed) for weights in generator.layers()]
        self._size = generator.config.hidden_size
        self._dtype = dtype
        self._embedding = generator.embedding.weight.to(dtype)
        self._output = linear(*_output(generator), packed=packed)
        self._front: _Front | None = None
        if generator.front is not None:
            self._front = _Front(generator.front, dtype, packed=packed)
        self._attention: _Attention | None = None
        if generator.attention is not None:
            weight, bias, of_tokens = _attention_weights(
                generator.attention, generator.embedding.weight
            )
            project = linear(weight.to(dtype), bias.to(dtype), packed=packed)
            self._attention = _Attention(project, of_tokens)

    def set_state(self, state: State, rows: Tensor) -> None:
        picked = _picked(state, rows)
        for layer, tensors in zip(self._layers, picked.layers):
            layer.state = list(tensors)
        if self._front is not None:
            self._front.state = picked.front
        if self._attention is not None and state.memory is not None:
            self._attention.set_memory(state.memory, rows)

    def reorder(self, rows: Tensor) -> None:
        """As many pieces as before; of memory only what comes to another place is copied."""
        for layer in self._layers:
            layer.state = [part.index_select(0, rows) for part in layer.state]
        if self._front is not None:
            self._front.state = tuple(part.index_select(0, rows) for part in self._front.state)
        if self._attention is not None:
            moved = (rows != torch.arange(len(rows), device=rows.device)).nonzero().squeeze(1)
            for part in self._attention.memory():
                part.index_copy_(0, moved, part.index_select(0, rows[moved]))

    def state(self) -> State:
        return State(
            tuple(tuple(part.float() for part in layer.state) for layer in self._layers),
            self._front.state if self._front else (),
            self._attention.memory() if self._attention else None,
        )

    def step(self, tokens: Tensor) -> Tensor:
        output = self._embedding.index_select(0, tokens)
        if self._front is not None:
            output = self._front.step(output)
        for i, layer in enumerate(self._layers):
            output = layer.step(output)
            if i == 0 and self._attention is not None:
                context = self._attention.look_back(output, tokens)
                output = torch.cat([output, context.to(self._dtype)], dim=1)
        output = output.float()
        if self._attention is not None:
            output = torch.cat([output[:, : self._size], context], dim=1)
        return self._output(output)


class _Front:
    """The convolutions of several pieces; the state is in float32."""

    def __init__(self, front: CausalConvolutions, dtype: torch.dtype, *, packed: bool) -> None:
        self.state: tuple[Tensor, ...] = ()
        self._products = [
            linear(weight.flatten(1).to(dtype), bias.to(dtype), packed=packed)
            for weight, bias in front.weights()
        ]

    def step(self, inputs: Tensor) -> Tensor:
        features, ends = inputs, []
        for product, last_inputs, last_outputs in zip(
            self._products, self.state[::2], self.state[1::2]
        ):
            window = torch.cat([last_inputs, features[:, :, None].float()], dim=2)
            outputs = product(window.flatten(1).to(inputs.dtype)).relu_()
            pooled = torch.cat([last_outputs, outputs[:, :, None].float()], dim=2)
            features = pooled.amax(2).to(inputs.dtype)
            ends += [window[:, :, 1:], pooled[:, :, 1:]]
        self.state = tuple(ends)
        return torch.cat([inputs, features], dim=1)


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


def _picked(state: State, rows: Tensor) -> State:
    """Those rows of a state, all but the attention's memory, which gets room besides."""
    return state._replace(memory=None).map(lambda part: part.index_select(0, rows))


def _output(generator: RecurrentGenerator) -> tuple[Tensor, Tensor]:
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
