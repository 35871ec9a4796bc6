"""Beam search: the likeliest sequences, or likely ones without repetition.

The beams of all groups grow side by side in one batch. A beam that has ended goes on with PAD, the
one token that the grammar then allows, at no cost, so that it keeps its place among the others
until better ones take it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rnngan.errors import UserError
from rnngan.generator.fast import Precision
from rnngan.generator.recurrent import RecurrentGenerator
from rnngan.generator.sampling import (
    AS_THE_MODEL,
    Decoding,
    begin,
    check_finite,
    lengths_of,
    stream,
)
from rnngan.music.vocabulary import END, PAD, START, Grammar

Rank = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From log-probabilities of children `(groups, width, vocab)`, the scores of their parents and
the tokens behind the prefix in the children, PAD not among them, both `(groups, width)`, to what
the children are ranked by, in the shape of the first."""

MAX_BEAMS = 1024
"""Of all groups together: with their states and what an attention remembers they fill memory."""
_LEAST = 2.0**-126
"""Least exponential number, so that there is no infinite noise."""


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

    def normalised(log_probs: Tensor, _: Tensor, num_tokens: Tensor) -> Tensor:
        return log_probs / length_norm(num_tokens, length_penalty)[..., None]

    return _search(
        generator, grammar, normalised, decoding, num_groups=1, width=width, max_length=max_length,
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
        Kool, van Hoof & Welling, "Stochastic beams and where to find them", 2019, algorithm 1; as
        there, the greatest perturbed log-probability of all is 0.
    """
    streams = [stream(seed, group) for group in groups]

    def perturbed(log_probs: Tensor, before: Tensor, _: Tensor) -> Tensor:
        shape = log_probs.shape[1:]
        # Minus the logarithm of an exponential number is a Gumbel one, exact in either tail.
        numbers = np.stack([s.standard_exponential(shape, dtype=np.float32) for s in streams])
        noise = torch.from_numpy(numbers).to(log_probs.device).clamp_(min=_LEAST).log_().neg_()
        # The order among the children of a beam stays, so that most of them are out already.
        greatest, tokens = (log_probs + noise).topk(min(width, shape[-1]))
        conditioned = with_maximum(greatest, before[..., None])
        return torch.full_like(log_probs, -torch.inf).scatter_(2, tokens, conditioned)

    return _search(
        generator, grammar, perturbed, decoding, num_groups=len(groups),
        width=width, max_length=max_length, prefix=prefix, bar=bar, precision=precision,
    )  # fmt: skip


def length_norm(num_tokens: Tensor, penalty: float) -> Tensor:
    """What a log-probability is divided by, ((5 + |y|) / 6)^α.

    References:
        Wu et al., 2016, equation 14.
    """
    return ((5 + num_tokens.double()) / 6) ** penalty


def with_maximum(perturbed: Tensor, maximum: Tensor) -> Tensor:
    """Gumbel variables given that the greatest of each row has the value that is wanted.

    −log(exp(−T) − exp(−Z) + exp(−G)) for G of a row with the greatest value Z, T being wanted; −∞
    stays.

    Args:
        perturbed: Independent Gumbel variables, `(..., children)`.
        maximum: T, `(..., 1)`.

    References:
        Kool, van Hoof & Welling, 2019, section 4.1, and appendix B.3 for the stable form.
    """
    below = (perturbed - perturbed.max(-1, keepdim=True).values).clamp(max=0)
    # log(1 - exp(x)), of x near 0 and of others.
    log_rest = torch.where(
        below > -0.6931, (-torch.expm1(below)).log(), torch.log1p(-torch.exp(below))
    )
    v = maximum - perturbed + log_rest
    conditioned = maximum - v.clamp(min=0) - torch.log1p(torch.exp(-v.abs()))
    return torch.where(perturbed == -torch.inf, -torch.inf, conditioned)


def _search(
    generator: RecurrentGenerator,
    grammar: Grammar,
    rank: Rank,
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
        all_rows = torch.arange(num, device=device)
        first_rows = all_rows[::width, None]
        # At first all beams of a group are the same: one stands for all.
        log_probs = torch.full((num_groups, width), -torch.inf, device=device, dtype=torch.double)
        log_probs[:, 0] = 0
        scores = log_probs
        num_tokens = torch.zeros_like(log_probs, dtype=torch.long)
        growing = torch.ones_like(num_tokens)
        latest = torch.full((num,), prefix[-1], device=device)
        parents: list[Tensor] = []
        tokens: list[Tensor] = []
        while len(tokens) < max_length - len(prefix):
            children = chooser.log_probs(stepper.step(latest)).view(num_groups, width, -1)
            vocab_size = children.shape[-1]
            log_probs = log_probs[..., None] + children
            num_tokens = num_tokens + growing
            scores, best = rank(log_probs, scores, num_tokens).flatten(1).topk(width)
            check_finite(scores[:, 0])  # among which is what is not a number
            log_probs = log_probs.flatten(1).gather(1, best)
            # Where sequences are too few, copies of the best stand in, at probability 0.
            best = torch.where(scores == -torch.inf, best[:, :1], best)
            order = _in_place(best // vocab_size)
            scores, log_probs, best = (x.gather(1, order) for x in (scores, log_probs, best))
            parent, token = best // vocab_size, best % vocab_size
            num_tokens = num_tokens.gather(1, parent)
            growing = ((token != END) & (token != PAD)).long()
            rows, latest = (first_rows + parent).flatten(), token.flatten()
            if not torch.equal(rows, all_rows):
                stepper.select(rows)
                chooser.select(rows)
            chooser.follow(latest)
            parents.append(rows)
            tokens.append(latest)
            if not growing.any():
                break
        scores, order = scores.sort(descending=True, stable=True)
        sequences = _traced_back(parents, tokens)[(first_rows + order).flatten()]
    beginning = torch.tensor(prefix, device=device).expand(num, -1)
    # Copied outside of inference mode, so that the sequences may be trained on.
    whole = torch.cat([beginning, sequences], dim=1)
    lengths = lengths_of(whole)
    return Beams(
        tokens=whole[:, : int(lengths.max())].view(num_groups, width, -1),
        lengths=lengths.view(num_groups, width),
        log_probs=log_probs.gather(1, order),
        scores=scores.clone(),
    )


def _in_place(parent: Tensor) -> Tensor:
    """Order of children in which as many as can be stand where their parents do.

    Then few states need to be moved: all but one child of each parent go to where a beam ends.

    Args:
        parent: Of each child, `(groups, width)`.
    """
    width = parent.shape[1]
    number = torch.arange(width, device=parent.device).expand_as(parent)
    first_child = torch.full_like(parent, width).scatter_reduce(1, parent, number, "amin")
    is_free = first_child == width
    # The first child of each parent stays; the others go to the free places, in order.
    stays = first_child.gather(1, parent) == number
    others = stays.int().argsort(dim=1, stable=True)
    rank = (is_free.cumsum(1) - 1).clamp(min=0)
    return torch.where(is_free, others.gather(1, rank), first_child)


def _traced_back(parents: list[Tensor], tokens: list[Tensor]) -> Tensor:
    """Tokens of each of the last beams, `(beams, time)`, from parents and tokens of every time."""
    rows = torch.arange(len(tokens[-1]), device=tokens[-1].device)
    found = []
    for parent, token in zip(reversed(parents), reversed(tokens)):
        found.append(token[rows])
        rows = parent[rows]
    return torch.stack(found[::-1], dim=1)
