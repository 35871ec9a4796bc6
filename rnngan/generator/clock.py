"""Where in a piece each token stands: the time that an encoder and a decoder share."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rnngan.music.tokenizers.events import Events

NUM_PERIODS = 16
_SHORTEST, _OCTAVES = 8.0, 0.75
"""Ticks of the shortest period, and octaves from one to the next; the longest are 200 bars."""


class Clock(nn.Module):
    """Counts bars and positions of event tokens.

    The state is of each piece the tick where its bar began, the ticks of a full bar, the position
    in it, and whether a bar is open: `(batch, 4)`, long.

    Args:
        tokenizer: Of the tokens.
    """

    def __init__(self, tokenizer: Events) -> None:
        super().__init__()
        vocabulary = tokenizer.vocabulary
        positions, sizes = torch.zeros(2, len(vocabulary), dtype=torch.long)
        ids = vocabulary.ids("Position")
        positions[ids.start : ids.stop] = torch.from_numpy(tokenizer.positions)
        ids = vocabulary.ids("Metre")
        sizes[ids.start : ids.stop] = torch.tensor([m.ticks_per_bar for m in tokenizer.metres])
        moves = torch.zeros(len(vocabulary), dtype=torch.bool)
        moves[[tokenizer.bar, *vocabulary.ids("Position")]] = True
        periods = _SHORTEST * 2 ** (_OCTAVES * torch.arange(NUM_PERIODS))
        self._bar = tokenizer.bar
        for name, table in (
            *(("positions", positions), ("sizes", sizes), ("moves", moves)),
            ("frequencies", 2 * math.pi / periods),
        ):
            self.register_buffer(name, table, persistent=False)
        self.positions: Tensor
        self.sizes: Tensor
        self.moves: Tensor
        self.frequencies: Tensor

    def start(self, batch_size: int) -> Tensor:
        """State before the first token."""
        return self.positions.new_zeros(batch_size, 4)

    def forward(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The tick at which what follows each token stands `(batch, time)`, and the new state.

        An excerpt begins at 0.
        """
        line, size, position, is_open = state.unbind(1)
        opens = tokens == self._bar
        sizes = _latest(self.sizes[tokens], self.sizes[tokens] > 0, size)
        num_open = is_open[:, None] + opens.cumsum(1)
        lines = line[:, None] + (opens * sizes * (num_open > 1)).cumsum(1)
        positions = _latest(self.positions[tokens], self.moves[tokens], position)
        last = torch.stack(
            [lines[:, -1], sizes[:, -1], positions[:, -1], num_open[:, -1].clamp(max=1)], dim=1
        )
        return lines + positions, last

    def bar_sizes(self, tokens: Tensor, state: Tensor) -> Tensor:
        """Ticks of a full bar at each token, `(batch, time)`; 0 before a metre is told."""
        told = self.sizes[tokens]
        return _latest(told, told > 0, state[:, 1])

    def waves(self, ticks: Tensor) -> Tensor:
        """Sines and cosines of ticks, `(..., 2 * NUM_PERIODS)`.

        Products of two such vectors are largest where the ticks are the same, and fall off with
        the distance.

        References:
            Vaswani et al., "Attention is all you need", 2017, section 3.5, of places in place of
            musical time.
        """
        angles = ticks[..., None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _latest(values: Tensor, marked: Tensor, begin: Tensor) -> Tensor:
    """Of each time the last marked value up to it, or else that of the beginning `(batch,)`."""
    times = torch.arange(1, values.shape[1] + 1, device=values.device)
    places = (times * marked).cummax(1).values
    return torch.cat([begin[:, None], values], dim=1).gather(1, places)
