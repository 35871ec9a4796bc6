import copy
import math
from dataclasses import replace

import pytest
import torch
from exact import (
    GRAMMAR,
    MAX_LENGTH,
    VOCAB_SIZE,
    FixedJudge,
    every_sequence,
    sequence_probs,
    tiny_generator,
    tiny_players,
    tiny_round,
)
from torch.nn import functional as F

from rnngan.config import DiscriminatorConfig, GeneratorConfig
from rnngan.errors import UserError
from rnngan.generator.registry import new_generator
from rnngan.layers import grammar_log_softmax, length_mask
from rnngan.music.vocabulary import START
from rnngan.objectives import gumbel
from rnngan.objectives.gumbel import Gumbel, annealed, frozen, relaxed_samples, straight_through


class SoftJudge(FixedJudge):
    """Reads distributions over tokens as well, and is not linear in them; has a weight."""

    def __init__(self, views="tokens"):
        super().__init__()
        self.config = DiscriminatorConfig(views=views)
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, tokens, lengths):
        return self.weight * super().forward(tokens, lengths)

    def soft(self, probs, lengths):
        inside = length_mask(lengths, probs.shape[1])
        places = (self.places[: probs.shape[1]] * probs).sum(2)
        pairs = torch.einsum("btv,vw,btw->bt", probs[:, :-1], self.pairs, probs[:, 1:])
        return self.weight * ((places * inside).sum(1) + (pairs * inside[:, 1:]).sum(1))


def noise(seed):
    return torch.Generator().manual_seed(seed)


def generator_of(**config):
    torch.manual_seed(2)
    network = new_generator(
        GeneratorConfig(embedding_size=4, hidden_size=4, attention_heads=1, **config), VOCAB_SIZE
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.7)
    return network.eval()


def drawn(generator, *, num=6, inverse_temperature=2.0, chunk=MAX_LENGTH, seed=0):
    return relaxed_samples(
        generator, GRAMMAR, num=num, max_length=MAX_LENGTH,
        inverse_temperature=inverse_temperature, chunk=chunk, random=noise(seed),
    )  # fmt: skip


def test_forward_is_the_hard_sample_and_backward_the_soft_one():
    log_probs = torch.randn(50, 6).log_softmax(1).requires_grad_()
    allowed = torch.rand(50, 6) < 0.7
    allowed[:, 2] = True
    allowed[0] = torch.arange(6) == 2
    masked = log_probs.masked_fill(~allowed, -torch.inf)
    found = straight_through(masked, 3.0, noise(0))
    exponential = torch.empty(50, 6).exponential_(generator=noise(0))
    noisy = masked - exponential.log()
    assert torch.equal(found, F.one_hot(noisy.argmax(1), 6).float())
    assert (found[~allowed] == 0).all()

    values = torch.randn(50, 6)
    slope = torch.autograd.grad((found * values).sum(), log_probs, retain_graph=True)[0]
    soft = (3.0 * noisy).softmax(1)
    expected = torch.autograd.grad((soft * values).sum(), log_probs)[0]
    torch.testing.assert_close(slope, expected)
    assert torch.isfinite(slope).all() and torch.count_nonzero(slope[0]) == 0


def test_what_is_drawn_has_the_generators_distribution():
    """Each of the sequences within 6 standard errors: a false alarm in 1 of a million seeds."""
    generator, listed, num = tiny_generator(), every_sequence(), 20_000
    with torch.no_grad():
        batch = drawn(generator, num=num, inverse_temperature=7.0).batch
    counts = {}
    for row, length in zip(batch.tokens.tolist(), batch.lengths):
        key = tuple(row[:length])
        counts[key] = counts.get(key, 0) + 1
    for row, length, prob in zip(
        listed.tokens.tolist(), listed.lengths, sequence_probs(generator, listed).tolist()
    ):
        count = counts.pop(tuple(row[:length]), 0)
        assert abs(count - num * prob) < 6 * math.sqrt(num * prob) + 5
    assert not counts


def test_rows_tokens_and_lengths_agree():
    found = drawn(tiny_generator(), num=100)
    tokens = torch.from_numpy(found.batch.tokens)
    assert torch.equal(found.one_hot.detach(), F.one_hot(tokens, VOCAB_SIZE).float())
    assert (tokens[:, 0] == START).all()
    assert len(set(found.batch.lengths.tolist())) > 2
    GRAMMAR.states_before(found.batch.tokens, found.batch.lengths)


class Passing(torch.autograd.Function):
    """The first argument forwards, the second one's gradient backwards."""

    @staticmethod
    def forward(_, hard, soft):
        return hard.clone()

    @staticmethod
    def backward(_, gradient):
        return None, gradient


def from_scratch(generator, *, num, inverse_temperature, chunk, seed):
    """The same samples, each token from all before it in one pass, and no state carried along.

    At a border the state of what lies before is computed from hard tokens, without gradient.
    """
    random = noise(seed)
    rows = [F.one_hot(torch.full((num,), START), VOCAB_SIZE).float()]
    place = torch.from_numpy(GRAMMAR.next_state)[0, torch.full((num,), START)].long()
    for time in range(1, MAX_LENGTH):
        begin = (time - 1) // chunk * chunk
        state = None
        if begin:
            with torch.no_grad():
                _, state = generator(torch.stack(rows[:begin], 1).argmax(2))
        some = torch.stack(rows[begin:], 1)
        if begin:
            some = torch.cat([some[:, :1].detach(), some[:, 1:]], 1)
        embedded = some @ generator.embedding.weight
        hook = generator.embedding.register_forward_hook(lambda *_, e=embedded: e)
        logits, _ = generator(some.argmax(2), state)
        hook.remove()
        allowed = torch.from_numpy(GRAMMAR.allowed)[place]
        log_probs = grammar_log_softmax(logits[:, -1], allowed)
        noisy = log_probs - torch.empty(num, VOCAB_SIZE).exponential_(generator=random).log()
        token = noisy.argmax(1)
        soft = (inverse_temperature * noisy).softmax(1)
        rows.append(Passing.apply(F.one_hot(token, VOCAB_SIZE).float(), soft))
        place = torch.from_numpy(GRAMMAR.next_state)[place, token].long()
    return torch.stack(rows, 1)


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 64])
@pytest.mark.parametrize(
    "config",
    [
        {"attention": 0, "num_layers": 1},
        {"attention": 0, "num_layers": 2, "tied": True},
        {"attention": 4, "num_layers": 2},
    ],
)
def test_the_gradient_is_that_of_the_relaxation_cut_at_the_borders(config, chunk):
    generator = generator_of(**config)
    options = {"num": 20, "inverse_temperature": 2.0, "chunk": chunk, "seed": 0}
    found, expected = drawn(generator, **options).one_hot, from_scratch(generator, **options)
    expected = expected[:, : found.shape[1]]  # it goes on when all have ended
    assert torch.equal(found.detach(), expected.detach())
    judge = SoftJudge()
    lengths = torch.full((len(found),), found.shape[1])
    slopes = [
        torch.autograd.grad(
            judge.soft(rows, lengths).sum(), [*generator.parameters()], allow_unused=True
        )
        for rows in (found, expected)
    ]
    for one, other in zip(*slopes):
        torch.testing.assert_close(
            torch.zeros(()) if one is None else one, torch.zeros(()) if other is None else other
        )


def slopes_of(generator, chunk):
    found = drawn(generator, num=32, chunk=chunk)
    value = SoftJudge().soft(found.one_hot, torch.from_numpy(found.batch.lengths)).sum()
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, [*generator.parameters()])])


def test_a_chunk_as_long_as_a_piece_cuts_nothing():
    generator = generator_of(attention=4)
    whole = slopes_of(generator, 10_000)
    assert torch.equal(slopes_of(generator, MAX_LENGTH - 1), whole)
    assert not torch.allclose(slopes_of(generator, MAX_LENGTH - 3), whole)


def test_a_token_reaches_back_to_the_border_and_no_further(monkeypatch):
    """With borders every 2 tokens the third and the fourth hang together, and no others."""
    rows = []

    def kept(*given):
        rows.append(straight_through(*given))
        return rows[-1]

    monkeypatch.setattr(gumbel, "straight_through", kept)
    drawn(generator_of(attention=4), num=64, chunk=2)
    for later, feels in ((3, {2}), (2, set()), (1, {0})):
        value = (rows[later] * torch.linspace(0, 1, VOCAB_SIZE)).sum()
        slopes = torch.autograd.grad(value, rows[:later], allow_unused=True, retain_graph=True)
        assert {i for i, slope in enumerate(slopes) if slope is not None and slope.any()} == feels


def test_as_the_temperature_falls_the_gradient_tends_to_the_exact_one():
    """For one token and a judge linear in it; within 6 standard errors and the bias at β = 20."""
    generator, values = tiny_generator(), torch.linspace(-1, 2, VOCAB_SIZE)
    weights = [*generator.parameters()]
    logits, _ = generator(torch.tensor([[START]]))
    allowed = torch.from_numpy(GRAMMAR.allowed[GRAMMAR.next_state[0, START]])
    expected = grammar_log_softmax(logits[0, 0], allowed).exp() @ values
    exact = torch.autograd.grad(expected, weights, allow_unused=True)
    exact = torch.cat([g.flatten() for g in exact if g is not None])
    slopes = []
    for seed in range(100):
        found = relaxed_samples(
            generator, GRAMMAR, num=1000, max_length=2, inverse_temperature=20.0, chunk=1,
            random=noise(seed),
        )  # fmt: skip
        value = (found.one_hot[:, 1] @ values).mean()
        some = torch.autograd.grad(value, weights, allow_unused=True)
        slopes.append(torch.cat([g.flatten() for g in some if g is not None]))
    share = torch.stack(slopes) @ exact / exact.square().sum()
    error = share.std().item() / math.sqrt(len(share))
    assert error < 0.02
    assert abs(share.mean().item() - 1) < 6 * error + 0.02


def test_the_inverse_temperature_rises_exponentially():
    assert [annealed(16.0, step, 5) for step in range(5)] == pytest.approx([1, 2, 4, 8, 16])
    assert annealed(16.0, 0, 1) == 1


def game_of(players, *, seed=0, step=0):
    game = tiny_round(players, batch_size=8, seed=seed)
    return replace(game, openings=game.fakes, step=step)


def players_of(**config):
    options = {"batch_size": 8, "max_length": 16, "discriminator_loss": "relativistic"}
    return tiny_players(SoftJudge(), **(options | config))


@pytest.fixture
def short(monkeypatch):
    """Samples as short as the toy judge can read."""

    def draw(*args, **options):
        return relaxed_samples(*args, **(options | {"max_length": MAX_LENGTH}))

    monkeypatch.setattr(gumbel, "relaxed_samples", draw)


@pytest.mark.usefixtures("short")
def test_an_update_by_its_parts():
    players = players_of(likelihood_weight=0.5, kl_weight=0.1)
    other = copy.deepcopy(players.reference)
    with torch.no_grad():
        other.output.bias += torch.linspace(0, 5, VOCAB_SIZE)
    players = replace(players, reference=other)
    game = game_of(players)
    log = Gumbel(players).update(game)
    found = drawn(players.generator, num=8, inverse_temperature=1.0)
    judge = players.discriminator
    fake = judge.soft(found.one_hot, torch.from_numpy(found.batch.lengths))
    real = judge(torch.from_numpy(game.openings.tokens), torch.from_numpy(game.openings.lengths))
    assert log["adversarial_loss"] == pytest.approx(
        F.softplus(real[:, None] - fake).mean().item(), rel=1e-5
    )
    assert log["kl_to_reference"] > 0 and log["inverse_temperature"] == 1
    assert log["generator_loss"] == pytest.approx(
        log["adversarial_loss"] + 0.1 * log["kl_to_reference"] + 0.5 * log["train_likelihood_nats"],
        rel=1e-5,
    )
    assert log["kl_weight"] == 0.2


@pytest.mark.usefixtures("short")
def test_the_gradient_goes_through_the_discriminator_and_not_into_it():
    players = players_of()
    log = Gumbel(players).update(game_of(players))
    assert log["generator_gradient_norm"] > 0
    assert players.discriminator.weight.grad is None
    assert players.discriminator.weight.requires_grad


def test_a_network_thaws_after_an_error():
    judge = SoftJudge()
    with pytest.raises(ZeroDivisionError), frozen(judge):
        assert not judge.weight.requires_grad
        raise ZeroDivisionError
    assert judge.weight.requires_grad


@pytest.mark.usefixtures("short")
def test_every_update_draws_samples_of_its_own(monkeypatch):
    players = players_of(minibatches=2, epochs=2)
    objective, norms = Gumbel(players), []
    plain = objective._learn
    monkeypatch.setattr(
        objective, "_learn", lambda *given: norms.append(plain(*given)) or norms[-1]
    )
    game = game_of(players)
    objective.update(replace(game, real=game.real * 4))
    assert len({log["adversarial_loss"] for log in norms}) == 4


@pytest.mark.usefixtures("short")
def test_it_goes_on_from_its_state():
    first, second = Gumbel(players_of(kl_weight=0.1)), Gumbel(players_of(kl_weight=0.1))
    first.update(game_of(first.players))
    second.restore(first.state())
    game = game_of(first.players, seed=1, step=1)
    assert first.update(game) == second.update(game)
    assert first.state() == second.state() == {"kl_weight": 0.025}


@pytest.mark.parametrize("views", ["relative", "both"])
def test_other_views_are_refused(views):
    with pytest.raises(UserError, match=f"discriminator.views must be tokens, got {views}"):
        Gumbel(tiny_players(SoftJudge(views)))
