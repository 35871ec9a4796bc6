"""Any generator one token at a time, through its own `hidden` and `logits`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rnngan.generator.fast import FastStepper, Precision
from rnngan.generator.recurrent import RecurrentGenerator, State


@contextmanager
def without_dropout(network: nn.Module) -> Iterator[None]:
    """The network in evaluation, and then in the mode that it was in."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


class PlainStepper:
    """Scores the next token of several pieces that grow by one token per call, in float32.

    The interface is that of `FastStepper`, which knows only generators without an encoder; it says
    what stands under which mode, and the shapes.
    """

    def __init__(self, generator: RecurrentGenerator, *, batch_size: int = 1) -> None:
        self._generator = generator
        with without_dropout(generator):
            self._state = generator.start(batch_size)

    def step(self, tokens: Tensor) -> Tensor:
        """Logits after one more token per piece.

        Raises:
            ValueError: More or fewer tokens than pieces.
        """
        if len(tokens) != self._state.batch_size:
            raise ValueError(f"need {self._state.batch_size} tokens, got {len(tokens)}")
        with without_dropout(self._generator):
            logits, self._state = self._generator.step(tokens, self._state)
        return logits

    def select(self, rows: Tensor) -> None:
        """Go on with these pieces, by index `(new_batch,)`, each as often as it is named."""
        self._state = self._state.map(lambda part: part.index_select(0, rows))

    def state(self) -> State:
        """Where every piece stands."""
        return self._state.map(torch.clone)

    def set_state(self, state: State) -> None:
        """Go on from a state of this stepper, another or the generator, with all its pieces."""
        self._state = state


Stepper = FastStepper | PlainStepper


def stepper_of(
    generator: RecurrentGenerator, *, batch_size: int, precision: Precision = "auto"
) -> Stepper:
    """The fastest stepper that knows the generator."""
    if generator.is_fast:
        return FastStepper(generator, batch_size=batch_size, precision=precision)
    return PlainStepper(generator, batch_size=batch_size)
