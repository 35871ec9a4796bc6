import math

import numpy as np
import pytest

from rnngan.config import GuardConfig
from rnngan.music.piece import Piece
from rnngan.training.guard import NGRAM, Breach, Guard, diversity_figures, ngrams_of

BEFORE = {"val_bits_per_token": 1.0, "entropy": 2.0, "self_bleu": 0.3, "copied_rate": 0.05}


def melody(pitches, length=12):
    return Piece.from_rows([(i * 12, i * 12 + length, p) for i, p in enumerate(pitches)])


def random_melody(seed, num=40):
    return melody(np.random.default_rng(seed).integers(50, 80, num).tolist())


@pytest.mark.parametrize(
    ("figures", "name", "limit"),
    [
        ({"val_bits_per_token": 1.031}, "val_bits_per_token", 1.03),
        ({"entropy": 0.99}, "entropy", 1.0),
        ({"kl": 0.51}, "kl", 0.5),
        ({"self_bleu": 0.41}, "self_bleu", 0.4),
        ({"copied_rate": 0.151}, "copied_rate", 0.15),
        ({"lower_auc": 1.0}, "lower_auc", 0.999),
        ({"kl": math.nan}, "kl", math.inf),
        ({"entropy": -math.inf}, "entropy", math.inf),
    ],
)
def test_each_limit(figures, name, limit):
    breach = Guard(GuardConfig(), BEFORE).check(7, BEFORE | figures)
    assert (breach.step, breach.figure) == (7, name)
    assert breach.limit == pytest.approx(limit)


@pytest.mark.parametrize(
    "figures",
    [
        {}, {"val_bits_per_token": 1.029}, {"entropy": 1.01}, {"kl": 0.49}, {"self_bleu": 0.39},
        {"copied_rate": 0.149}, {"lower_auc": 0.99}, {"entropy": 9.0},
    ],
)  # fmt: skip
def test_within_the_limits_nothing_is_said(figures):
    assert Guard(GuardConfig(), BEFORE).check(7, BEFORE | figures) is None


def test_what_was_undefined_before_has_no_limit():
    guard = Guard(GuardConfig(), {"val_bits_per_token": 1.0, "entropy": 2.0})
    assert guard.check(1, {"self_bleu": 1.0, "copied_rate": 1.0}) is None


def test_a_breach_in_words():
    assert str(Breach(step=3, figure="kl", value=0.6, limit=0.5)) == (
        "kl was 0.6 at step 3, above its limit 0.5"
    )
    assert "below its limit 1" in str(Breach(step=3, figure="entropy", value=0.6, limit=1.0))
    assert str(Breach(step=3, figure="kl", value=math.nan, limit=math.inf)) == (
        "kl became nan at step 3"
    )


def test_copied_runs_are_found_in_any_key_and_nowhere_else():
    known = np.unique(ngrams_of([random_melody(0)]))
    moved = melody([p + 5 for p in np.random.default_rng(0).integers(50, 80, 40).tolist()])
    assert diversity_figures([moved, moved], known)["copied_rate"] == 1
    assert diversity_figures([random_melody(1), random_melody(2)], known)["copied_rate"] == 0
    longer = Piece.from_rows([(n["start"], n["end"] - 3, n["pitch"]) for n in moved.notes])
    assert diversity_figures([longer, longer], known)["copied_rate"] == 0  # other lengths


def test_one_other_note_spoils_the_runs_that_hold_it():
    pitches = np.random.default_rng(0).integers(50, 80, 40).tolist()
    known = ngrams_of([melody(pitches)])
    pitches[20] += 1
    changed = ngrams_of([melody(pitches)])
    # A run is NGRAM steps from note to note, and the note has a step on either side.
    assert len(known) == 39 - NGRAM + 1
    assert np.isin(changed, known).sum() == len(known) - (NGRAM + 1)


def test_the_order_of_the_steps_counts():
    up_down = melody([60, 62, 60, 62, 64, 60, 67, 60, 62, 64, 65, 67, 69])
    other = melody([60, 62, 64, 60, 67, 60, 62, 60, 62, 64, 65, 67, 69])
    assert len(ngrams_of([up_down])) == len(ngrams_of([other])) == 1
    assert ngrams_of([up_down]) != ngrams_of([other])


def test_pieces_too_short_leave_the_figure_out():
    short = melody([60, 62, 64])
    assert "copied_rate" not in diversity_figures([short, short], np.empty(0, np.uint64))
