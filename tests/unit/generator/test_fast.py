"""The stepper's attention and states; test_sampling.py has what it shares with the sampler."""

import pytest
import torch

from rnngan.config import GeneratorConfig
from rnngan.generator import fast
from rnngan.generator.fast import FastStepper
from rnngan.generator.registry import CELLS, new_generator
from rnngan.generator.sampling import SHRINK, sample, uniforms
from rnngan.music.tokenizers.events import Events, EventsConfig

VOCAB = 17
KINDS = list(CELLS)


@pytest.fixture(params=["packed", "plain"])
def _network(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(fast, "_HAS_PACKED_LSTM", False)


@pytest.fixture(autouse=True)
def _little_room(monkeypatch):
    """So that it runs out now and then."""
    monkeypatch.setattr(fast, "_LEAST_ROOM", 2)


def random_generator(**config):
    torch.manual_seed(0)
    settings = {"embedding_size": 8, "hidden_size": 12, "attention": 8, "attention_heads": 2}
    generator = new_generator(GeneratorConfig(**(settings | config)), VOCAB)
    torch.nn.init.normal_(generator.output.weight)
    if generator.attention is not None:
        torch.nn.init.normal_(generator.attention.first_key)
        torch.nn.init.normal_(generator.attention.of_states.weight)
    for name, weight in generator.named_parameters():
        if "bias" in name or "weight_ch" in name:  # many of which begin at zero
            torch.nn.init.normal_(weight)
    return generator.eval()


def random_tokens(batch_size, time, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(VOCAB, (batch_size, time), generator=random)


def stepped(stepper, tokens):
    return torch.stack([stepper.step(token) for token in tokens.T], dim=1)


@pytest.mark.usefixtures("_network")
@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize(
    "config",
    [
        {"num_layers": 1},
        {"num_layers": 3, "tied": True},
        *({"kind": kind, "attention": attention} for kind in KINDS for attention in (0, 8)),
        {"kind": "conv-lstm", "convolutions": 1, "kernel_size": 1, "pool_size": 1},
    ],
    ids=str,
)
@torch.inference_mode()
def test_logits_and_states_are_the_generators(batch_size, config):
    generator = random_generator(**config)
    tokens = random_tokens(batch_size, 40)
    stepper = FastStepper(generator, batch_size=batch_size, precision="float32")
    expected, state = generator(tokens)
    torch.testing.assert_close(stepped(stepper, tokens), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(stepper.state(), state, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("_network")
@pytest.mark.parametrize(
    ("batch_size", "rows"),
    [
        (1, [0, 0, 0]),
        (3, [2]),
        (3, [0, 0, 1]),
        (3, [1, 1, 0, 2, 1]),
        (64, [*range(0, 64, 3), 5, 5]),
    ],
)
@pytest.mark.parametrize("attention", [0, 8])
@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_select_goes_on_with_the_pieces_named(batch_size, rows, kind, attention):
    generator = random_generator(kind=kind, attention=attention)
    before, after = random_tokens(batch_size, 11), random_tokens(len(rows), 9, seed=1)
    stepper = FastStepper(generator, batch_size=batch_size, precision="float32")
    stepped(stepper, before)
    state = stepper.state()
    stepper.select(torch.tensor(rows))
    torch.testing.assert_close(state, generator(before)[1], rtol=1e-4, atol=1e-5)
    expected, _ = generator(torch.cat([before[rows], after], dim=1))
    torch.testing.assert_close(stepped(stepper, after), expected[:, 11:], rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("_network")
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("attention", [0, 8])
@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_a_state_is_where_to_go_on_any_number_of_times(batch_size, kind, attention):
    generator = random_generator(kind=kind, attention=attention)
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
@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_bfloat16_is_near_float32(kind):
    generator = random_generator(kind=kind)
    tokens = random_tokens(4, 60)
    near = stepped(FastStepper(generator, batch_size=4, precision="bfloat16"), tokens)
    exact, _ = generator(tokens)
    error = (near.log_softmax(-1) - exact.log_softmax(-1)).abs()
    # A vanilla network has no gates that let it forget, its errors among the rest.
    assert 0 < error.mean() < (0.1 if kind == "rnn" else 0.02)
    assert exact.std() > 1  # so that there was something to miss


@pytest.mark.parametrize("kind", KINDS)
def test_in_float32_samples_are_those_of_the_plain_loop(kind):
    """Token for token: each is where its random number falls in the generator's distribution."""
    tunes = Events(EventsConfig(metres=("4/4", "3/4"), lowest=55, highest=70))
    torch.manual_seed(0)
    config = GeneratorConfig(kind=kind, embedding_size=8, hidden_size=12, attention=8)
    generator = new_generator(config, len(tunes.vocabulary)).eval()
    torch.nn.init.normal_(generator.output.weight)
    draws = uniforms(3, range(12), 60)
    samples = sample(generator, tunes.grammar, draws, precision="float32")
    tokens, lengths = samples.tokens, samples.lengths
    state, found = None, [tokens[:, 0]]
    states = tunes.grammar.states_before(tokens.numpy(), lengths.numpy())
    for time in range(1, tokens.shape[1]):
        logits, state = generator.step(tokens[:, time - 1], state)
        allowed = torch.from_numpy(tunes.grammar.allowed[states[:, time]])
        shares = logits.masked_fill(~allowed, -torch.inf).softmax(-1).cumsum(-1)
        number = torch.from_numpy(draws[:, time, None] * SHRINK)
        found.append((shares > number).int().argmax(1))
    inside = torch.arange(tokens.shape[1]) < lengths[:, None]
    assert torch.equal(torch.stack(found, 1)[inside], tokens[inside])
    assert inside.sum() > 200
