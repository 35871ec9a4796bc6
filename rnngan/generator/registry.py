"""The generators by name."""

from __future__ import annotations

from rnngan.config import GeneratorConfig
from rnngan.generator.cells import GRU, LSTM, PEEPHOLE_LSTM, RNN, Cell
from rnngan.generator.convolution import CausalConvolutions
from rnngan.generator.recurrent import RecurrentGenerator

CELLS: dict[str, Cell] = {
    "lstm": LSTM,
    "gru": GRU,
    "rnn": RNN,
    "peephole-lstm": PEEPHOLE_LSTM,
    "conv-lstm": LSTM,
}
"""Cell of each kind; names as in `GeneratorConfig.kind`."""


def new_generator(config: GeneratorConfig, vocab_size: int) -> RecurrentGenerator:
    """A fresh one, drawn from torch's own random numbers."""
    front = None
    if config.kind == "conv-lstm":
        front = CausalConvolutions(
            config.embedding_size, config.kernel_size, config.pool_size, config.convolutions
        )
    return RecurrentGenerator(config, vocab_size, cell=CELLS[config.kind], front=front)
