"""The interface of every adversarial objective and control.

`rnngan.training.adversarial` plays the game: it draws a batch of samples, lets the discriminator
judge them, hands both to the objective, which moves the generator, and then trains the
discriminator. An objective is one file with one subclass of `Objective`; it says which paper it
follows, with which equations, and what a step costs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rnngan.config import RefineConfig
from rnngan.data.batches import Batch
from rnngan.discriminator.base import Discriminator
from rnngan.generator.recurrent import RecurrentGenerator
from rnngan.generator.sampling import sample, uniforms
from rnngan.music.vocabulary import Grammar
from rnngan.objectives.likelihood import Targets, autocast


class Diverged(ArithmeticError):
    """A figure became NaN or infinite before it could reach the weights."""

    def __init__(self, figure: str, value: float) -> None:
        super().__init__(f"{figure} became {value}")
        self.figure, self.value = figure, value


@dataclass(kw_only=True)
class AnyPlayers:
    """Both networks, what moves the generator, and what all objectives need to know.

    Attributes:
        generator: In evaluation mode except within an update of likelihood alone: dropout would
            set the policy that draws and the one that learns apart.
        discriminator: Positive logits for real music.
        optimizer: The generator's.
        config: Settings of the refinement.
        precision: Of the matrix products.
    """

    generator: nn.Module
    discriminator: Discriminator
    optimizer: torch.optim.Optimizer
    config: RefineConfig
    precision: str


@dataclass(kw_only=True)
class Players(AnyPlayers):
    """Players with tokens.

    Attributes:
        reference: The generator as pretrained, frozen.
        grammar: Of the tokens.
    """

    generator: RecurrentGenerator
    reference: RecurrentGenerator
    grammar: Grammar


@dataclass(frozen=True, kw_only=True)
class Round:
    """What an objective gets for one step.

    Attributes:
        step: Steps done before.
        seed: Of everything random in this step.
        fakes: Drawn from the generator as it is, at temperature 1; empty where none are wanted.
        logits: The discriminator's of those `(batch,)`, without a gradient; likewise.
        real: Excerpts of real music, one per update.
        openings: Beginnings of real pieces, cut where samples are, and as many as those; others
            than the discriminator learns from; empty where none are wanted.
    """

    step: int
    seed: int
    fakes: Batch
    logits: Tensor
    real: Sequence[Targets]
    openings: Batch = field(default_factory=Batch.empty)


class AnyObjective(ABC):
    """Turns what the discriminator says into updates of the generator.

    Attributes:
        moves: Whether there are steps, in which it moves the generator.
        plays: Whether a discriminator is trained along, and judges the samples.
        samples: Whether samples are wanted where none is.
        openings: Whether beginnings of real pieces are wanted.
        freezes: Whether it keeps the networks in balance, in place of the gate on the AUC.
        discriminator_waits: If so, whether the discriminator is not to learn in this step.
    """

    moves: ClassVar[bool] = True
    plays: ClassVar[bool] = True
    samples: ClassVar[bool] = False
    openings: ClassVar[bool] = False
    freezes: ClassVar[bool] = False
    players: AnyPlayers

    def __init__(self, players: AnyPlayers) -> None:
        self.players = players
        self.discriminator_waits = False

    @abstractmethod
    def update(self, game: Round) -> dict[str, float]:
        """Move the generator by one step; figures for the log.

        Raises:
            Diverged: A loss or gradient is NaN or infinite; the weights are as before.
        """

    def state(self) -> dict[str, Any]:
        """Tensors and plain types from which `restore` goes on exactly."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027  # most have no state
        """Go on from what `state` gave."""

    def descend(self, loss: Tensor) -> float:
        """One update of the generator down the gradient of a loss; the gradient's norm.

        Raises:
            Diverged: Either is NaN or infinite; the weights are as before.
        """
        players = self.players
        players.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = players.generator.parameters()
        norm = float(nn.utils.clip_grad_norm_(parameters, players.config.gradient_clip))
        need_finite(generator_loss=loss.item(), generator_gradient_norm=norm)
        players.optimizer.step()
        return norm


class Objective(AnyObjective):
    """One that needs tokens and their probabilities.

    Attributes:
        from_reference: Whether samples are drawn from the frozen reference.
    """

    players: Players

    def __init__(self, players: Players) -> None:
        super().__init__(players)
        self.from_reference = False


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Within it, gradients run through the network and not into its weights."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


def need_finite(**figures: float) -> None:
    """See that figures are numbers.

    Raises:
        Diverged: One is not.
    """
    for name, value in figures.items():
        if not math.isfinite(value):
            raise Diverged(name, value)


def draw(
    generator: RecurrentGenerator, grammar: Grammar, *, num: int, max_length: int, seed: int
) -> Batch:
    """So many pieces at temperature 1, cut at `max_length` tokens."""
    samples = sample(generator, grammar, uniforms(seed, range(num), max_length))
    return Batch(tokens=samples.tokens.numpy(), lengths=samples.lengths.numpy())


def piece_logits(discriminator: Discriminator, batch: Batch, precision: str) -> Tensor:
    """The discriminator's verdict on each piece, `(batch,)`."""
    tokens, lengths = torch.from_numpy(batch.tokens), torch.from_numpy(batch.lengths)
    with autocast(precision):
        logits: Tensor = discriminator(tokens, lengths)
    return logits
