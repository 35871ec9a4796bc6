"""Melodies in files, and the parts that a model writes to them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rnngan.config import DataConfig, GeneratorConfig
from rnngan.errors import UserError
from rnngan.generator.registry import generator_for, new_generator
from rnngan.generator.sampling import Decoding
from rnngan.harmony import harmonize, read_melody
from rnngan.music.midi import write_midi
from rnngan.music.piece import DRUMS, Metre, Piece, Tempo
from rnngan.music.tokenizers.events import Events, EventsConfig
from rnngan.music.tokenizers.melody import Melody as MelodyTokens
from rnngan.music.tokenizers.melody import MelodyConfig
from rnngan.training.checkpoint import Model

EVENTS = Events(EventsConfig(metres=("4/4", "3/4"), lowest=36, highest=84, voices=4))
TINY = GeneratorConfig(kind="seq2seq", embedding_size=8, hidden_size=12, attention=8)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Model(generator=generator_for(TINY, EVENTS).eval(), tokenizer=EVENTS, metrics={})


@pytest.fixture
def melody_of(tmp_path, model):
    def read(piece, **options):
        write_midi(piece, tmp_path / "melody.mid")
        return read_melody(tmp_path / "melody.mid", model, **options)

    return read


TUNE = [(24 * i, 24 * i + 20, 60 + i, 70 + i) for i in range(9)]  # two bars and a quarter


def rows(piece, track=None):
    notes = piece.notes if track is None else piece.notes[piece.notes["track"] == track]
    return [tuple(row)[:4] for row in notes.tolist()]


def test_the_melody_stays_and_the_others_keep_to_its_bars(melody_of, model):
    metres = (Metre(0, 4, 4), Metre(96, 3, 4))
    tune = Piece.from_rows(TUNE, metres=metres, tempos=(Tempo(0, 90.0), Tempo(96, 100.0)))
    melody = melody_of(tune)
    assert melody.in_words() == ""
    pieces = harmonize(model, melody, num=6, seed=3)
    for piece in pieces:
        assert rows(piece, track=0) == TUNE
        assert piece.metres == metres and piece.tempos == tune.tempos
        assert piece.num_bars == tune.num_bars == 3
    assert any(len(piece.notes) > len(TUNE) for piece in pieces)
    assert len({piece.notes.tobytes() for piece in pieces}) > 1


def test_a_piece_follows_from_the_seed_and_its_number(melody_of, model):
    melody = melody_of(Piece.from_rows(TUNE))
    five = harmonize(model, melody, num=5, seed=1)
    two = harmonize(model, melody, num=2, seed=1)
    assert five[:2] == two
    assert harmonize(model, melody, num=2, seed=2) != two


def test_a_model_that_never_gets_on_is_told(melody_of, model):
    """Untrained, and always the likeliest token: the same note again and again."""
    melody = melody_of(Piece.from_rows(TUNE))
    with pytest.raises(UserError, match="did not get through the melody within 1542 tokens"):
        harmonize(model, melody, num=1, seed=1, decoding=Decoding(temperature=1e-9))


def test_of_several_parts_the_highest_and_of_chords_the_top(melody_of):
    bass = [(0, 96, 40, 64, 0, 1), (96, 200, 43, 64, 0, 1)]
    melody = melody_of(Piece.from_rows([*TUNE, *bass]))
    assert rows(melody.piece) == TUNE
    assert melody.in_words() == "the melody is the highest of 2 parts"
    thirds = [(start, end, pitch - 4, 64) for start, end, pitch, _ in TUNE[:3]]
    melody = melody_of(Piece.from_rows([*TUNE, *thirds]))
    assert rows(melody.piece) == TUNE
    assert melody.in_words() == (
        "the melody is the top line of it, without 3 notes that sound below"
    )


def test_an_upbeat_in_a_metre_of_its_own_stands_at_the_end_of_a_bar(melody_of, model):
    tune = Piece.from_rows(
        [(0, 24, 67, 80), (24, 120, 72, 80)], metres=(Metre(0, 1, 4), Metre(24, 4, 4))
    )
    (piece,) = harmonize(model, melody_of(tune), num=1, seed=0)
    assert rows(piece, track=0) == [(72, 96, 67, 80), (96, 192, 72, 80)]
    assert piece.metres == (Metre(0, 4, 4),) and piece.num_bars == 2


def test_another_instrument_keeps_its_program(melody_of, model):
    flute = Piece.from_rows([(*row, 73) for row in TUNE])
    (piece,) = harmonize(model, melody_of(flute), num=1, seed=0)
    assert set(piece.notes["program"][piece.notes["track"] == 0].tolist()) == {73}
    assert set(piece.notes["program"][piece.notes["track"] > 0].tolist()) <= {0}


@pytest.mark.parametrize(
    ("piece", "why"),
    [
        (Piece.from_rows([]), "the file has no note that begins and ends"),
        (Piece.from_rows([(0, 6, 40, 64, DRUMS)]), "there are no notes in it"),
        (Piece.from_rows([(0, 24, 100)]), "its pitches are 100 to 100, and this model's 36 to 84"),
        (Piece.from_rows([(96 * i, 96 * i + 96, 60) for i in range(401)]),
         "it has 401 bars, more than 400; cut it"),
    ],
)  # fmt: skip
def test_a_bad_melody_gets_one_clear_line(melody_of, piece, why):
    with pytest.raises(UserError, match=f"^cannot harmonize .*melody.mid: {why}") as caught:
        melody_of(piece)
    assert "\n" not in str(caught.value)


def test_a_metre_without_a_token_becomes_one_that_has(melody_of, model):
    melody = melody_of(Piece.from_rows(TUNE, metres=(Metre(0, 5, 8),)))
    assert melody.in_words().startswith("the model knows no 5/8: ")
    (piece,) = harmonize(model, melody, num=1, seed=0)
    assert piece.metres == (Metre(0, 3, 4),) and rows(piece, track=0) == TUNE


@pytest.mark.parametrize(
    ("name", "notation"),
    [
        ("rests.abc", "X:1\nM:4/4\nL:1/4\nK:C\nz4|z2x2|\n"),
        (
            "rests.musicxml",
            '<score-partwise><part-list><score-part id="P1"><part-name>A</part-name></score-part>'
            '</part-list><part id="P1"><measure number="1"><attributes><divisions>1</divisions>'
            "<time><beats>4</beats><beat-type>4</beat-type></time></attributes>"
            "<note><rest/><duration>4</duration></note></measure></part></score-partwise>",
        ),
    ],
)
def test_rests_alone_are_no_melody(tmp_path, model, name, notation):
    (tmp_path / name).write_text(notation)
    with pytest.raises(UserError, match=f"^cannot harmonize .*{name}: there are no notes in it"):
        read_melody(tmp_path / name, model)


def test_what_is_no_music_is_refused(tmp_path, model):
    (tmp_path / "x.mid").write_bytes(b"no music")
    with pytest.raises(UserError, match=r"^cannot harmonize .*x\.mid: "):
        read_melody(tmp_path / "x.mid", model)
    with pytest.raises(UserError, match=r"^cannot harmonize .*x\.txt: its name ends in none of"):
        read_melody(tmp_path / "x.txt", model)


def test_models_that_read_no_melody_are_refused(melody_of, model, tmp_path):
    melody = melody_of(Piece.from_rows(TUNE))
    plain = new_generator(GeneratorConfig(embedding_size=8, hidden_size=12), 200)
    with pytest.raises(UserError, match=r"this model, lstm, reads no melody.*--generator seq2seq"):
        harmonize(replace(model, generator=plain), melody, num=1, seed=0)
    line = MelodyTokens(MelodyConfig(metres=("4/4",), lowest=48, highest=84))
    with pytest.raises(UserError, match=r"to harmonize needs .* --tokenizer events, got melody"):
        read_melody(tmp_path / "melody.mid", replace(model, tokenizer=line))
    with pytest.raises(UserError, match="--num must be at least 1, got 0"):
        harmonize(model, melody, num=0, seed=0)


def test_the_melody_is_read_as_the_corpus_was(melody_of):
    """Two quarters of silence, then the tune: trimmed to its first bar where the corpus was."""
    late = Piece.from_rows([(start + 96, end + 96, p, v) for start, end, p, v in TUNE])
    assert melody_of(late).piece.num_bars == 4
    assert melody_of(late, data=DataConfig(trim=True)).piece.num_bars == 3


def test_the_encoder_reads_pitches_and_lengths_alone(melody_of):
    loud, soft = (Piece.from_rows([(*row[:3], v) for row in TUNE]) for v in (120, 30))
    np.testing.assert_array_equal(melody_of(loud).source, melody_of(soft).source)
