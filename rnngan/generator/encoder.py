"""Generators that are told something before they write: what an encoder makes of other tokens."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rnngan.generator.cells import LSTM, Cell
from rnngan.generator.recurrent import RecurrentGenerator, State
from rnngan.layers import length_mask, reset_recurrent


class Encoded(NamedTuple):
    """What is known of several pieces before they are written.

    Attributes:
        state: To begin from.
        divergence: Nats that it costs to say so much, `(batch, latent)`; of no width where what is
            told costs nothing.
    """

    state: State
    divergence: Tensor


class Encoder(nn.Module):
    """A layer of LSTMs in both directions over embedded tokens.

    Args:
        input_size: Of the embedding.
        hidden_size: Units of each direction.

    References:
        Schuster & Paliwal, "Bidirectional recurrent neural networks", 1997.
    """

    def __init__(self, input_size: int, hidden_size: int, cell: Cell = LSTM) -> None:
        super().__init__()
        self.cell, self.hidden_size = cell, hidden_size
        self.forwards = cell.stack(input_size, hidden_size, 1, batch_first=True)
        self.backwards = cell.stack(input_size, hidden_size, 1, batch_first=True)
        for rnn in (self.forwards, self.backwards):
            reset_recurrent(rnn)

    def forward(self, embedded: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Read rows of unequal length; what lies behind their ends changes nothing.

        Args:
            embedded: `(batch, time, input)`.
            lengths: `(batch,)`, at least 1.

        Returns:
            States of both directions `(batch, time, 2 * hidden)`, and those of each that have read
            all of a row `(batch, 2 * hidden)`.
        """
        begin = [embedded.new_zeros(len(embedded), self.hidden_size)] * self.cell.num_states
        order = _turned(lengths, embedded.shape[1])
        passes = []
        for rnn, inputs in (
            (self.forwards, embedded),
            (self.backwards, picked(embedded, order)),
        ):
            states, *_ = self.cell.scan(inputs, begin, list(rnn.all_weights[0]), self.training)
            passes.append(states)
        last = (lengths - 1)[:, None]
        ends = torch.cat([picked(states, last).squeeze(1) for states in passes], dim=1)
        return torch.cat([passes[0], picked(passes[1], order)], dim=2), ends


def _turned(lengths: Tensor, time: int) -> Tensor:
    """Places `(batch, time)` that turn each row around, and the padding not."""
    places = torch.arange(time, device=lengths.device).expand(len(lengths), -1)
    return torch.where(length_mask(lengths, time), lengths[:, None] - 1 - places, places)


def picked(states: Tensor, places: Tensor) -> Tensor:
    """`(batch, places, hidden)` from `(batch, time, hidden)`."""
    return states.gather(1, places[..., None].expand(-1, -1, states.shape[2]))


class EncoderDecoder(RecurrentGenerator):
    """A generator that can begin from what its encoder makes of a source."""

    is_fast = False

    @abstractmethod
    def encode(
        self, source: Tensor, lengths: Tensor, random: torch.Generator | None = None
    ) -> Encoded:
        """Read sources.

        Args:
            source: Tokens, `(batch, time)`.
            lengths: `(batch,)`; what stands behind is not looked at.
            random: For what is drawn; None for what is likeliest.
        """
