import math

import pytest
import torch
from scipy.optimize import minimize

from rnngan.discriminator.base import Calibration
from rnngan.errors import UserError
from rnngan.objectives.calibration import expected_calibration_error, fit_calibration


def sides(p, q, logits, times=1):
    """Pieces of a few sorts, `p` of each real and `q` generated, with the logit of their sort."""
    logits = torch.as_tensor(logits, dtype=torch.float64)
    real = logits.repeat_interleave(torch.tensor(p) * times)
    return real, logits.repeat_interleave(torch.tensor(q) * times)


P, Q = [30, 10, 40, 20], [10, 50, 20, 20]
RATIOS = [math.log(p / q) for p, q in zip(P, Q)]


@pytest.mark.parametrize("temperature", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("bias", [0.0, 2.0])
def test_a_known_temperature_and_bias_are_found(temperature, bias):
    """Logits off by both; calibrated, they are the density ratios of every sort."""
    logits = [temperature * (ratio - bias) for ratio in RATIOS]
    real, fake = sides(P, Q, logits, times=1000)
    found = fit_calibration(real, fake)
    assert found.scale == pytest.approx(1 / temperature, rel=1e-3)
    assert found.bias == pytest.approx(bias, abs=1e-3)
    calibrated = found.calibrated(torch.tensor(logits, dtype=torch.float64))
    assert calibrated.tolist() == pytest.approx(RATIOS, abs=2e-3)


def test_unequal_numbers_on_the_sides_are_no_prior():
    real, fake = sides(P, Q, RATIOS, times=1000)
    found = fit_calibration(real.repeat(5), fake)
    assert (found.scale, found.bias) == pytest.approx((1, 0), abs=2e-3)


def test_two_gaussians():
    """Unit normals at ±1/2 have the log ratio x. 20,000 draws a side: a deviation of 0.015 in the
    scale and 0.01 in the bias; five of them are a false alarm in a million."""
    torch.manual_seed(0)
    real, fake = torch.randn(20000) + 0.5, torch.randn(20000) - 0.5
    found = fit_calibration(3 * real + 2, 3 * fake + 2)
    assert found.scale == pytest.approx(1 / 3, abs=0.025)
    assert found.bias == pytest.approx(-2 / 3, abs=0.05)


def test_the_fit_is_that_of_a_general_minimiser():
    torch.manual_seed(1)
    real, fake = 10 * torch.randn(17) + 4, 10 * torch.randn(31)
    found = fit_calibration(real, fake)

    def loss(parameters):
        scale, bias = parameters
        total = 0.0
        for side, target in ((real, 18 / 19), (fake, 1 / 33)):
            scores = scale * side.double() + bias
            total += (torch.nn.functional.softplus(scores) - target * scores).mean().item() / 2
        return total

    best = minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13})
    assert (found.scale, found.bias) == pytest.approx(tuple(best.x), abs=1e-5)


@pytest.mark.parametrize("size", [1.0, 1e3, 1e-3])
def test_where_all_are_told_apart_the_odds_follow_from_the_number(size):
    real, fake = size * torch.full((8,), 3.0), size * torch.full((8,), -1.0)
    found = fit_calibration(real, fake)
    odds = found.calibrated(torch.tensor([3.0, -1.0], dtype=torch.float64) * size)
    assert odds.tolist() == pytest.approx([math.log(9), -math.log(9)])


def test_logits_that_say_nothing_calibrate_to_nothing():
    found = fit_calibration(torch.full((4,), 7.0), torch.full((4,), 7.0))
    assert found.calibrated(torch.tensor([7.0])).item() == pytest.approx(0, abs=1e-6)
    assert math.isfinite(found.scale)


def test_one_piece_a_side():
    found = fit_calibration(torch.tensor([1.0]), torch.tensor([0.0]))
    odds = found.calibrated(torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert odds.tolist() == pytest.approx([math.log(2), -math.log(2)])


@pytest.mark.parametrize(
    ("real", "fake"), [([], [1.0]), ([1.0], []), ([math.nan], [0.0]), ([0.0], [math.inf])]
)
def test_bad_logits_are_refused(real, fake):
    for ask in (fit_calibration, expected_calibration_error):
        with pytest.raises(UserError, match="finite logits of at least one piece"):
            ask(torch.tensor(real), torch.tensor(fake))


def test_density_ratios_have_no_calibration_error():
    assert expected_calibration_error(*sides(P, Q, RATIOS)) == pytest.approx(0, abs=1e-12)


def test_calibration_error_by_hand():
    """Five pieces at odds 1/3, two of them real, and three at odds 3, two of them real."""
    third = math.log(3)
    real = torch.tensor([-third, third, third, -third])
    fake = torch.tensor([-third, -third, -third, third])
    low, high = abs(5 * 1 / 4 - 2) / 8, abs(3 * 3 / 4 - 2) / 8
    assert expected_calibration_error(real, fake, num_bins=2) == pytest.approx(low + high)
    assert expected_calibration_error(real, fake, num_bins=1) == pytest.approx(abs(low - high))


def test_bins_are_of_equal_weight_in_the_order_of_the_logits():
    """Sure of everything, in four bins: the third holds all that it is wrong about."""
    real, fake = torch.tensor([-50.0, 60, 70, 80]), torch.tensor([-90.0, -80, -70, -60])
    assert expected_calibration_error(real, fake, num_bins=4) == pytest.approx(1 / 8)


def test_boldness_is_a_calibration_error():
    real, fake = sides(P, Q, RATIOS)
    errors = [expected_calibration_error(t * real, t * fake) for t in (1, 3, 1000)]
    assert errors[0] < errors[1] < errors[2]
    # Wholly sure of all but the sort that is as often real: wrong about 10 real and 10 + 20 fakes.
    assert errors[2] == pytest.approx((10 + 10 + 20) / 200)


def test_sides_weigh_alike_in_the_calibration_error():
    real, fake = sides(P, Q, RATIOS)
    few = expected_calibration_error(2 * real, 2 * fake, num_bins=1)
    assert expected_calibration_error(2 * real.repeat(9), 2 * fake, num_bins=1) == pytest.approx(
        few
    )


def test_no_calibration_is_none():
    assert torch.equal(Calibration().calibrated(torch.arange(3.0)), torch.arange(3.0))
