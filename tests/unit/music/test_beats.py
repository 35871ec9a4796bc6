import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnngan.music import beats
from rnngan.music.beats import MIN_ONSETS, estimate_beats, keeps_to_beats

DIVISION = 480


def rhythm(rng, num_quarters=100, lengths=(0.25, 0.5, 0.5, 1.0, 1.5)):
    """Onsets in quarters, from 0."""
    onsets = np.cumsum(np.append(0.0, rng.choice(lengths, 8 * num_quarters)))
    return onsets[onsets < num_quarters]


def played(onsets, rng, *, rubato=0.15, jitter_seconds=0.02):
    """Seconds of onsets and of the quarters, at a tempo that wanders by `rubato` about its mean."""
    num_quarters = int(onsets.max()) + 2
    sway = np.zeros(num_quarters)
    for i in range(1, num_quarters):
        sway[i] = 0.9 * sway[i - 1] + 0.26 * rubato * rng.normal()
    mean = rng.uniform(75, 150)
    lengths = 60 / (mean * np.exp(np.clip(sway, -rubato, rubato)))
    quarters = 1 + np.cumsum(np.append(0.0, lengths))
    seconds = np.interp(onsets, np.arange(num_quarters + 1), quarters)
    return seconds + rng.normal(0, jitter_seconds, len(onsets)), quarters[: num_quarters - 1]


def in_a_file(seconds):
    """As recorded without a click: 480 ticks to the half second, whatever is played."""
    return np.rint(np.maximum(seconds, 0) * 2 * DIVISION).astype(np.int64)


def f_measure(found, truth, tolerance_seconds=0.07):
    pairs = np.abs(np.subtract.outer(found, truth)) <= tolerance_seconds
    hits = min(pairs.any(axis=0).sum(), pairs.any(axis=1).sum())
    return 2 * hits / (len(found) + len(truth))


@pytest.mark.parametrize(
    "lengths",
    [
        (1,),
        (0.5, 1, 2),
        (0.25, 0.5, 0.75),
        (1 / 3, 2 / 3, 1),  # triplets, or swing
        (1 / 6, 1 / 3),
        (0.125, 0.375, 0.5),
        (0.25, 1 / 3, 0.5),  # once it has met a 16th and a triplet it is off both
        (1 / 24, 5 / 24, 7 / 24),  # any tick of our grid, as a bad generator writes
    ],
)
@pytest.mark.parametrize("offset", [0, 40, 111])
def test_written_rhythms_keep_to_the_beats(lengths, offset):
    rng = np.random.default_rng(3)
    for _ in range(20):
        ticks = np.rint(rhythm(rng, lengths=lengths) * DIVISION).astype(np.int64) + offset
        assert keeps_to_beats(ticks, DIVISION)


def test_playing_to_a_click_keeps_to_the_beats():
    # Jitter of 20 ms at 120 is a sixth of a 16th. The least coherence here is 0.51.
    rng = np.random.default_rng(4)
    for _ in range(200):
        jitter = rng.normal(0, 0.02, len(onsets := rhythm(rng)))
        assert keeps_to_beats(in_a_file(1 + onsets / 2 + jitter), DIVISION)


def test_playing_with_rubato_does_not():
    rng = np.random.default_rng(5)
    kept = sum(keeps_to_beats(in_a_file(played(rhythm(rng), rng)[0]), DIVISION) for _ in range(400))
    assert kept <= 0.05 * 400


def test_onsets_anywhere_seldom_keep_to_the_beats():
    # Rayleigh: in one subdivision the coherence of n exceeds c with probability exp(-n c^2), so for
    # 8 of them and n = 100 at most 0.1 %; over 6 in 2,000 comes once in a hundred runs at most.
    rng = np.random.default_rng(6)
    kept = sum(keeps_to_beats(rng.integers(0, 10**6, 100), DIVISION) for _ in range(2000))
    assert kept <= 6


def test_few_onsets_are_trusted_and_chords_count_once():
    rng = np.random.default_rng(7)
    anywhere = np.unique(rng.integers(0, 10**6, MIN_ONSETS))
    assert not keeps_to_beats(anywhere, DIVISION)
    assert keeps_to_beats(np.repeat(anywhere[1:], 4), DIVISION)


@pytest.mark.parametrize("per_minute", [72, 84, 120, 140, 160])
def test_a_steady_pulse(per_minute):
    quarters = 2 + np.arange(60) * 60 / per_minute
    eighths = quarters + 30 / per_minute
    onsets = np.concatenate([quarters, eighths])
    found = estimate_beats(onsets, np.repeat([4.0, 1.0], 60))
    assert f_measure(found, quarters, 0.011) == 1


def test_an_even_pulse_is_counted_near_120():
    for pulse, beat in ((90, 90), (120, 120), (150, 150), (240, 120), (400, 100)):
        found = estimate_beats(np.arange(0, 60, 60 / pulse), np.ones(pulse))
        assert 60 / np.diff(found).mean() == pytest.approx(beat, rel=0.02)


def test_rubato_is_followed(monkeypatch):
    def score():
        rng = np.random.default_rng(8)
        scores = []
        for _ in range(20):
            onsets = rhythm(rng, lengths=(0.5, 0.5, 1, 1, 1.5))
            onsets = np.union1d(onsets, np.arange(0, 99, 2))  # a bass on every other quarter
            seconds, quarters = played(onsets, rng, rubato=0.2)
            weights = np.where(onsets % 2 == 0, 6.0, np.where(onsets % 1 == 0, 4.0, 1.0))
            scores.append(f_measure(estimate_beats(seconds, weights), quarters))
        return np.mean(scores)

    assert score() > 0.92  # measured 0.96
    monkeypatch.setattr(beats, "TEMPO_STIFFNESS", 1e9)
    assert score() < 0.9  # with one tempo throughout 0.84


@pytest.mark.parametrize("seed", range(3))
def test_the_blocks_find_what_frame_by_frame_search_finds(seed):
    rng = np.random.default_rng(seed)
    strength = rng.exponential(1, 700)
    periods = np.full(700, 40.0)
    score, before = [], []
    for frame in range(700):
        reached = {
            frame - lag: (score[frame - lag] if lag <= frame else 0.0)
            - beats.BEAT_STIFFNESS * np.log(lag / 40) ** 2
            for lag in range(24, 70)  # 0.6 to 1.7 of the period
        }
        before.append(max(reached, key=reached.get))
        score.append(strength[frame] + reached[before[-1]])
    frame = 660 + int(np.argmax(score[660:]))
    path = []
    while frame >= 0:
        path.append(frame)
        frame = before[frame]
    found = beats._beat_frames(strength, periods)
    assert found.tolist() == path[::-1]


@given(
    onsets=st.lists(st.floats(0, 60), min_size=1, max_size=40),
    shift=st.integers(0, 100),
)
@settings(max_examples=40, deadline=None)
def test_beats_of_any_onsets(onsets, shift):
    weights = np.linspace(1, 2, len(onsets))
    found = estimate_beats(onsets, weights)
    assert len(found) >= 2
    assert np.all(np.diff(found) > 0)
    assert found[0] >= min(onsets)
    np.testing.assert_array_equal(estimate_beats(onsets[::-1], weights[::-1]).shape, found.shape)
    np.testing.assert_array_equal(estimate_beats(onsets, 4 * weights), found)


def test_a_long_silence_is_bridged():
    onsets = np.concatenate([np.arange(0, 10, 0.5), np.arange(40, 50, 0.5)])
    found = estimate_beats(onsets, np.ones(40))
    assert np.diff(found).max() < 1.0
    assert f_measure(found[found > 42], np.arange(42.5, 50, 0.5)) > 0.95


def test_no_onset_no_beats():
    with pytest.raises(ValueError, match="at least one onset"):
        estimate_beats([], [])
