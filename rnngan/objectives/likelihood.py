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
from rnngan.generator.encoder import Encoded, EncoderDecoder
from rnngan.generator.recurrent import RecurrentGenerator
from rnngan.layers import BFLOAT16_IS_FAST, grammar_log_softmax, length_mask
from rnngan.music.vocabulary import Grammar


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What the generator must predict in a batch, the padding left out.

    Shapes: `inputs` `(batch, time)`, all tokens but the last of a row; `mask` `(batch, time)`, True
    where a target exists; `tokens` `(targets,)`, in the order of the mask; `allowed`
    `(targets, vocab)`, what the grammar lets stand there. `source` is what an encoder reads before,
    tokens `(batch, source_time)` and lengths `(batch,)`; None where there is nothing.
    """

    inputs: Tensor
    mask: Tensor
    tokens: Tensor
    allowed: Tensor
    source: tuple[Tensor, Tensor] | None = None


def targets_of(batch: Batch, grammar: Grammar) -> Targets:
    """Inputs and targets of teacher forcing.

    Raises:
        ValueError: A row breaks the grammar.
    """
    tokens = torch.from_numpy(batch.tokens)
    mask = length_mask(torch.from_numpy(batch.lengths) - 1, tokens.shape[1] - 1)
    states = grammar.states_before(batch.tokens, batch.lengths)[:, 1:]
    allowed = torch.from_numpy(grammar.allowed)
    source = batch.source
    return Targets(
        inputs=tokens[:, :-1],
        mask=mask,
        tokens=tokens[:, 1:][mask],
        allowed=allowed[torch.from_numpy(states)[mask]],
        source=None if source is None else tensors_of(source),
    )


def tensors_of(batch: Batch) -> tuple[Tensor, Tensor]:
    """Tokens and lengths of a batch."""
    return torch.from_numpy(batch.tokens), torch.from_numpy(batch.lengths)


def autocast(precision: str) -> AbstractContextManager[None]:
    """Matrix products in the precision of that name; `auto` asks the processor."""
    bfloat16 = precision == "bfloat16" or (precision == "auto" and BFLOAT16_IS_FAST)
    return torch.autocast("cpu", torch.bfloat16, enabled=bfloat16)


def encoded_source(
    generator: RecurrentGenerator, targets: Targets, random: torch.Generator | None = None
) -> Encoded | None:
    """What a generator makes of the sources, see `EncoderDecoder.encode`; None without sources."""
    if targets.source is None:
        return None
    if not isinstance(generator, EncoderDecoder):
        raise ValueError("only a generator with an encoder can read sources")
    return generator.encode(*targets.source, random)


def target_log_probs(
    generator: RecurrentGenerator, targets: Targets, encoded: Encoded | None = None
) -> Tensor:
    """Log-probabilities of all tokens at every target: `(targets, vocab)`, −inf if not allowed.

    Where there are sources, and `encoded` does not say what was made of them, they are read now.
    """
    encoded = encoded or encoded_source(generator, targets)
    hidden, _ = generator.hidden(targets.inputs, encoded.state if encoded else None)
    return grammar_log_softmax(generator.logits(hidden[targets.mask]), targets.allowed)


def negative_log_likelihood(generator: RecurrentGenerator, targets: Targets) -> Tensor:
    """Mean over the targets, nats per token; a scalar with a gradient."""
    return F.nll_loss(target_log_probs(generator, targets), targets.tokens)


@torch.no_grad()
def held_out_likelihood(
    generator: RecurrentGenerator, batches: Iterable[Batch], grammar: Grammar, *, precision: str
) -> tuple[float, int]:
    """Negative log-likelihood of whole pieces, all tokens summed; given the sources, if any.

    Where what an encoder tells is drawn, its divergence is added: the sum bounds the likelihood
    from above, by one draw for each piece, which are the same in every call.

    Returns:
        Bits in all, and the number of tokens predicted (every one but Start).
    """
    random = torch.Generator().manual_seed(0)
    was_training = generator.training
    generator.eval()
    nats, count = 0.0, 0
    for batch in batches:
        targets = targets_of(batch, grammar)
        with autocast(precision):
            encoded = encoded_source(generator, targets, random)
            log_probs = target_log_probs(generator, targets, encoded)
        nats += float(encoded.divergence.double().sum()) if encoded else 0.0
        chosen = log_probs.gather(1, targets.tokens[:, None])
        nats -= float(chosen.double().sum())
        count += len(targets.tokens)
    generator.train(was_training)
    return nats / math.log(2), count
