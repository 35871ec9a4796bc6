import io
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.image import imread

from rnngan.errors import UserError
from rnngan.music.picture import (
    DRUM_COLOUR,
    MAX_ROLLS,
    attention_between_onsets,
    attention_png,
    draw_piano_roll,
    note_name,
    onsets_of_tokens,
    piano_roll_image,
    piano_roll_png,
)
from rnngan.music.piece import DRUMS, Metre, Piece
from rnngan.music.tokenizers.events import Events, EventsConfig
from rnngan.music.tokenizers.melody import Melody, MelodyConfig

SCALE = Piece.from_rows([(24 * i, 24 * i + 24, 60 + i, 100) for i in range(12)])
BAND = Piece.from_rows(
    [
        (0, 96, 48, 60, 32, 1),
        (0, 24, 72, 120, 0, 0),
        (24, 48, 72, 20, 0, 0),
        (0, 6, 36, 100, DRUMS, 2),
        (48, 54, 42, 100, DRUMS, 2),
    ],
    metres=(Metre(0, 3, 4), Metre(72, 6, 8)),
    track_names=("Lead", "", ""),
)


def drawn(piece, **kwargs):
    """The axes, and each drawn note as (left, right, middle row, colour)."""
    axes = Figure().subplots()
    draw_piano_roll(axes, piece, **kwargs)
    notes = [
        (*path.vertices[:, 0][[0, 2]], path.vertices[:4, 1].mean(), tuple(colour[:3]))
        for collection in axes.collections
        if type(collection) is PolyCollection
        for path, colour in zip(collection.get_paths(), collection.get_facecolors())
    ]
    return axes, notes


@pytest.mark.parametrize(
    ("pitch", "name"), [(60, "C4"), (69, "A4"), (61, "C♯4"), (0, "C-1"), (59, "B3"), (127, "G9")]
)
def test_note_names(pitch, name):
    assert note_name(pitch) == name


def test_every_note_is_a_bar_at_its_pitch_and_time():
    _, notes = drawn(SCALE)
    assert [(left, row) for left, _, row, _ in sorted(notes)] == [
        (24 * i, 60 + i) for i in range(12)
    ]
    # Until just before its end, so that a repeated note can be seen.
    assert all(left + 20 < right < left + 24 for left, right, *_ in notes)


def test_drums_lie_below_the_pitches_in_a_lane_each():
    axes, notes = drawn(BAND)
    rows = {(left, row) for left, _, row, _ in notes}
    (kick,) = (row for left, row in rows if left == 0 and row not in (48, 72))
    (hat,) = (row for left, row in rows if left == 48)
    assert kick + 1 == hat < 47
    bottom, top = axes.get_ylim()
    assert bottom < kick and top > 72
    labels = {text.get_text(): y for text, y in zip(axes.get_yticklabels(), axes.get_yticks())}
    assert labels["C4"] == 60 and kick <= labels["drums"] <= hat


def test_voices_have_colours_and_loud_notes_are_denser():
    _, notes = drawn(BAND)
    colour = {(left, row): colour for left, _, row, colour in notes}
    loud, soft, bass = colour[0, 72], colour[24, 72], colour[0, 48]
    assert all(a < b for a, b in zip(loud, soft))  # nearer to white
    assert np.argmin(loud) != np.argmin(bass)


def test_the_legend_names_the_voices():
    axes, _ = drawn(BAND)
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["Lead", "Acoustic Bass", "Drums"]
    patches = axes.get_legend().get_patches()
    assert patches[2].get_facecolor()[:3] == pytest.approx(
        [int(DRUM_COLOUR[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    )
    assert drawn(SCALE)[0].get_legend() is None


def test_namesakes_are_numbered_and_a_crowd_is_counted():
    twins = Piece.from_rows([(0, 9, 60, 64, 0, 0), (0, 9, 64, 64, 0, 1)])
    names = [text.get_text() for text in drawn(twins)[0].get_legend().get_texts()]
    assert names == ["Acoustic Grand Piano 1", "Acoustic Grand Piano 2"]
    crowd = Piece.from_rows([(0, 9, 60, 64, i, i) for i in range(30)])
    *named, rest = [text.get_text() for text in drawn(crowd)[0].get_legend().get_texts()]
    assert 1 <= len(named) < 30 and rest == f"+ {30 - len(named)}"


def test_bars_are_numbered_and_lined():
    piece = Piece.from_rows([(0, 300, 60)], metres=(Metre(0, 4, 4), Metre(120, 3, 4)))
    axes, _ = drawn(piece)
    assert axes.get_xticks().tolist() == [0, 96, 120, 192, 264]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "2", "3", "4", "5"]
    assert axes.get_xlim() == (0, 336)
    (lines, beats) = (
        {float(path.vertices[0, 0]) for path in collection.get_paths()}
        for collection in axes.collections
        if type(collection).__name__ == "LineCollection"
    )
    assert lines == {0, 96, 120, 192, 264, 336}
    assert beats == {24, 48, 72, 144, 168, 216, 240, 288, 312}
    assert [text.get_text() for text in axes.texts] == ["4\n4", "3\n4"]


def test_a_long_piece_numbers_some_bars_only():
    axes, _ = drawn(Piece.from_rows([(0, 96 * 200, 60)]))
    ticks = axes.get_xticks()
    assert 10 <= len(ticks) <= 40
    assert set(np.diff(ticks).tolist()) == {96 * 8}


def test_a_common_end_leaves_room_on_the_right():
    axes, _ = drawn(SCALE, end=5000)
    assert axes.get_xlim() == (0, 5000)
    assert max(axes.get_xticks()) < 288


def test_a_rising_scale_rises_in_the_picture():
    pixels = piano_roll_image(SCALE, width=640, height=320)
    assert pixels.shape == (320, 640, 3) and pixels.dtype == np.uint8
    blue = (pixels[..., 2].astype(int) - pixels[..., 0]) > 60
    rows, columns = np.nonzero(blue)
    assert np.corrcoef(columns, rows)[0, 1] < -0.99  # row 0 is the top
    assert (pixels[0] == 255).all()


@pytest.mark.parametrize(
    "title", ["", "a $\\frac{1}{$ title", "小さな世界 🎵", "_hidden", "long " * 60, "two\nlines"]
)
def test_any_title_and_any_names_are_drawn(title):
    piece = Piece.from_rows([(0, 24, 60), (0, 24, 64, 64, 5, 1)], track_names=(title, "$x_"))
    assert (piano_roll_image(piece, title=title) < 255).any()


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5000),
            st.integers(0, 127),
            st.integers(1, 127),
            st.integers(0, DRUMS),
            st.integers(0, 255),
        ),
        max_size=20,
    ),
    st.sampled_from([(4, 4), (1, 32), (64, 1)]),
)
@settings(max_examples=15, deadline=None)
def test_any_piece_is_drawn(drawn_notes, metre):
    rows = [(s, s + 7, pitch, v, program, track) for s, pitch, v, program, track in drawn_notes]
    piece = Piece.from_rows(rows, metres=(Metre(0, *metre),))
    assert piano_roll_image(piece, width=400, height=200).shape == (200, 400, 3)


def test_a_png_of_several_pieces(tmp_path):
    path = tmp_path / "rolls.png"
    piano_roll_png([SCALE, BAND, Piece.from_rows([])], ["scale", "band", "nothing"], path)
    three = imread(io.BytesIO(path.read_bytes()))
    first = path.read_bytes()
    piano_roll_png([SCALE], ["scale"], path)
    one = imread(io.BytesIO(path.read_bytes()))
    assert three.shape[1] == one.shape[1] and three.shape[0] > 2 * one.shape[0]
    piano_roll_png([SCALE, BAND, Piece.from_rows([])], ["scale", "band", "nothing"], path)
    assert path.read_bytes() == first


@pytest.mark.slow
def test_the_largest_picture_can_be_drawn(tmp_path):
    everything = [(0, 6, pitch, 64, program) for pitch in range(128) for program in (0, DRUMS)]
    path = tmp_path / "large.png"
    piano_roll_png([Piece.from_rows(everything)] * MAX_ROLLS, [""] * MAX_ROLLS, path)
    width, height = np.frombuffer(path.read_bytes()[16:24], ">u4").tolist()
    assert width < 5000 and height < 2**16


@pytest.mark.parametrize(
    ("count", "titles", "message"),
    [
        (0, [], "1 to 24 pieces, got 0"),
        (MAX_ROLLS + 1, ["a"] * (MAX_ROLLS + 1), "1 to 24 pieces, got 25"),
        (2, ["a"], "titles must be one per piece, got 1 for 2"),
    ],
)
def test_how_many_pieces_and_titles(tmp_path, count, titles, message):
    with pytest.raises(UserError, match=message):
        piano_roll_png([SCALE] * count, titles, tmp_path / "a.png")


@pytest.mark.parametrize("size", [{"width": 399}, {"height": 199}, {"width": 10_001}])
def test_sizes_out_of_range(size):
    with pytest.raises(UserError, match=rf"{next(iter(size))} must be"):
        piano_roll_image(SCALE, **size)


def test_matplotlib_is_loaded_late_and_without_its_global_state():
    code = """
import sys
from rnngan.music.picture import piano_roll_image
from rnngan.music.piece import Piece
assert "matplotlib" not in sys.modules
piano_roll_image(Piece.from_rows([(0, 24, 60)]))
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# Attention

EVENTS = Events(EventsConfig(metres=("4/4",), lowest=60, highest=72, velocities=(40, 80)))
MELODY = Melody(MelodyConfig(metres=("4/4",), lowest=60, highest=72))


def test_tokens_belong_to_the_note_that_they_make():
    piece = Piece.from_rows([(0, 24, 60, 80), (0, 24, 64, 80), (96, 120, 62, 80)])
    tokens = EVENTS.encode(piece)
    names = [EVENTS.vocabulary.names[token].split("_")[0] for token in tokens]
    assert names == [
        *("Start", "Metre", "Bar", "Position", "Pitch", "Duration", "Velocity"),
        *("Pitch", "Duration", "Velocity"),
        *("Bar", "Position", "Pitch", "Duration", "Velocity", "End"),
    ]
    assert onsets_of_tokens(EVENTS, tokens).tolist() == [0] * 10 + [96] * 6


def test_holds_belong_to_the_note_that_they_hold_and_rests_to_the_next():
    tokens = MELODY.encode(Piece.from_rows([(0, 12, 60), (24, 36, 62)]))
    names = [MELODY.vocabulary.names[token] for token in tokens[:8]]
    assert names[2:] == ["Bar", "Pitch_60", "Hold", "Rest", "Rest", "Pitch_62"]
    assert onsets_of_tokens(MELODY, tokens)[:9].tolist() == [0] * 5 + [24] * 4


def test_a_piece_without_notes_has_no_onsets():
    tokens = EVENTS.encode(Piece.from_rows([]))
    assert onsets_of_tokens(EVENTS, tokens).tolist() == [0] * len(tokens)


def test_attention_by_onset_by_hand():
    """Tokens a a b b: the first row is of a, the next two of b, whose mean is taken."""
    weights = np.array([[1, 0, 0, 0], [0.25, 0.75, 0, 0], [0.25, 0.25, 0.5, 0], [9, 9, 9, 9]])
    ticks, shares = attention_between_onsets(np.array([0, 0, 24, 24]), weights)
    assert ticks.tolist() == [0, 24]
    np.testing.assert_allclose(shares, [[1, 0], [(1 + 0.5) / 2, 0.5 / 2]])


@settings(max_examples=25)
@given(onsets=st.lists(st.integers(0, 5), min_size=2, max_size=20), seed=st.integers(0, 99))
def test_rows_of_attention_still_add_up_to_1(onsets, seed):
    weights = np.tril(np.random.default_rng(seed).random((len(onsets), len(onsets))) + 0.01)
    weights /= weights.sum(1, keepdims=True)
    onsets = np.sort(onsets)
    ticks, shares = attention_between_onsets(onsets, weights)
    written = np.isin(ticks, onsets[1:])
    np.testing.assert_allclose(shares.sum(1), written)
    assert (np.triu(shares, 1) == 0).all()


def test_attention_picture_is_written_with_what_is_heavy_dark(tmp_path):
    piece = Piece.from_rows([(24 * i, 24 * i + 24, 60 + i, 80) for i in range(8)])
    tokens = EVENTS.encode(piece)
    weights = np.tril(np.full((len(tokens), len(tokens)), 0.01))
    weights[:, 0] += 1 - weights.sum(1)
    attention_png(EVENTS, tokens, weights, tmp_path / "a.png", title="$x_")
    pixels = imread(tmp_path / "a.png")[..., :3].mean(-1)
    height, width = pixels.shape
    assert height == width == 1440
    matrix = pixels[int(0.2 * height) : int(0.95 * height), int(0.2 * width) : int(0.9 * width)]
    rows, columns = matrix.shape
    upper = matrix[: rows // 3, columns * 2 // 3 :]
    lower_left = matrix[rows // 2 :, : columns // 12]
    assert (upper > 0.75).all() and lower_left.min() < 0.3


def test_a_piece_without_notes_has_no_picture_of_attention(tmp_path):
    tokens = EVENTS.encode(Piece.from_rows([]))
    with pytest.raises(UserError, match="without notes"):
        attention_png(EVENTS, tokens, np.eye(len(tokens)), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
