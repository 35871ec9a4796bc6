import math
import os
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from eval import evaluation, results
from eval.cache import measured, measured_side
from eval.evaluation import evaluate
from eval.features import FEATURES
from eval.pieces import Side
from eval.results import Results, digest_of
from eval.setwise import Sample, SetRow, compare_sets
from rnngan.errors import UserError
from rnngan.music.piece import Piece


class Place(NamedTuple):
    name: str
    positions: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Answer:
    place: Place
    interval: tuple[float, float]
    histogram: NDArray[np.float64]
    count: int


def answer(*, interval=(0.0, 1.0), histogram=(0.5, 0.25), count=3):
    place = Place("here", (1.5, 2.0))
    return Answer(place=place, interval=interval, histogram=np.array(histogram), count=count)


def same(one, other):
    return repr(one) == repr(other) and one.histogram.tobytes() == other.histogram.tobytes()


class Asked:
    """Counts how often an answer had to be found."""

    def __init__(self, *answers):
        self.answers, self.times = answers, 0

    def __call__(self):
        self.times += 1
        return self.answers


@given(
    st.tuples(st.floats(), st.floats()),
    st.lists(st.floats(allow_nan=False), max_size=4),
    st.integers(0, 2**62),
)
def test_an_answer_comes_back_bit_for_bit(tmp_path_factory, interval, histogram, count):
    folder = tmp_path_factory.mktemp("results")
    asked = Asked(answer(interval=interval, histogram=histogram, count=count))
    (first,) = Results(folder).of(Answer, ("?",), asked)
    (again,) = Results(folder).of(Answer, ("?",), asked)
    assert asked.times == 1
    assert same(first, again)
    assert type(again.place) is Place
    assert again.histogram.dtype == float


def test_another_question_has_another_answer(tmp_path):
    known, asked = Results(tmp_path), Asked(answer())
    for question in (("a", "b"), ("ab",), ("a", "b", 1), ("a", "b", 1.0)):
        known.of(Answer, question, asked)
    known.of(Place, ("a", "b"), asked)
    assert asked.times == 5


def test_other_programs_give_other_answers(tmp_path, monkeypatch):
    asked = Asked(answer())
    Results(tmp_path).of(Answer, ("?",), asked)
    monkeypatch.setattr(results, "_programs", lambda: "edited")
    Results(tmp_path).of(Answer, ("?",), asked)
    assert asked.times == 2


@pytest.mark.parametrize("damage", [b"", b"rubbish", None])
def test_a_damaged_file_is_passed_over(tmp_path, damage):
    asked = Asked(answer())
    Results(tmp_path).of(Answer, ("?",), asked)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-9] if damage is None else damage)
    for _ in range(2):  # and mended
        (again,) = Results(tmp_path).of(Answer, ("?",), asked)
    assert same(again, answer())
    assert asked.times == 2


def test_without_a_folder_and_in_one_that_cannot_be_made_answers_are_found_each_time(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for folder in (None, tmp_path / "file" / "results"):
        asked = Asked(answer())
        for _ in range(2):
            assert same(Results(folder).of(Answer, ("?",), asked)[0], answer())
        assert asked.times == 2


def test_an_error_is_no_answer(tmp_path):
    def refuse():
        raise UserError("too few")

    for _ in range(2):
        with pytest.raises(UserError, match="too few"):
            Results(tmp_path).of(Answer, ("?",), refuse)


def test_the_oldest_files_go_first(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "MAX_FILES", 2)
    known, asked = Results(tmp_path), Asked(answer())
    for age, question in enumerate("abc"):
        before = set(tmp_path.iterdir())
        known.of(Answer, (question,), asked)
        (new,) = set(tmp_path.iterdir()) - before
        os.utime(new, (age, age))
    assert len(list(tmp_path.iterdir())) == 2
    known.of(Answer, ("c",), asked)
    assert asked.times == 3
    known.of(Answer, ("a",), asked)
    assert asked.times == 4


def melody(rng, num_notes=24):
    lengths = rng.choice([12, 24], num_notes)
    ends = np.cumsum(lengths)
    return Piece.from_rows(zip(ends - lengths, ends, rng.integers(60, 73, num_notes)))


def side(name, seed, count=12):
    rng = np.random.default_rng(seed)
    return Side(name=name, pieces=tuple(melody(rng) for _ in range(count)))


class TestEvaluation:
    @pytest.fixture
    def calls(self, monkeypatch):
        """What was compared, and not remembered."""
        seen = []

        def counted(name, function):
            def call(*arguments, **options):
                seen.append(name)
                return function(*arguments, **options)

            monkeypatch.setattr(evaluation, name, call)

        for name in ("compare_sets", "two_sample", "controls_of", "longest_runs", "_compare_all"):
            counted(name, getattr(evaluation, name))
        return seen

    def ask(self, cache, *, real=0, fake=1, seed=0):
        return evaluate(
            side("real", real),
            [side("fake", fake)],
            training=side("training", 5),
            views=("features",),
            controls=True,
            seed=seed,
            resamples=20,
            permutations=49,
            cache=cache,
            workers=1,
        )

    def test_the_same_question_is_answered_alike_and_at_once(self, tmp_path, calls):
        first = self.ask(tmp_path)
        assert set(calls) == {
            "compare_sets",
            "two_sample",
            "controls_of",
            "longest_runs",
            "_compare_all",
        }
        del calls[:]
        again = self.ask(tmp_path)
        assert calls == []
        for name in ("rows", "set_rows", "two_sample", "controls"):
            assert repr(getattr(again, name)) == repr(getattr(first, name)), name
        assert [(c.runs, c.nearest) for c in again.copying] == [
            (c.runs, c.nearest) for c in first.copying
        ]
        assert again.flat() == first.flat()
        fresh = self.ask(None).flat()
        assert fresh == first.flat()

    def test_other_music_is_compared_and_the_real_sides_controls_are_known(self, tmp_path, calls):
        self.ask(tmp_path)
        del calls[:]
        other = self.ask(tmp_path, fake=2)
        assert sorted(calls) == ["_compare_all", "compare_sets", "longest_runs", "two_sample"]
        assert other.flat() == self.ask(None, fake=2).flat()

    def test_another_real_side_has_other_controls(self, tmp_path):
        first, other = (self.ask(tmp_path, real=real) for real in (0, 9))
        assert repr(first.controls) != repr(other.controls)
        assert repr(other.controls) == repr(self.ask(None, real=9).controls)

    def test_another_seed_compares_all_anew(self, tmp_path, calls):
        self.ask(tmp_path)
        del calls[:]
        self.ask(tmp_path, seed=1)
        assert {"compare_sets", "two_sample", "controls_of"} <= set(calls)


def test_a_side_without_its_music_is_another_one(tmp_path):
    whole = measured_side(side("real", 0), ["pitch_range"])
    assert digest_of(whole) == digest_of(replace(whole, name="by another name"))
    assert digest_of(whole) != digest_of(replace(whole, pieces=()))
    assert digest_of(whole) != digest_of(replace(whole, kept=tuple(range(11))))
    assert digest_of(whole) != digest_of(measured_side(side("real", 0), ["note_count"]))
    assert digest_of(None) == ""


def test_the_real_records_survive(tmp_path):
    """A row that is not defined everywhere, with its notes and NaNs."""
    pieces = side("x", 3, count=2).pieces
    sample = Sample(pieces, dict(measured(pieces, list(FEATURES))))
    rows = compare_sets("fake", sample, sample, resamples=5, permutations=5)
    assert any(math.isnan(row.value) for row in rows)
    known = Results(tmp_path)
    known.of(SetRow, ("?",), lambda: rows)
    assert repr(known.of(SetRow, ("?",), list)) == repr(rows)
