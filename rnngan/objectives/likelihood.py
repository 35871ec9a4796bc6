"""Likelihood under the grammar: what pretraining minimises and every evaluation reports.

The generator's distribution is its softmax over the tokens that the grammar allows next; the same
distribution is sampled, trained and measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rnngan.data.batches import Batch
from rnngan.generator.recurrent import RecurrentGenerator
from rnngan.layers import BFLOAT16_IS_FAST, grammar_log_softmax, length_mask
from rnngan.music.vocabulary import Grammar


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What the generator must predict in a batch, the padding left out.

    Shapes: `inputs` `(batch, time)`, all tokens but the last of a row; `mask` `(batch, time)`, True
    where a target exists; `tokens` `(targets,)`, in the order of the mask; `allowed`
    `(targets, vocab)`, what the grammar lets stand there.
    """

    inputs: Tensor
    mask: Tensor
    tokens: Tensor
    allowed: Tensor


def targets_of(batch: Batch, grammar: Grammar) -> Targets:
    """Inputs and targets of teacher forcing.

    Raises:
        ValueError: A row breaks the grammar.
    """
    tokens = torch.from_numpy(batch.tokens)
    mask = length_mask(torch.from_numpy(batch.lengths) - 1, tokens.shape[1] - 1)
    states = grammar.states_before(batch.tokens, batch.lengths)[:, 1:]
    allowed = torch.from_numpy(grammar.allowed)
    return Targets(
        inputs=tokens[:, :-1],
        mask=mask,
        tokens=tokens[:, 1:][mask],
        allowed=allowed[torch.from_numpy(states)[mask]],
    )


def autocast(precision: str) -> AbstractContextManager[None]:
    """Matrix products in the precision of that name; `auto` asks the processor."""
    bfloat16 = precision == "bfloat16" or (precision == "auto" and BFLOAT16_IS_FAST)
    return torch.autocast("cpu", torch.bfloat16, enabled=bfloat16)


def target_log_probs(generator: RecurrentGenerator, targets: Targets) -> Tensor:
    """Log-probabilities of all tokens at every target: `(targets, vocab)`, −inf if not allowed."""
    hidden, _ = generator.hidden(targets.inputs)
    return grammar_log_softmax(generator.logits(hidden[targets.mask]), targets.allowed)


def negative_log_likelihood(generator: RecurrentGenerator, targets: Targets) -> Tensor:
    """Mean over the targets, nats per token; a scalar with a gradient."""
    return F.nll_loss(target_log_probs(generator, targets), targets.tokens)


@torch.no_grad()
def held_out_likelihood(
    generator: RecurrentGenerator, batches: Iterable[Batch], grammar: Grammar, *, precision: str
) -> tuple[float, int]:
    """Negative log-likelihood of whole pieces, all tokens summed.

    Returns:
        Bits in all, and the number of tokens predicted (every one but Start).
    """
    was_training = generator.training
    generator.eval()
    nats, count = 0.0, 0
    for batch in batches:
        targets = targets_of(batch, grammar)
        with autocast(precision):
            log_probs = target_log_probs(generator, targets)
        chosen = log_probs.gather(1, targets.tokens[:, None])
        nats -= float(chosen.double().sum())
        count += len(targets.tokens)
    generator.train(was_training)
    return nats / math.log(2), count
