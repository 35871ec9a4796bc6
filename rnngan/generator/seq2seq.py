"""Encoder, decoder and attention: a melody is read, and what accompanies it is written."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rnngan.config import GeneratorConfig
from rnngan.generator.cells import LSTM
from rnngan.generator.clock import NUM_PERIODS, Clock
from rnngan.generator.encoder import Encoded, Encoder, EncoderDecoder
from rnngan.generator.recurrent import State
from rnngan.layers import length_mask
from rnngan.music.tokenizers.events import Events

_HEAD_SIZE = 2 * NUM_PERIODS
_SHARPNESS = 3.0
"""Of the time's part in the scores before anything is learnt."""


class SourceAttention(nn.Module):
    """Finds in the source what matters to each time of the decoder.

    For state s of the decoder at tick t, and state h_j of the encoder at tick t_j, head by head:
    e_j = (W_q s + T_q w(t)) · (W_k h_j + T_k w(t_j)) / √size, a = softmax(e),
    context = Σ_j a_j W_v h_j, where w are the waves of `Clock`. T_q and T_k begin alike, so that at
    first a time finds the source that sounds about then.

    References:
        Bahdanau, Cho & Bengio, "Neural machine translation by jointly learning to align and
        translate", 2015, equations 4 to 6. There e_j = vᵀ tanh(W s + U h_j), which needs memory for
        batch × time × source × width; products, as in Luong, Pham & Manning, "Effective approaches
        to attention-based neural machine translation", 2015, equation 8, do not. Here as there, the
        state that asks is the present one.
    """

    def __init__(self, hidden_size: int, source_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.width = num_heads, num_heads * _HEAD_SIZE
        self.of_states = nn.Linear(hidden_size, self.width)
        self.of_source = nn.Linear(source_size, 2 * self.width)
        self.query_times = nn.Linear(2 * NUM_PERIODS, self.width, bias=False)
        self.key_times = nn.Linear(2 * NUM_PERIODS, self.width, bias=False)
        for head in self.query_times.weight.data.chunk(num_heads):
            nn.init.orthogonal_(head, gain=_SHARPNESS**0.5)
        self.key_times.weight.data.copy_(self.query_times.weight)

    def remember(self, source: Tensor, waves: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values `(batch, heads, places, size)` of the encoder's states."""
        keys, values = self.of_source(source).chunk(2, dim=-1)
        return self._by_head(keys + self.key_times(waves)), self._by_head(values)

    def forward(
        self, states: Tensor, waves: Tensor, keys: Tensor, values: Tensor, mask: Tensor
    ) -> Tensor:
        """Contexts `(batch, time, width)`; the mask `(batch, places)` is False for padding."""
        query = self._by_head(self.of_states(states) + self.query_times(waves))
        found = F.scaled_dot_product_attention(
            query, keys.to(query.dtype), values.to(query.dtype), attn_mask=mask[:, None, None]
        )
        return found.transpose(1, 2).flatten(2)

    def _by_head(self, vectors: Tensor) -> Tensor:
        batch, time, _ = vectors.shape
        return vectors.view(batch, time, self.num_heads, -1).transpose(1, 2)


class Seq2Seq(EncoderDecoder):
    """Reads a melody, and writes the other parts.

    An encoder reads the source in both directions; the decoder is a `RecurrentGenerator` of LSTMs
    whose first layer looks into it. What it finds goes into the second layer and the output layer.
    The decoder's layers begin from what the encoder has read (Bahdanau 2015, appendix A.2.2).

    Without a source it has nothing to accompany, and does as if it had read Start alone.

    Args:
        config: Of the network.
        tokenizer: Of source and target.
    """

    def __init__(self, config: GeneratorConfig, tokenizer: Events) -> None:
        heads = config.attention_heads
        super().__init__(
            config, len(tokenizer.vocabulary), cell=LSTM, found_size=heads * _HEAD_SIZE
        )
        hidden = config.hidden_size
        self.clock = Clock(tokenizer)
        self.encoder = Encoder(config.embedding_size, hidden)
        self.source_attention = SourceAttention(hidden, 2 * hidden, heads)
        self.bridge = nn.Linear(2 * hidden, config.num_layers * hidden)

    def start(self, batch_size: int) -> State:
        """State before the first token, where nothing is known."""
        nothing = torch.ones(batch_size, 1, dtype=torch.long, device=self.output.weight.device)
        return self.encode(nothing, nothing[:, 0]).state

    def encode(
        self,
        source: Tensor,
        lengths: Tensor,
        random: torch.Generator | None = None,  # noqa: ARG002
    ) -> Encoded:
        """Read sources; nothing is drawn."""
        embedded = self.embedding_dropout(self.embedding(source))
        states, ends = self.encoder(embedded, lengths)
        states = self.output_dropout(states)
        begin = self.clock.start(len(source))
        ticks, _ = self.clock(source, begin)
        keys, values = self.source_attention.remember(states, self.clock.waves(ticks))
        mask = length_mask(lengths, source.shape[1])
        hidden = self.bridge(ends).tanh().chunk(self.config.num_layers, dim=1)
        state = (
            super()
            .start(len(source))
            ._replace(
                layers=tuple((part, torch.zeros_like(part)) for part in hidden),
                source=(keys, values, mask, begin),
            )
        )
        return Encoded(state, embedded.new_zeros(len(source), 0))

    def _found(
        self, states: Tensor, tokens: Tensor, source: tuple[Tensor, ...]
    ) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        keys, values, mask, clock = source
        ticks, clock = self.clock(tokens, clock)
        found = self.source_attention(states, self.clock.waves(ticks), keys, values, mask)
        return [found], (keys, values, mask, clock)
