import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnngan.generator.clock import Clock
from rnngan.music.piece import Metre, Piece
from rnngan.music.tokenizers.events import Events, EventsConfig

EVENTS = Events(EventsConfig(metres=("4/4", "3/4", "6/8"), lowest=50, highest=70, voices=2))
CLOCK = Clock(EVENTS)


def clocked(tokens):
    ticks, _ = CLOCK(torch.tensor(tokens.astype(np.int64))[None], CLOCK.start(1))
    return ticks[0].tolist()


def test_bars_positions_and_changes_of_metre_by_hand():
    piece = Piece.from_rows(
        [(24, 48, 60), (96, 120, 61), (216, 228, 62)],
        metres=(Metre(0, 4, 4), Metre(96, 3, 4)),
    )
    tokens = EVENTS.encode(piece)
    names = [EVENTS.vocabulary.names[token] for token in tokens]
    told = list(zip(names, clocked(tokens)))
    assert told == [
        ("Start", 0), ("Metre_4/4", 0), ("Bar", 0),
        ("Position_24", 24), ("Voice_0", 24), ("Pitch_60", 24), ("Duration_24", 24),
        ("Bar", 96), ("Metre_3/4", 96),
        ("Position_0", 96), ("Voice_0", 96), ("Pitch_61", 96), ("Duration_24", 96),
        ("Bar", 168),
        ("Position_48", 216), ("Voice_0", 216), ("Pitch_62", 216), ("Duration_12", 216),
        ("End", 216),
    ]  # fmt: skip


onsets = st.lists(st.tuples(st.integers(0, 40), st.integers(50, 70)), min_size=1, max_size=20)


@given(onsets, st.sampled_from([(4, 4), (3, 4), (6, 8)]), st.data())
@settings(max_examples=40)
def test_pitches_stand_at_their_onsets_and_in_pieces_as_in_one(rows, metre, data):
    piece = Piece.from_rows(
        [(12 * s, 12 * s + 6, p) for s, p in rows], metres=(Metre(0, *metre),)
    )  # fmt: skip
    tokens = EVENTS.encode(piece)
    ticks = np.array(clocked(tokens))
    at_pitch = np.isin(tokens, EVENTS.vocabulary.ids("Pitch"))
    assert ticks[at_pitch].tolist() == EVENTS.decode(tokens).notes["start"].tolist()
    cut = data.draw(st.integers(1, len(tokens) - 1))
    row = torch.tensor(tokens.astype(np.int64))[None]
    first, state = CLOCK(row[:, :cut], CLOCK.start(1))
    second, _ = CLOCK(row[:, cut:], state)
    assert torch.cat([first, second], 1)[0].tolist() == ticks.tolist()


def test_waves_are_nearest_where_the_ticks_are():
    waves = CLOCK.waves(torch.arange(0, 4000, 6))
    likeness = waves @ waves.T
    assert (likeness.argmax(1) == torch.arange(len(waves))).all()
    torch.testing.assert_close(likeness.diag(), torch.full((len(waves),), 16.0))
    assert likeness[0, 1] > likeness[0, 8] > likeness[0, 64]


def test_a_clock_has_no_weights():
    assert not CLOCK.state_dict()
    assert pytest.approx(8.0) == 2 * torch.pi / float(CLOCK.frequencies[0])
