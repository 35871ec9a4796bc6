import numpy as np
import pytest
import torch
from torch import nn

from rnngan.config import GeneratorConfig
from rnngan.data.batches import padded
from rnngan.generator.tuples import TuplesGenerator
from rnngan.objectives.squared_error import before, held_out_squared_errors, squared_errors

ROWS = [
    np.array([[1, 2, 3, 4], [0, 1, 0, 1], [2, 2, 2, 2]], dtype=np.float32),
    np.array([[5, 0, 0, 0]], dtype=np.float32),
]


class Echo(nn.Module):
    """Expects the note before again."""

    def forward(self, before, noise):
        return before, None


def test_the_note_before_by_hand():
    notes = torch.tensor([[[1.0], [2.0], [3.0]]])
    assert before(notes).flatten().tolist() == [0, 1, 2]
    errors = squared_errors(Echo(), padded(ROWS), torch.Generator())
    assert errors.tolist() == [[1, 4, 9, 16], [1, 1, 9, 9], [4, 1, 4, 1], [25, 0, 0, 0]]


def test_the_mean_is_over_all_notes_whatever_the_batches():
    found = held_out_squared_errors(Echo(), [padded(ROWS)], seed=0, precision="float32")
    assert found.tolist() == pytest.approx([31 / 4, 6 / 4, 22 / 4, 26 / 4])
    apart = [padded([row]) for row in ROWS]
    assert torch.equal(found, held_out_squared_errors(Echo(), apart, seed=0, precision="float32"))


def test_padding_changes_nothing():
    torch.manual_seed(0)
    generator = TuplesGenerator(GeneratorConfig(kind="tuples", hidden_size=5)).eval()
    batch = padded(ROWS)
    expected = squared_errors(generator, batch, torch.Generator().manual_seed(0))
    batch.tokens[1, 1:] = 9
    found = squared_errors(generator, batch, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_held_out_errors_are_without_dropout_and_the_same_each_time():
    generator = TuplesGenerator(GeneratorConfig(kind="tuples", hidden_size=5, layer_dropout=0.5))
    found = [
        held_out_squared_errors(generator, [padded(ROWS)], seed=3, precision="float32")
        for _ in range(2)
    ]
    assert torch.equal(*found) and generator.training
