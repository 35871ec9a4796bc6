import copy
import io
import math

import numpy as np
import pytest
import torch
from torch import nn

from rnngan.config import DiscriminatorConfig, GeneratorConfig, RefineConfig
from rnngan.data.batches import Batch, padded
from rnngan.discriminator.registry import DISCRIMINATORS, new_discriminator
from rnngan.generator.registry import new_generator
from rnngan.objectives import base
from rnngan.objectives.base import Diverged
from rnngan.objectives.calibration import expected_calibration_error, fit_calibration
from rnngan.objectives.classification import accuracy, auc, logistic_loss
from rnngan.training import critic as module
from rnngan.training.critic import Critic, causal_loss
from rnngan.training.seeds import reseed_torch

LENGTH = 60
RATE = RefineConfig().discriminator_learning_rate


@pytest.fixture(scope="module")
def real(store):
    return openings(store, "train", 6)


@pytest.fixture(scope="module")
def held_out(store):
    return openings(store, "validation", 2)


def openings(store, split, num):
    rows = [store.piece_tokens(i) for i in store.indices(split).tolist()[:num]]
    return padded([row[:LENGTH] for row in rows])


@pytest.fixture(scope="module")
def generator(store):
    """That has learnt nothing."""
    torch.manual_seed(5)
    config = GeneratorConfig(embedding_size=8, hidden_size=8, attention=0)
    return new_generator(config, len(store.tokenizer.vocabulary)).eval()


@pytest.fixture(scope="module")
def fakes_of(generator, store):
    """Batches of samples that obey the grammar."""

    def drawn(seed=0, num=6):
        grammar = store.tokenizer.grammar
        return base.draw(generator, grammar, num=num, max_length=LENGTH, seed=seed)

    return drawn


@pytest.fixture
def new_critic(store):
    def make(seed=0, refinement=None, **network):
        torch.manual_seed(3)
        small = {"embedding_size": 8, "hidden_size": 8, "stride": 2, "max_length": LENGTH}
        return Critic(
            new_discriminator(DiscriminatorConfig(**{**small, **network}), store.tokenizer),
            store.tokenizer,
            RefineConfig(**(refinement or {})),
            precision="float32",
            seed=seed,
        )

    return make


def weights(network):
    return {name: tensor.clone() for name, tensor in network.named_parameters()}


def same_weights(one, two):
    return all(torch.equal(one[name], two[name]) for name in one)


def figures_of(critic, real, fakes):
    return critic.judge(fakes, real)[1]


def rates(critic):
    return [group["lr"] for group in critic.optimizer.param_groups]


# Learning


@pytest.mark.parametrize("kind", DISCRIMINATORS)
def test_it_learns_to_tell_and_leaves_the_generator_alone(
    new_critic, real, fakes_of, generator, kind
):
    critic, fakes, before = new_critic(kind=kind), fakes_of(), weights(generator)
    critic.set_rate(0.02)
    first = figures_of(critic, real, fakes)
    log = [critic.learn(real, fakes, update) for update in range(40)]
    last = figures_of(critic, real, fakes)
    assert (
        last["discriminator_auc"]
        == last["discriminator_accuracy"]
        == log[-1]["discriminator_train_accuracy"]
        == 1
    )
    assert last["discriminator_held_out_loss"] < first["discriminator_held_out_loss"] / 2
    assert last["logit_fake"] < 0 < last["logit_real"]
    assert not critic.discriminator.training
    assert same_weights(before, weights(generator))
    assert all(parameter.grad is None for parameter in generator.parameters())


def test_the_causal_head_learns_along_to_tell_beginnings(new_critic, real, fakes_of):
    critic, fakes = new_critic(), fakes_of()
    critic.set_rate(0.02)
    for update in range(40):
        critic.learn(real, fakes, update)

    def at(batch, time):
        tokens, lengths = torch.from_numpy(batch.tokens), torch.from_numpy(batch.lengths)
        with torch.no_grad():
            potentials = critic.discriminator.potentials(tokens, lengths)
        return potentials[lengths > time, time]

    assert auc(at(real, 20), at(fakes, 20)) == 1
    # All pieces begin with the same token.
    assert auc(at(real, 0), at(fakes, 0)) == 0.5


@pytest.mark.parametrize("penalty", ["none", "r1", "interpolated"])
@pytest.mark.parametrize("loss", ["logistic", "hinge", "relativistic", "wasserstein"])
def test_every_loss_and_penalty_moves_every_weight(new_critic, real, fakes_of, loss, penalty):
    critic = new_critic(refinement={"discriminator_loss": loss, "gradient_penalty": penalty})
    before = weights(critic.discriminator)
    for update in range(3):
        log = critic.learn(real, fakes_of(update), update)
        assert all(math.isfinite(value) for value in log.values())
    after = weights(critic.discriminator)
    assert all(tensor.isfinite().all() for tensor in after.values())
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert not still - {"output.bias", "rnn.pool.score.2.bias"}  # which cancel in some of them


def test_a_penalty_makes_it_less_steep(new_critic, real, fakes_of):
    fakes, spread = fakes_of(), {}
    for weight in (0.01, 100.0):
        critic = new_critic(
            refinement={"gradient_penalty": "r1", "penalty_weight": weight}, dropout=0.0
        )
        critic.set_rate(0.02)
        for update in range(10):
            critic.learn(real, fakes, update)
        found = figures_of(critic, real, fakes)
        spread[weight] = found["logit_real"] - found["logit_fake"]
    assert 0 <= spread[100.0] < spread[0.01] / 2


def test_what_an_update_does_follows_from_the_seed_and_its_number(new_critic, real, fakes_of):
    """Dropout and transposition, too, whatever torch's generator has been used for before."""

    def after(seed, update):
        critic = new_critic(seed=seed)
        torch.manual_seed(np.random.default_rng().integers(1 << 31))
        log = critic.learn(real, fakes_of(), update)
        assert not critic.discriminator.training
        return log, weights(critic.discriminator)

    (log, first), (again, second) = after(0, 7), after(0, 7)
    assert log == again and same_weights(first, second)
    for other in (after(0, 8), after(1, 7)):
        assert not same_weights(first, other[1])


# Transposition


@pytest.fixture
def learnt_from(monkeypatch, new_critic, real, fakes_of):
    """Both batches as the network gets them."""

    def look(transpose, *, seed=0, update=0):
        seen = []

        def watched(network, batch, precision):
            seen.append(batch)
            return base.piece_logits(network, batch, precision)

        monkeypatch.setattr(module, "piece_logits", watched)
        critic = new_critic(seed=seed, refinement={"discriminator_transpose": transpose})
        critic.learn(real, fakes_of(), update)
        return seen

    return look


def shifts(store, before, after):
    """By how many semitones each piece was moved; all else must be as it was."""
    ids = store.tokenizer.vocabulary.ids("Pitch")
    assert before.lengths.tolist() == after.lengths.tolist()
    pitched = (before.tokens >= ids.start) & (before.tokens < ids.stop)
    assert (before.tokens == after.tokens)[~pitched].all()
    moved = [
        np.unique((b - a)[p]) for a, b, p in zip(before.tokens, after.tokens, pitched) if p.any()
    ]
    assert all(len(by) == 1 for by in moved)
    return [int(by[0]) for by in moved]


def test_both_sides_are_transposed_at_random_piece_by_piece(learnt_from, store, real, fakes_of):
    found = []
    for update in range(8):
        for before, after in zip((real, fakes_of()), learnt_from(3, update=update)):
            found.append(shifts(store, before, after))
    assert set().union(*found) <= set(range(-3, 4))
    for side in (found[::2], found[1::2]):
        assert len(set().union(*side)) >= 3
        assert any(len(set(by)) > 1 for by in side)
    assert len({tuple(by) for by in found[::2]}) > 1


def test_transposition_follows_from_seed_and_update(learnt_from):
    def tokens(**options):
        return [batch.tokens.tolist() for batch in learnt_from(5, **options)]

    first = tokens(seed=1, update=4)
    assert tokens(seed=1, update=4) == first
    assert tokens(seed=1, update=5) != first
    assert tokens(seed=2, update=4) != first


def test_without_transposition_it_sees_what_it_is_given(learnt_from, real, fakes_of):
    for before, after in zip((real, fakes_of()), learnt_from(0)):
        assert before.tokens.tolist() == after.tokens.tolist()
        assert before.lengths.tolist() == after.lengths.tolist()


# Judging


def test_its_figures_are_those_of_its_logits(new_critic, held_out, fakes_of):
    critic, fakes = new_critic(dropout=0.5), fakes_of(num=5)
    network = critic.discriminator
    network.set_calibration(module.fit_calibration(torch.tensor([1.0]), torch.tensor([0.5])))
    before = weights(network)
    network.train()
    logits, log = critic.judge(fakes, held_out)
    assert not network.training and not logits.requires_grad
    assert logits.shape == (5,) and logits.dtype == torch.float32
    with torch.no_grad():
        real, fake = (
            network(torch.from_numpy(batch.tokens), torch.from_numpy(batch.lengths))
            for batch in (held_out, fakes)
        )
    assert torch.equal(logits, fake)
    assert log == {
        "discriminator_auc": auc(real, fake),
        "discriminator_accuracy": accuracy(real, fake),
        "discriminator_held_out_loss": logistic_loss(real, fake, label_smoothing=0.0).item(),
        "discriminator_calibration_error": expected_calibration_error(
            network.log_ratio(real), network.log_ratio(fake)
        ),
        "logit_real": real.mean().item(),
        "logit_fake": fake.mean().item(),
    }
    assert same_weights(before, weights(network))
    assert all(parameter.grad is None for parameter in network.parameters())


def test_calibration_sets_scale_and_bias_and_nothing_else(new_critic, held_out, fakes_of):
    critic, fakes = new_critic(), fakes_of()
    network, before = critic.discriminator, weights(critic.discriminator)
    network.train()
    critic.calibrate(fakes, held_out)
    fake, log = critic.judge(fakes, held_out)
    real, _ = critic.judge(held_out, held_out)
    expected = fit_calibration(real, fake)
    assert (expected.scale, expected.bias) != (1, 0)
    assert network.calibration_scale.item() == pytest.approx(expected.scale)
    assert network.calibration_bias.item() == pytest.approx(expected.bias)
    torch.testing.assert_close(network.log_ratio(fake), expected.calibrated(fake))
    assert log["logit_fake"] == fake.mean().item()  # figures are of the bare logits
    assert same_weights(before, weights(network))


# Manners


def test_the_gate_looks_at_a_running_mean(new_critic):
    critic = new_critic(refinement={"discriminator_gate": 0.65})
    assert critic.smoothed_auc == 0.5
    critic.remember_auc(1.0)
    assert critic.smoothed_auc == pytest.approx(0.6) and not critic.waits
    critic.remember_auc(1.0)
    assert critic.smoothed_auc == pytest.approx(0.68) and critic.waits
    critic.remember_auc(0.5)
    assert critic.smoothed_auc == pytest.approx(0.644) and not critic.waits


def test_its_memory_keeps_the_share_of_the_settings(new_critic, fakes_of):
    assert new_critic().replay.rate == 0
    critic = new_critic(refinement={"replay_rate": 0.5})
    first, second = fakes_of(0), fakes_of(1)
    critic.replay.mixed(first, 0)
    mixed = critic.replay.mixed(second, 1)
    rows, old = (
        [row[:length].tolist() for row, length in zip(batch.tokens, batch.lengths)]
        for batch in (mixed, first)
    )
    assert sum(row in old for row in rows) == 3


@pytest.mark.parametrize("figure", ["loss", "gradient"])
def test_an_update_that_diverges_leaves_the_weights_as_they_were(
    new_critic, real, fakes_of, monkeypatch, figure
):
    critic, twin = new_critic(), new_critic()
    for one in (critic, twin):
        one.learn(real, fakes_of(), 0)
    before, optimizer = (
        weights(critic.discriminator),
        copy.deepcopy(critic.optimizer.state_dict()["state"]),
    )

    def diverging(kind, real_logits, fake_logits, **_):
        if figure == "loss":
            return (real_logits * math.nan).sum()
        return real_logits.clamp(min=0).sub(real_logits.clamp(min=0)).sqrt().sum()  # slope 1 / 0

    with monkeypatch.context() as patch, pytest.raises(Diverged) as caught:
        patch.setattr(module, "discriminator_loss", diverging)
        critic.learn(real, fakes_of(), 1)
    assert (caught.value.figure == "discriminator_loss") == (figure == "loss")
    assert not math.isfinite(caught.value.value)
    assert same_weights(before, weights(critic.discriminator))
    for number, state in critic.optimizer.state_dict()["state"].items():
        assert all(torch.equal(state[name], optimizer[number][name]) for name in state)
    for one in (critic, twin):
        one.learn(real, fakes_of(), 2)
    assert same_weights(weights(critic.discriminator), weights(twin.discriminator))


def test_a_copy_goes_on_bit_by_bit_from_its_state(new_critic, real, fakes_of):
    refinement = {"replay_rate": 0.5, "gradient_penalty": "interpolated"}
    critic = new_critic(refinement=refinement, spectral_norm=True)

    def game(player, steps):
        for step in steps:
            fakes = player.replay.mixed(fakes_of(step), step)
            log = player.learn(real, fakes, step)
            player.remember_auc(figures_of(player, real, fakes_of(99))["discriminator_auc"])
        return log

    game(critic, range(3))
    file = io.BytesIO()
    torch.save(critic.state() | {"network": critic.discriminator.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    other = new_critic(refinement=refinement, spectral_norm=True)
    other.discriminator.load_state_dict(state.pop("network"))
    other.restore(state)
    assert other.smoothed_auc == critic.smoothed_auc != 0.5
    assert game(critic, range(3, 6)) == game(other, range(3, 6))
    assert critic.smoothed_auc == other.smoothed_auc
    for name, tensor in critic.discriminator.state_dict().items():
        assert torch.equal(tensor, other.discriminator.state_dict()[name]), name
    assert critic.replay.state()["lengths"] == other.replay.state()["lengths"]


# Before the game


@pytest.fixture
def scripted(monkeypatch):
    """An update marks the network with its number, and each look finds the next of some losses."""

    def script(*losses):
        found, marks = iter(losses), []
        judged = Critic.judge

        def learn(self, real, fakes, update):
            marks.append((update, real, fakes, rates(self)[0]))
            with torch.no_grad():
                self.discriminator.output.bias.fill_(update)
            return {"discriminator_loss": 1.0}

        def judge(self, fakes, held_out):
            logits, log = judged(self, fakes, held_out)
            loss = next(found, math.inf)
            return logits, log | {"discriminator_held_out_loss": loss}

        monkeypatch.setattr(Critic, "learn", learn)
        monkeypatch.setattr(Critic, "judge", judge)
        return marks

    return script


def mark(critic):
    return critic.discriminator.output.bias.item()


def prepared(critic, held_out, fakes_of, progress_of):
    """Train it on named batches; what it gave, and the numbers of the samples that it asked for."""
    asked = []

    def fakes(update):
        asked.append(update)
        return fakes_of(update)

    log = critic.pretrain(lambda update: f"real {update}", fakes, held_out, progress=progress_of())
    return log, asked


def test_it_stops_at_a_plateau_and_goes_back_to_where_it_was_best(
    new_critic, held_out, fakes_of, scripted, progress_of
):
    critic = new_critic(refinement={"discriminator_pretrain_steps": 200})
    marks = scripted(0.9, 0.7, 0.8, 0.6, 0.61, 0.6, 0.7, 0.65)  # every 10 updates; best after 40
    log, asked = prepared(critic, held_out, fakes_of, progress_of)
    assert [update for update, *_ in marks] == list(range(80))
    assert [real for _, real, *_ in marks] == [f"real {update}" for update in range(80)]
    assert mark(critic) == 39
    # It is judged by samples that it does not learn from, in the end by others than before.
    assert asked == [200, *range(80), 201]
    assert log["discriminator_auc"] == critic.smoothed_auc
    assert critic.discriminator.calibration_scale.item() != 1


@pytest.mark.parametrize("steps", [1, 15, 30])
def test_it_looks_at_the_last_update_too(
    new_critic, held_out, fakes_of, scripted, progress_of, steps
):
    critic = new_critic(refinement={"discriminator_pretrain_steps": steps})
    marks = scripted(0.9, 0.8, 0.7)
    prepared(critic, held_out, fakes_of, progress_of)
    assert len(marks) == steps and mark(critic) == steps - 1


def test_where_every_update_harms_it_stays_as_it_was(
    new_critic, held_out, fakes_of, scripted, progress_of
):
    """A loss that is no number is no progress."""
    critic = new_critic(refinement={"discriminator_pretrain_steps": 60})
    before = mark(critic)
    marks = scripted(math.nan, math.nan, math.inf, math.nan)
    prepared(critic, held_out, fakes_of, progress_of)
    assert len(marks) == 40 and mark(critic) == before


@pytest.mark.parametrize(("steps", "warmup"), [(40, 20), (8, 8)])
def test_its_rate_rises_and_then_falls_to_a_tenth(
    new_critic, held_out, fakes_of, scripted, progress_of, steps, warmup
):
    critic = new_critic(refinement={"discriminator_pretrain_steps": steps})
    marks = scripted(*np.linspace(1, 0, 6))
    prepared(critic, held_out, fakes_of, progress_of)
    expected = [
        RATE * min(1, (u + 1) / warmup) * (0.55 + 0.45 * math.cos(math.pi * u / steps))
        for u in range(steps)
    ]
    assert [rate for *_, rate in marks] == pytest.approx(expected)
    assert RATE / 10 < expected[-1] < RATE / 7
    assert rates(critic) == pytest.approx([expected[-1]] * 2)


def test_without_updates_it_is_judged_and_calibrated(new_critic, held_out, fakes_of, progress_of):
    critic = new_critic(refinement={"discriminator_pretrain_steps": 0})
    before = weights(critic.discriminator)
    log, asked = prepared(critic, held_out, fakes_of, progress_of)
    assert asked == [0, 1] and same_weights(before, weights(critic.discriminator))
    assert log == figures_of(critic, held_out, fakes_of(1))


def test_it_gets_better_and_says_so_of_what_it_has_not_seen(
    new_critic, real, held_out, fakes_of, progress_of
):
    critic = new_critic(
        refinement={"discriminator_pretrain_steps": 40, "discriminator_learning_rate": 0.01}
    )
    before = figures_of(critic, held_out, fakes_of(41))
    log = critic.pretrain(lambda _: real, fakes_of, held_out, progress=progress_of())
    assert log == figures_of(critic, held_out, fakes_of(41))
    assert log["discriminator_held_out_loss"] < before["discriminator_held_out_loss"]
    assert critic.smoothed_auc == log["discriminator_auc"] > 0.9


# The loss of the causal head


class Table(nn.Module):
    """Knows its potentials by heart, for pieces whose first token names the row."""

    def __init__(self, rows):
        super().__init__()
        self.rows = nn.Parameter(torch.tensor(rows))

    def potentials(self, tokens, lengths):
        assert len(tokens) == len(lengths)
        return self.rows[tokens[:, 0], : tokens.shape[1]]


def batch_of(rows, lengths):
    tokens = np.zeros((len(rows), max(lengths)), np.int64)
    tokens[:, 0] = rows
    return Batch(tokens=tokens, lengths=np.array(lengths))


def test_the_causal_loss_by_hand():
    """Each side half, each beginning of a side alike, and nothing of what lies behind an end."""
    nan = math.nan
    network = Table([[0.5, -1.0, 2.0], [3.0, nan, nan], [-0.5, 1.5, nan]])
    real, fakes = batch_of([0, 1], [3, 1]), batch_of([2], [2])
    found = causal_loss(network, real, fakes, "float32")

    def softplus(x):
        return math.log(1 + math.exp(x))

    of_real = (softplus(-0.5) + softplus(1.0) + softplus(-2.0) + softplus(-3.0)) / 4
    of_fakes = (softplus(-0.5) + softplus(1.5)) / 2
    assert found.item() == pytest.approx((of_real + of_fakes) / 2)


def test_the_causal_loss_is_least_at_the_log_ratio_of_beginnings():
    """A beginning that 3 of 4 real pieces and 1 of 2 fakes have is log(3/2) in favour of real."""
    network = Table([[0.0], [0.0]])
    optimizer = torch.optim.LBFGS(network.parameters(), max_iter=50, line_search_fn="strong_wolfe")
    real, fakes = batch_of([0, 0, 0, 1], [1] * 4), batch_of([0, 1], [1] * 2)
    assert causal_loss(network, real, fakes, "float32").item() == pytest.approx(math.log(2))

    def closure():
        optimizer.zero_grad()
        loss = causal_loss(network, real, fakes, "float32")
        loss.backward()
        return loss

    optimizer.step(closure)
    expected = torch.tensor([[math.log(3 / 2)], [math.log(1 / 2)]])
    torch.testing.assert_close(network.rows.detach(), expected, atol=1e-3, rtol=0)


def test_only_a_network_with_a_causal_head_pays_for_it(new_critic, real, fakes_of):
    with_head = new_critic(dropout=0.0, refinement={"discriminator_transpose": 0})
    without = new_critic(dropout=0.0, causal_head=False, refinement={"discriminator_transpose": 0})
    names = without.discriminator.state_dict()
    without.discriminator.load_state_dict(
        {k: v for k, v in with_head.discriminator.state_dict().items() if k in names}
    )
    fakes = fakes_of()
    with torch.no_grad():
        reseed_torch(0, "discriminator update", 0)
        head = causal_loss(with_head.discriminator, real, fakes, "float32").item()
    bare = without.learn(real, fakes, 0)["discriminator_loss"]
    assert with_head.learn(real, fakes, 0)["discriminator_loss"] == pytest.approx(bare + head)
