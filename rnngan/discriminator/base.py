"""What all discriminators share: what they see of a piece, and what they can be asked.

Axes: `batch` pieces, `time` token positions, `embedding`, `hidden` and `width` units.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rnngan.config import DiscriminatorConfig
from rnngan.discriminator.relative import RelativeView
from rnngan.errors import UserError
from rnngan.layers import GRU, length_mask
from rnngan.music.tokenizers.base import Codec, as_tokenizer

_DISTANCES = 8
"""Numbers whose distances make one minibatch feature."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Makes logits of a discriminator log density ratios, ln p_real / p_fake.

    Attributes:
        scale: An inverse temperature.
        bias: Added after it.
    """

    scale: float = 1.0
    bias: float = 0.0

    def calibrated(self, logits: Tensor) -> Tensor:
        """`scale · logits + bias`."""
        return self.scale * logits + self.bias


class PieceEmbedding(nn.Module):
    """Tokens, relative columns or both, each embedded and all summed.

    Rows of real numbers are embedded as they are, by a matrix; there are no other views of them.

    Shapes: tokens `(batch, time)` or `(batch, time, 4)`, embedded `(batch, time, embedding)`.
    """

    first: Tensor

    def __init__(self, config: DiscriminatorConfig, codec: Codec) -> None:
        super().__init__()
        size = config.embedding_size
        self.rows: nn.Linear | None = None
        self.tokens: nn.Embedding | None = None
        self.columns: nn.EmbeddingBag | None = None
        if codec.width:
            self.rows = nn.Linear(codec.width, size)
            return
        tokenizer = as_tokenizer(codec)
        if config.views != "relative":
            self.tokens = nn.Embedding(len(tokenizer.vocabulary), size)
        if config.views != "tokens":
            self.view = RelativeView(tokenizer)
            sizes = torch.tensor(self.view.sizes)
            self.columns = nn.EmbeddingBag(int(sizes.sum()), size, mode="sum")
            nn.init.normal_(self.columns.weight, std=len(sizes) ** -0.5)
            self.register_buffer("first", sizes.cumsum(0) - sizes, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embedded tokens."""
        if self.rows is not None:
            rows: Tensor = self.rows(tokens)
            return rows
        parts = []
        if self.tokens is not None:
            parts.append(self.tokens(tokens))
        if self.columns is not None:
            columns = torch.from_numpy(self.view(tokens.cpu().numpy())).to(tokens.device)
            bags = self.columns((columns + self.first).flatten(0, 1))
            parts.append(bags.unflatten(0, tokens.shape))
        return torch.stack(parts).sum(0)


def joining(config: DiscriminatorConfig) -> nn.Conv1d:
    """Makes `stride` tokens a step that also sees those before and behind it, up to the next.

    From `time` tokens come as many steps as it takes, and step k sees the tokens from
    (k − 1) · stride + 1 to (k + 1) · stride − 1.
    """
    return nn.Conv1d(
        config.embedding_size,
        config.hidden_size,
        2 * config.stride - 1,
        stride=config.stride,
        padding=config.stride - 1,
    )


class CausalHead(nn.Module):
    """A potential for every beginning of a piece, from that beginning alone.

    A GRU takes a step when `stride` tokens are complete, and its state is held until the next; the
    tokens since then come in through a convolution.

    Shapes: embedded `(batch, time, embedding)`, potentials `(batch, time)`.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        hidden, self.stride = config.hidden_size, config.stride
        self.join = joining(config)
        self.rnn = GRU(hidden, hidden)
        self.recent = nn.Conv1d(config.embedding_size, hidden, 2 * self.stride - 1)
        self.held = nn.Linear(hidden, hidden, bias=False)
        self.output = nn.Linear(hidden, 1)

    def forward(self, embedded: Tensor) -> Tensor:
        """Potentials; logits that the whole piece is real."""
        rows = embedded.transpose(1, 2)
        steps = torch.relu(self.join(rows)).transpose(1, 2)
        states = F.pad(self.rnn(steps), (0, 0, 1, 0))
        time = torch.arange(embedded.shape[1], device=embedded.device)
        held = self.held(states)[:, (time + 1) // self.stride]
        recent = self.recent(F.pad(rows, (2 * self.stride - 2, 0))).transpose(1, 2)
        potentials: Tensor = self.output(torch.relu(recent + held)).squeeze(-1)
        return potentials.float()


class MinibatchFeatures(nn.Module):
    """How near a piece is to the others of its batch, in `num` learned ways, each 0 to 1.

    The mean over the others of exp(−L1 distance), where the paper has the sum, so that the size of
    the batch does not matter; 0 for a piece alone.

    References:
        Salimans et al., "Improved techniques for training GANs", 2016, section 3.2.
    """

    def __init__(self, width: int, num: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, num * _DISTANCES, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, num)` from `(batch, width)`."""
        places = self.project(features).unflatten(1, (-1, _DISTANCES))
        nearness: Tensor = (-(places[:, None] - places[None]).abs().sum(-1)).exp()
        return (nearness.sum(1) - 1) / max(len(features) - 1, 1)


class Discriminator(nn.Module, ABC):
    """One logit per piece: positive for real.

    Padding never changes a result, nor does the company of other pieces, unless there are minibatch
    features: with those every verdict depends on the batch, in evaluation too, and pieces of both
    sides must not be mixed in one.

    Shapes: tokens `(batch, time)`, or rows of real numbers `(batch, time, 4)`; lengths `(batch,)`,
    logits `(batch,)`.

    Args:
        config: Its stride must be said: 0 is for whoever knows the corpus.
        codec: Of the tokens, or rows.
        width: Of what the subclass pools.

    Raises:
        UserError: The stride is 0.
    """

    calibration_scale: Tensor
    calibration_bias: Tensor

    def __init__(self, config: DiscriminatorConfig, codec: Codec, width: int) -> None:
        super().__init__()
        if config.stride < 1:
            raise UserError(f"the discriminator's stride must be at least 1, got {config.stride}")
        self.config = config
        self.embedding = PieceEmbedding(config, codec)
        self.dropout = nn.Dropout(config.dropout)
        num = config.minibatch_features
        self.minibatch = MinibatchFeatures(width, num) if num else None
        self.output = nn.Linear(width + num, 1)
        self.causal_head = CausalHead(config) if config.causal_head else None
        self.register_buffer("calibration_scale", torch.ones(()))
        self.register_buffer("calibration_bias", torch.zeros(()))

    @abstractmethod
    def pooled(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """`(batch, width)` from `(batch, time, embedding)`, which is zero behind the end."""

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Piece logits."""
        return self.judged(self.embedded(tokens, lengths), lengths)

    def embedded(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """What the network sees: `(batch, time, embedding)`, zero behind the end."""
        inside = length_mask(lengths, tokens.shape[1])
        embedded: Tensor = self.embedding(tokens) * inside[..., None]
        return embedded

    def judged(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """Piece logits of pieces embedded already."""
        features = self.pooled(self.dropout(embedded), lengths)
        if self.minibatch is not None:
            features = torch.cat([features, self.minibatch(features)], dim=1)
        logits: Tensor = self.output(self.dropout(features)).squeeze(-1)
        return logits.float()

    def features(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """What it has seen of each piece, `(batch, width)`, for feature matching."""
        return self.pooled(self.dropout(self.embedded(tokens, lengths)), lengths).float()

    def potentials(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """For each beginning of a piece the logit that it is real, `(batch, time)`.

        That at a time looks at the tokens up to it alone; what stands behind the end is nonsense.

        Raises:
            UserError: It has no causal head.
        """
        if self.causal_head is None:
            raise UserError("the discriminator has no causal head; train it with causal_head on")
        potentials: Tensor = self.causal_head(self.dropout(self.embedded(tokens, lengths)))
        return potentials

    def soft(self, probs: Tensor, lengths: Tensor) -> Tensor:
        """Piece logits of distributions over tokens, for gradients that run through samples.

        Args:
            probs: `(batch, time, vocab)`; one-hot rows give what `forward` gives.
            lengths: `(batch,)`.

        Raises:
            UserError: It sees more than the tokens.
        """
        tokens = self.embedding.tokens
        if tokens is None or self.embedding.columns is not None:
            raise UserError(
                "relative features have no gradient; the discriminator needs views = 'tokens' "
                f"here, got {self.config.views!r}"
            )
        inside = length_mask(lengths, probs.shape[1])
        return self.judged(probs @ tokens.weight * inside[..., None], lengths)

    def set_calibration(self, calibration: Calibration) -> None:
        """Keep what makes its logits log density ratios, as part of its state."""
        self.calibration_scale.fill_(calibration.scale)
        self.calibration_bias.fill_(calibration.bias)

    def log_ratio(self, logits: Tensor) -> Tensor:
        """Calibrated logits: ln p_real / p_fake, as well as the network knows it."""
        return self.calibration_scale * logits + self.calibration_bias
