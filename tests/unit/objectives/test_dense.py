import pytest
import torch
from exact import (
    FixedJudge,
    assert_unbiased,
    every_sequence,
    exact_gradient,
    gradients,
    judged,
    sequence_probs,
    tiny_players,
    tiny_round,
)

from rnngan.config import DiscriminatorConfig
from rnngan.errors import UserError
from rnngan.layers import length_mask
from rnngan.objectives import dense
from rnngan.objectives.dense import Dense, rewards_to_go


class CausalJudge(FixedJudge):
    """Judges every beginning as `FixedJudge` would, were it the whole."""

    def __init__(self, causal_head=True):
        super().__init__()
        self.config = DiscriminatorConfig(causal_head=causal_head)

    def potentials(self, tokens, lengths):
        return torch.stack(
            [self(tokens, lengths.clamp(max=t + 1)) for t in range(tokens.shape[1])], 1
        )


def players(**config):
    return tiny_players(CausalJudge(), **config)


@pytest.fixture
def unscaled(monkeypatch):
    """Scaling by a batch's own deviation is no constant factor."""
    monkeypatch.setattr(dense, "unit_deviation", lambda advantages: advantages)


def test_rewards_to_go_by_hand():
    # Rewards 2, −1, 4; the second piece ends after one token, the third is Start alone.
    potentials = torch.tensor([[1.0, 3.0, 2.0, 6.0], [5.0, 4.0, 9.0, 9.0], [7.0, 8.0, 8.0, 8.0]])
    found = rewards_to_go(potentials, torch.tensor([4, 2, 1]), discount=0.5)
    assert found.tolist() == [[0.0, 2 - 0.5 + 1.0, -1 + 2.0, 4.0], [0.0, -1.0, 0, 0], [0.0] * 4]


def test_without_discount_what_is_left_is_the_verdict_less_the_potential_before():
    batch = every_sequence()
    tokens, lengths = torch.from_numpy(batch.tokens), torch.from_numpy(batch.lengths)
    judge = CausalJudge()
    potentials = judge.potentials(tokens, lengths)
    found = rewards_to_go(potentials, lengths, discount=1.0)
    inside = length_mask(lengths, tokens.shape[1])[:, 1:]
    expected = (judge(tokens, lengths)[:, None] - potentials[:, :-1]) * inside
    torch.testing.assert_close(found[:, 1:], expected)


@pytest.mark.usefixtures("unscaled")
def test_without_discount_it_follows_the_gradient_of_the_expected_verdict():
    some = players(discount=1.0)
    exact = exact_gradient(some.generator, judged(some.discriminator, every_sequence()))
    objective = Dense(some)
    objective.baseline = 0.3  # of an earlier step: the first step's own mean is a little biased
    assert_unbiased(gradients(objective, batch_size=64, num_batches=64), exact)


@pytest.mark.usefixtures("unscaled")
def test_with_discount_it_follows_the_discounted_sums():
    """Exactly: over every sequence, what a token is credited with is what the formula says."""
    some = players(discount=0.6)
    listed = every_sequence()
    tokens, lengths = torch.from_numpy(listed.tokens), torch.from_numpy(listed.lengths)
    potentials = some.discriminator.potentials(tokens, lengths)
    expected = torch.zeros_like(potentials)
    for row, length in enumerate(lengths.tolist()):
        for time in range(1, length):
            for later in range(time, length):
                reward = potentials[row, later] - potentials[row, later - 1]
                expected[row, time] += 0.6 ** (later - time) * reward
    objective = Dense(some)
    objective.baseline = 0.0
    game = tiny_round(some, batch_size=64, seed=0)
    found = objective.advantages(game)
    rows = {tuple(r[:n]): i for i, (r, n) in enumerate(zip(listed.tokens.tolist(), listed.lengths))}
    for line, tokens, length in zip(found, game.fakes.tokens.tolist(), game.fakes.lengths):
        row = expected[rows[tuple(tokens[:length])], : len(line)]
        torch.testing.assert_close(line, row)


def test_the_baseline_is_a_moving_average_of_earlier_steps(monkeypatch):
    seen = []
    monkeypatch.setattr(dense, "unit_deviation", lambda a: seen.append(a.mean().item()) or a)
    objective = Dense(players())
    for seed in range(3):
        objective.advantages(tiny_round(objective.players, batch_size=32, seed=seed))
    plain = Dense(objective.players)
    plain.baseline, means = 0.0, []
    for seed in range(3):
        plain.baseline = 0.0
        plain.advantages(tiny_round(plain.players, batch_size=32, seed=seed))
        means.append(seen[3 + seed])
    baseline = means[0]
    assert seen[0] == pytest.approx(0, abs=1e-6)
    for mean, left in list(zip(means, seen))[1:]:
        assert left == pytest.approx(mean - baseline, abs=1e-5)
        baseline = 0.9 * baseline + 0.1 * mean
    assert objective.baseline == pytest.approx(baseline)


def test_advantages_of_what_was_drawn_have_deviation_1():
    objective = Dense(players())
    game = tiny_round(objective.players, batch_size=32, seed=0)
    found = objective.advantages(game)
    drawn = length_mask(torch.from_numpy(game.fakes.lengths), found.shape[1])
    drawn[:, 0] = False
    assert found[drawn].std(unbiased=False).item() == pytest.approx(1)
    assert torch.count_nonzero(found[~drawn]) == 0


def test_it_goes_on_from_its_state(tmp_path):
    first = Dense(players())
    first.update(tiny_round(first.players, batch_size=32, seed=0))
    torch.save(first.state(), tmp_path / "state.pt")
    second = Dense(players())
    second.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    game = tiny_round(first.players, batch_size=32, seed=1)
    assert torch.equal(first.advantages(game), second.advantages(game))
    assert first.state() == second.state()


def test_a_state_before_the_first_step_can_be_restored():
    first = Dense(players())
    second = Dense(players())
    second.restore(first.state())
    assert second.baseline is None


def test_without_a_causal_head_it_is_refused():
    with pytest.raises(UserError, match=r"discriminator.causal_head must be true, got false"):
        Dense(tiny_players(CausalJudge(causal_head=False)))


def test_the_toy_judge_sees_no_future():
    batch = every_sequence()
    judge = CausalJudge()
    tokens, lengths = torch.from_numpy(batch.tokens), torch.from_numpy(batch.lengths)
    potentials = judge.potentials(tokens, lengths)
    changed = tokens.clone()
    changed[:, 3:] = 4
    assert torch.equal(potentials[:, :3], judge.potentials(changed, lengths)[:, :3])
    assert sequence_probs(players().generator, batch).sum().item() == pytest.approx(1, abs=1e-6)
