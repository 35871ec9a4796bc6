"""The stepper's attention and states; test_sampling.py has what it shares with the sampler."""

import pytest
import torch

from rnngan.config import GeneratorConfig
from rnngan.generator import fast
from rnngan.generator.fast import FastStepper
from rnngan.generator.lstm import LSTMGenerator

VOCAB = 17


@pytest.fixture(params=["packed", "plain"])
def _network(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(fast, "_HAS_PACKED_LSTM", False)


@pytest.fixture(autouse=True)
def _little_room(monkeypatch):
    """So that it runs out now and then."""
    monkeypatch.setattr(fast, "_LEAST_ROOM", 2)


def new_generator(**config):
    torch.manual_seed(0)
    settings = {"embedding_size": 8, "hidden_size": 12, "attention": 8, "attention_heads": 2}
    generator = LSTMGenerator(GeneratorConfig(**(settings | config)), VOCAB)
    torch.nn.init.normal_(generator.output.weight)
    if generator.attention is not None:
        torch.nn.init.normal_(generator.attention.first_key)
        torch.nn.init.normal_(generator.attention.of_states.weight)
    return generator.eval()


def random_tokens(batch_size, time, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(VOCAB, (batch_size, time), generator=random)


def stepped(stepper, tokens):
    return torch.stack([stepper.step(token) for token in tokens.T], dim=1)


@pytest.mark.usefixtures("_network")
@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize(
    "config", [{}, {"num_layers": 1}, {"num_layers": 3, "tied": True}, {"attention": 0}], ids=str
)
@torch.inference_mode()
def test_logits_and_states_are_the_generators(batch_size, config):
    generator = new_generator(**config)
    tokens = random_tokens(batch_size, 40)
    stepper = FastStepper(generator, batch_size=batch_size, precision="float32")
    expected, state = generator(tokens)
    torch.testing.assert_close(stepped(stepper, tokens), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(stepper.state(), state, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("_network")
@pytest.mark.parametrize(
    ("batch_size", "rows"),
    [(1, [0, 0, 0]), (3, [2]), (3, [1, 1, 0, 2, 1]), (64, [*range(0, 64, 3), 5, 5])],
)
@pytest.mark.parametrize("attention", [0, 8])
@torch.inference_mode()
def test_select_goes_on_with_the_pieces_named(batch_size, rows, attention):
    generator = new_generator(attention=attention)
    before, after = random_tokens(batch_size, 11), random_tokens(len(rows), 9, seed=1)
    stepper = FastStepper(generator, batch_size=batch_size, precision="float32")
    stepped(stepper, before)
    stepper.select(torch.tensor(rows))
    expected, _ = generator(torch.cat([before[rows], after], dim=1))
    torch.testing.assert_close(stepped(stepper, after), expected[:, 11:], rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("_network")
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("attention", [0, 8])
@torch.inference_mode()
def test_a_state_is_where_to_go_on_any_number_of_times(batch_size, attention):
    generator = new_generator(attention=attention)
    tokens = random_tokens(batch_size, 20)
    whole, _ = generator(tokens)
    stepper = FastStepper(generator, batch_size=batch_size, precision="float32")
    stepped(stepper, tokens[:, :8])
    state = stepper.state()
    for _ in range(2):
        torch.testing.assert_close(
            stepped(stepper, tokens[:, 8:]), whole[:, 8:], rtol=1e-4, atol=1e-5
        )
        stepper.set_state(state)
    _, state = generator(tokens[:, :8])
    other = FastStepper(generator, batch_size=batch_size + 1, precision="float32")
    other.set_state(state)
    torch.testing.assert_close(stepped(other, tokens[:, 8:]), whole[:, 8:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        generator(tokens[:, 8:], state)[0], whole[:, 8:], rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        generator(tokens[:, 8:], stepper.state())[0], whole[:, 8:], rtol=1e-4, atol=1e-5
    )


@pytest.mark.usefixtures("_network")
@torch.inference_mode()
def test_bfloat16_is_near_float32():
    generator = new_generator()
    tokens = random_tokens(4, 60)
    near = stepped(FastStepper(generator, batch_size=4, precision="bfloat16"), tokens)
    exact, _ = generator(tokens)
    error = (near.log_softmax(-1) - exact.log_softmax(-1)).abs()
    assert 0 < error.mean() < 0.02
    assert exact.std() > 1  # so that there was something to miss
