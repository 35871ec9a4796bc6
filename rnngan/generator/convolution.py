"""Causal convolutions before the recurrence: tokens that stand together are seen at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CausalConvolutions(nn.Module):
    """Layers of convolution, rectifier, and maximum over the last few times.

    Nothing looks ahead, and every time has an output: what comes before the first time counts as
    zeros, which cannot win a maximum of rectified numbers. Behind the inputs stand the features, so
    that the recurrence also knows which token came last, and a maximum may forget it.

    References:
        Convolutions that look back alone: van den Oord et al., "WaveNet", 2016, section 2.1. Before
        an LSTM: Sainath et al., "Convolutional, long short-term memory, fully connected deep neural
        networks", 2015.
    """

    def __init__(self, size: int, kernel_size: int, pool_size: int, num_layers: int) -> None:
        super().__init__()
        self.kernel_size, self.pool_size = kernel_size, pool_size
        layers = [nn.Conv1d(size, size, kernel_size) for _ in range(num_layers)]
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.constant_(layer.get_parameter("bias"), 0)
        self.layers = nn.ModuleList(layers)

    def weights(self) -> list[tuple[Tensor, Tensor]]:
        """Of each layer: `(size, size, kernel)` and bias `(size,)`."""
        return [
            (layer.get_parameter("weight"), layer.get_parameter("bias")) for layer in self.layers
        ]

    def start(self, batch_size: int) -> tuple[Tensor, ...]:
        """State before the first token.

        For each layer its last inputs, `(batch, size, kernel - 1)`, and its last rectified outputs,
        `(batch, size, pool - 1)`.
        """
        weight = self.weights()[0][0]
        shape = batch_size, weight.shape[0]
        inputs = weight.new_zeros(*shape, self.kernel_size - 1)
        outputs = weight.new_zeros(*shape, self.pool_size - 1)
        return (inputs, outputs) * len(self.layers)

    def forward(self, inputs: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Inputs `(batch, time, size)` with their features behind them, and the new state."""
        features, ends = inputs.transpose(1, 2), []
        for layer, last_inputs, last_outputs in zip(self.layers, state[::2], state[1::2]):
            window = torch.cat([last_inputs.to(features.dtype), features], dim=2)
            outputs = layer(window).relu()
            pooled = torch.cat([last_outputs.to(outputs.dtype), outputs], dim=2)
            features = F.max_pool1d(pooled, self.pool_size, stride=1)
            ends += [_last(window, self.kernel_size - 1), _last(pooled, self.pool_size - 1)]
        found = features.transpose(1, 2)
        return torch.cat([inputs.to(found.dtype), found], dim=2), tuple(ends)


def _last(sequence: Tensor, count: int) -> Tensor:
    """Last times of `(batch, size, time)`, as many as said, none being one of the choices."""
    return sequence[:, :, sequence.shape[2] - count :]
