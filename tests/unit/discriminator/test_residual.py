import math

import pytest
import torch

from rnngan.discriminator.residual import Committee, Residual

NAN = math.nan


def residual(widths=(1, 3), **options):
    torch.manual_seed(0)
    return Residual([f"m{i}" for i in range(len(widths))], widths, **options).eval()


def test_columns_are_standardised_by_hand():
    found = residual()
    rows = torch.tensor([[1.0, 0.0, 1.0, 7.0], [3.0, 1.0, 1.0, 7.0], [NAN, NAN, NAN, NAN]])
    found.standardise_by(rows)
    third = 3**-0.5
    expected = torch.tensor(
        [  # number, histogram of three, and whether each of the two is undefined
            [-1.0, -third, 0.0, 0.0, -(0.5**0.5), -(0.5**0.5) * third],
            [1.0, third, 0.0, 0.0, -(0.5**0.5), -(0.5**0.5) * third],
            [0.0, 0.0, 0.0, 0.0, 2**0.5, 2**0.5 * third],
        ]
    )
    torch.testing.assert_close(found.inputs(rows), expected)


def test_nothing_counts_for_more_than_five_deviations():
    found = residual()
    found.standardise_by(torch.tensor([[0.0, 0.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0]]))
    far = found.inputs(torch.tensor([[1e9, -1e9, 1.0, math.inf]]))
    third = 3**-0.5
    torch.testing.assert_close(far[0, :4], torch.tensor([5.0, -5 * third, 0.0, 5 * third]))


def test_a_column_that_is_never_defined_says_nothing():
    found = residual((1, 1))
    rows = torch.tensor([[NAN, 1.0], [NAN, 2.0]])
    found.standardise_by(rows)
    assert torch.equal(found.inputs(rows)[:, 0], torch.zeros(2))
    assert torch.equal(found.inputs(rows)[:, 2], torch.zeros(2))


def test_the_energy_is_the_sum_of_the_committees_and_each_is_the_scaled_mean_of_its_members():
    found = residual(rounds=3, hidden=4, members=2)
    rows = torch.randn(6, 4)
    inputs = found.inputs(rows)
    for scale, committee in zip((0.5, 2.0, 0.0), found.committees):
        committee.scale.fill_(scale)
    first, second, third = found.committees
    torch.testing.assert_close(first(inputs), 0.5 * first.logits(inputs).mean(0))
    torch.testing.assert_close(found(rows), first(inputs) + second(inputs))
    torch.testing.assert_close(found(rows, 1), first(inputs))
    assert torch.equal(found(rows, 2), found(rows))
    assert torch.equal(third(inputs), torch.zeros(6))
    assert torch.equal(residual()(rows), torch.zeros(6))


def test_a_member_is_a_network_of_one_hidden_layer():
    torch.manual_seed(1)
    committee = Committee(3, 4, 2).eval()
    inputs = torch.randn(5, 3)
    for member, logits in enumerate(committee.logits(inputs)):
        hidden = torch.relu(inputs @ committee.inner[member] + committee.inner_bias[member])
        torch.testing.assert_close(
            logits, (hidden @ committee.outer[member])[:, 0] + committee.outer_bias[member, 0]
        )


def test_dropout_differs_between_members_and_is_off_outside_training():
    torch.manual_seed(2)
    committee = Committee(8, 16, 2)
    with torch.no_grad():
        for weights in committee.parameters():
            weights.copy_(weights[:1].expand_as(weights))
    inputs = torch.ones(4, 8)
    one, other = committee.train().logits(inputs)
    assert not torch.equal(one, other)
    one, other = committee.eval().logits(inputs)
    assert torch.equal(one, other)


@pytest.mark.parametrize("rounds", [0, 2])
def test_its_weights_go_through_a_state_dict(rounds):
    found, other = residual(rounds=rounds), residual(rounds=rounds)
    found.standardise_by(torch.randn(9, 4))
    other.load_state_dict(found.state_dict())
    rows = torch.randn(3, 4)
    assert torch.equal(found(rows), other(rows))
