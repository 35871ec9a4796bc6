"""Beam search: the likeliest sequences, or likely ones without repetition.

The beams of all groups grow side by side in one batch. A beam that has ended goes on with PAD, the
one token that the grammar then allows, at no cost, so that it keeps its place among the others
until better ones take it.

The networks' part is on torch. What there is of beams is few numbers, and those are on NumPy, whose
calls cost a third of torch's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rnngan.errors import UserError
from rnngan.generator.fast import Precision
from rnngan.generator.recurrent import RecurrentGenerator
from rnngan.generator.sampling import (
    AS_THE_MODEL,
    SHRINK,
    Decoding,
    begin,
    check_finite,
    lengths_of,
    stream,
)
from rnngan.music.vocabulary import END, PAD, START, Grammar

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class _Kept(NamedTuple):
    """Children that are kept, the best of each group first, each `(groups, width)`.

    Where there are fewer, their scores and log-probabilities are −inf.
    """

    scores: Floats
    log_probs: Floats
    parents: Integers
    tokens: Integers


_Pick = Callable[[Tensor, Floats, Floats, Integers], _Kept]
"""From the children's own log-probabilities `(groups, width, vocab)`, log-probabilities and scores
of the beams, and the tokens behind the prefix in the children, PAD not among them, each
`(groups, width)`."""

MAX_BEAMS = 1024
"""Of all groups together: with their states and what an attention remembers they fill memory."""


@dataclass(frozen=True, kw_only=True)
class Beams:
    """Sequences of each group, the best first; those of a group differ.

    Attributes:
        tokens: `(groups, width, time)`, long; the prefix included, PAD behind the end.
        lengths: `(groups, width)`, long; tokens up to and with End, or all of a sequence that was
            cut before.
        log_probs: `(groups, width)`, nats, of the tokens behind the prefix under the distribution
            that `Decoding` draws from; −inf where there are fewer sequences than beams.
        scores: What they are ranked by, `(groups, width)`: length-normalised log-probabilities, or
            perturbed ones.
    """

    tokens: Tensor
    lengths: Tensor
    log_probs: Tensor
    scores: Tensor


def beam_search(
    generator: RecurrentGenerator,
    grammar: Grammar,
    width: int,
    decoding: Decoding = AS_THE_MODEL,
    *,
    max_length: int,
    length_penalty: float = 0.6,
    prefix: Sequence[int] = (START,),
    bar: int | None = None,
    precision: Precision = "auto",
) -> Beams:
    """The likeliest sequences, approximately: of all beginnings of a length `width` are kept.

    Beginnings are ranked by log P(y) / lp(y) with lp(y) = ((5 + |y|) / 6)^α, |y| the tokens behind
    the prefix, End included: α = 0 is plain log-probability, which favours short pieces. Where
    there are no more sequences than beams the result is exact.

    Args:
        generator: Its vocabulary is the grammar's.
        grammar: Of the tokenizer.
        width: Beams.
        decoding: Says which tokens may come, and how likely they count.
        max_length: A sequence that has not ended after so many tokens is cut there.
        length_penalty: α, at least 0.
        prefix: Tokens that every sequence begins with.
        bar: Id of the token that opens a bar; bounds on the number of bars need it.
        precision: Of the recurrent layers.

    Returns:
        One group.

    Raises:
        UserError: As `sample`; or a number is out of range.

    References:
        Wu et al., "Google's neural machine translation system", 2016, equation 14; here the
        normalised score also decides between ended and growing beams, and there is no coverage.
    """
    if not 0 <= length_penalty < float("inf"):
        raise UserError(f"length_penalty must be at least 0, got {length_penalty}")

    def likeliest(children: Tensor, log_probs: Floats, _: Floats, num_tokens: Integers) -> _Kept:
        norms = length_norm(num_tokens, length_penalty)
        of_beams, factors = (
            torch.from_numpy(x).to(children.device) for x in (log_probs, 1 / norms)
        )
        ranked = (children + of_beams[..., None]).mul_(factors[..., None])
        scores, best = (found.cpu().numpy() for found in ranked.flatten(1).topk(width))
        parents, tokens = np.divmod(best, children.shape[-1])
        return _Kept(scores, scores * norms[_groups(parents), parents], parents, tokens)

    return _search(
        generator, grammar, likeliest, decoding, num_groups=1, width=width, max_length=max_length,
        prefix=prefix, bar=bar, precision=precision,
    )  # fmt: skip


def stochastic_beam_search(
    generator: RecurrentGenerator,
    grammar: Grammar,
    width: int,
    decoding: Decoding = AS_THE_MODEL,
    *,
    seed: int,
    groups: Sequence[int] = (0,),
    max_length: int,
    prefix: Sequence[int] = (START,),
    bar: int | None = None,
    precision: Precision = "auto",
) -> Beams:
    """Sequences drawn without replacement: those with the `width` greatest perturbed log P(y).

    Each sequence has log P(y) plus Gumbel noise of its own, sampled top down so that only the
    beginnings of the greatest need be looked at. In the order of `scores` they are distributed as
    if drawn one after the other, each from the model without those before it; the first is an
    ordinary sample.

    A beginning has the greatest value of all that go on from it. So the first child that is drawn
    of a beam has the beam's own, and further ones come in descending order, each drawn from those
    that are left, see `next_greatest`, until they are too small to be kept.

    Args:
        generator: Its vocabulary is the grammar's.
        grammar: Of the tokenizer.
        width: Sequences of a group.
        decoding: Says which tokens may come, and how likely they are.
        seed: Of the noise.
        groups: Numbers of the groups; each depends on the seed and its number alone, and groups
            may share sequences.
        max_length: A sequence that has not ended after so many tokens is cut there.
        prefix: Tokens that every sequence begins with.
        bar: Id of the token that opens a bar; bounds on the number of bars need it.
        precision: Of the recurrent layers.

    Raises:
        UserError: As `sample`; or a number is out of range.

    References:
        Kool, van Hoof & Welling, "Stochastic beams and where to find them", 2019, algorithm 1,
        where all children get noise, and it is then shifted. As there, the greatest perturbed
        log-probability of all is 0.
    """
    streams = [stream(seed, group) for group in groups]
    first_rows = width * np.arange(len(streams))[:, None]

    def greatest(children: Tensor, log_probs: Floats, scores: Floats, _: Integers) -> _Kept:
        found, parents, tokens = _greatest(children.exp(), log_probs, scores, streams)
        places = (first_rows + parents) * children.shape[-1] + tokens
        own = children.take(torch.from_numpy(places).to(children.device)).cpu().numpy()
        return _Kept(found, log_probs.take(first_rows + parents) + own, parents, tokens)

    return _search(
        generator, grammar, greatest, decoding, num_groups=len(groups),
        width=width, max_length=max_length, prefix=prefix, bar=bar, precision=precision,
    )  # fmt: skip


def length_norm(num_tokens: Integers, penalty: float) -> Floats:
    """What a log-probability is divided by, ((5 + |y|) / 6)^α.

    References:
        Wu et al., 2016, equation 14.
    """
    norms: Floats = ((5 + num_tokens) / 6) ** penalty
    return norms


def next_greatest(last: Floats, log_mass: Floats, numbers: Floats) -> Floats:
    """The greatest perturbed log-probability among what is left, given the one before it.

    φ with Gumbel noise is −ln of the time at which an event comes that has the rate exp(φ). So the
    next one comes later by a time that is exponential at the rate of all that is left:
    −ln(exp(−G) + E exp(−φ)) = G − ln(1 + E exp(G − φ)).

    Args:
        last: G, the one before.
        log_mass: φ, the logarithm of the probability of all that is left; −inf for nothing.
        numbers: In [0, 1); E = −ln(1 − u).

    References:
        Maddison, Tarlow & Minka, "A* sampling", 2014, for Gumbel variables in descending order.
    """
    following: Floats = last - np.logaddexp(0, last - log_mass + np.log(-np.log1p(-numbers)))
    return following


def _greatest(
    probs: Tensor, log_probs: Floats, scores: Floats, streams: Sequence[np.random.Generator]
) -> tuple[Floats, Integers, Integers]:
    """Perturbed log-probabilities, parents and tokens of the children that have the greatest.

    Args:
        probs: Of the children, `(groups, width, vocab)`.
        log_probs: Of the beams, `(groups, width)`.
        scores: Perturbed ones, likewise.
        streams: Of each group; how much is read of one depends on its group alone.
    """
    num_groups, width, vocab_size = probs.shape
    left = probs.flatten(0, 1)  # of the beams in question, their children that were not drawn
    rows = np.arange(len(left))
    values, tokens = [scores], []
    while len(rows):
        groups, places = np.divmod(rows, width)
        numbers = np.empty((num_groups, 2, width))
        for group in set(groups.tolist()):
            streams[group].random(out=numbers[group])
        of_token, of_value = numbers[groups, :, places].T
        heights = left.cumsum(1)
        height = torch.from_numpy((of_token * SHRINK).astype(np.float32)).to(left.device)
        drawn = torch.searchsorted(heights, height[:, None] * heights[:, -1:], right=True)
        drawn.clamp_(max=vocab_size - 1)  # beyond the end where something is not a number
        tokens.append(np.zeros_like(values[0], dtype=np.int64))
        tokens[-1][groups, places] = drawn[:, 0].cpu().numpy()
        mass = left.scatter_(1, drawn, 0).sum(1).cpu().numpy()
        following = np.full_like(scores, -np.inf)
        with np.errstate(divide="ignore", invalid="ignore"):  # nothing is left, or there is no beam
            following[groups, places] = next_greatest(
                values[-1][groups, places], log_probs[groups, places] + np.log(mass), of_value
            )
        least = np.sort(np.concatenate(values, axis=1))[:, -width:][:, :1]
        goes_on = following > least
        values.append(np.where(goes_on, following, -np.inf))
        kept = goes_on[groups, places]
        rows, left = rows[kept], left[torch.from_numpy(kept.nonzero()[0]).to(left.device)]
    found = np.concatenate(values[:-1], axis=1)
    best = np.argsort(-found, axis=1, kind="stable")[:, :width]
    group = _groups(best)
    return found[group, best], best % width, np.concatenate(tokens, axis=1)[group, best]


def _search(
    generator: RecurrentGenerator,
    grammar: Grammar,
    pick: _Pick,
    decoding: Decoding,
    *,
    num_groups: int,
    width: int,
    max_length: int,
    prefix: Sequence[int],
    bar: int | None,
    precision: Precision,
) -> Beams:
    """Grow the beams that rank highest, group by group."""
    num = num_groups * width
    if width < 1 or not 1 <= num <= MAX_BEAMS:
        raise UserError(f"beams must be 1 to {MAX_BEAMS}, got {num_groups} x {width}")
    device = generator.output.weight.device
    with torch.inference_mode():
        stepper, chooser = begin(
            generator, grammar, decoding, num=num, max_length=max_length, prefix=prefix, bar=bar,
            precision=precision,
        )  # fmt: skip
        all_rows = np.arange(num)
        first_rows = all_rows[::width, None]
        # At first all beams of a group are the same: one stands for all.
        log_probs = np.full((num_groups, width), -np.inf)
        log_probs[:, 0] = 0
        scores = log_probs
        num_tokens = np.zeros_like(log_probs, dtype=np.int64)
        growing = np.ones_like(log_probs, dtype=np.bool_)
        latest = torch.full((num,), prefix[-1], device=device)
        parents: list[Integers] = []
        tokens: list[Integers] = []
        while len(tokens) < max_length - len(prefix):
            children = chooser.log_probs(stepper.step(latest)).view(num_groups, width, -1)
            num_tokens = num_tokens + growing
            kept = pick(children, log_probs, scores, num_tokens)
            if np.isnan(kept.log_probs[:, 0]).any():
                check_finite(children)
            # Where sequences are too few, copies of the best stand in, at probability 0.
            stand_for = first_rows + np.where(kept.scores == -np.inf, 0, all_rows[:width])
            places = first_rows + _in_place(kept.parents.take(stand_for))
            scores, log_probs = kept.scores.take(places), kept.log_probs.take(places)
            places = stand_for.take(places)
            rows = (first_rows + kept.parents.take(places)).ravel()
            token = kept.tokens.take(places)
            num_tokens = num_tokens.take(rows).reshape(token.shape)
            growing = (token != END) & (token != PAD)
            latest = torch.from_numpy(token.ravel()).to(device)
            if not np.array_equal(rows, all_rows):
                moved = torch.from_numpy(rows).to(device)
                stepper.select(moved)
                chooser.select(moved)
            chooser.follow(latest)
            parents.append(rows)
            tokens.append(token.ravel())
            if not growing.any():
                break
    places = first_rows + np.argsort(-scores, axis=1, kind="stable")
    scores, log_probs = scores.take(places), log_probs.take(places)
    sequences = _traced_back(parents, tokens)[places.ravel()]
    beginning = torch.tensor(prefix, device=device).expand(num, -1)
    whole = torch.cat([beginning, torch.from_numpy(sequences).to(device)], dim=1)
    lengths = lengths_of(whole)
    return Beams(
        tokens=whole[:, : int(lengths.max())].view(num_groups, width, -1),
        lengths=lengths.view(num_groups, width),
        log_probs=torch.from_numpy(log_probs).to(device),
        scores=torch.from_numpy(scores).to(device),
    )


def _groups(array: Integers) -> Integers:
    """Number of each row, to index with beside places: `(groups, 1)`."""
    return np.arange(len(array))[:, None]


def _in_place(parents: Integers) -> Integers:
    """Order of children in which as many as can be stand where their parents do.

    Then few states need to be moved: all but one child of each parent go to where a beam ends.

    Args:
        parents: Of each child, `(groups, width)`.
    """
    groups, width = _groups(parents), parents.shape[1]
    number = np.arange(width)
    first_child = np.full_like(parents, width)
    np.minimum.at(first_child, (groups, parents), number)
    is_free = first_child == width
    # The first child of each parent stays; the others go to the free places, in order.
    stays = first_child[groups, parents] == number
    others = stays.argsort(axis=1, kind="stable")
    rank = np.maximum(is_free.cumsum(1) - 1, 0)
    return np.where(is_free, others[groups, rank], first_child)


def _traced_back(parents: list[Integers], tokens: list[Integers]) -> Integers:
    """Tokens of each of the last beams, `(beams, time)`, from parents and tokens of every time."""
    rows = np.arange(len(tokens[-1]))
    found = []
    for parent, token in zip(reversed(parents), reversed(tokens)):
        found.append(token[rows])
        rows = parent[rows]
    return np.stack(found[::-1], axis=1)
