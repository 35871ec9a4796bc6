"""How far the next note is from what the generator expects: what it learns before refinement.

C-RNN-GAN is pretrained, and its baseline trained, on the squared error of the next note, given
noise and the note before it from the music, not its own (Mogren 2016, section 3). Columns have
standard deviation 1 over the corpus, so that to expect the average note always costs about 1.

References:
    Mogren, "C-RNN-GAN: continuous recurrent neural networks with adversarial training", 2016.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from rnngan.data.batches import Batch
from rnngan.generator.tuples import NOISE, TuplesGenerator
from rnngan.layers import length_mask
from rnngan.objectives.likelihood import autocast


def before(notes: Tensor) -> Tensor:
    """The note before each, `(batch, time, 4)` as given; zeros before the first."""
    return torch.cat([torch.zeros_like(notes[:, :1]), notes[:, :-1]], dim=1)


def squared_errors(generator: TuplesGenerator, batch: Batch, random: torch.Generator) -> Tensor:
    """Of every note of the pieces and each of its columns, `(notes, 4)`.

    Args:
        generator: Gets the music's own notes, and noise.
        batch: Of tuples.
        random: Of the noise.
    """
    notes = torch.from_numpy(batch.tokens)
    noise = torch.rand(*notes.shape[:2], NOISE, generator=random)
    expected, _ = generator(before(notes), noise)
    mask = length_mask(torch.from_numpy(batch.lengths), notes.shape[1])
    errors: Tensor = (expected.float() - notes)[mask].square()
    return errors


@torch.no_grad()
def held_out_squared_errors(
    generator: TuplesGenerator, batches: Iterable[Batch], *, seed: int, precision: str
) -> Tensor:
    """Means over all notes of some pieces, of each column: `(4,)`, float64."""
    was_training = generator.training
    generator.eval()
    random = torch.Generator().manual_seed(seed)
    with autocast(precision):
        errors = [squared_errors(generator, batch, random).double() for batch in batches]
    generator.train(was_training)
    return torch.cat(errors).mean(0)
