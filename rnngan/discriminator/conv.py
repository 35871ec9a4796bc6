"""Convolutions of several widths over a whole piece: which phrases occur, wherever that is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rnngan.config import DiscriminatorConfig
from rnngan.discriminator.base import Discriminator
from rnngan.layers import length_mask
from rnngan.music.tokenizers.base import Codec

WIDTHS = (3, 5, 9)
"""Tokens that a filter sees; all odd."""


class ConvDiscriminator(Discriminator):
    """For every filter its largest response over time, and its mean.

    The paper takes the largest alone, which says whether a phrase occurs but not how often.

    References:
        Kim, "Convolutional neural networks for sentence classification", 2014;
        Zhang et al., "Adversarial feature matching for text generation", 2017 (as discriminator).
    """

    def __init__(self, config: DiscriminatorConfig, codec: Codec) -> None:
        hidden = config.hidden_size
        super().__init__(config, codec, 2 * len(WIDTHS) * hidden)
        self.filters = nn.ModuleList(
            nn.Conv1d(config.embedding_size, hidden, width, padding=width // 2) for width in WIDTHS
        )

    def pooled(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """See `Discriminator`."""
        rows = embedded.transpose(1, 2)
        inside = length_mask(lengths, embedded.shape[1])[:, None]
        found = torch.cat([torch.relu(filters(rows)) for filters in self.filters], dim=1) * inside
        return torch.cat([found.amax(2), found.sum(2) / lengths[:, None]], dim=1)
