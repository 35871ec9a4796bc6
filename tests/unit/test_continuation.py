"""Primers: from a file to tokens, and what is written behind them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnngan.config import DataConfig
from rnngan.continuation import read_primer
from rnngan.errors import UserError
from rnngan.given import nearest_metre
from rnngan.music.midi import write_midi
from rnngan.music.piece import DRUMS, Metre, Piece, Tempo, bar_lines
from rnngan.music.tokenizers.events import Events, EventsConfig
from rnngan.music.tokenizers.frames import Frames, FramesConfig
from rnngan.music.tokenizers.melody import Melody, MelodyConfig
from rnngan.music.vocabulary import END

TUNES = Events(EventsConfig(metres=("4/4", "6/8", "3/4"), lowest=48, highest=84))
BAND = Events(
    EventsConfig(
        metres=("4/4", "3/4"),
        lowest=30,
        highest=90,
        programs=(0, 32, 40, DRUMS),
        velocities=(40, 80, 120),
        tempos=(60.0, 90.0, 120.0),
        voices=3,
        tags=("mode=", "mode=major", "mode=minor", "style=", "style=jig"),
    )
)
LINE = Melody(MelodyConfig(metres=("4/4", "6/8"), lowest=48, highest=84, program=73))
ROLL = Frames(FramesConfig(metres=("4/4", "6/8"), lowest=48, highest=84))
TOKENIZERS = {"tunes": TUNES, "band": BAND, "melody": LINE, "frames": ROLL}


@pytest.fixture
def primer_of(tmp_path):
    def primer(piece, tokenizer, **options):
        write_midi(piece, tmp_path / "primer.mid")
        return read_primer(tmp_path / "primer.mid", tokenizer, **options)

    return primer


def names(tokens, tokenizer):
    return [tokenizer.vocabulary.names[token] for token in tokens]


def ids(tokenizer, *words):
    return [tokenizer.vocabulary.index[word] for word in words]


SCALE = [(24 * i, 24 * i + 24, 60 + i, 80) for i in range(8)]  # two bars of quarters


@pytest.mark.parametrize(
    ("num_notes", "end"),
    [
        (4, ["Duration_24", "Bar"]),  # a full bar: the next one is open
        (5, ["Duration_24", "Position_24"]),
        (7, ["Duration_24", "Position_72"]),
        (8, ["Duration_24", "Bar"]),
    ],
)
def test_events_go_on_where_the_last_note_ends(primer_of, num_notes, end):
    primer = primer_of(Piece.from_rows(SCALE[:num_notes]), TUNES)
    assert names(primer.tokens, TUNES)[-2:] == end
    assert primer.num_bars == (1 if num_notes == 4 else 2)
    assert END not in primer.tokens and TUNES.grammar.first_error(np.array(primer.tokens)) is None


@pytest.mark.parametrize(
    ("num_notes", "end"),
    [
        (1, ["Bar", "Pitch_60", "Hold", "Hold", "Hold"]),
        (4, ["Pitch_63", "Hold", "Hold", "Hold", "Bar"]),
        (5, ["Bar", "Pitch_64", "Hold", "Hold", "Hold"]),
    ],
)
def test_a_melody_leaves_out_the_rests_that_fill_its_bar(primer_of, num_notes, end):
    primer = primer_of(Piece.from_rows(SCALE[:num_notes]), LINE)
    assert names(primer.tokens, LINE)[-5:] == end


def test_frames_leave_out_the_silent_ones_that_fill_the_bar(primer_of):
    primer = primer_of(Piece.from_rows([(0, 12, 60), (0, 12, 64)]), ROLL)
    assert names(primer.tokens, ROLL)[-6:] == [
        "Pitch_60", "Pitch_64", "Frame", "Held_60", "Held_64", "Frame",
    ]  # fmt: skip


def test_a_note_held_over_bar_lines_is_waited_for(primer_of):
    primer = primer_of(Piece.from_rows([(0, 24, 60), (24, 24 + 192, 62)]), TUNES)
    assert names(primer.tokens, TUNES)[-3:] == ["Bar", "Bar", "Position_24"]
    assert primer.num_bars == 3


def test_what_is_written_begins_with_the_primer_as_it_was(primer_of):
    """Velocities, program and tempo that have no token stay; the continuation takes them over."""
    piece = Piece.from_rows(
        [(0, 24, 60, 33, 40), (24, 41, 62, 99, 40), (48, 96, 64, 70, 40)],
        tempos=(Tempo(0, 97.0), Tempo(48, 103.0)),
        metres=(Metre(0, 4, 4),),
        track_names=("Fiddle",),
    )
    primer = primer_of(piece, TUNES)
    more = ids(TUNES, "Position_0", "Pitch_72", "Duration_96", "Bar", "Metre_3/4", "Position_24")
    tokens = np.array([*primer.tokens, *more, *ids(TUNES, "Pitch_71", "Duration_12", "End")])
    whole = primer.continued(tokens, with_primer=True)
    assert whole.notes[:3].tolist() == piece.notes.tolist()
    assert whole.notes[3:].tolist() == [(96, 192, 72, 80, 40, 0), (216, 228, 71, 80, 40, 0)]
    assert whole.metres == (Metre(0, 4, 4), Metre(192, 3, 4))
    assert [tempo.tick for tempo in whole.tempos] == [0, 48]
    assert [t.quarters_per_minute for t in whole.tempos] == pytest.approx([97, 103], abs=0.01)
    assert whole.track_names == ("Fiddle",)
    alone = primer.continued(tokens, with_primer=False)
    assert alone.notes.tolist() == [(0, 96, 72, 80, 40, 0), (120, 132, 71, 80, 40, 0)]
    assert alone.metres == (Metre(0, 4, 4), Metre(96, 3, 4))
    assert len(alone.tempos) == 1
    assert alone.tempos[0].quarters_per_minute == pytest.approx(103, abs=0.01)


def test_alone_it_begins_with_the_bar_that_the_primer_left(primer_of):
    primer = primer_of(Piece.from_rows(SCALE[:6]), TUNES)
    tokens = np.array([*primer.tokens, *ids(TUNES, "Pitch_72", "Duration_24", "End")])
    assert primer.continued(tokens, with_primer=True).notes["start"][-1] == 144
    assert primer.continued(tokens, with_primer=False).notes["start"].tolist() == [48]


def test_an_upbeat_in_a_metre_of_its_own_is_told_as_the_end_of_a_bar(primer_of):
    """1/4 has no token; the bars of the file stay what they are."""
    piece = Piece.from_rows(
        [(0, 24, 60), (24, 48, 62), (48, 72, 64), (72, 96, 65), (96, 120, 67)],
        metres=(Metre(0, 1, 4), Metre(24, 4, 4)),
    )
    primer = primer_of(piece, TUNES)
    head = ["Start", "Metre_4/4", "Bar", "Position_72", "Pitch_60", "Duration_24", "Bar"]
    assert names(primer.tokens, TUNES)[:7] == head
    tokens = np.array([*primer.tokens, *ids(TUNES, "Position_0", "Pitch_72", "Duration_24", "End")])
    whole = primer.continued(tokens, with_primer=True)
    assert whole.notes["start"].tolist() == [0, 24, 48, 72, 96, 120]
    assert whole.metres == (Metre(0, 1, 4), Metre(24, 4, 4))


@pytest.mark.parametrize(
    ("metre", "known", "nearest"),
    [
        ("3/4", ["4/4", "2/4", "3/4"], "3/4"),
        ("3/4", ["2/4", "4/4", "9/8", "6/8"], "6/8"),  # its bars are as long
        ("4/4", ["3/4", "2/2"], "2/2"),
        ("5/4", ["2/4", "9/8", "2/2", "4/4"], "4/4"),  # beats of quarters, and not of three eighths
        ("15/8", ["2/2", "6/8", "12/8"], "12/8"),
        ("7/8", ["2/4", "4/4", "6/8"], "4/4"),
        ("2/1", ["3/4"], "3/4"),
    ],
)
def test_the_nearest_metre(metre, known, nearest):
    numerator, denominator = map(int, metre.split("/"))
    found = nearest_metre(Metre(7, numerator, denominator), known)
    assert (found.tick, found.name) == (7, nearest)


def test_a_metre_without_a_token_becomes_one_that_has(primer_of):
    """Twelve quarters of 5/4 are three bars of 4/4, and the music behind them is barred as well."""
    piece = Piece.from_rows(
        [(24 * i, 24 * i + 24, 60 + i, 80) for i in range(12)], metres=(Metre(0, 5, 4),)
    )
    primer = primer_of(piece, TUNES)
    assert primer.remark.startswith("the model knows no 5/4: ")
    assert primer.remark.endswith("primer.mid is barred in 4/4")
    assert names(primer.tokens, TUNES).count("Bar") == 4 and primer.num_bars == 3
    tokens = np.array([*primer.tokens, *ids(TUNES, "Position_0", "Pitch_72", "Duration_24", "End")])
    whole = primer.continued(tokens, with_primer=True)
    assert whole.notes[:-1].tolist() == piece.notes.tolist()
    assert whole.notes["start"][-1] == 288 and whole.metres == (Metre(0, 4, 4),)


def test_an_upbeat_and_a_metre_change_without_tokens_keep_their_bars(primer_of):
    """3/4 is told as 6/8, whose bars are as long, by a tokenizer that knows no 3/4."""
    tokenizer = Events(EventsConfig(metres=("2/2", "6/8"), lowest=48, highest=84))
    piece = Piece.from_rows(
        [(0, 24, 60), (24, 120, 62), (120, 192, 64)],
        metres=(Metre(0, 1, 4), Metre(24, 4, 4), Metre(120, 3, 4)),
    )
    primer = primer_of(piece, tokenizer)
    assert "no 4/4, 3/4: " in primer.remark and primer.remark.endswith("barred in 1/4, 2/2, 6/8")
    more = ids(tokenizer, "Position_0", "Pitch_72", "Duration_24", "End")
    whole = primer.continued(np.array([*primer.tokens, *more]), with_primer=True)
    assert whole.notes["start"].tolist() == [0, 24, 120, 192]
    assert whole.metres == (Metre(0, 1, 4), Metre(24, 2, 2), Metre(120, 6, 8))


@pytest.mark.parametrize(
    ("pitch", "fall", "semitones"),
    [
        (28, 2, 24),
        (49, 2, 12),
        (60, 2, 0),
        (85, 2, -12),
        (125, 2, -48),
        (81, 34, 1),  # 47 to 81 among 48 to 84: no octave will do
        (85, 34, -1),
    ],
)
def test_a_primer_too_low_or_high_goes_on_where_it_is(primer_of, pitch, fall, semitones):
    primer = primer_of(Piece.from_rows([(0, 24, pitch, 80), (24, 48, pitch - fall, 80)]), TUNES)
    assert primer.semitones == semitones and primer.remark == ""
    assert f"Pitch_{pitch + semitones}" in names(primer.tokens, TUNES)
    more = ids(TUNES, f"Pitch_{pitch + semitones - 1}", "Duration_24", "End")
    whole = primer.continued(np.array([*primer.tokens, *more]), with_primer=True)
    assert whole.notes["pitch"].tolist() == [pitch, pitch - fall, pitch - 1]


@pytest.mark.parametrize(("pitch", "new", "found"), [(2, 48, 0), (3, 54, 6), (125, 83, 119)])
def test_what_would_leave_the_midi_range_stays_in_it_by_an_octave(primer_of, pitch, new, found):
    """Told 4 octaves higher or lower, 48 becomes 0; 83 would be 131, and becomes 119."""
    primer = primer_of(Piece.from_rows([(0, 24, pitch, 80)]), TUNES)
    more = ids(TUNES, f"Pitch_{new}", "Duration_24", "End")
    whole = primer.continued(np.array([*primer.tokens, *more]), with_primer=True)
    assert whole.notes["pitch"].tolist() == [pitch, found]


def test_tags_are_told_in_place_of_the_files_own(primer_of):
    rows = [(24 * i, 24 * i + 24, 60 + p, 80) for i, p in enumerate([0, 4, 7, 12])]
    primer = primer_of(Piece.from_rows(rows), BAND, tags={"style": "jig"})
    assert names(primer.tokens, BAND)[1:3] == ["Tag_mode=major", "Tag_style=jig"]
    primer = primer_of(Piece.from_rows(rows), BAND, tags={"mode": "minor"})
    assert names(primer.tokens, BAND)[1:3] == ["Tag_mode=minor", "Tag_style="]
    assert primer.piece.tags.get("mode") == "major"


@pytest.mark.parametrize(
    ("tokenizer", "tags", "message"),
    [
        (BAND, {"style": "jjig"}, "no piece of the corpus had this style; did you mean 'jig'"),
        (TUNES, {"style": "jig"}, "this model knows no tag 'style'; it knows metre"),
        (BAND, {"metre": "3/4"}, "--tag metre=3/4: a primer has its own metre; leave it out"),
    ],
)
def test_tags_that_cannot_be_told_are_refused(primer_of, tokenizer, tags, message):
    with pytest.raises(UserError, match=message):
        primer_of(Piece.from_rows(SCALE), tokenizer, tags=tags)


def test_a_bar_that_is_cut_short_in_the_middle_shifts_nothing(primer_of):
    """Decoding fills it up; what follows stands where the file's bars say."""
    piece = Piece.from_rows(
        [(0, 48, 60), (48, 72, 62), (72, 144, 64)],
        metres=(Metre(0, 4, 4), Metre(72, 3, 4)),
    )
    primer = primer_of(piece, TUNES)
    tokens = np.array([*primer.tokens, *ids(TUNES, "Position_0", "Pitch_72", "Duration_24", "End")])
    assert primer.continued(tokens, with_primer=True).notes["start"].tolist() == [0, 48, 72, 144]


def test_parts_go_on_in_their_own_tracks_and_programs(primer_of):
    """Two violins, a bass whose program has no token, drums; and a piano that is new."""
    piece = Piece.from_rows(
        [
            (0, 96, 72, 80, 40, 0),
            (0, 96, 36, 80, 35, 1),
            (0, 96, 67, 80, 40, 2),
            (0, 6, 38, 80, DRUMS, 3),
        ]
    )
    primer = primer_of(piece, BAND)
    note = {
        "second violin": ["Program_40", "Voice_1", "Pitch_65"],
        "bass": ["Program_32", "Voice_0", "Pitch_41"],
        "piano": ["Program_0", "Voice_0", "Pitch_60"],
    }
    more = ["Position_0"]
    for part in ("piano", "bass", "second violin"):
        more += [*note[part], "Duration_24", "Velocity_80"]
    more += ["Program_128", "Drum_36", "Velocity_80", "End"]
    tokens = np.array([*primer.tokens, *ids(BAND, *more)])
    BAND.decode(tokens, strict=True)
    new = primer.continued(tokens, with_primer=True).notes[4:]
    found = {(pitch, program, track) for _, _, pitch, _, program, track in new.tolist()}
    assert found == {(65, 40, 2), (41, 35, 1), (60, 0, 4), (36, DRUMS, 3)}


def test_tempo_and_tags_that_have_tokens_are_told(primer_of):
    scale = [0, 2, 4, 5, 7, 9, 11, 12]
    rows = [(24 * i, 24 * i + 24, 60 + p, 80) for i, p in enumerate(scale)]
    primer = primer_of(Piece.from_rows(rows, tempos=(Tempo(0, 88.0),)), BAND)
    assert names(primer.tokens, BAND)[:5] == [
        "Start", "Tag_mode=major", "Tag_style=", "Metre_4/4", "Tempo_90.0",
    ]  # fmt: skip
    more = ids(BAND, "Tempo_60.0", "Position_0", "Program_0", "Voice_0", "Pitch_60")
    tokens = np.array([*primer.tokens, *more, *ids(BAND, "Duration_24", "Velocity_80", "End")])
    whole = primer.continued(tokens, with_primer=True)
    assert [tempo.tick for tempo in whole.tempos] == [0, 192]
    assert [t.quarters_per_minute for t in whole.tempos] == pytest.approx([88, 60], abs=0.01)


@settings(max_examples=30)
@given(
    name=st.sampled_from(sorted(TOKENIZERS)),
    lengths=st.lists(st.sampled_from([3, 6, 12, 18, 24, 36]), min_size=1, max_size=12),
    metre=st.sampled_from(["4/4", "6/8", "5/4", "3/8"]),
    key=st.integers(-50, 50),
    seed=st.integers(0, 99),
)
def test_any_continuation_leaves_the_primer_alone(
    tmp_path_factory, name, lengths, metre, key, seed
):
    """In every key and metre, whatever tokens the grammar lets come."""
    tokenizer = TOKENIZERS[name]
    numerator, denominator = map(int, metre.split("/"))
    if name in ("melody", "frames"):
        lengths = [max(length, 6) for length in lengths]
    ends = np.cumsum(lengths).tolist()
    rows = [(e - n, e, 66 + key + i % 5, 77, 0) for i, (e, n) in enumerate(zip(ends, lengths))]
    piece = Piece.from_rows(rows, metres=(Metre(0, numerator, denominator),))
    path = tmp_path_factory.mktemp("primers") / "primer.mid"
    write_midi(piece, path)
    primer = read_primer(path, tokenizer)
    grammar, random = tokenizer.grammar, np.random.default_rng(seed)
    tokens, state = list(primer.tokens), 0
    assert grammar.first_error(np.array(tokens)) is None
    for token in tokens:
        state = grammar.next_state[state, token]
    for _ in range(60):
        tokens.append(int(random.choice(np.flatnonzero(grammar.allowed[state]))))
        state = grammar.next_state[state, tokens[-1]]
    whole = primer.continued(np.array(tokens), with_primer=True)
    assert whole.notes[: len(rows)].tolist() == piece.notes.tolist()
    new = whole.notes[len(rows) :]
    assert (new["start"] >= piece.end).all() and (new["pitch"] <= 127).all()
    alone = primer.continued(np.array(tokens), with_primer=False)
    assert len(alone.notes) == len(new)
    if len(new):
        shift = np.unique(new["start"] - alone.notes["start"])
        lines = bar_lines(primer.piece.metres, piece.end + 1)
        assert shift.tolist() == [lines[np.searchsorted(lines, piece.end + 1) - 1]]


# --- What is refused


@pytest.mark.parametrize(
    ("rows", "tokenizer", "message"),
    [
        (
            [(0, 24, 40), (24, 48, 77)],
            TUNES,
            "its pitches are 40 to 77, and this model's 48 to 84; leave the outer ones out",
        ),
        ([(0, 24, 60), (0, 24, 64), (0, 24, 67)], LINE, "3 notes sound at once"),
        ([(0, 24, 60), (12, 48, 64)], LINE, "2 notes sound at once"),
        ([(0, 24, 40, 80, DRUMS)], TUNES, "tokens for none of its instruments"),
        ([(0, 24, 40, 80, DRUMS)], ROLL, "tokens for none of its instruments"),
    ],
)
def test_a_primer_that_the_tokens_cannot_tell_is_refused(primer_of, rows, tokenizer, message):
    with pytest.raises(UserError, match=message) as found:
        primer_of(Piece.from_rows(rows), tokenizer)
    assert "cannot continue" in str(found.value) and "primer.mid" in str(found.value)


def test_notes_that_overlap_by_less_than_half_a_step_are_one_voice(primer_of):
    primer = primer_of(Piece.from_rows([(0, 26, 60), (24, 48, 62)]), LINE)
    assert names(primer.tokens, LINE).count("Pitch_62") == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.mid", None, "No such file"),
        ("notes.txt", b"CDE", "its name ends in none of .abc, .kar, .mid"),
        ("empty.mid", b"", "not a MIDI file|header|empty"),
        ("garbage.mid", b"MThd" + bytes(40), "header"),
        ("two.abc", b"X:1\nT:A\nM:4/4\nL:1/4\nK:C\nCDEF|\n\nX:2\nT:B\nM:4/4\nL:1/4\nK:C\nGABc|\n",
         "it holds 2 pieces, and only one can be continued"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_primer_is_refused_in_a_line(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as found:
        read_primer(path, TUNES)
    assert str(found.value).startswith(f"cannot continue {path}: ")
    assert "\n" not in str(found.value)


def test_an_abc_tune_is_a_primer_too(tmp_path):
    path = tmp_path / "tune.abc"
    path.write_text("X:1\nT:A\nM:6/8\nL:1/8\nR:jig\nK:G\nGAB cde|\n")
    primer = read_primer(path, TUNES)
    assert names(primer.tokens, TUNES)[1] == "Metre_6/8"
    assert names(primer.tokens, TUNES)[-1] == "Bar"


def test_it_is_cleaned_as_the_corpus_was(primer_of):
    """With the melody taken out of several voices, one is left; a filter does not act."""
    chord = Piece.from_rows([(0, 24, 60), (0, 24, 64), (24, 48, 65)])
    with pytest.raises(UserError, match="2 notes sound at once"):
        primer_of(chord, LINE)
    data = replace(DataConfig(), melody="skyline", only="notes>=100")
    primer = primer_of(chord, LINE, data=data)
    assert primer.piece.notes["pitch"].tolist() == [64, 65]
