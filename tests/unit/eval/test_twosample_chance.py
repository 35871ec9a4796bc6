"""The two-sample test where nobody asks what chance alone would do."""

import math

import numpy as np
import pytest

from eval import twosample
from eval.twosample import two_sample
from rnngan.music.piece import Piece

NAMES = ("pitch_range", "note_length_histogram")


@pytest.fixture(autouse=True)
def small_features(monkeypatch):
    """Two features, which is enough here."""
    kept = {name: twosample.FEATURES[name] for name in NAMES}

    def table(pool):
        found = [twosample.features_of(piece, NAMES) for piece in pool]
        return {name: np.array([values[name] for values in found], dtype=float) for name in NAMES}

    monkeypatch.setattr(twosample, "FEATURES", kept)
    monkeypatch.setattr(twosample, "_table", table)


def tunes(first, count, *, reach=8):
    def tune(number):
        random = np.random.default_rng(number)
        ends = np.cumsum(random.choice([12, 24], 16))
        starts = ends - np.diff(ends, prepend=0)
        return Piece.from_rows(zip(starts, ends, 60 + random.integers(0, reach, 16)))

    return [tune(number) for number in range(first, first + count)]


REAL, FAKE, MORE = tunes(0, 14), tunes(100, 12, reach=9), tunes(200, 12)


@pytest.mark.parametrize("training", [(), MORE])
def test_the_verdict_is_the_same_and_chance_is_undefined(training):
    (bare,), (whole,) = (
        two_sample(REAL, FAKE, training=training, resamples=200, chance=chance)
        for chance in (False, True)
    )
    assert bare.auc == whole.auc != 0.5
    assert (bare.logits == whole.logits).all() and np.isfinite(bare.logits).all()
    assert bare.calibration_error == whole.calibration_error
    assert (bare.num_real, bare.num_fake, bare.view) == (14, 12, "features")
    assert math.isnan(bare.p) and math.isnan(bare.band_auc) and all(map(math.isnan, bare.band))
    assert 0 < whole.p <= 1 and 0 <= whole.band[0] <= whole.band_auc <= whole.band[1] <= 1
    low, high = bare.interval
    assert 0 <= low <= bare.auc <= high <= 1 and low < high


def test_nothing_of_chance_is_computed(monkeypatch):
    def computed(*_):
        raise AssertionError

    monkeypatch.setattr(twosample, "_p_value", computed)
    monkeypatch.setattr(twosample, "_chance", computed)
    (found,) = two_sample(REAL, FAKE, chance=False)
    assert found.auc > 0.5


def test_the_same_seed_gives_the_same_and_the_warning_stays():
    one, two = (two_sample(REAL, FAKE, chance=False, seed=3)[0] for _ in range(2))
    assert one.interval == two.interval and (one.logits == two.logits).all()
    assert "too few to train on" in one.warning
