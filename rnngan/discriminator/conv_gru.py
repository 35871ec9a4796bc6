"""Two convolutions before a bidirectional GRU: fewer and larger steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rnngan.config import DiscriminatorConfig
from rnngan.discriminator.base import Discriminator, joining
from rnngan.discriminator.gru import BidirectionalGRU
from rnngan.layers import length_mask
from rnngan.music.tokenizers.base import Codec


class ConvGRUDiscriminator(Discriminator):
    """A convolution joins `stride` tokens, another two of its steps, and GRUs run over the result.

    References:
        Choi et al., "Convolutional recurrent neural networks for music classification", 2017.
    """

    def __init__(self, config: DiscriminatorConfig, codec: Codec) -> None:
        hidden = config.hidden_size
        super().__init__(config, codec, 2 * hidden)
        self.join = joining(config)
        self.join_again = nn.Conv1d(hidden, hidden, 3, stride=2, padding=1)
        self.rnn = BidirectionalGRU(hidden, config.num_layers)

    def pooled(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """See `Discriminator`."""
        steps = torch.relu(self.join(embedded.transpose(1, 2)))
        lengths = (lengths + self.config.stride - 1) // self.config.stride
        # A bias would let the padding speak.
        steps = steps * length_mask(lengths, steps.shape[2])[:, None]
        steps = torch.relu(self.join_again(steps)).transpose(1, 2)
        pooled: Tensor = self.rnn(steps, (lengths + 1) // 2)
        return pooled
