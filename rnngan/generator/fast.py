"""The LSTM generator one token at a time, fast.

Most of a step of `nn.LSTM` on a CPU goes into putting its weights into the order in which oneDNN
multiplies; at small batches that takes longer than the products. `FastStepper` has them put in
order once, in bfloat16 where the processor computes in it, and runs each layer as one operation.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from rnngan.generator.lstm import LSTMGenerator
from rnngan.layers import BFLOAT16_IS_FAST

Precision = Literal["auto", "bfloat16", "float32"]
"""Of the recurrent layers' weights and states; cells and logits are float32. `auto` is bfloat16
where the processor computes in it."""

_HAS_PACKED_LSTM = hasattr(torch.ops.mkldnn, "_reorder_mkldnn_rnn_layer_weight")


class FastStepper:
    """Scores the next token of several pieces that grow by one token per call.

    Holds the state of each piece, at first zeros. There is no dropout, in whatever mode the
    generator is. In float32 the states are bit for bit those of `nn.LSTM` at the same batch size.

    Make it, and use it, under `torch.inference_mode()`; make it anew when the weights have changed.

    Shapes: tokens `(batch,)`, logits `(batch, vocab)`.
    """

    def __init__(
        self, generator: LSTMGenerator, *, batch_size: int = 1, precision: Precision = "auto"
    ) -> None:
        weight: Tensor = generator.output.weight
        on_cpu = weight.device.type == "cpu"
        in_bfloat16 = precision == "bfloat16" or (
            precision == "auto" and on_cpu and BFLOAT16_IS_FAST
        )
        dtype = torch.bfloat16 if in_bfloat16 else torch.float32
        # Where the processor has no bfloat16, oneDNN has no LSTM in it either.
        packed = on_cpu and _HAS_PACKED_LSTM and (not in_bfloat16 or BFLOAT16_IS_FAST)
        self._batch_size = batch_size
        self._embedding = generator.embedding.weight.to(dtype)
        self._layers = (_PackedLayers if packed else _PlainLayers)(generator.rnn, dtype, batch_size)
        self._bias: Tensor = generator.output.bias
        if isinstance(generator.projection, nn.Linear):  # two linear maps in a row are one
            self._bias = torch.addmv(self._bias, weight, generator.projection.bias)
            weight = weight @ generator.projection.weight
        self._weight = weight.t().contiguous()
        self._packed_weight = torch.ops.mkldnn._reorder_linear_weight(weight) if packed else None

    def step(self, tokens: Tensor) -> Tensor:
        """Logits after one more token per piece.

        Raises:
            ValueError: More or fewer tokens than pieces.
        """
        if len(tokens) != self._batch_size:  # oneDNN would read beyond the states
            raise ValueError(f"need {self._batch_size} tokens, got {len(tokens)}")
        hidden = self._layers.step(self._embedding.index_select(0, tokens)).float()
        # A call of oneDNN costs about 10 µs, more than the whole product for one piece.
        if self._packed_weight is None or len(tokens) == 1:
            return torch.addmm(self._bias, hidden, self._weight)
        logits: Tensor = torch.ops.mkldnn._linear_pointwise(
            hidden, self._packed_weight, self._bias, "none", [], ""
        )
        return logits

    def select(self, rows: Tensor) -> None:
        """Go on with these pieces, by index `(new_batch,)`, each as often as it is named."""
        self._batch_size = len(rows)
        self._layers.select(rows)


class _PackedLayers:
    """Recurrent layers on oneDNN, their weights in its order."""

    def __init__(self, rnn: nn.LSTM, dtype: torch.dtype, batch_size: int) -> None:
        self._size = rnn.hidden_size
        self._weights = []
        for weights in rnn.all_weights:
            input_weight, hidden_weight = torch.ops.mkldnn._reorder_mkldnn_rnn_layer_weight(
                weights[0].to(dtype), weights[1].to(dtype), self._size, False, True, False
            )
            self._weights.append((input_weight, hidden_weight, weights[2], weights[3]))
        self._hidden = [torch.zeros(1, batch_size, self._size, dtype=dtype) for _ in self._weights]
        self._cell = [torch.zeros(1, batch_size, self._size) for _ in self._weights]

    def step(self, inputs: Tensor) -> Tensor:
        output = inputs[None]
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
        return output[0]

    def select(self, rows: Tensor) -> None:
        self._hidden = [hidden.index_select(1, rows) for hidden in self._hidden]
        self._cell = [cell.index_select(1, rows) for cell in self._cell]


class _PlainLayers:
    """Recurrent layers through `nn.LSTM`'s function, for other devices and builds of torch."""

    def __init__(self, rnn: nn.LSTM, dtype: torch.dtype, batch_size: int) -> None:
        self._num_layers = rnn.num_layers
        self._weights = [w.to(dtype) for weights in rnn.all_weights for w in weights]
        shape = (rnn.num_layers, batch_size, rnn.hidden_size)
        zeros = torch.zeros(shape, dtype=dtype, device=self._weights[0].device)
        self._state = (zeros, zeros)

    def step(self, inputs: Tensor) -> Tensor:
        output, *state = torch.lstm(
            inputs[None],
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
        return output[0]

    def select(self, rows: Tensor) -> None:
        hidden, cell = self._state
        self._state = (hidden.index_select(1, rows), cell.index_select(1, rows))
