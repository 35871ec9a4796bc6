"""An oracle so small that divergences from it are exact.

A Markov chain of order 1 over five symbols writes four of them between Start and End. All 625
sequences can be listed, so that the divergence between the chain and a generator of any kind, in
both directions, is a sum.
"""

import copy
import itertools

import numpy as np
import torch
from torch import nn

from rnngan.config import GeneratorConfig, RefineConfig
from rnngan.data.batches import Batch
from rnngan.generator.registry import new_generator
from rnngan.music.vocabulary import END, FRAME_TOKENS, PAD, START, build_grammar
from rnngan.objectives.base import Players, Round, draw
from rnngan.objectives.likelihood import target_log_probs, targets_of

SYMBOLS, LENGTH = 5, 4
FIRST = len(FRAME_TOKENS)


def _moves(state):
    (written,) = state
    if written < 0:
        return [(range(START, START + 1), (0,))]
    if written < LENGTH:
        return [(range(FIRST, FIRST + SYMBOLS), (written + 1,))]
    last = END if written == LENGTH else PAD
    return [(range(last, last + 1), (LENGTH + 1,))]


GRAMMAR = build_grammar((-1,), _moves, FIRST + SYMBOLS)


class MarkovOracle:
    """First symbol and transitions drawn from Dirichlet distributions."""

    def __init__(self, seed=0, concentration=0.5):
        random = np.random.default_rng(seed)
        self.first = random.dirichlet(np.full(SYMBOLS, concentration))
        self.next = random.dirichlet(np.full(SYMBOLS, concentration), size=SYMBOLS)
        symbols = np.array(list(itertools.product(range(SYMBOLS), repeat=LENGTH)))
        steps = self.next[symbols[:, :-1], symbols[:, 1:]]
        self.log_probs = np.log(self.first[symbols[:, 0]]) + np.log(steps).sum(1)
        self.listed = framed(symbols)

    def entropy(self):
        """Nats per sequence, along the chain and not over the list."""
        at, total = self.first, -(self.first * np.log(self.first)).sum()
        for _ in range(LENGTH - 1):
            total -= (at[:, None] * self.next * np.log(self.next)).sum()
            at = at @ self.next
        return total

    def sample(self, num, seed):
        random = np.random.default_rng(seed)
        probs = np.exp(self.log_probs)
        index = random.choice(len(probs), size=num, p=probs / probs.sum())
        return Batch(tokens=self.listed.tokens[index], lengths=self.listed.lengths[index])

    def divergences(self, generator):
        """KL(oracle ‖ generator) and KL(generator ‖ oracle), nats per sequence."""
        theirs = sequence_log_probs(generator, self.listed).double().numpy()
        ours, difference = self.log_probs, self.log_probs - theirs
        return (np.exp(ours) * difference).sum(), -(np.exp(theirs) * difference).sum()

    def log_ratio(self, generator, batch):
        """Of each sequence ln p_oracle / p_generator, the best discriminator's logit `(batch,)`."""
        symbols = batch.tokens[:, 1:-1] - FIRST
        index = symbols @ SYMBOLS ** np.arange(LENGTH)[::-1]
        ours = torch.from_numpy(self.log_probs[index]).float()
        return ours - sequence_log_probs(generator, batch)


def framed(symbols):
    """Sequences between Start and End."""
    ends = np.ones((len(symbols), 1), dtype=np.int64)
    tokens = np.concatenate([START * ends, symbols + FIRST, END * ends], axis=1)
    return Batch(tokens=tokens, lengths=np.full(len(tokens), LENGTH + 2))


@torch.no_grad()
def sequence_log_probs(generator, batch):
    """`(batch,)`."""
    targets = targets_of(batch, GRAMMAR)
    log_probs = target_log_probs(generator, targets).gather(1, targets.tokens[:, None])
    return log_probs.reshape(len(batch.lengths), -1).sum(1)


def small_generator(seed):
    """An LSTM of sixteen units that knows nothing yet."""
    torch.manual_seed(seed)
    config = GeneratorConfig(
        embedding_size=8, hidden_size=16, num_layers=1, embedding_dropout=0.0, output_dropout=0.0,
        attention=0,
    )  # fmt: skip
    return new_generator(config, FIRST + SYMBOLS).eval()


def played(oracle, make_objective, *, seed, steps, batch_size=64, generator=None):
    """The generator after so many steps of an objective whose discriminator is the best there is.

    No likelihood, and next to no pull to the reference.
    """
    generator = copy.deepcopy(generator) if generator else small_generator(seed)
    config = RefineConfig(
        batch_size=batch_size, max_length=16, epochs=1, minibatches=1, likelihood_weight=0.0,
        kl_weight=0.0, kl_target=1e9,
    )  # fmt: skip
    players = Players(
        generator=generator,
        reference=copy.deepcopy(generator).requires_grad_(False),
        discriminator=nn.Identity(),
        optimizer=torch.optim.Adam(generator.parameters(), lr=1e-2),
        grammar=GRAMMAR,
        config=config,
        precision="float32",
    )
    objective = make_objective(players)
    for step in range(steps):
        number = 1000 * seed + step
        generator.eval()
        fakes = draw(generator, GRAMMAR, num=batch_size, max_length=LENGTH + 2, seed=number)
        real = oracle.sample(batch_size, number)
        objective.update(
            Round(
                step=step,
                seed=number,
                fakes=fakes,
                logits=oracle.log_ratio(generator, fakes),
                openings=real,
                real=[targets_of(real, GRAMMAR)],
            )
        )
    return generator.eval()
