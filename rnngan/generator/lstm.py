"""LSTM language model over tokens, the default generator."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rnngan.config import GeneratorConfig
from rnngan.generator.attention import CausalAttention, Memory
from rnngan.layers import LockedDropout, reset_recurrent


class State(NamedTuple):
    """Where a generator stands in several pieces: all that it needs to go on.

    `hidden` and `cell` `(layers, batch, hidden)`; `memory` of the attention, None where there is
    none.
    """

    hidden: Tensor
    cell: Tensor
    memory: Memory | None


class LSTMGenerator(nn.Module):
    """Scores the next token from all earlier ones; it neither samples nor knows the grammar.

    From the first layer's states an attention looks back, and what it finds goes into the second
    layer and the output layer beside the states.

    Shapes: tokens `(batch, time)`, logits `(batch, time, vocab)`.
    """

    def __init__(self, config: GeneratorConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        hidden, width = config.hidden_size, config.attention
        self.embedding = nn.Embedding(vocab_size, config.embedding_size)
        self.embedding_dropout = LockedDropout(config.embedding_dropout)
        self.rnn = nn.LSTM(
            config.embedding_size,
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
        self.upper: nn.LSTM | None = None
        if width:
            self.attention = CausalAttention(
                hidden, config.embedding_size, width, config.attention_heads
            )
            if config.num_layers > 1:
                self.upper = nn.LSTM(
                    hidden + width, hidden, config.num_layers - 1, batch_first=True
                )
                reset_recurrent(self.upper)

    def layers(self) -> list[list[Tensor]]:
        """Weights of each recurrent layer, first to last: of the input, of the state, two biases.

        With attention the second layer's input is the first one's states and the contexts.
        """
        rnns = [self.rnn] if self.upper is None else [self.rnn, self.upper]
        return [list(weights) for rnn in rnns for weights in rnn.all_weights]

    def start(self, batch_size: int) -> State:
        """State before the first token."""
        shape = self.config.num_layers, batch_size, self.config.hidden_size
        zeros = self.embedding.weight.new_zeros(shape)
        memory = None if self.attention is None else self.attention.start(batch_size)
        return State(zeros, zeros, memory)

    def hidden(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """What `logits` needs at every time, dropout applied, and the state to go on from.

        That is the last layer's states and, with attention, the contexts behind them:
        `(batch, time, hidden + attention)`.

        Args:
            tokens: `(batch, time)`.
            state: After the tokens before them; None where there are none.
        """
        if state is None:
            state = self.start(len(tokens))
        embedded = self.embedding_dropout(self.embedding(tokens))
        hidden, context, memory = embedded, None, state.memory
        ends = []
        # Layer by layer, because nn.LSTM's own dropout draws a mask per time.
        for i, weights in enumerate(self.layers()):
            if i:
                hidden = self.layer_dropout(hidden)
            hidden, *end = torch.lstm(
                hidden,
                (state.hidden[i : i + 1], state.cell[i : i + 1]),
                tuple(weights),
                has_biases=True,
                num_layers=1,
                dropout=0.0,
                train=self.training,
                bidirectional=False,
                batch_first=True,
            )
            ends.append(end)
            if i == 0 and self.attention is not None and memory is not None:
                context, memory = self.attention(hidden, embedded, memory)
                hidden = torch.cat([hidden, context], dim=2)
        if context is not None and len(ends) > 1:
            hidden = torch.cat([hidden, context], dim=2)
        last_hidden, last_cell = (torch.cat(parts) for parts in zip(*ends))
        return self.output_dropout(hidden), State(last_hidden, last_cell, memory)

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
        embedded = self.embedding(tokens)
        states, _ = self.rnn(embedded)
        return self.attention.weights(states, embedded)
