import io
import warnings
from dataclasses import replace

import numpy as np
import pytest
from matplotlib import image, rc_context
from matplotlib.figure import Figure

from eval import pictures
from eval.evaluation import Column, evaluate
from eval.features import select
from eval.features.structure import structure
from eval.gallery import choose
from eval.pieces import Side
from rnngan.music.piece import Piece

RANGE = Column("pitch_range", "pitch", "semitones", "scalar")
SHARE = Column("empty_bar_rate", "texture", "share", "scalar")
COLOURS = [pictures.REAL, *pictures.FAKES[:2]]


def axes():
    return Figure().subplots()


def area(line):
    return np.trapezoid(line.get_ydata(), line.get_xdata())


class TestDistributions:
    def test_densities_have_area_1_but_for_the_outermost_percents(self):
        rng = np.random.default_rng(0)
        plot = axes()
        sides = [rng.normal(60, 4, 500), rng.normal(70, 2, 300)]
        pictures._densities(plot, RANGE, sides, COLOURS)
        inside = [492 / 500, 292 / 300]  # the 8 lowest are of one side, the 8 highest of the other
        assert [area(line) for line in plot.lines] == pytest.approx(inside, abs=1e-3)
        peaks = [line.get_xdata()[line.get_ydata().argmax()] for line in plot.lines]
        assert peaks == pytest.approx([60, 70], abs=2)

    def test_densities_end_where_the_feature_does(self):
        rng = np.random.default_rng(0)
        plot = axes()
        pictures._densities(plot, SHARE, [rng.random(200), rng.random(200) / 2], COLOURS)
        for line in plot.lines:
            assert line.get_xdata().min() >= 0
            assert line.get_xdata().max() <= 1

    def test_the_needle_of_a_side_that_never_differs_does_not_flatten_the_other(self):
        rng = np.random.default_rng(0)
        plot = axes()
        pictures._densities(plot, RANGE, [rng.normal(60, 4, 100), np.full(50, 70.0)], COLOURS)
        needle = plot.lines[1].get_ydata().max()
        assert plot.get_ylim()[1] < needle
        assert plot.get_ylim()[1] > plot.lines[0].get_ydata().max()

    def test_stems_are_shares_of_the_pieces(self):
        plot = axes()
        sides = [np.array([5, 5, 7, 7, 7.0]), np.array([5, 6.0])]
        pictures._stems(plot, np.array([5.0, 6, 7]), sides, COLOURS)
        heights = [[path[1, 1] for path in lines.get_segments()] for lines in plot.collections]
        assert heights == [pytest.approx([0.4, 0.6]), pytest.approx([0.5, 0.5])]

    @pytest.mark.parametrize(
        ("fake", "drawn"),
        [
            (np.full(30, 4.0), "_stems"),  # constant
            (np.arange(30.0) % 12, "_stems"),  # few values
            (np.linspace(0, 1, 40), "_densities"),
            (np.append(np.arange(15.0), [0] * 14 + [1000]), "_densities"),  # too close to draw
        ],
    )
    def test_few_values_have_stems_and_many_a_density(self, monkeypatch, fake, drawn):
        called = []
        for name in ("_stems", "_densities"):
            monkeypatch.setattr(pictures, name, lambda *_, name=name: called.append(name))
        evaluation = compared()
        tables = {"real": {RANGE.name: fake}, "fake": {RANGE.name: fake}}
        pictures._distributions(replace(evaluation, tables=tables), [RANGE])
        assert called == [drawn]


def tune(number, name):
    pitches = 60 + np.random.default_rng(number).integers(0, 12, 32)
    rows = [(12 * i, 12 * i + 12, p) for i, p in enumerate(pitches)]
    return Piece.from_rows(rows, tags={"source": name}, track_names=(name,))


def compared(name="tune", fakes=1):
    def side(title, start):
        return Side(name=title, pieces=tuple(tune(start + i, f"{name} {i}") for i in range(8)))

    others = [side("fake" if i == 0 else f"fake {i}", 100 * i + 100) for i in range(fakes)]
    metrics = select("pitch_range,pitch_entropy,pitch_class_transitions[50ms]")
    return evaluate(
        side("real", 0), others, metrics=metrics, resamples=10, permutations=19, workers=1
    )


def test_each_picture_is_a_png_file():
    evaluation = compared(fakes=2)
    drawn = pictures.pictures(evaluation, choose(evaluation))
    assert set(drawn) == set(pictures.PICTURES) - {"histograms"}
    for data in drawn.values():
        assert image.imread(io.BytesIO(data)).ndim == 3


def test_a_row_of_self_similarity_for_each_side_beside_a_typical_real_piece():
    gallery = choose(compared(fakes=2))
    rows = pictures._similarity_panels(gallery)
    kinds = [[panel.title.split(":")[0] for panel in row] for row in rows]
    assert kinds == [
        ["real, typical", *(f"{side}, {kind}" for kind in ("typical", "best", "worst"))]
        for side in ("fake", "fake 1")
    ]


def test_self_similarity_of_music_that_comes_back_has_its_fitness_and_bars():
    pitches = [60, 61, 65, 70, 62, 66, 69, 63] * 4  # two bars of quarters, four times
    piece = Piece.from_rows((24 * i, 24 * i + 24, p) for i, p in enumerate(pitches))
    figure = pictures._self_similarity([[pictures._Panel(piece, "tune", "#000000")]])
    (plot,) = figure.axes
    fitness = structure(piece, shortest=3, longest=np.inf)
    assert fitness > 0.5
    assert plot.get_title() == f"tune\nfitness {fitness:.3g}"
    assert [label.get_text() for label in plot.get_xticklabels()] == list("12345678")
    assert plot.get_xticks().tolist() == list(range(0, 8 * 96, 96))
    shown = np.asarray(plot.collections[0].get_array()).reshape(32, 32)
    assert shown.diagonal(8) == pytest.approx(1)  # two bars later it is the same
    assert shown[0, 1] < 0


def test_names_that_no_font_has_and_that_look_like_mathematics_are_drawn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluation = compared(name="曲 $\\frac{$ %s")
        pictures.pictures(evaluation, choose(evaluation))
        pictures.piano_roll(evaluation.real.pieces[0], seconds=1)


def test_piano_rolls_of_no_notes_and_of_many_are_of_one_size():
    long = Piece.from_rows([(0, 96 * 300, 60), (0, 12, 36, 90, 128)])
    drawn = [pictures.piano_roll(p, seconds=15) for p in (Piece.from_rows([]), long)]
    sizes = {image.imread(io.BytesIO(data)).shape for data in drawn}
    assert len(sizes) == 1


def test_a_dotted_line_stands_where_the_sound_ends(monkeypatch):
    drawn = []
    monkeypatch.setattr(pictures, "_png", lambda figure: drawn.append(figure) or b"")
    piece = Piece.from_rows([(0, 384, 60)])  # 8 s
    for seconds in (2.0, 8.0):
        pictures.piano_roll(piece, seconds=seconds)
    (line,) = [line for line in drawn[0].axes[0].lines if line.get_linestyle() == ":"]
    assert line.get_xdata()[0] == pytest.approx(96)  # one bar takes 2 s
    assert not [line for line in drawn[1].axes[0].lines if line.get_linestyle() == ":"]


def test_drawing_leaves_the_settings_of_matplotlib_alone():
    with rc_context():
        from matplotlib import rcParams

        before = dict(rcParams)
        pictures.piano_roll(tune(0, "tune"), seconds=1)
        assert dict(rcParams) == before


@pytest.mark.parametrize("values", [[1.0, 2.0], [1.0, 1.0], [3.0]])
def test_the_middle_of_a_handful_of_values_is_all_of_them(values):
    assert pictures._middle(np.array(values)) == (min(values), max(values))
