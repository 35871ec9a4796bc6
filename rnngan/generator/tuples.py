"""C-RNN-GAN's generator: an LSTM that turns noise into notes as real numbers.

References:
    Mogren, "C-RNN-GAN: continuous recurrent neural networks with adversarial training", 2016.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rnngan.config import GeneratorConfig
from rnngan.data.batches import Batch
from rnngan.generator.cells import LSTM
from rnngan.generator.recurrent import State
from rnngan.generator.sampling import uniforms
from rnngan.layers import LockedDropout, length_mask, reset_recurrent
from rnngan.music.tokenizers.tuples import COLUMNS

NOISE = len(COLUMNS)
"""Random numbers in [0, 1) that every note is made from; as many as it has columns, as in the
paper."""
_LENGTHS = 100


class TuplesGenerator(nn.Module):
    """Makes each note from noise and the note before.

    Before the first note stand zeros, the corpus's average. Nothing says that a piece ends: how
    many notes it has is drawn from the lengths of the training pieces. Of the settings count
    `hidden_size`, `num_layers`, `layer_dropout` and `output_dropout`.

    Shapes: notes `(batch, time, 4)`, the columns of `rnngan.music.tokenizers.tuples`; noise
    `(batch, time, NOISE)`.

    Args:
        config: Of the network.
    """

    lengths: Tensor

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.rnn = nn.LSTM(
            NOISE + len(COLUMNS), config.hidden_size, config.num_layers, batch_first=True
        )
        self.layer_dropout = LockedDropout(config.layer_dropout)
        self.output_dropout = LockedDropout(config.output_dropout)
        self.output = nn.Linear(config.hidden_size, len(COLUMNS))
        reset_recurrent(self.rnn)
        self.register_buffer("lengths", torch.ones(_LENGTHS, dtype=torch.long))

    def set_lengths(self, lengths: npt.NDArray[np.integer]) -> None:
        """Keep how long pieces are: hundredths of these numbers of notes, at least 1 each."""
        shares = (np.arange(_LENGTHS) + 0.5) / _LENGTHS
        hundredths = np.quantile(np.maximum(lengths, 1), shares, method="inverted_cdf")
        self.lengths.copy_(torch.from_numpy(hundredths.astype(np.int64)))

    def start(self, batch_size: int) -> State:
        """State before the first note."""
        zeros = self.output.weight.new_zeros(batch_size, self.config.hidden_size)
        return State(((zeros, zeros),) * self.config.num_layers)

    def forward(
        self, before: Tensor, noise: Tensor, state: State | None = None
    ) -> tuple[Tensor, State]:
        """The note at every time, made from its noise and the note `before` it; and the new state.

        [h_t, c_t] = LSTM([z_t, y_{t−1}], h_{t−1}, c_{t−1}), y_t = W h_t + b.
        """
        if state is None:
            state = self.start(len(before))
        hidden, ends = torch.cat([noise, before], dim=2), []
        for i, (begin, weights) in enumerate(zip(state.layers, self.rnn.all_weights)):
            if i:
                hidden = self.layer_dropout(hidden)
            hidden, *end = LSTM.scan(hidden, begin, weights, self.training)
            ends.append(tuple(end))
        return self.output(self.output_dropout(hidden)), State(tuple(ends))

    def step(
        self, before: Tensor, noise: Tensor, state: State | None = None
    ) -> tuple[Tensor, State]:
        """One note `(batch, 4)` from the one before `(batch, 4)` and noise `(batch, NOISE)`."""
        notes, state = self(before[:, None], noise[:, None], state)
        return notes[:, 0], state

    def write(self, noise: Tensor, *, chunk: int | None = None) -> Tensor:
        """Notes that follow from noise, each from those that were written before; differentiable.

        Args:
            noise: `(num, time, NOISE)`.
            chunk: The way back of the gradient is cut every so many notes; by default never.
        """
        before, state = noise.new_zeros(len(noise), len(COLUMNS)), self.start(len(noise))
        notes = []
        for time in range(noise.shape[1]):
            if chunk is not None and time and time % chunk == 0:
                before, state = before.detach(), state.map(Tensor.detach)
            before, state = self.step(before, noise[:, time], state)
            notes.append(before)
        return torch.stack(notes, dim=1)


def noise_of(
    generator: TuplesGenerator, seed: int, indices: Sequence[int], *, max_length: int
) -> tuple[Tensor, Tensor]:
    """What makes pieces differ: noise `(num, time, NOISE)`, and their lengths `(num,)`.

    Both follow for each piece from the seed and its index alone; `time` is the longest length.

    Args:
        generator: Knows how long pieces are.
        seed: Of everything.
        indices: Numbers of the pieces.
        max_length: Notes of a piece at most.

    Raises:
        UserError: The seed or an index is negative or beyond 64 bits.
    """
    random = torch.from_numpy(uniforms(seed, indices, 1 + max_length * NOISE))
    random = random.to(generator.output.weight)
    places = (random[:, 0] * _LENGTHS).long().clamp(max=_LENGTHS - 1)
    lengths = generator.lengths[places].clamp(max=max_length)
    time = int(lengths.max())
    return random[:, 1 : 1 + time * NOISE].reshape(-1, time, NOISE), lengths


def written(generator: TuplesGenerator, noise: Tensor, lengths: Tensor, **how: int) -> Tensor:
    """What the generator writes, `(num, time, 4)`, with zeros behind each piece's end."""
    mask = length_mask(lengths, noise.shape[1])
    return generator.write(noise, **how) * mask[..., None]


@torch.no_grad()
def draw(
    generator: TuplesGenerator, seed: int, indices: Sequence[int], *, max_length: int
) -> Batch:
    """Pieces of these numbers, without a gradient; for the rest see `noise_of`."""
    was_training = generator.training
    generator.eval()
    noise, lengths = noise_of(generator, seed, indices, max_length=max_length)
    notes = written(generator, noise, lengths)
    generator.train(was_training)
    return Batch(tokens=notes.numpy(), lengths=lengths.numpy())
