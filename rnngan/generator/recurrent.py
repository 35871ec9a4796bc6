"""Recurrent language models over tokens: any cell, with attention and convolutions or without."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rnngan.config import GeneratorConfig
from rnngan.generator.attention import CausalAttention, Memory
from rnngan.generator.cells import Cell
from rnngan.generator.convolution import CausalConvolutions
from rnngan.layers import LockedDropout, reset_recurrent


class State(NamedTuple):
    """Where a generator stands in several pieces: all that it needs to go on.

    The first axis of every tensor is the batch.

    Attributes:
        layers: Of each recurrent layer the tensors `(batch, hidden)` that its cell goes on from;
            the first is its hidden state, and the second, where there is one, its cell.
        front: Of the convolutions; empty where there are none.
        memory: Of the attention; None where there is none.
        source: What an encoder found; empty where there is none.
    """

    layers: tuple[tuple[Tensor, ...], ...]
    front: tuple[Tensor, ...] = ()
    memory: Memory | None = None
    source: tuple[Tensor, ...] = ()

    @property
    def batch_size(self) -> int:
        """Number of pieces."""
        return len(self.layers[0][0])

    def map(self, change: Callable[[Tensor], Tensor]) -> State:
        """The state with every tensor changed, as by picking pieces on the first axis."""
        return State(
            tuple(tuple(map(change, layer)) for layer in self.layers),
            tuple(map(change, self.front)),
            None if self.memory is None else Memory(*map(change, self.memory)),
            tuple(map(change, self.source)),
        )


class RecurrentGenerator(nn.Module):
    """Scores the next token from all earlier ones; it neither samples nor knows the grammar.

    From the first layer's states an attention looks back, and what it finds goes into the second
    layer and the output layer beside the states.

    Shapes: tokens `(batch, time)`, logits `(batch, time, vocab)`.

    Args:
        config: Of the network; `rnngan.generator.registry.new_generator` reads its kind.
        vocab_size: Tokens.
        cell: Kind of the layers.
        front: Convolutions over the embedded tokens, or none.
        told_size: Width of what a subclass puts beside every embedded token.
        found_size: Width of what it finds beside the first layer's states.
    """

    is_fast = True
    """Whether `FastStepper` can step it."""

    def __init__(
        self,
        config: GeneratorConfig,
        vocab_size: int,
        *,
        cell: Cell,
        front: CausalConvolutions | None = None,
        told_size: int = 0,
        found_size: int = 0,
    ) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.cell = cell
        hidden, width = config.hidden_size, config.attention + found_size
        self.embedding = nn.Embedding(vocab_size, config.embedding_size)
        self.embedding_dropout = LockedDropout(config.embedding_dropout)
        self.front = front
        self.rnn = cell.stack(
            config.embedding_size * (1 if front is None else 2) + told_size,
            hidden,
            1 if width else config.num_layers,
            batch_first=True,
        )
        self.layer_dropout = LockedDropout(config.layer_dropout)
        self.output_dropout = LockedDropout(config.output_dropout)
        self.projection = (
            nn.Linear(hidden + width, config.embedding_size) if config.tied else nn.Identity()
        )
        self.output = nn.Linear(
            config.embedding_size if config.tied else hidden + width, vocab_size
        )
        if config.tied:
            self.output.weight = self.embedding.weight
        # A tied embedding is the output layer, too, whose logits must begin small.
        nn.init.normal_(self.embedding.weight, std=0.1 if config.tied else 1.0)
        reset_recurrent(self.rnn)
        self.attention: CausalAttention | None = None
        self.upper: nn.RNNBase | None = None
        if config.attention:
            self.attention = CausalAttention(
                hidden, config.embedding_size, config.attention, config.attention_heads
            )
        if width and config.num_layers > 1:
            self.upper = cell.stack(hidden + width, hidden, config.num_layers - 1, batch_first=True)
            reset_recurrent(self.upper)

    def layers(self) -> list[list[Tensor]]:
        """Weights of each recurrent layer, first to last, as its cell wants them.

        With attention the second layer's input is the first one's states and the contexts.
        """
        rnns = [self.rnn] if self.upper is None else [self.rnn, self.upper]
        return [list(weights) for rnn in rnns for weights in rnn.all_weights]

    def start(self, batch_size: int) -> State:
        """State before the first token."""
        zeros = self.embedding.weight.new_zeros(batch_size, self.config.hidden_size)
        return State(
            ((zeros,) * self.cell.num_states,) * self.config.num_layers,
            () if self.front is None else self.front.start(batch_size),
            None if self.attention is None else self.attention.start(batch_size),
        )

    def hidden(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """What `logits` needs at every time, dropout applied, and the state to go on from.

        That is the last layer's states and, with attention, the contexts behind them:
        `(batch, time, hidden + attention)`, and what an encoder found behind those.

        Args:
            tokens: `(batch, time)`.
            state: After the tokens before them; None where there are none.
        """
        if state is None:
            state = self.start(len(tokens))
        embedded = self.embedding_dropout(self.embedding(tokens))
        hidden, front = self._through_front(embedded, state.front)
        hidden = self._told(hidden, tokens, state.source)
        contexts: list[Tensor] = []
        memory, source = state.memory, state.source
        ends = []
        # Layer by layer, because torch's own dropout draws a mask per time.
        for i, (begin, weights) in enumerate(zip(state.layers, self.layers())):
            if i:
                hidden = self.layer_dropout(hidden)
            hidden, *end = self.cell.scan(hidden, begin, weights, self.training)
            ends.append(tuple(end))
            if i == 0:
                if self.attention is not None and memory is not None:
                    context, memory = self.attention(hidden, embedded, memory)
                    contexts.append(context)
                found, source = self._found(hidden, tokens, source)
                contexts += found
                hidden = torch.cat([hidden, *contexts], dim=2) if contexts else hidden
        if contexts and len(ends) > 1:
            hidden = torch.cat([hidden, *contexts], dim=2)
        return self.output_dropout(hidden), State(tuple(ends), front, memory, source)

    def _told(
        self,
        inputs: Tensor,
        tokens: Tensor,  # noqa: ARG002
        source: tuple[Tensor, ...],  # noqa: ARG002
    ) -> Tensor:
        """Inputs of the first layer, and beside them what a subclass knows of the piece."""
        return inputs

    def _found(
        self,
        states: Tensor,  # noqa: ARG002
        tokens: Tensor,  # noqa: ARG002
        source: tuple[Tensor, ...],
    ) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        """What a subclass finds beside the first layer's states, and the source to go on from."""
        return [], source

    def _through_front(
        self, embedded: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        return (embedded, state) if self.front is None else self.front(embedded, state)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the next token `(..., vocab)` from what `hidden` returns for a time."""
        logits: Tensor = self.output(self.projection(hidden))
        return logits

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Score the token after each position; pass the new state to the next call."""
        hidden, state = self.hidden(tokens, state)
        return self.logits(hidden), state

    def step(self, token: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """One position: logits `(batch, vocab)` after tokens `(batch,)`."""
        logits, state = self(token[:, None], state)
        return logits[:, 0], state

    def attention_weights(self, tokens: Tensor) -> Tensor:
        """What each token's attention looks at, `(batch, heads, time, place)`.

        Place `j` is token `j` and what is known after it; the first is looked at, too, when there
        is nothing to find. Rows add up to 1, places later than the time weigh 0.

        Raises:
            ValueError: The generator has no attention.
        """
        if self.attention is None:
            raise ValueError("this generator has no attention: its width is 0")
        embedded, begin = self.embedding(tokens), self.start(len(tokens))
        inputs, _ = self._through_front(embedded, begin.front)
        inputs = self._told(inputs, tokens, begin.source)
        states, *_ = self.cell.scan(inputs, begin.layers[0], self.layers()[0], False)
        return self.attention.weights(states, embedded)
