"""Bidirectional GRU over a whole piece, the default discriminator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rnngan.config import DiscriminatorConfig
from rnngan.layers import AttentionPooling, length_mask, reset_recurrent


def reversed_within(steps: Tensor, lengths: Tensor) -> Tensor:
    """Each row's first `length` steps backwards, padding left where it is.

    Args:
        steps: `(batch, time, hidden)`.
        lengths: `(batch,)`.
    """
    time = torch.arange(steps.shape[1], device=steps.device)
    index = torch.where(time < lengths[:, None], lengths[:, None] - 1 - time, time)
    return steps.gather(1, index[..., None].expand_as(steps))


class GRUDiscriminator(nn.Module):
    """One logit per piece: positive for real.

    A convolution joins `stride` tokens to a step, a GRU runs over the steps in each direction, and
    attention pools what both have seen. Each direction is a GRU of its own that starts at the first
    token it may see, so that padding is always behind it and never changes the result.

    Shapes: tokens `(batch, time)`, lengths `(batch,)`, logits `(batch,)`.

    References:
        Cho et al., "Learning phrase representations using RNN encoder–decoder", 2014 (GRU);
        Schuster & Paliwal, "Bidirectional recurrent neural networks", 1997.
    """

    def __init__(self, config: DiscriminatorConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        hidden, stride = config.hidden_size, config.stride
        self.embedding = nn.Embedding(vocab_size, config.embedding_size)
        self.join = nn.Conv1d(
            config.embedding_size, hidden, 2 * stride - 1, stride=stride, padding=stride - 1
        )
        self.forwards = nn.ModuleList()
        self.backwards = nn.ModuleList()
        for layer in range(config.num_layers):
            size = hidden if layer == 0 else 2 * hidden
            self.forwards.append(nn.GRU(size, hidden, batch_first=True))
            self.backwards.append(nn.GRU(size, hidden, batch_first=True))
        for rnn in (*self.forwards, *self.backwards):
            reset_recurrent(rnn)
        self.dropout = nn.Dropout(config.dropout)
        self.pool = AttentionPooling(2 * hidden)
        self.output = nn.Linear(2 * hidden, 1)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Piece logits `(batch,)`."""
        inside = length_mask(lengths, tokens.shape[1])
        embedded = self.embedding(tokens) * inside[..., None]
        steps = torch.relu(self.join(self.dropout(embedded).transpose(1, 2))).transpose(1, 2)
        num_steps = (lengths + self.config.stride - 1) // self.config.stride
        for forwards, backwards in zip(self.forwards, self.backwards):
            ahead, _ = forwards(steps)
            behind, _ = backwards(reversed_within(steps, num_steps))
            steps = torch.cat([ahead, reversed_within(behind, num_steps)], dim=-1)
        pooled = self.pool(steps, length_mask(num_steps, steps.shape[1]))
        logits: Tensor = self.output(self.dropout(pooled)).squeeze(-1)
        return logits.float()
