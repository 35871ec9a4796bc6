import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnngan.objectives.leave_one_out import leave_one_out_advantages
from rnngan.objectives.policy_gradient import (
    adapted_kl_weight,
    clipped_surrogate,
    entropy,
    kl_divergence,
    unit_deviation,
)

NEVER = -math.inf
rewards_of = st.lists(st.floats(-100, 100, allow_nan=False, width=32), min_size=2, max_size=9).map(
    lambda values: torch.tensor(values, dtype=torch.float64)
)


def test_advantages_by_hand():
    advantages = leave_one_out_advantages(torch.tensor([1.0, 2.0, 6.0]))
    assert advantages.tolist() == pytest.approx([1 - 4, 2 - 3.5, 6 - 1.5])


@given(rewards_of)
def test_advantages_are_rewards_less_the_mean_of_the_others(rewards):
    others = [torch.cat([rewards[:i], rewards[i + 1 :]]).mean().item() for i in range(len(rewards))]
    expected = [r - o for r, o in zip(rewards.tolist(), others)]
    assert leave_one_out_advantages(rewards).tolist() == pytest.approx(expected, abs=1e-9)


@given(rewards_of, st.floats(-1000, 1000))
def test_a_constant_added_to_all_rewards_changes_nothing(rewards, constant):
    torch.testing.assert_close(
        leave_one_out_advantages(rewards + constant),
        leave_one_out_advantages(rewards),
        atol=1e-9,
        rtol=1e-9,
    )


def test_one_sample_has_no_others():
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        leave_one_out_advantages(torch.tensor([1.0]))


def test_unit_deviation_by_hand():
    assert unit_deviation(torch.tensor([-2.0, 4.0])).tolist() == pytest.approx([-2 / 3, 4 / 3])


def test_unit_deviation_does_not_blow_up_rounding():
    assert unit_deviation(torch.tensor([1e-8, -1e-8])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("reward", [0.0, 0.1, -3.3, 12345.678, 1e6])
@pytest.mark.parametrize("count", [2, 3, 7, 64])
def test_placebo_a_constant_reward_gives_no_gradient(reward, count):
    advantages = unit_deviation(leave_one_out_advantages(torch.full((count,), reward)))
    logits = torch.randn(count, 5, requires_grad=True)
    chosen = logits.log_softmax(-1)[:, 0]
    clipped_surrogate(chosen, chosen.detach(), advantages, clip=0.2).backward()
    assert torch.count_nonzero(logits.grad) == 0


class TinyPolicy:
    """Two tokens of three, the second given the first: nine sequences, all of one length."""

    def __init__(self):
        torch.manual_seed(0)
        self.first = torch.randn(3, dtype=torch.float64, requires_grad=True)
        self.second = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
        self.sequences = list(itertools.product(range(3), repeat=2))

    def token_log_probs(self, sequence):
        a, b = sequence
        return torch.stack([self.first.log_softmax(0)[a], self.second.log_softmax(1)[a, b]])

    def gradient(self, value, **options):
        first, second = torch.autograd.grad(value, [self.first, self.second], **options)
        return torch.cat([first.ravel(), second.ravel()])


@pytest.mark.parametrize("batch_size", [2, 3])
def test_the_expected_gradient_is_the_gradient_of_the_expected_reward(batch_size):
    policy = TinyPolicy()
    rewards = torch.linspace(-1, 2, 9, dtype=torch.float64) ** 3
    log_probs = torch.stack([policy.token_log_probs(s) for s in policy.sequences])
    probs = log_probs.sum(1).exp()
    exact = policy.gradient(probs @ rewards, retain_graph=True)
    probs, old = probs.detach(), log_probs.detach()

    expected = torch.zeros(())
    for batch in itertools.product(range(9), repeat=batch_size):
        rows = list(batch)
        loss = clipped_surrogate(
            log_probs[rows].ravel(),
            old[rows].ravel(),
            leave_one_out_advantages(rewards[rows]).repeat_interleave(2),
            clip=0.2,
        )
        expected = expected + probs[rows].prod() * loss
    # The surrogate is a mean over tokens, two a sample.
    torch.testing.assert_close(policy.gradient(-2 * expected), exact)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.1, 2.0, -2.2, -2.2),  # inside: −ρA, and dρ/dlogπ is ρ
        (1.1, -2.0, 2.2, 2.2),
        (1.5, 2.0, -2.4, 0.0),  # good and already likelier: no more
        (1.5, -2.0, 3.0, 3.0),  # bad and yet likelier: still pushed down
        (0.5, 2.0, -1.0, -1.0),  # good and less likely: still pushed up
        (0.5, -2.0, 1.6, 0.0),
    ],
)
def test_clipped_surrogate_by_hand(ratio, advantage, loss, slope):
    old = torch.tensor([math.log(0.3)], dtype=torch.float64)
    log_probs = (old + math.log(ratio)).requires_grad_()
    found = clipped_surrogate(log_probs, old, torch.tensor([advantage]).double(), clip=0.2)
    found.backward()
    assert found.item() == pytest.approx(loss)
    assert log_probs.grad.item() == pytest.approx(slope)


def test_clipped_surrogate_is_a_mean_over_tokens():
    old = torch.log(torch.tensor([0.5, 0.5, 0.5]))
    new = torch.log(torch.tensor([0.5, 0.55, 0.9]))
    loss = clipped_surrogate(new, old, torch.tensor([1.0, -1.0, 1.0]), clip=0.2)
    assert loss.item() == pytest.approx((-1 + 1.1 - 1.2) / 3)


def masked_log_probs(seed, rows=6, vocab=5):
    """Two distributions per row on the same random part of the vocabulary, with gradients."""
    torch.manual_seed(seed)
    allowed = torch.rand(rows, vocab) < 0.6
    allowed[:, 0] = True
    allowed[0] = torch.arange(vocab) == 0  # a single token that may come
    logits = [torch.randn(rows, vocab, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    return allowed, logits, [x.masked_fill(~allowed, NEVER).log_softmax(-1) for x in logits]


@pytest.mark.parametrize("seed", range(5))
def test_kl_divergence_and_entropy_agree_with_torch_distributions(seed):
    allowed, _, (p, q) = masked_log_probs(seed)
    for i, some in enumerate(allowed):
        one = torch.distributions.Categorical(logits=p[i, some])
        two = torch.distributions.Categorical(logits=q[i, some])
        expected = torch.distributions.kl_divergence(one, two)
        torch.testing.assert_close(kl_divergence(p, q)[i], expected)
        torch.testing.assert_close(entropy(p)[i], one.entropy())


def test_kl_divergence_and_entropy_by_hand():
    p = torch.log(torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]))
    q = torch.log(torch.tensor([[0.25, 0.75, 0.0], [1.0, 0.0, 0.0]]))
    expected = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert kl_divergence(p, q).tolist() == pytest.approx([expected, 0.0])
    assert entropy(p).tolist() == pytest.approx([math.log(2), 0.0])


def test_kl_divergence_is_zero_and_flat_at_equality():
    _, logits, (p, _) = masked_log_probs(0)
    kl = kl_divergence(p, p.detach())
    assert torch.count_nonzero(kl) == 0
    (slope,) = torch.autograd.grad(kl.sum(), logits[0])
    torch.testing.assert_close(slope, torch.zeros_like(slope))


@pytest.mark.parametrize(
    "what", [lambda p, q: kl_divergence(p, q.detach()), lambda p, q: entropy(p)]
)
def test_what_the_grammar_forbids_leaves_no_nan_in_the_gradient(what):
    allowed, logits, (p, q) = masked_log_probs(0)
    (slope,) = torch.autograd.grad(what(p, q).sum(), logits[0])
    assert torch.isfinite(slope).all()
    assert torch.count_nonzero(slope[~allowed]) == 0
    assert torch.count_nonzero(slope[1:]) > 0


def test_kl_divergence_has_the_right_gradient():
    allowed, logits, (_, q) = masked_log_probs(1)

    def kl(x):
        log_probs = x.masked_fill(~allowed, NEVER).log_softmax(-1)
        return kl_divergence(log_probs, q.detach()).sum()

    assert torch.autograd.gradcheck(kl, (logits[0],))


@pytest.mark.parametrize(
    ("kl", "weight"),
    [(0.0, 0.05), (0.0066, 0.05), (0.0067, 0.1), (0.01, 0.1), (0.0149, 0.1), (0.0151, 0.2)],
)
def test_the_kl_weight_follows_its_target(kl, weight):
    assert adapted_kl_weight(0.1, kl, target=0.01) == pytest.approx(weight)


def test_the_kl_weight_stays_in_bounds():
    high = low = 1.0
    for _ in range(100):
        high, low = adapted_kl_weight(high, 1.0, 0.01), adapted_kl_weight(low, 0.0, 0.01)
    assert (high, low) == (1e3, 1e-4)
