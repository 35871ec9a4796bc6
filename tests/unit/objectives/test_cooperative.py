import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from exact import (
    GRAMMAR,
    assert_unbiased,
    every_sequence,
    gradients,
    sequence_probs,
    tiny_generator,
    tiny_players,
    tiny_round,
)

from rnngan.data.batches import padded
from rnngan.errors import UserError
from rnngan.layers import LockedDropout
from rnngan.objectives import cooperative
from rnngan.objectives.cooperative import Cooperative, less_the_others, mixture, sums_behind
from rnngan.objectives.importance import rows_of
from rnngan.objectives.likelihood import target_log_probs, targets_of
from rnngan.objectives.policy_gradient import kl_divergence

LISTED = every_sequence()
REAL = torch.randn(len(LISTED.lengths), generator=torch.Generator().manual_seed(5)).softmax(0)
"""Shares of all sequences in real music."""


def conditionals(shares, batch):
    """log P(next token | prefix) at every target of a batch, from the shares of all sequences."""
    rows = []
    for tokens, length in zip(batch.tokens, batch.lengths):
        for time in range(1, length):
            begins = (LISTED.tokens[:, :time] == tokens[:time]).all(1)
            after = torch.zeros(7).index_add(
                0, torch.from_numpy(LISTED.tokens[begins, time]), shares[begins]
            )
            rows.append((after / after.sum()).log())
    return torch.stack(rows)


@pytest.fixture
def with_the_best_mediator(monkeypatch):
    """In place of a network that learns it, the mixture itself."""

    def make(**config):
        players = tiny_players(**config)
        objective = Cooperative(players)
        shares = (REAL + sequence_probs(players.generator, LISTED).detach()) / 2
        every = conditionals(shares, LISTED)
        place = {}
        targets = targets_of(LISTED, GRAMMAR)
        times = torch.arange(targets.mask.shape[1]).expand_as(targets.mask)[targets.mask]
        owners = torch.arange(len(targets.mask))[:, None].expand_as(targets.mask)[targets.mask]
        for i, (row, time) in enumerate(zip(owners.tolist(), times.tolist())):
            place[tuple(LISTED.tokens[row, : time + 1])] = i

        def log_probs(network, some):
            if network is not objective.mediator:
                return target_log_probs(network, some)
            prefixes = [
                tuple(line[: time + 1])
                for line, inside in zip(some.inputs.tolist(), some.mask.tolist())
                for time in range(sum(inside))
            ]
            return every[[place[prefix] for prefix in prefixes]]

        monkeypatch.setattr(cooperative, "target_log_probs", log_probs)
        monkeypatch.setattr(objective, "_mediate", lambda mixed: {})
        return objective

    return make


@pytest.fixture
def with_openings(monkeypatch):
    """Rounds that have real openings."""
    listed = every_sequence()

    def make(players, *, batch_size, seed):
        rows = torch.multinomial(
            REAL, batch_size, replacement=True, generator=torch.Generator().manual_seed(seed)
        )
        game = tiny_round(players, batch_size=batch_size, seed=seed)
        return replace(game, openings=rows_of(listed, rows))

    monkeypatch.setattr("exact.tiny_round", make)
    return make


def row_of(gradients):
    return torch.cat([g.flatten() for g in gradients])


@pytest.mark.usefixtures("with_openings")
def test_with_the_best_mediator_it_descends_the_jensen_shannon_divergence(with_the_best_mediator):
    objective = with_the_best_mediator()
    generator = objective.players.generator
    shares = sequence_probs(generator, LISTED)
    middle = (REAL + shares) / 2
    divergence = (REAL @ (REAL / middle).log() + shares @ (shares / middle).log()) / 2
    slope = row_of(torch.autograd.grad(divergence, [*generator.parameters()]))
    # Of KL(G || M), which is twice the generator's part, and downwards.
    found = gradients(objective, batch_size=64, num_batches=64)
    assert_unbiased(found, -2 * slope)


@pytest.mark.usefixtures("with_openings")
def test_without_the_prefixes_part_each_divergence_is_descended_where_it_stands(
    with_the_best_mediator,
):
    objective = with_the_best_mediator()
    objective.prefix_weight = 0.0
    generator = objective.players.generator
    targets = targets_of(LISTED, GRAMMAR)
    best = conditionals((REAL + sequence_probs(generator, LISTED).detach()) / 2, LISTED)
    kl = kl_divergence(target_log_probs(generator, targets), best)
    table = torch.zeros(targets.mask.shape).masked_scatter(targets.mask, kl)
    expected = sequence_probs(generator, LISTED).detach() @ table.sum(1)
    slope = row_of(torch.autograd.grad(expected, [*generator.parameters()]))
    found = gradients(objective, batch_size=64, num_batches=64)
    assert_unbiased(found, -slope)


def test_the_mediator_learns_the_mixture(with_openings):
    """300 updates take away nine tenths of KL(mixture || mediator)."""
    players = tiny_players(learning_rate=0.03)
    objective = Cooperative(players)
    for module in objective.mediator.modules():
        if isinstance(module, LockedDropout):
            module.rate = 0.0
    middle = (REAL + sequence_probs(players.generator, LISTED).detach()) / 2

    def far():
        return (middle @ (middle.log() - sequence_probs(objective.mediator, LISTED).log())).item()

    began = far()
    for seed in range(300):
        game = with_openings(players, batch_size=128, seed=seed)
        objective._mediate(mixture(game.openings, game.fakes))
    assert far() < 0.1 * began


def test_where_mediator_and_generator_agree_nothing_moves(with_openings, monkeypatch):
    players = tiny_players()
    objective = Cooperative(players)
    monkeypatch.setattr(objective, "_mediate", lambda mixed: {})
    log = objective.update(with_openings(players, batch_size=16, seed=0))
    assert log["kl_to_mediator"] == pytest.approx(0, abs=1e-6)
    assert log["generator_gradient_norm"] == pytest.approx(0, abs=1e-5)


def test_the_loss_is_the_sum_of_its_parts(with_openings):
    objective = Cooperative(tiny_players(likelihood_weight=0.5))
    objective.prefix_weight = 0.0
    log = objective.update(with_openings(objective.players, batch_size=16, seed=0))
    expected = log["kl_to_mediator"] + 0.5 * log["train_likelihood_nats"]
    assert log["generator_loss"] == pytest.approx(expected)


def test_mediator_and_generator_take_turns_part_by_part(with_openings, monkeypatch):
    objective = Cooperative(tiny_players(minibatches=2, epochs=2))
    turns = []
    for name in ("_mediate", "_learn"):
        plain = getattr(objective, name)
        monkeypatch.setattr(
            objective, name, lambda *given, p=plain, n=name: turns.append((n, given)) or p(*given)
        )
    game = with_openings(objective.players, batch_size=8, seed=0)
    objective.update(replace(game, real=game.real * 4))
    assert [name for name, _ in turns] == ["_mediate", "_learn"] * 4
    mixed = [given[0] for name, given in turns if name == "_mediate"]
    for part, rows in zip(mixed, [slice(0, 4), slice(4, 8)] * 2):
        for side, half in ((game.openings, slice(0, 4)), (game.fakes, slice(4, 8))):
            assert part.lengths[half].tolist() == side.lengths[rows].tolist()
    assert len(mixed) == 4


def test_mixture_by_hand():
    real = padded([np.array([1, 4, 5], dtype=np.uint16)])
    fakes = padded([np.array([1, 6], dtype=np.uint16), np.array([1, 4, 4, 2], dtype=np.uint16)])
    mixed = mixture(real, fakes)
    assert mixed.tokens.tolist() == [[1, 4, 5, 0], [1, 6, 0, 0], [1, 4, 4, 2]]
    assert mixed.lengths.tolist() == [3, 2, 4]


def test_sums_behind_by_hand():
    mask = torch.tensor([[True, True, True], [True, False, False]])
    found = sums_behind(torch.tensor([1.0, 2.0, 4.0, 8.0]), mask)
    assert found.tolist() == [[6.0, 4.0, 0.0], [0.0, 0.0, 0.0]]


def test_less_the_others_by_hand():
    found = less_the_others(torch.tensor([[1.0, 0.0], [2.0, 0.0], [6.0, 3.0]]))
    torch.testing.assert_close(found, torch.tensor([[-3.0, -1.5], [-1.5, -1.5], [4.5, 3.0]]))


def test_it_goes_on_from_its_state(with_openings, tmp_path):
    first, second = (Cooperative(tiny_players(learning_rate=0.01)) for _ in range(2))

    def step(objective, seed):
        torch.manual_seed(seed)  # the mediator's dropout
        return objective.update(with_openings(objective.players, batch_size=16, seed=seed))

    step(first, 0)
    before = copy.deepcopy(first.mediator.state_dict())
    torch.save(first.state(), tmp_path / "state.pt")
    second.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    assert step(first, 1) == step(second, 1)
    pairs = zip(first.mediator.parameters(), second.mediator.parameters())
    assert all(torch.equal(a, b) for a, b in pairs)
    assert any(not torch.equal(w, before[name]) for name, w in first.mediator.state_dict().items())


def test_the_reference_stays_as_it_was(with_openings):
    players = tiny_players(learning_rate=0.1)
    Cooperative(players).update(with_openings(players, batch_size=16, seed=0))
    fresh = tiny_generator()
    pairs = zip(players.reference.parameters(), fresh.parameters())
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not any(weight.requires_grad for weight in players.reference.parameters())


def test_a_part_of_one_sample_is_refused():
    with pytest.raises(UserError, match=r"at least twice refine.minibatches, 4, got 4"):
        Cooperative(tiny_players(batch_size=4, minibatches=4))
