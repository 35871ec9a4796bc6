"""Decoding guided by the discriminator.

The calibrated logit of the best discriminator is log p_real(y) / p_generator(y), so what is drawn
can be corrected towards real music without training the generator again:

- `resample`: of some candidates one is drawn with weights exp(logit) (sampling-importance-
  resampling; the residual energy model of Deng 2020, section 3.3, drawn from in the same way);
- `reject`: candidates are drawn until one is accepted, with probability exp(logit - bound)
  (discriminator rejection sampling, Azadi 2019);
- `particles`: candidates grow side by side, and every few tokens, about a bar, those that the
  discriminator's causal head thinks little of give way to copies of the others (a particle filter
  with the head's potential as log of the twisting function; Del Moral 2006, Naesseth 2019).
  Candidates that have ended neither give way nor are copied: weighed against those that still grow
  they win too often, because few candidates cannot keep up a high ratio for long, and pieces would
  become too short. So where a piece ends is left to the generator.
- `chains`: each piece is where a Markov chain has come to that began with a plain sample. With
  each candidate it keeps the beginning and tries another ending; its limit is the generator's
  distribution times the exponential of the model's residual energy, which knows whole pieces by
  several views (`rnngan.training.chains`, `rnngan.training.residual`).

Few candidates fall short of the ratio that they are drawn by. A `strength` above 1, its exponent,
makes up for that.

Each piece has candidates of its own with random numbers of their own: what a piece becomes depends
on the seed and its number alone. Few effective candidates mean that the discriminator's word is all
that counts, and variety with it: their number is reported.

References:
    Deng et al., "Residual energy-based models for text generation", ICLR 2020.
    Azadi et al., "Discriminator rejection sampling", ICLR 2019.
    Del Moral, Doucet & Jasra, "Sequential Monte Carlo samplers", 2006.
    Naesseth, Lindsten & Schön, "Elements of sequential Monte Carlo", 2019.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rnngan.data.batches import Batch
from rnngan.discriminator.base import Discriminator
from rnngan.errors import UserError
from rnngan.generator.sampling import AS_THE_MODEL, Decoding, Samples, sample, uniforms
from rnngan.music.vocabulary import END, START, Tokens
from rnngan.objectives.base import piece_logits
from rnngan.objectives.importance import effective_sample_size, systematic_resample
from rnngan.training.chains import Chains
from rnngan.training.checkpoint import Model
from rnngan.training.residual import energy_of, measure_of, rounds_in_steps

Guide = Literal["resample", "reject", "particles", "chains"]
Floats = npt.NDArray[np.float64]

_ROWS = 256
"""Candidates that are drawn side by side."""
_PILOT = 128
"""Candidates that tell the bound for rejection."""
_RESAMPLE_BELOW = 0.5
"""Share of effective candidates among those that grow, below which they are drawn anew."""
_MOST_ROUNDS = 64
"""Rounds of candidates after which a piece takes the best it has seen."""


@dataclass(frozen=True, kw_only=True)
class Guided:
    """Pieces, and how much choice there was.

    Attributes:
        tokens: Of each piece, `(length,)`.
        effective: Candidates of each piece that its choice was effectively made from, at least 1:
            (sum of weights)^2 / sum of squared weights. With `reject` and `chains`, 1 for every
            piece.
        accepted_rate: Share of the candidates that were accepted; NaN but for `reject` and
            `chains`.
        num_drawn: Candidates drawn in all, a pilot included.
    """

    tokens: list[Tokens]
    effective: list[float]
    accepted_rate: float = np.nan
    num_drawn: int

    def in_words(self, candidates: int) -> str:
        """How much choice there was, in a line."""
        if not np.isnan(self.accepted_rate):
            return f"accepted {self.accepted_rate:.1%} of {self.num_drawn} candidates"
        return (
            f"effective candidates per piece: {np.median(self.effective):.1f} of {candidates} "
            f"(median; {min(self.effective):.1f} to {max(self.effective):.1f})"
        )


def guided(
    model: Model,
    *,
    num: int,
    seed: int,
    guide: Guide,
    candidates: int,
    max_tokens: int,
    strength: float = 1.0,
    decoding: Decoding = AS_THE_MODEL,
    prefix: Sequence[int] = (START,),
) -> Guided:
    """Pieces that the model's discriminator takes for real.

    Args:
        model: With a discriminator; for `particles` one with a causal head, for `chains` with a
            residual.
        num: Pieces.
        seed: Of everything random; piece `i` depends on (seed, i) alone.
        guide: How.
        candidates: Of each piece; of `reject`, in each round, of `chains`, one after the other.
        max_tokens: Where a piece is cut.
        strength: Exponent of the density ratio, above 0; 1 for the ratio as it is.
        decoding: Of the candidates. The discriminator was calibrated at temperature 1.
        prefix: Tokens that every candidate begins with.

    Raises:
        UserError: The model has no discriminator, or none with a causal head; a number is out of
            range.
    """
    discriminator = model.discriminator
    if discriminator is None:
        raise UserError(
            f"guide {guide!r} needs a model with a discriminator, and this one has none; choose "
            "one that was refined with an objective that trains it"
        )
    if guide == "particles" and not discriminator.config.causal_head:
        raise UserError(
            "guide 'particles' needs a discriminator with a causal head; refine with "
            "--discriminator.causal-head, or choose resample or reject"
        )
    if guide == "chains" and model.residual is None:
        raise UserError(
            "guide 'chains' needs a model with a residual, which refinement fits at its end; "
            "refine with --refine.residual-rounds 5, or choose resample or reject"
        )
    if not 2 <= candidates <= _ROWS:
        raise UserError(f"guide-candidates must be 2 to {_ROWS}, got {candidates}")
    if not 0 < strength < np.inf:
        raise UserError(f"guide-strength must be above 0, got {strength}")

    drawing = _Candidates(
        model=model,
        discriminator=discriminator,
        seed=seed,
        candidates=candidates,
        max_tokens=max_tokens,
        strength=strength,
        decoding=decoding,
        prefix=prefix,
    )
    ways = {
        "resample": _resampled,
        "reject": _rejected,
        "particles": _filtered,
        "chains": _chained,
    }
    return ways[guide](drawing, num)


@dataclass(frozen=True, kw_only=True)
class _Candidates:
    """What all three ways need."""

    model: Model
    discriminator: Discriminator
    seed: int
    candidates: int
    max_tokens: int
    strength: float
    decoding: Decoding
    prefix: Sequence[int]

    def draw(self, indices: Iterable[int], regroup: ParticleFilter | None = None) -> Samples:
        """Candidates with these numbers."""
        return sample(
            self.model.generator,
            self.model.tokenizer.grammar,
            uniforms(self.seed, list(indices), self.max_tokens),
            self.decoding,
            prefix=self.prefix,
            bar=self.model.tokenizer.bar,
            regroup=regroup,
        )

    def candidates_of(self, pieces: Iterable[int], first: int = 0) -> list[int]:
        """Numbers of the candidates of these pieces, of each from its candidate `first` on.

        Each piece has 2^32 of its own, so that no two share random numbers.
        """
        return [
            (piece << 32) + first + candidate
            for piece in pieces
            for candidate in range(self.candidates)
        ]

    def choice_numbers(self, pieces: Iterable[int], count: int) -> Floats:
        """Numbers in [0, 1) by which the candidates are chosen, `(pieces, count)`."""
        last = (1 << 32) - 1
        return uniforms(self.seed, [(p << 32) + last for p in pieces], count).astype(np.float64)

    def log_ratios(self, samples: Samples) -> Floats:
        """Logarithms of the weights `(rows,)` of samples; of their beginnings if they are too long.

        Calibrated logits times the strength.
        """
        most = self.discriminator.config.max_length
        batch = Batch(
            tokens=samples.tokens[:, :most].numpy(), lengths=samples.lengths.clamp(max=most).numpy()
        )
        with torch.inference_mode():
            self.discriminator.eval()
            logits = piece_logits(self.discriminator, batch, "auto")
            ratios = self.discriminator.log_ratio(logits).double().numpy()
        return np.asarray(self.strength * ratios)

    def parts(self, num: int) -> list[range]:
        """The pieces in parts whose candidates are drawn side by side."""
        size = max(_ROWS // self.candidates, 1)
        return [range(first, min(first + size, num)) for first in range(0, num, size)]


def _resampled(drawing: _Candidates, num: int) -> Guided:
    tokens: list[Tokens] = []
    effective: list[float] = []
    for pieces in drawing.parts(num):
        samples = drawing.draw(drawing.candidates_of(pieces))
        logs = drawing.log_ratios(samples).reshape(len(pieces), -1)
        numbers = drawing.choice_numbers(pieces, 1)[:, 0]
        tokens += _chosen(samples, logs, numbers)
        effective += effective_sample_size(torch.from_numpy(normalised(logs))).tolist()
    return Guided(tokens=tokens, effective=effective, num_drawn=num * drawing.candidates)


def _rejected(drawing: _Candidates, num: int) -> Guided:
    # The pilot has numbers that no piece reaches.
    pilot = drawing.draw((1 << 63) + i for i in range(_PILOT))
    bound = float(drawing.log_ratios(pilot).max())
    found: dict[int, Tokens] = {}
    best: dict[int, tuple[float, Tokens]] = {}
    num_drawn = 0
    for round_ in range(_MOST_ROUNDS):
        waiting = [piece for piece in range(num) if piece not in found]
        for first in range(0, len(waiting), max(_ROWS // drawing.candidates, 1)):
            pieces = waiting[first : first + max(_ROWS // drawing.candidates, 1)]
            samples = drawing.draw(drawing.candidates_of(pieces, round_ * drawing.candidates))
            logs = drawing.log_ratios(samples).reshape(len(pieces), -1)
            size = (round_ + 1) * drawing.candidates
            numbers = drawing.choice_numbers(pieces, size)[:, -drawing.candidates :]
            for row, piece in enumerate(pieces):
                accepted = np.flatnonzero(numbers[row] < np.exp(np.minimum(logs[row] - bound, 0)))
                taken = int(accepted[0]) if len(accepted) else int(logs[row].argmax())
                drawn = _row(samples, row * drawing.candidates + taken)
                if len(accepted):
                    found[piece] = drawn
                    num_drawn += taken + 1
                else:
                    num_drawn += drawing.candidates
                    if logs[row, taken] > best.get(piece, (-np.inf, drawn))[0]:
                        best[piece] = float(logs[row, taken]), drawn
        if len(found) == num:
            break
    tokens = [found[piece] if piece in found else best[piece][1] for piece in range(num)]
    return Guided(
        tokens=tokens,
        effective=[1.0] * num,
        accepted_rate=len(found) / num_drawn,
        num_drawn=num_drawn + _PILOT,
    )


def _filtered(drawing: _Candidates, num: int) -> Guided:
    tokens: list[Tokens] = []
    effective: list[float] = []
    for pieces in drawing.parts(num):
        numbers = drawing.choice_numbers(pieces, drawing.max_tokens + 1)
        particles = ParticleFilter(
            drawing.discriminator, numbers[:, 1:], drawing.candidates, strength=drawing.strength
        )
        samples = drawing.draw(drawing.candidates_of(pieces), particles)
        logs = drawing.log_ratios(samples).reshape(len(pieces), -1) - particles.counted
        tokens += _chosen(samples, logs, numbers[:, 0])
        effective += effective_sample_size(torch.from_numpy(normalised(logs))).tolist()
    return Guided(tokens=tokens, effective=effective, num_drawn=num * drawing.candidates)


def _chained(drawing: _Candidates, num: int) -> Guided:
    model = drawing.model
    assert model.residual is not None
    residual = model.residual
    way = [
        energy_of(residual, rounds=rounds, strength=drawing.strength)
        for rounds in rounds_in_steps(len(residual.committees), drawing.candidates)
    ]
    tokens: list[Tokens] = []
    moved: list[float] = []
    for first in range(0, num, _ROWS):
        pieces = range(first, min(first + _ROWS, num))
        chains = Chains(
            model,
            measure_of(model, residual),
            pieces=pieces,
            seed=drawing.seed,
            max_tokens=drawing.max_tokens,
            decoding=drawing.decoding,
            prefix=drawing.prefix,
        )
        moved += [chains.move(energy) * len(pieces) for energy in way]
        tokens += chains.rows
    return Guided(
        tokens=tokens,
        effective=[1.0] * num,
        accepted_rate=sum(moved) / (num * drawing.candidates),
        num_drawn=num * (drawing.candidates + 1),
    )


def _chosen(samples: Samples, logs: Floats, numbers: Floats) -> list[Tokens]:
    """Of each group the candidate that its number falls to, by the weights exp(`logs`)."""
    heights = normalised(logs).cumsum(axis=1)
    places = np.minimum((heights <= numbers[:, None]).sum(axis=1), logs.shape[1] - 1)
    return [_row(samples, g * logs.shape[1] + place) for g, place in enumerate(places.tolist())]


def _row(samples: Samples, row: int) -> Tokens:
    return samples.tokens[row, : int(samples.lengths[row])].numpy().astype(np.uint16)


def normalised(logs: Floats) -> Floats:
    """Weights `(..., candidates)` that sum to 1 from their logarithms."""
    weights = np.exp(logs - logs.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


class ParticleFilter:
    """Lets growing candidates of little promise give way to copies of others, group by group.

    Args:
        discriminator: Its causal head judges beginnings.
        numbers: In [0, 1), `(groups, times)`; one for every time that is looked at.
        candidates: In a group; the candidates of a group stand together.
        strength: Factor of the potentials.

    Attributes:
        counted: Of each candidate the logarithm of the weight that its copying has already paid
            out, `(groups, candidates)`.
    """

    def __init__(
        self, discriminator: Discriminator, numbers: Floats, candidates: int, *, strength: float
    ) -> None:
        self.discriminator = discriminator
        self.numbers = numbers
        self.candidates = candidates
        self.strength = strength
        self.counted = np.zeros((len(numbers), candidates))
        self.calls = 0

    def __call__(self, tokens: Tensor, lengths: Tensor) -> Tensor | None:
        """Which candidate each becomes a copy of, `(rows,)`; None where all stay.

        Args:
            tokens: So far, `(rows, time)`.
            lengths: Of each, `(rows,)`; less than `time` where a piece has ended.
        """
        seen = tokens[:, : self.discriminator.config.max_length]
        inside = lengths.clamp(max=seen.shape[1])
        potentials = self.discriminator.potentials(seen, inside)
        latest = potentials.gather(1, inside[:, None] - 1).squeeze(1)
        now = self.strength * latest.double().numpy().reshape(-1, self.candidates)
        grows = ~(tokens == END).any(1).numpy().reshape(now.shape)
        ancestors = np.arange(now.size).reshape(now.shape)
        call, self.calls = self.calls, self.calls + 1
        moved = False
        for group in np.flatnonzero(grows.sum(axis=1) > 1):
            own = np.flatnonzero(grows[group])
            logs = now[group, own] - self.counted[group, own]
            weights = torch.from_numpy(normalised(logs))
            if effective_sample_size(weights) >= _RESAMPLE_BELOW * len(own):
                continue
            place = float(self.numbers[group, call])
            chosen = own[systematic_resample(weights, len(own), place=place).numpy()]
            ancestors[group, own] = group * self.candidates + chosen
            self.counted[group, own] = now[group, chosen]
            moved = True
        return torch.from_numpy(ancestors.ravel()) if moved else None
