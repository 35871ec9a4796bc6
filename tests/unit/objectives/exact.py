"""A world so small that every sequence can be listed, and with it the exact gradient.

Three symbols, at most four of them in a sequence, a grammar that is not trivial, an LSTM of four
units and a judge whose verdict is a fixed table. `exact_gradient` sums over all sequences;
`gradients` lets an objective make its update on batches drawn exactly from the policy, and reads
off the gradient that it would have followed.
"""

import copy
import math
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from rnngan.config import GeneratorConfig, RefineConfig
from rnngan.data.batches import Batch, padded
from rnngan.generator.registry import new_generator
from rnngan.layers import length_mask
from rnngan.music.vocabulary import END, PAD, START, Grammar, build_grammar
from rnngan.objectives.base import Players, Round
from rnngan.objectives.likelihood import target_log_probs, targets_of

VOCAB_SIZE = 7
MAX_LENGTH = 6
"""Start, up to four symbols, and End, which the grammar demands there: no sequence is ever cut."""
_A, _B, _C = (range(i, i + 1) for i in (4, 5, 6))
_START, _END, _PAD = (range(i, i + 1) for i in (START, END, PAD))


def _moves(state):
    """A symbol must come first, behind c only a may come, or the end."""
    kind, count = state
    if kind == "begin":
        return [(_START, ("start", 0))]
    if kind == "over":
        return [(_PAD, ("over", 0))]
    symbols = [(_A, ("free", count + 1))]
    if kind != "after c":
        symbols += [(_B, ("free", count + 1)), (_C, ("after c", count + 1))]
    end = [(_END, ("over", 0))]
    return (symbols if count < 4 else []) + (end if count else [])


GRAMMAR: Grammar = build_grammar(("begin", 0), _moves, VOCAB_SIZE)


def every_sequence():
    """All that can be drawn, each once."""
    done, growing = [], [((START,), int(GRAMMAR.next_state[0, START]))]
    while growing:
        tokens, state = growing.pop()
        if tokens[-1] == END:
            done.append(np.array(tokens, dtype=np.uint16))
        else:
            following = np.flatnonzero(GRAMMAR.allowed[state]).tolist()
            growing += [((*tokens, t), int(GRAMMAR.next_state[state, t])) for t in following]
    return padded(done)


def tiny_generator(seed=0):
    """An LSTM of four units with clear preferences, in evaluation mode."""
    torch.manual_seed(seed)
    config = GeneratorConfig(embedding_size=4, hidden_size=4, attention=0)
    generator = new_generator(config, VOCAB_SIZE)
    with torch.no_grad():
        generator.embedding.weight *= 5
        generator.output.bias.normal_(std=0.5)
    return generator.eval()


class FixedJudge(nn.Module):
    """A logit per sequence `(batch,)` that depends on every token, its place and its neighbour."""

    def __init__(self, seed=1):
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.places = torch.randn(MAX_LENGTH, VOCAB_SIZE, generator=random)
        self.pairs = torch.randn(VOCAB_SIZE, VOCAB_SIZE, generator=random)

    def forward(self, tokens, lengths):
        inside = length_mask(lengths, tokens.shape[1])
        places = self.places[torch.arange(tokens.shape[1]), tokens]
        pairs = self.pairs[tokens[:, :-1], tokens[:, 1:]]
        return (places * inside).sum(1) + (pairs * inside[:, 1:]).sum(1)


def judged(judge, batch):
    """The judge's logits of a batch, `(batch,)`."""
    with torch.no_grad():
        return judge(torch.from_numpy(batch.tokens), torch.from_numpy(batch.lengths))


def sequence_probs(generator, batch):
    """Probability of each row `(batch,)`, with a gradient."""
    targets = targets_of(batch, GRAMMAR)
    log_probs = target_log_probs(generator, targets).gather(1, targets.tokens[:, None]).squeeze(1)
    rows = torch.arange(len(batch.lengths))[:, None].expand_as(targets.mask)[targets.mask]
    return torch.zeros(len(batch.lengths)).index_add(0, rows, log_probs).exp()


def exact_gradient(generator, rewards):
    """Of the expected reward by every weight, in one row `(weights,)`.

    Args:
        generator: The policy.
        rewards: Of `every_sequence()`, in its order.
    """
    expected = sequence_probs(generator, every_sequence()) @ rewards
    return _row(torch.autograd.grad(expected, list(generator.parameters())))


def tiny_players(judge=None, **config):
    """Players whose update changes nothing: its gradient stays in the weights' `grad`.

    One part, one pass, no likelihood, no clipping of the gradient; the reference is the generator
    itself, where the divergence has no slope.

    Args:
        judge: Instead of a `FixedJudge`.
        config: Settings of `RefineConfig` beside these.
    """
    generator = tiny_generator()
    plain = RefineConfig(
        epochs=1, minibatches=1, likelihood_weight=0.0, kl_weight=0.0, gradient_clip=1e30
    )
    return Players(
        generator=generator,
        reference=copy.deepcopy(generator).requires_grad_(False),
        discriminator=judge or FixedJudge(),
        optimizer=torch.optim.SGD(generator.parameters(), lr=0.0),
        grammar=GRAMMAR,
        config=replace(plain, **config),
        precision="float32",
    )


def tiny_round(players, *, batch_size, seed):
    """A round whose samples are drawn from the exact probabilities of all sequences."""
    listed = every_sequence()
    probs = sequence_probs(players.generator, listed).detach()
    random = torch.Generator().manual_seed(seed)
    rows = torch.multinomial(probs, batch_size, replacement=True, generator=random).numpy()
    lengths = listed.lengths[rows]
    fakes = Batch(tokens=listed.tokens[rows, : lengths.max()], lengths=lengths)
    return Round(
        step=0,
        seed=seed,
        fakes=fakes,
        logits=judged(players.discriminator, fakes),
        real=[targets_of(listed, GRAMMAR)],
    )


def gradients(objective, *, batch_size, num_batches):
    """What the objective would climb on each of many batches, `(batches, weights)`.

    Its surrogate is a mean over tokens; this is the sum over a sample's tokens, the mean over
    samples, so that its expectation can be the gradient of the expected reward.
    """
    rows = []
    for seed in range(num_batches):
        game = tiny_round(objective.players, batch_size=batch_size, seed=seed)
        objective.update(game)
        tokens_per_sample = float((game.fakes.lengths - 1).mean())
        found = _row(weight.grad for weight in objective.players.generator.parameters())
        rows.append(-tokens_per_sample * found)
    return torch.stack(rows)


def assert_unbiased(found, exact, *, precision=0.1):
    """The mean of `(batches, weights)` is the exact gradient `(weights,)` within its own error.

    Twice: no weight is off by 6 standard errors (with 64 batches a false alarm in 1 of 20,000 over
    all 400 weights, by Student's t), nor is the projection on the exact gradient by 5 (1 of
    200,000); the projection must be known to `precision` of the exact gradient's length, so that
    the test cannot pass by being blunt.
    """
    error = found.std(0) / math.sqrt(len(found))
    difference = (found.mean(0) - exact).abs()
    assert (difference <= 6 * error + 1e-6).all(), (difference / error.clamp(min=1e-9)).max()
    slopes = found @ exact / exact.square().sum()
    slope, slope_error = slopes.mean().item(), slopes.std().item() / math.sqrt(len(found))
    assert slope_error < precision
    assert abs(slope - 1) < 5 * slope_error, (slope, slope_error)


def _row(tensors):
    return torch.cat([t.flatten() for t in tensors])
