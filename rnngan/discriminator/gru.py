"""Bidirectional GRU over a whole piece, the default discriminator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rnngan.config import DiscriminatorConfig
from rnngan.discriminator.base import Discriminator, joining
from rnngan.layers import GRU, AttentionPooling, length_mask
from rnngan.music.tokenizers.base import Codec


def reversed_within(steps: Tensor, lengths: Tensor) -> Tensor:
    """Each row's first `length` steps backwards, padding left where it is.

    Args:
        steps: `(batch, time, hidden)`.
        lengths: `(batch,)`.
    """
    time = torch.arange(steps.shape[1], device=steps.device)
    index = torch.where(time < lengths[:, None], lengths[:, None] - 1 - time, time)
    return steps.gather(1, index[..., None].expand_as(steps))


class BidirectionalGRU(nn.Module):
    """GRUs in both directions, and attention that pools what they have seen.

    Each direction is a GRU of its own that starts at the first step it may see, so that padding is
    always behind it and never changes the result.

    Shapes: steps `(batch, time, hidden)`, pooled `(batch, 2 · hidden)`.

    References:
        Cho et al., "Learning phrase representations using RNN encoder–decoder", 2014 (GRU);
        Schuster & Paliwal, "Bidirectional recurrent neural networks", 1997.
    """

    def __init__(self, hidden: int, num_layers: int) -> None:
        super().__init__()
        sizes = [hidden, *(num_layers - 1) * [2 * hidden]]
        self.forwards = nn.ModuleList(GRU(size, hidden) for size in sizes)
        self.backwards = nn.ModuleList(GRU(size, hidden) for size in sizes)
        self.pool = AttentionPooling(2 * hidden)

    def forward(self, steps: Tensor, lengths: Tensor) -> Tensor:
        """Pool the first `length` steps of each row."""
        for forwards, backwards in zip(self.forwards, self.backwards):
            ahead = forwards(steps)
            behind = backwards(reversed_within(steps, lengths))
            steps = torch.cat([ahead, reversed_within(behind, lengths)], dim=-1)
        pooled: Tensor = self.pool(steps, length_mask(lengths, steps.shape[1]))
        return pooled


class GRUDiscriminator(Discriminator):
    """A convolution joins `stride` tokens to a step; GRUs run over the steps in both directions."""

    def __init__(self, config: DiscriminatorConfig, codec: Codec) -> None:
        hidden = config.hidden_size
        super().__init__(config, codec, 2 * hidden)
        self.join = joining(config)
        self.rnn = BidirectionalGRU(hidden, config.num_layers)

    def pooled(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """See `Discriminator`."""
        steps = torch.relu(self.join(embedded.transpose(1, 2))).transpose(1, 2)
        num_steps = (lengths + self.config.stride - 1) // self.config.stride
        pooled: Tensor = self.rnn(steps, num_steps)
        return pooled
