import numpy as np
import pytest
import torch
from torch.autograd import gradcheck
from torch.func import functional_call

from rnngan.config import GeneratorConfig
from rnngan.generator.tuples import NOISE, TuplesGenerator, draw, noise_of, written

SMALL = GeneratorConfig(kind="tuples", hidden_size=5, num_layers=2)


def new(config=SMALL, dtype=torch.float64, lengths=(3, 5, 8)):
    torch.manual_seed(0)
    generator = TuplesGenerator(config).to(dtype).eval()
    generator.set_lengths(np.array(lengths))
    return generator


@pytest.fixture
def generator():
    return new()


@pytest.fixture
def inputs():
    torch.manual_seed(1)
    return torch.randn(3, 7, 4).double(), torch.rand(3, 7, NOISE).double()


def test_a_note_knows_what_came_before_and_its_own_noise_alone(generator, inputs):
    before, noise = inputs
    notes, _ = generator(before, noise)
    for i, changed in enumerate(inputs):
        other = changed.clone()
        other[:, 4] += 1
        found, _ = generator(*(other if j == i else part for j, part in enumerate(inputs)))
        torch.testing.assert_close(found[:, :4], notes[:, :4], rtol=0, atol=0)
        assert not torch.isclose(found[:, 4:], notes[:, 4:]).all(dim=2).any()


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_note_by_note_is_as_in_one_pass(inputs, num_layers):
    generator = new(GeneratorConfig(kind="tuples", hidden_size=5, num_layers=num_layers))
    before, noise = inputs
    notes, end = generator(before, noise)
    state = None
    for time in range(7):
        note, state = generator.step(before[:, time], noise[:, time], state)
        torch.testing.assert_close(note, notes[:, time])
    for one, other in zip(sum(state.layers, ()), sum(end.layers, ())):
        torch.testing.assert_close(one, other)


def test_against_the_equations_of_an_lstm(inputs):
    """Written out for one layer, gate by gate."""
    generator = new(GeneratorConfig(kind="tuples", hidden_size=5, num_layers=1))
    before, noise = inputs
    w, u, b, b2 = (weight.detach() for weight in generator.rnn.all_weights[0])
    h = c = torch.zeros(3, 5).double()
    for time in range(7):
        x = torch.cat([noise[:, time], before[:, time]], dim=1)
        i, f, g, o = (x @ w.T + b + h @ u.T + b2).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        expected = h @ generator.output.weight.T + generator.output.bias
        torch.testing.assert_close(generator(before, noise)[0][:, time], expected)


def test_it_reads_what_it_wrote(generator, inputs):
    """Given its own notes, shifted, it expects just these."""
    noise = inputs[1]
    notes = generator.write(noise)
    shifted = torch.cat([torch.zeros(3, 1, 4).double(), notes[:, :-1]], dim=1)
    torch.testing.assert_close(generator(shifted, noise)[0], notes)


def test_the_gradient_through_what_it_writes():
    generator = new(GeneratorConfig(kind="tuples", hidden_size=3, num_layers=2))
    noise = torch.rand(2, 4, NOISE).double()
    names = [name for name, _ in generator.named_parameters()]

    class Writing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.generator = generator

        def forward(self):
            return generator.write(noise)

    def notes(*weights):
        return functional_call(
            Writing(), {f"generator.{name}": w for name, w in zip(names, weights)}, ()
        )

    weights = [p.detach().clone().requires_grad_() for p in generator.parameters()]
    assert gradcheck(notes, weights)


def test_the_way_back_is_cut_every_chunk(generator, inputs):
    """A note's noise moves the notes of its own chunk alone; what is written stays the same."""
    noise = inputs[1].clone().requires_grad_()
    notes = generator.write(noise, chunk=3)
    torch.testing.assert_close(notes, generator.write(noise))
    for time in range(7):
        (gradient,) = torch.autograd.grad(notes[:, time].sum(), noise, retain_graph=True)
        reached = gradient.abs().sum((0, 2)).nonzero().flatten().tolist()
        assert reached == list(range(time - time % 3, time + 1))


def test_dropout_acts_in_training_alone(inputs):
    generator = new(GeneratorConfig(kind="tuples", hidden_size=50, layer_dropout=0.5))
    assert torch.equal(generator(*inputs)[0], generator(*inputs)[0])
    generator.train()
    assert not torch.equal(generator(*inputs)[0], generator(*inputs)[0])


# Pieces


def test_a_piece_follows_from_the_seed_and_its_number_alone():
    generator = new(dtype=torch.float32, lengths=range(1, 41))
    batch = draw(generator, 7, range(6), max_length=30)
    for index in range(6):
        alone = draw(generator, 7, [index], max_length=30)
        length = int(alone.lengths[0])
        assert length == batch.lengths[index]
        np.testing.assert_allclose(
            alone.tokens[0], batch.tokens[index][:length], rtol=1e-5, atol=1e-6
        )
        shorter = draw(generator, 7, [index], max_length=4)
        np.testing.assert_allclose(shorter.tokens[0], alone.tokens[0][:4], rtol=1e-5, atol=1e-6)
    assert len({tuple(row) for row in batch.tokens[:, 0].tolist()}) == 6
    others = draw(generator, 8, range(6), max_length=30)
    assert not np.isclose(others.tokens[:, 0], batch.tokens[:, 0]).all(axis=1).any()
    for row, length in zip(batch.tokens, batch.lengths):
        assert (row[length:] == 0).all() and (row[:length] != 0).any(axis=1).all()


def test_pieces_are_as_long_as_those_of_the_corpus():
    """A quarter of the lengths 10, the others 20: beyond 5 deviations once in 10^6 seeds."""
    generator = new(dtype=torch.float32, lengths=[10, 20, 20, 20])
    lengths = draw(generator, 0, range(400), max_length=99).lengths
    assert set(lengths.tolist()) == {10, 20}
    assert abs((lengths == 10).mean() - 0.25) < 5 * (0.25 * 0.75 / 400) ** 0.5
    assert draw(generator, 0, range(9), max_length=15).lengths.max() == 15


def test_an_empty_piece_of_the_corpus_does_no_harm():
    generator = new(dtype=torch.float32, lengths=[0, 0])
    assert draw(generator, 0, range(3), max_length=9).lengths.tolist() == [1, 1, 1]


def test_to_draw_leaves_the_mode_alone():
    generator = new(GeneratorConfig(kind="tuples", hidden_size=9, layer_dropout=0.5), torch.float32)
    expected = draw(generator, 0, range(2), max_length=9).tokens
    generator.train()
    np.testing.assert_array_equal(draw(generator, 0, range(2), max_length=9).tokens, expected)
    assert generator.training


def test_noise_is_uniform_and_of_the_longest_piece():
    """Mean of 4 × 8000 uniform numbers; beyond 5 deviations once in 10^6 seeds."""
    generator = new(lengths=[20])
    noise, lengths = noise_of(generator, 0, range(400), max_length=99)
    assert noise.shape == (400, 20, NOISE) and noise.dtype == torch.float64
    assert noise.min() >= 0 and noise.max() < 1
    assert abs(float(noise.mean()) - 0.5) < 5 * (1 / 12 / noise.numel()) ** 0.5
    assert written(generator, noise, lengths).shape == (400, 20, 4)
