"""The generators by name."""

from __future__ import annotations

from rnngan.config import WITH_ENCODER, GeneratorConfig
from rnngan.generator.cells import GRU, LSTM, PEEPHOLE_LSTM, RNN, Cell
from rnngan.generator.convolution import CausalConvolutions
from rnngan.generator.recurrent import RecurrentGenerator
from rnngan.generator.seq2seq import Seq2Seq
from rnngan.generator.vae import VAE
from rnngan.music.tokenizers.base import Tokenizer
from rnngan.music.tokenizers.parts import events_or_refuse

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


def generator_for(config: GeneratorConfig, tokenizer: Tokenizer) -> RecurrentGenerator:
    """Likewise, of a kind that may have to know what the tokens mean.

    Raises:
        UserError: The kind needs other tokens.
    """
    if config.kind in WITH_ENCODER:
        kind = Seq2Seq if config.kind == "seq2seq" else VAE
        return kind(config, events_or_refuse(tokenizer, f"--generator {config.kind}"))
    return new_generator(config, len(tokenizer.vocabulary))
