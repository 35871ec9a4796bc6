import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnngan.errors import UserError
from rnngan.music.midi import write_midi
from rnngan.music.piece import DRUMS, NOTE, Metre, Piece, Tempo
from rnngan.music.tokenizers.miditok import KINDS, MidiTok
from rnngan.music.tokenizers.summary import Summary
from rnngan.music.vocabulary import CONTINUE, END, START

miditok = pytest.importorskip("miditok")
symusic = pytest.importorskip("symusic")

EMPTY = Piece(notes=np.empty(0, NOTE))
TUNE = Piece.from_rows([(0, 24, 60, 80), (36, 48, 62, 80)], metres=(Metre(0, 3, 4),))
BAND = Piece.from_rows(
    [(0, 24, 60, 31), (24, 48, 62, 95, 33, 1), (24, 30, 36, 127, DRUMS, 2)],
    tempos=(Tempo(0, 60.0), Tempo(48, 240.0)),
    tags={"style": "jig"},
)
FIELDS = ["start", "end", "pitch", "velocity", "program"]


def fitted(*pieces, **options):
    return MidiTok.fit(Summary.of(pieces), **options)


BANDS = {kind: fitted(BAND, TUNE, kind=kind, tags=("style",), margin=2) for kind in KINDS}


def spelt(tokenizer, piece):
    return " ".join(tokenizer.vocabulary.names[i] for i in tokenizer.encode(piece))


def table(piece):
    return sorted(piece.notes[FIELDS].tolist())


@st.composite
def pieces_on_the_grid(draw):
    """Pieces in 12ths of a quarter, one note at a time per pitch and program, a track each.

    No note lasts longer than four eighths and no gap longer than four quarters: beyond four beats
    lengths get coarse.
    """
    rows, busy = [], {}
    tick = 0
    for _ in range(draw(st.integers(1, 12))):
        tick += 2 * draw(st.integers(0, 48))
        program = draw(st.sampled_from([0, 33, DRUMS]))
        pitch = draw(st.integers(27, 88))
        end = tick + 2 * draw(st.integers(1, 24))
        if busy.get((program, pitch), 0) <= tick:
            velocity = draw(st.sampled_from([15, 31, 63, 127]))
            rows.append((tick, end, pitch, velocity, program))
            busy[program, pitch] = end
    programs = sorted({row[4] for row in rows})
    metre = draw(st.sampled_from([(4, 4), (3, 4), (6, 8), (2, 2)]))
    tempo = draw(st.sampled_from([57.5, 120.0]))
    return Piece.from_rows(
        [(*row, programs.index(row[4])) for row in rows],
        metres=(Metre(0, *metre),),
        tempos=(Tempo(0, tempo),),
    )


def test_a_tune_by_hand():
    tokenizer = fitted(TUNE)
    assert spelt(tokenizer, TUNE) == (
        "Start Bar_None TimeSig_3/4 Position_0 Pitch_60 Duration_1.0.12 "
        "Position_18 Pitch_62 Duration_0.6.12 End"
    )
    assert tokenizer.decode(tokenizer.encode(TUNE), strict=True) == TUNE
    assert tokenizer.bar == tokenizer.vocabulary.index["Bar_None"]
    assert fitted(TUNE, kind="TSD").bar is None


@pytest.mark.parametrize("kind", KINDS)
@given(piece=pieces_on_the_grid())
@settings(max_examples=25, deadline=None)
def test_a_piece_on_the_grid_comes_back(kind, piece):
    tokenizer = fitted(piece, kind=kind)
    back = tokenizer.decode(tokenizer.encode(piece), strict=True)
    assert table(back) == table(piece)
    assert back.tempos == piece.tempos
    if kind != "Structured":  # which tells no metre
        assert back.metres == piece.metres


@pytest.mark.parametrize("kind", KINDS)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 700),
            st.integers(1, 500),
            st.integers(40, 60),
            st.integers(1, 127),
            st.sampled_from([0, 33, DRUMS]),
        ),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from([(4, 4), (6, 8)]),
)
@settings(max_examples=25, deadline=None)
def test_notes_survive_as_miditok_keeps_them(tmp_path_factory, kind, rows, metre):
    piece = Piece.from_rows(
        [(start, start + size, *rest) for start, size, *rest in rows],
        metres=(Metre(0, *metre),),
    )
    tokenizer = fitted(piece, BAND, kind=kind)
    path = tmp_path_factory.getbasetemp() / "piece.mid"
    write_midi(piece, path)
    alone = tokenizer.tokenizer
    score = alone.decode(alone.encode(symusic.Score(path)))
    ticks = 24 // score.ticks_per_quarter
    theirs = Piece.from_rows(
        (
            note.time * ticks,
            (note.time + note.duration) * ticks,
            note.pitch,
            note.velocity,
            DRUMS if track.is_drum else track.program,
        )
        for track in score.tracks
        for note in track.notes
    )
    ours = tokenizer.decode(tokenizer.encode(piece), strict=True)
    assert ours.tidied() == ours
    # Where two notes move to one place, which of them stays is a matter of order.
    fields = ["start", "end", "pitch", "program"]
    assert sorted(ours.notes[fields].tolist()) == sorted(theirs.tidied().notes[fields].tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_to_encode_what_was_decoded_changes_nothing(kind):
    random = np.random.default_rng(0)
    start = random.integers(0, 400, 60) * 5
    rows = [(s, s + 7, 40 + i % 60, 80, 33 * (i % 2)) for i, s in enumerate(start.tolist())]
    piece = Piece.from_rows(rows, metres=(Metre(0, 3, 4),))
    tokenizer = fitted(piece, BAND, kind=kind)
    tokens = tokenizer.encode(piece)
    np.testing.assert_array_equal(tokenizer.encode(tokenizer.decode(tokens)), tokens)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_ids_decode_to_a_valid_piece(kind, data):
    tokenizer = BANDS[kind]
    tokens = data.draw(st.lists(st.integers(0, len(tokenizer.vocabulary) - 1), max_size=80))
    piece = tokenizer.decode(np.array(tokens, dtype=np.int64))
    assert piece.tidied() == piece


@pytest.mark.parametrize("kind", KINDS)
def test_random_walks_through_the_grammar_are_music(kind):
    random = np.random.default_rng(0)
    grammar = BANDS[kind].grammar
    programs = set()
    for _ in range(20):
        state, tokens = 0, []
        for _ in range(200):
            allowed = np.flatnonzero(grammar.allowed[state])
            allowed = allowed[allowed != END] if len(allowed) > 1 else allowed
            tokens.append(int(random.choice(allowed)))
            state = int(grammar.next_state[state, tokens[-1]])
        piece = BANDS[kind].decode(np.array(tokens), strict=True)
        programs |= set(piece.notes["program"].tolist())
    assert programs == {0, 33, DRUMS}


def test_programs_drums_tempos_and_tags():
    tokenizer = BANDS["REMI"]
    names = spelt(tokenizer, BAND).split()
    head = ["Start", "Tag_style=jig", "Bar_None", "TimeSig_4/4", "Position_0", "Tempo_60.0"]
    assert names[:6] == head
    assert names.count("Program_-1") == 1 and "PitchDrum_36" in names
    back = tokenizer.decode(tokenizer.encode(BAND), strict=True)
    assert table(back) == table(BAND)
    assert back.tags == {"style": "jig"}
    assert back.tempos == BAND.tempos
    assert spelt(tokenizer, TUNE).split()[1] == "Tag_style="
    index = tokenizer.vocabulary.index
    state = tokenizer.grammar.next_state
    assert state[state[0, START], index["Bar_None"]] == -1  # the tag comes first
    assert tokenizer.grammar.first_error(np.array([CONTINUE, index["Tag_style="]])) is None
    kit, piano, drum, pitch = (
        index[name] for name in ("Program_-1", "Program_0", "PitchDrum_36", "Pitch_60")
    )
    for program, note, allowed in (
        (kit, drum, True), (kit, pitch, False), (piano, drum, False), (piano, pitch, True)
    ):  # fmt: skip
        after_note = np.flatnonzero(state[:, program] >= 0)[0]
        assert (state[state[after_note, program], note] >= 0) == allowed


def test_without_programs_all_notes_are_one_part():
    piano = fitted(Piece.from_rows([(0, 24, 60, 80, 5)]))
    piece = Piece.from_rows([(0, 24, 60, 80, 7), (0, 48, 60, 80, 5), (0, 6, 62, 80, DRUMS)])
    assert table(piano.decode(piano.encode(piece))) == [(0, 48, 60, 80, 5)]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_encoded_too(kind):
    for tokenizer in (fitted(EMPTY, kind=kind), BANDS[kind]):
        tokens = tokenizer.encode(EMPTY)
        assert (tokens[0], tokens[-1]) == (START, END)
        assert tokenizer.decode(tokens, strict=True).notes.size == 0


@pytest.mark.parametrize(
    ("kind", "kinds"),
    [("REMI", ("Pitch",)), ("TSD", ("Pitch",)), ("MIDILike", ("NoteOn", "NoteOff"))],
)
def test_the_pitched_kinds_are_those_that_transposition_moves(kind, kinds):
    tokenizer = BANDS[kind]
    assert tokenizer.pitched_kinds == kinds
    tokens = tokenizer.encode(BAND).astype(int)
    for name in kinds:
        ids = tokenizer.vocabulary.ids(name)
        values = [int(value) for value in tokenizer.vocabulary.values(name)]
        assert values == list(range(values[0], values[0] + len(ids)))
        tokens[(tokens >= ids.start) & (tokens < ids.stop)] += 2
    np.testing.assert_array_equal(tokens, tokenizer.encode(BAND.transposed(2)))


@pytest.mark.parametrize("kind", KINDS)
def test_json_gives_the_tokenizer_back(kind):
    tokenizer = BANDS[kind]
    data = json.loads(json.dumps(tokenizer.to_json()))
    back = MidiTok.from_json(data)
    assert back.vocabulary == tokenizer.vocabulary
    assert json.loads(json.dumps(back.to_json())) == data
    np.testing.assert_array_equal(back.encode(BAND), tokenizer.encode(BAND))
    plain = fitted(Piece.from_rows([(0, 24, 60, 71, 9)], tempos=(Tempo(0, 66.0),)), kind=kind)
    piece = MidiTok.from_json(plain.to_json()).decode(plain.encode(TUNE))
    assert set(piece.notes[["velocity", "program"]].tolist()) == {(71, 9)}
    assert piece.tempos == (Tempo(0, 66.0),)


@pytest.mark.parametrize(
    ("damage", "error", "rule"),
    [
        ({"name": "events"}, ValueError, "not a tokenizer of kind 'miditok'"),
        ({"kind": "Octuple"}, UserError, "kind must be one of REMI, TSD.*'Octuple'"),
        ({"config": {}}, ValueError, "damaged"),
        ({"config": None}, ValueError, "damaged"),
        ({"unknown": 1}, ValueError, "damaged"),
        ({"tags": ["style=jig"]}, ValueError, "without a value"),
    ],
)
def test_a_damaged_description(damage, error, rule):
    with pytest.raises(error, match=rule):
        MidiTok.from_json({**BANDS["TSD"].to_json(), **damage})


def test_tokenizers_that_cannot_stand_in_are_refused(tmp_path):
    with pytest.raises(UserError, match="Octuple cannot stand in"):
        MidiTok(miditok.Octuple())
    with pytest.raises(UserError, match="one_token_stream"):
        config = miditok.TokenizerConfig(use_programs=True, one_token_stream_for_programs=False)
        MidiTok(miditok.REMI(config))
    with pytest.raises(UserError, match=r"one of REMI.*'BPE'"):
        fitted(TUNE, kind="BPE")
    with pytest.raises(ValueError, match="no pieces"):
        MidiTok.fit(Summary.empty())
    write_midi(BAND, tmp_path / "band.mid")
    trained = miditok.REMI()
    trained.train(vocab_size=len(trained.vocab) + 2, files_paths=[tmp_path / "band.mid"])
    with pytest.raises(UserError, match="trained to merge"):
        MidiTok(trained)


@pytest.mark.parametrize("found", [None, sys])
def test_a_missing_package_is_named(monkeypatch, found):
    monkeypatch.setitem(sys.modules, "miditok", found)
    with pytest.raises(UserError, match=r'pip install "rnngan\[miditok\]"'):
        fitted(TUNE)


def test_encoding_imports_no_torch():
    code = (
        "import sys; from rnngan.music.piece import Piece;"
        "from rnngan.music.tokenizers.summary import Summary;"
        "from rnngan.music.tokenizers.miditok import MidiTok;"
        "assert 'miditok' not in sys.modules;"
        "piece = Piece.from_rows([(0, 24, 60)]);"
        "MidiTok.fit(Summary.of([piece])).encode(piece);"
        "assert 'miditok' in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
