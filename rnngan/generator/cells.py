"""Kinds of recurrent layers: what each is made of, and how it goes over a sequence.

Torch's own kinds run through torch's functions; the LSTM with peepholes, which torch lacks, is in
`rnngan.generator.peephole`. All are in one direction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rnngan.generator.peephole import PeepholeLSTM, peephole_scan

Scan = Callable[[Tensor, Sequence[Tensor], Sequence[Tensor], bool], tuple[Tensor, ...]]
"""From inputs `(batch, time, input)`, the state, the weights of a layer and whether it is trained
to the hidden states `(batch, time, hidden)`, followed by the new state."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A kind of recurrent layer.

    Attributes:
        stack: Holds the weights of layers that stand upon each other; `all_weights` has a list for
            each, of the input, of the state, two biases, and then what only this kind has.
        num_states: Tensors `(batch, hidden)` of a layer's state; the first is what it puts out.
        scan: One layer over a sequence.
    """

    stack: Callable[..., nn.RNNBase]
    num_states: int
    scan: Scan


def lstm_scan(
    inputs: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor], train: bool
) -> tuple[Tensor, ...]:
    """Hochreiter & Schmidhuber, "Long short-term memory", 1997; with forget gates, Gers 2000.

    i, f, o = σ(W x_t + U h_{t−1} + b) each, g = tanh(…) likewise,
    c_t = f c_{t−1} + i g, h_t = o tanh(c_t); gates in the order i, f, g, o.
    """
    states = tuple(part[None] for part in state)
    hidden, *end = torch.lstm(inputs, states, tuple(weights), True, 1, 0.0, train, False, True)
    return hidden, *(part[0] for part in end)


def gru_scan(
    inputs: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor], train: bool
) -> tuple[Tensor, ...]:
    """Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014.

    r, z = σ(W x_t + b + U h_{t−1} + b') each, n = tanh(W x_t + b + r (U h_{t−1} + b')),
    h_t = (1 − z) n + z h_{t−1}; gates in the order r, z, n. The reset gate acts behind the product,
    as in torch and cuDNN, where the paper has it before.
    """
    begin = state[0][None]
    hidden, end = torch.gru(inputs, begin, tuple(weights), True, 1, 0.0, train, False, True)
    return hidden, end[0]


def rnn_scan(
    inputs: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor], train: bool
) -> tuple[Tensor, ...]:
    """Elman, "Finding structure in time", 1990: h_t = tanh(W x_t + b + U h_{t−1} + b')."""
    begin = state[0][None]
    hidden, end = torch.rnn_tanh(inputs, begin, tuple(weights), True, 1, 0.0, train, False, True)
    return hidden, end[0]


LSTM = Cell(stack=nn.LSTM, num_states=2, scan=lstm_scan)
GRU = Cell(stack=nn.GRU, num_states=1, scan=gru_scan)
RNN = Cell(stack=nn.RNN, num_states=1, scan=rnn_scan)
PEEPHOLE_LSTM = Cell(stack=PeepholeLSTM, num_states=2, scan=peephole_scan)
