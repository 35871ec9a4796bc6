import math
from dataclasses import replace

import numpy as np
import pytest

from eval import evaluation
from eval.copying import MIN_NOTES
from eval.evaluation import COPIED_SHARE, LONGEST_RUN, Column, Figure, Row, Summary, evaluate
from eval.features import select
from eval.pieces import Side
from rnngan.errors import UserError
from rnngan.music.piece import Piece

FEW = ["pitch_range", "note_count", "pitch_histogram[count]", "pitch_class_histogram[count]"]
QUICK = {"metrics": FEW, "resamples": 50, "permutations": 199}


def melody(rng, num_notes=24, up=0):
    """Random eighths and quarters on a white-key scale."""
    lengths = rng.choice([12, 24], num_notes)
    ends = np.cumsum(lengths)
    scale = np.array([60, 62, 64, 65, 67, 69, 71, 72])
    pitches = scale[rng.integers(len(scale), size=num_notes)] + up
    return Piece.from_rows(zip(ends - lengths, ends, pitches))


def side(name, seed, count=30, **options):
    rng = np.random.default_rng(seed)
    return Side(name=name, pieces=tuple(melody(rng, **options) for _ in range(count)))


def row_of(evaluation, feature, fake=0):
    rows = evaluation.rows_of(evaluation.fakes[fake])
    return next(row for row in rows if row.column.name == feature)


@pytest.fixture(scope="module")
def moved():
    """The same melodies an octave higher."""
    real = side("real", 0)
    fake = Side(name="fake", pieces=tuple(piece.transposed(12) for piece in real.pieces))
    return evaluate(real, [fake], **QUICK)


class TestRows:
    def test_an_octave_moves_the_pitch_histogram_by_12_semitones(self, moved):
        row = row_of(moved, "pitch_histogram[count]")
        assert row.distance.value == pytest.approx(12)
        assert row.fake.mean - row.real.mean == pytest.approx(12)
        assert row.verdict == "higher"
        assert row.distance.interval[0] > 10
        assert row.distance.band[1] < 3
        assert row.standardised == pytest.approx(12 / row.real.deviation)
        assert row.p == pytest.approx(1 / 200)

    def test_an_octave_leaves_the_pitch_classes_alone(self, moved):
        row = row_of(moved, "pitch_class_histogram[count]")
        assert row.column.measure_unit == "bits"
        assert row.distance.value == pytest.approx(0, abs=1e-12)
        assert row.histogram_overlap == pytest.approx(1)
        assert row.p == 1
        assert row.verdict == "no difference seen"
        assert math.isnan(row.real.mean)

    def test_an_octave_leaves_the_range_alone(self, moved):
        row = row_of(moved, "pitch_range")
        assert row.distance.value == 0
        assert row.distance.interval[0] == 0
        assert row.real == replace(row.fake, histogram=row.real.histogram)
        assert row.overlapping_area.value > 0.9

    def test_means_and_medians_are_those_of_the_pieces(self):
        pieces = [melody(np.random.default_rng(i), num_notes=i) for i in (10, 20, 60)]
        real = Side(name="real", pieces=tuple(pieces))
        row = row_of(evaluate(real, [side("fake", 1)], **QUICK), "note_count")
        assert (row.real.mean, row.real.median) == (30, 20)

    def test_the_same_kind_of_music_is_not_told_apart(self):
        evaluation = evaluate(
            side("real", 1), [side("fake", 2)], resamples=20, permutations=499, metrics=None
        )
        assert not any(row.flagged for row in evaluation.rows)

    def test_p_values_are_corrected_over_all_sides_at_once(self):
        real, same, other = side("real", 1), side("same", 2), side("other", 3, up=12)
        alone = evaluate(real, [other], **QUICK)
        both = evaluate(real, [other, same], **QUICK)
        row, again = (row_of(e, "pitch_histogram[count]") for e in (alone, both))
        assert row.p == again.p == 1 / 200
        assert again.p_corrected > row.p_corrected

    def test_pieces_without_the_feature_are_counted_and_not_taken_for_0(self):
        real = side("real", 1)
        silent = tuple(Piece.from_rows([]) for _ in range(5))
        fake = Side(name="fake", pieces=(*side("fake", 2).pieces, *silent))
        row = row_of(evaluate(real, [fake], **QUICK), "pitch_range")
        without = evaluate(real, [replace(fake, pieces=fake.pieces[:-5])], **QUICK)
        assert (row.fake.count, row.fake.undefined) == (30, 5)
        assert row.fake.mean == row_of(without, "pitch_range").fake.mean
        assert row.distance.value == row_of(without, "pitch_range").distance.value

    def test_a_side_that_never_has_the_feature_has_no_distance(self):
        silent = Side(name="silent", pieces=(Piece.from_rows([]),) * 4)
        evaluation = evaluate(side("real", 1), [silent], **QUICK)
        for name in ("pitch_range", "pitch_class_histogram[count]", "pitch_histogram[count]"):
            row = row_of(evaluation, name)
            assert row.verdict == "undefined"
            assert math.isnan(row.distance.value)
            assert math.isnan(row.p_corrected)
            assert row.fake.undefined == 4

    def test_the_order_of_the_pieces_says_nothing(self):
        real, fake = side("real", 1), side("fake", 2)
        turned = replace(fake, pieces=fake.pieces[::-1])
        rows = zip(evaluate(real, [fake], **QUICK).rows, evaluate(real, [turned], **QUICK).rows)
        for row, other in rows:
            assert row.distance.value == pytest.approx(other.distance.value)

    def test_seed_decides_everything(self):
        sides = side("real", 1), [side("fake", 2)]
        one, same, other = (evaluate(*sides, **QUICK, seed=seed) for seed in (0, 0, 1))
        assert one.flat() == same.flat()
        assert [row.distance for row in one.rows] == [row.distance for row in same.rows]
        assert [row.distance for row in one.rows] != [row.distance for row in other.rows]


def summary(mean=0.0, deviation=1.0, count=50):
    return Summary(
        count=count,
        undefined=0,
        mean=mean,
        median=mean,
        deviation=deviation,
        histogram=np.empty(0),
    )


@pytest.mark.parametrize(
    ("kind", "fake", "p", "verdict"),
    [
        ("scalar", summary(mean=1), 0.01, "higher"),
        ("scalar", summary(mean=-1), 0.01, "lower"),
        ("ordered", summary(deviation=2), 0.01, "wider"),
        ("ordered", summary(deviation=0.5), 0.01, "narrower"),
        ("categorical", summary(mean=math.nan, deviation=math.nan), 0.01, "differs"),
        ("scalar", summary(mean=1), 0.2, "no difference seen"),
        ("scalar", summary(mean=1, count=19), 0.2, "too few"),
        ("scalar", summary(mean=1, count=19), 0.01, "higher"),
        ("scalar", summary(count=0), math.nan, "undefined"),
    ],
)
def test_verdict(kind, fake, p, verdict):
    nothing = Figure(value=1.0, interval=(0.5, 1.5), band=(0.0, 0.5))
    row = Row(
        side="fake",
        column=Column("x", "pitch", "semitones", kind),
        real=summary(),
        fake=fake,
        distance=nothing,
        standardised=1.0,
        p=p,
        p_corrected=p,
        overlapping_area=nothing,
        kl_divergence=nothing,
        histogram_overlap=math.nan,
    )
    assert row.verdict == verdict
    assert row.times_band == 2


class TestRealAgainstReal:
    def test_another_real_set_lies_in_the_band_of_the_training_set(self):
        real, training, third = side("real", 1), side("training", 2, 200), side("third", 3)
        rows = evaluate(real, [third], training=training, **QUICK).rows
        assert all(row.distance.value <= 1.5 * row.distance.band[1] for row in rows)

    def test_the_band_narrows_with_the_number_of_pieces(self):
        training = side("training", 2, 300)
        bands = [
            evaluate(side("real", 1, n), [side("fake", 3, n)], training=training, **QUICK)
            for n in (10, 100)
        ]
        small, large = (row_of(e, "pitch_histogram[count]").distance.band[1] for e in bands)
        assert large < small / 2

    def test_without_a_training_set_it_says_that_parts_of_the_real_side_were_taken(self):
        evaluation = evaluate(side("real", 1), [side("fake", 2)], **QUICK)
        assert "parts of real" in evaluation.band
        assert not evaluation.copying


class TestCopying:
    def test_copies_are_found_beside_what_held_out_music_shares(self):
        training, real = side("training", 1), side("real", 2)
        copies = tuple(piece.transposed(3) for piece in training.pieces[:10])
        fake = Side(name="fake", pieces=copies + side("fresh", 3, 20).pieces)
        evaluation = evaluate(real, [fake], training=training, **QUICK)
        held_out, generated = evaluation.copying
        assert held_out.share == 0
        assert generated.share == pytest.approx(1 / 3)
        assert generated.interval[0] < 1 / 3 < generated.interval[1]
        worst = generated.worst(3)
        assert worst == [0, 1, 2]
        assert [generated.runs[i].training_index for i in worst] == worst
        row = row_of(evaluation, COPIED_SHARE.name)
        assert (row.real.mean, row.fake.mean) == (0, pytest.approx(1 / 3))
        assert row.distance.value == pytest.approx(1 / 3)
        assert row.flagged
        assert row_of(evaluation, LONGEST_RUN.name).verdict == "higher"

    def test_of_large_sides_it_rests_on_what_is_in_memory(self, monkeypatch):
        for name, most in (("WHOLE", 9), ("TRAINING", 20), ("NEAREST", 15), ("ROW", 25)):
            monkeypatch.setattr(evaluation, f"{name}_PIECES", most)
        training, real = side("training", 1), side("real", 2)
        fake = Side(name="fake", pieces=tuple(piece.transposed(3) for piece in training.pieces))
        found = evaluate(real, [fake], training=training, **QUICK)
        in_training, near = (set(training.drawn(most, 0).tolist()) for most in (20, 15))
        part = found.copying[1]
        assert list(part.side.music) == fake.drawn(9, 0).tolist()
        copied = []
        for number, run, nearest in zip(part.side.music, part.runs, part.nearest):
            copied.append(run.num_notes == run.line_notes)
            assert copied[-1] == (number in in_training)
            assert run.training_index == number or not copied[-1]
            assert (nearest.edits == 0) == (nearest.training_index == number) == (number in near)
        assert 0 < sum(copied) < 9
        row = row_of(found, COPIED_SHARE.name)
        assert (row.real.count, row.fake.count) == (9, 9)
        assert row.fake.mean == part.share == pytest.approx(sum(copied) / 9)
        assert any("looked for in 20 of the 30 training pieces" in w for w in found.warnings)
        assert any("nearest ones among 15" in warning for warning in found.warnings)

    def test_pieces_too_short_to_copy_do_not_count(self):
        training = side("training", 1)
        short = side("short", 3, num_notes=MIN_NOTES - 1)
        evaluation = evaluate(side("real", 2), [short], training=training, **QUICK)
        assert math.isnan(evaluation.copying[1].share)
        assert row_of(evaluation, COPIED_SHARE.name).fake.undefined == 30


class TestWarnings:
    def said(self, *arguments, **options):
        return " | ".join(evaluate(*arguments, **{**QUICK, **options}).warnings)

    def test_nothing_is_said_without_need(self):
        assert not self.said(side("real", 1), [side("fake", 2)], training=side("training", 3))

    def test_few_pieces(self):
        assert "fake has only 5 pieces" in self.said(side("real", 1), [side("fake", 2, 5)])

    def test_the_same_music_on_both_sides(self):
        real = side("real", 1)
        same = Side(name="same", pieces=real.pieces[::-1])
        assert "real and same are the same music" in self.said(real, [same])

    def test_real_pieces_among_the_generated_ones(self):
        real = side("real", 1)
        fake = Side(name="fake", pieces=real.pieces[:2] + side("fake", 2).pieces)
        assert "fake: 2 of 32 pieces also stand in real" in self.said(real, [fake])

    def test_a_generator_that_repeats_itself(self):
        fake = Side(name="fake", pieces=side("fake", 2, 3).pieces * 10)
        assert "only 3 of 30 pieces are distinct" in self.said(side("real", 1), [fake])

    def test_held_out_pieces_in_the_training_set(self):
        real = side("real", 1)
        assert "stand in the training set" in self.said(real, [side("fake", 2)], training=real)

    def test_too_few_permutations_for_the_table(self):
        said = self.said(side("real", 1), [side("fake", 2)], permutations=20)
        assert "20 permutations are too few for 4 rows" in said


def test_flat_names_side_feature_and_figure():
    fake = Side(name="fake", pieces=(Piece.from_rows([]),) * 2)
    numbers = evaluate(side("real", 1), [side("gan", 2), fake], **QUICK).flat()
    assert numbers["gan/features_told_apart"] == 0
    assert numbers["gan/pitch_histogram[count]/wasserstein1"] > 0
    assert "gan/pitch_class_histogram[count]/jensen_shannon" in numbers
    assert "fake/pitch_range/wasserstein1" not in numbers  # undefined
    assert all(map(math.isfinite, numbers.values()))


def test_two_pieces_a_side_are_enough_to_run():
    sides = side("real", 1, 2), [side("fake", 2, 2)]
    evaluation = evaluate(*sides, training=side("training", 3, 2), resamples=20, permutations=20)
    assert not any(row.flagged for row in evaluation.rows)
    assert {row.verdict for row in evaluation.rows} <= {"too few", "undefined"}


def test_metrics_choose_the_rows():
    evaluation = evaluate(
        side("real", 1), [side("fake", 2)], **{**QUICK, "metrics": select("pitch_entropy")}
    )
    assert [row.column.name for row in evaluation.rows] == ["pitch_entropy"]


@pytest.mark.parametrize(
    ("fakes", "options", "match"),
    [
        ([], {}, "at least one generated side"),
        ([side("real", 2)], {}, "names that differ"),
        ([side("fake", 2, 1)], {}, "at least 2 pieces a side.*; fake has 1"),
        ([side("fake", 2)], {"resamples": 0}, "resamples must be at least 1, got 0"),
        ([side("fake", 2)], {"permutations": -1}, "permutations must be at least 1, got -1"),
        ([side("fake", 2)], {"training": side("none", 1, 0)}, "training set none has no pieces"),
    ],
)
def test_bad_input(fakes, options, match):
    with pytest.raises(UserError, match=match):
        evaluate(side("real", 1), fakes, **{**QUICK, **options})


def test_a_part_is_compared_and_that_is_said(monkeypatch):
    monkeypatch.setattr(evaluation, "ROW_PIECES", 12)
    monkeypatch.setattr(evaluation, "WHOLE_PIECES", 8)
    rng = np.random.default_rng(0)

    def side(name, num):
        return Side(
            name=name,
            pieces=tuple(
                Piece.from_rows([(12 * i, 12 * i + 12, int(p)) for i, p in enumerate(pitches)])
                for pitches in rng.integers(50, 80, (num, 16))
            ),
        )

    found = evaluate(side("real", 15), [side("fake", 14)], resamples=20, permutations=50)
    assert {(row.real.count, row.fake.count) for row in found.rows if row.real.count} == {(12, 12)}
    assert {(row.n_real, row.n_fake) for row in found.set_rows} == {(8, 8)}
    assert sum("drawn at random" in warning for warning in found.warnings) == 2
    assert len(found.tables["real"]["pitch_range"]) == 15
