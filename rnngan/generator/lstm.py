"""LSTM language model over tokens, the default generator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rnngan.config import GeneratorConfig
from rnngan.layers import LockedDropout, reset_recurrent

State = tuple[Tensor, Tensor]
"""Hidden and cell state, each `(layers, batch, hidden)`."""


class LSTMGenerator(nn.Module):
    """Scores the next token from all earlier ones; it neither samples nor knows the grammar.

    Shapes: tokens `(batch, time)`, logits `(batch, time, vocab)`, state a pair of
    `(layers, batch, hidden)`; `None` stands for zeros.
    """

    def __init__(self, config: GeneratorConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        hidden = config.hidden_size
        self.embedding = nn.Embedding(vocab_size, config.embedding_size)
        self.embedding_dropout = LockedDropout(config.embedding_dropout)
        self.rnn = nn.LSTM(
            config.embedding_size,
            hidden,
            config.num_layers,
            batch_first=True,
        )
        self.layer_dropout = LockedDropout(config.layer_dropout)
        self.output_dropout = LockedDropout(config.output_dropout)
        self.projection = nn.Linear(hidden, config.embedding_size) if config.tied else nn.Identity()
        self.output = nn.Linear(config.embedding_size if config.tied else hidden, vocab_size)
        if config.tied:
            self.output.weight = self.embedding.weight
        # A tied embedding is the output layer, too, whose logits must begin small.
        nn.init.normal_(self.embedding.weight, std=0.1 if config.tied else 1.0)
        reset_recurrent(self.rnn)

    def hidden(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Last layer's states `(batch, time, hidden)`, dropout applied, and the state to go on."""
        hidden = self.embedding_dropout(self.embedding(tokens))
        if state is None:
            shape = self.config.num_layers, len(tokens), self.config.hidden_size
            state = hidden.new_zeros(shape), hidden.new_zeros(shape)
        ends = []
        # Layer by layer, because nn.LSTM's own dropout draws a mask per time.
        for i, weights in enumerate(self.rnn.all_weights):
            if i:
                hidden = self.layer_dropout(hidden)
            hidden, *end = torch.lstm(
                hidden,
                tuple(part[i : i + 1] for part in state),
                tuple(weights),
                has_biases=True,
                num_layers=1,
                dropout=0.0,
                train=self.training,
                bidirectional=False,
                batch_first=True,
            )
            ends.append(end)
        last_hidden, last_cell = (torch.cat(parts) for parts in zip(*ends))
        return self.output_dropout(hidden), (last_hidden, last_cell)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the next token `(..., vocab)` from hidden states `(..., hidden)`."""
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
