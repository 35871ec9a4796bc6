"""A discriminator of whole pieces by what is measured of them, as a sum of committees.

Each committee learnt to tell real pieces from what the generator, tilted by the committees before
it, still writes; so their sum is the logarithm of a density ratio, the energy of a residual
energy-based model p(y) ∝ p_generator(y) · exp(E(y)).

References:
    Rosenfeld, Chen & Zhu, "Whole-sentence exponential language models", 2001.
    Deng et al., "Residual energy-based models for text generation", ICLR 2020, equation 2.
    Grover & Ermon, "Boosted generative models", AAAI 2018, section 2.2 (a discriminator a round).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_MOST_DEVIATIONS = 5.0
_INPUT_DROPOUT, _DROPOUT = 0.2, 0.3


class Committee(nn.Module):
    """Small networks side by side that vote by the mean of their logits.

    Args:
        size: Columns of the inputs.
        hidden: Units of each network.
        members: Networks.
    """

    def __init__(self, size: int, hidden: int, members: int) -> None:
        super().__init__()
        self.inner = nn.Parameter(torch.empty(members, size, hidden))
        self.inner_bias = nn.Parameter(torch.zeros(members, 1, hidden))
        self.outer = nn.Parameter(torch.empty(members, hidden, 1))
        self.outer_bias = nn.Parameter(torch.zeros(members, 1, 1))
        self.input_dropout, self.dropout = nn.Dropout(_INPUT_DROPOUT), nn.Dropout(_DROPOUT)
        nn.init.uniform_(self.inner, -(size**-0.5), size**-0.5)
        nn.init.uniform_(self.outer, -(hidden**-0.5), hidden**-0.5)
        self.register_buffer("scale", torch.ones(()))
        self.scale: Tensor

    def logits(self, inputs: Tensor) -> Tensor:
        """Of each member, `(members, pieces)`, from inputs `(pieces, columns)`."""
        inputs = self.input_dropout(inputs.expand(len(self.inner), -1, -1))
        hidden = self.dropout((inputs @ self.inner + self.inner_bias).relu())
        logits: Tensor = (hidden @ self.outer + self.outer_bias).squeeze(2)
        return logits

    def forward(self, inputs: Tensor) -> Tensor:
        """The committee's logarithm of a density ratio, up to a constant: `(pieces,)`."""
        vote: Tensor = self.scale * self.logits(inputs).mean(0)
        return vote


class Residual(nn.Module):
    """Energy of whole pieces, from a row of measured values of each.

    Values come in blocks: a number is a block of one column, a histogram one of many. A column is
    standardised on the pieces that the residual was fitted to; in a histogram it weighs less by the
    root of the number of its columns. What is undefined counts as the mean, with a column per
    block that says so. Nothing counts for more than five deviations.

    Args:
        measures: What each block holds; who fills the rows must agree.
        widths: Columns of each block.
        rounds: Committees.
        hidden: Units of each member.
        members: Of each committee.
    """

    def __init__(
        self,
        measures: Sequence[str],
        widths: Sequence[int],
        *,
        rounds: int = 0,
        hidden: int = 32,
        members: int = 5,
    ) -> None:
        super().__init__()
        self.measures, self.widths = tuple(measures), tuple(widths)
        self.hidden, self.members = hidden, members
        blocks = torch.tensor(self.widths)
        columns = torch.cat([blocks.repeat_interleave(blocks), blocks])
        # Follows from the widths, as the blocks' first columns do.
        self._share = columns.float().rsqrt()
        self._first = blocks.cumsum(0) - blocks
        self.register_buffer("mean", torch.zeros(len(columns)))
        self.register_buffer("deviation", torch.ones(len(columns)))
        self.mean: Tensor
        self.deviation: Tensor
        self.committees = nn.ModuleList(self.new_committee() for _ in range(rounds))

    def new_committee(self) -> Committee:
        """One that has learnt nothing, and does not count yet."""
        return Committee(len(self.mean), self.hidden, self.members)

    def standardise_by(self, rows: Tensor) -> None:
        """Take means and deviations from these rows `(pieces, columns)`, NaN where undefined."""
        columns = self._with_missing(rows)
        mean = columns.nanmean(0).nan_to_num()
        deviation = (columns - mean).square().nanmean(0).nan_to_num().sqrt()
        # What does not vary says nothing.
        self.mean, self.deviation = mean, torch.where(deviation > 1e-9, deviation, torch.inf)

    def inputs(self, rows: Tensor) -> Tensor:
        """What the committees see of rows `(pieces, columns)`."""
        deviations = ((self._with_missing(rows) - self.mean) / self.deviation).nan_to_num(nan=0.0)
        return deviations.clamp(-_MOST_DEVIATIONS, _MOST_DEVIATIONS) * self._share

    def _with_missing(self, rows: Tensor) -> Tensor:
        """The rows, and 1 for each block that is undefined: `(pieces, columns + blocks)`."""
        return torch.cat([rows, torch.isnan(rows[:, self._first]).to(rows.dtype)], dim=1)

    def forward(self, rows: Tensor, rounds: int | None = None) -> Tensor:
        """Energies `(pieces,)`: logarithms of a density ratio, up to a constant.

        Args:
            rows: `(pieces, columns)`.
            rounds: Only so many committees count, the first ones; all by default.
        """
        inputs = self.inputs(rows)
        energy = inputs.new_zeros(len(inputs))
        for committee in self.committees[:rounds]:
            energy = energy + committee(inputs)
        return energy
