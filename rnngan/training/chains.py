"""Markov chains of whole pieces, from the generator's distribution to one tilted by an energy.

What a piece is follows from the row of random numbers that it is drawn with. A chain keeps such a
row. It proposes to keep the numbers up to a token of the piece and to draw the others anew, so that
the piece keeps its beginning and goes on as the generator would, and accepts with the probability
of Metropolis and Hastings. Its limit is p(y) ∝ p_generator(y) · exp(E(y)), whatever the generator,
the grammar and the way of decoding; unlike weighing finished candidates it gets there by small
steps, each of which builds on what was good so far.

References:
    Hastings, "Monte Carlo sampling methods using Markov chains and their applications", 1970.
    Kelemen et al., "A simple and robust mutation strategy for the Metropolis light transport
    algorithm", 2002 (chains of the random numbers that a sample is made of).
    Rosenfeld, Chen & Zhu, "Whole-sentence exponential language models", 2001 (of sentences).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from rnngan.generator.sampling import AS_THE_MODEL, Decoding, sample, stream, uniforms
from rnngan.music.vocabulary import START, Tokens
from rnngan.training.checkpoint import Model

Floats = npt.NDArray[np.float64]
Measure: TypeAlias = Callable[[Sequence[Tokens]], Floats]
"""What an energy looks at in each of some pieces: `(pieces, columns)`."""
Energy: TypeAlias = Callable[[Floats], Floats]
"""Energies `(pieces,)` from such rows: the logarithm of how much likelier a piece becomes."""

_CHOICES = 1 << 31
"""From here on the numbers of a piece's streams belong to its choices, below to its proposals."""


class Chains:
    """A chain for each of some pieces, side by side.

    Args:
        model: Writes the pieces.
        measure: Gives what the energies look at.
        pieces: Numbers of the pieces; what becomes of one depends on (seed, its number) alone, as
            far as `sample` promises that.
        seed: Of everything random.
        max_tokens: Where a piece is cut.
        decoding: Of the generator.
        prefix: Tokens that every piece begins with.

    Attributes:
        rows: Of each chain the piece where it stands, `(length,)`.
        measured: Of each what the energies look at, `(chains, columns)`.
    """

    def __init__(
        self,
        model: Model,
        measure: Measure,
        *,
        pieces: Sequence[int],
        seed: int,
        max_tokens: int,
        decoding: Decoding = AS_THE_MODEL,
        prefix: Sequence[int] = (START,),
    ) -> None:
        self._model, self._measure = model, measure
        self._pieces, self._seed, self._steps = list(pieces), seed, 0
        self._decoding, self._prefix = decoding, tuple(prefix)
        self._draws = self._fresh(max_tokens)
        self.rows = self._written(self._draws)
        self.measured = measure(self.rows)

    def move(self, energy: Energy) -> float:
        """Let every chain take one step towards its limit; the share of those that moved."""
        self._steps += 1
        first = len(self._prefix)
        choices = np.array(
            [stream(self._seed, self._index(p, _CHOICES)).random(2) for p in self._pieces]
        )
        # A piece that was cut within its prefix cannot be: there is room for a token more.
        behind = np.array([len(row) - first for row in self.rows])
        cuts = first + (choices[:, 0] * behind).astype(np.int64)
        kept = np.arange(self._draws.shape[1]) < cuts[:, None]
        draws = np.where(kept, self._draws, self._fresh(self._draws.shape[1]))
        rows = self._written(draws)
        measured = self._measure(rows)
        # The place of the cut is one of so many in the old piece, and of so many in the new one.
        back = np.array([len(row) - first for row in rows])
        gain = energy(measured) - energy(self.measured) + np.log(behind) - np.log(back)
        accepted = choices[:, 1] < np.exp(np.minimum(gain, 0))
        self._draws[accepted] = draws[accepted]
        self.measured[accepted] = measured[accepted]
        for chain in np.flatnonzero(accepted):
            self.rows[chain] = rows[chain]
        return float(accepted.mean())

    def _fresh(self, max_tokens: int) -> npt.NDArray[np.float32]:
        """New random numbers for every chain, of this step."""
        return uniforms(self._seed, [self._index(piece) for piece in self._pieces], max_tokens)

    def _index(self, piece: int, first: int = 0) -> int:
        """Number of the stream of a piece in this step; each piece has 2^32 of its own."""
        return (piece << 32) + first + self._steps

    def _written(self, draws: npt.NDArray[np.float32]) -> list[Tokens]:
        samples = sample(
            self._model.generator,
            self._model.tokenizer.grammar,
            draws,
            self._decoding,
            prefix=self._prefix,
            bar=self._model.tokenizer.bar,
        )
        tokens = samples.tokens.numpy().astype(np.uint16)
        return [row[:length] for row, length in zip(tokens, samples.lengths.tolist())]
