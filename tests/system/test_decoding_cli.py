"""Ways to decode, and primers, from the command line."""

import mido
import numpy as np
import pretty_midi
import pytest
import symusic

from rnngan.cli import main
from rnngan.generate import find_model, generate_tokens
from rnngan.music.midi import read_midi, write_midi
from rnngan.music.piece import Metre, Piece, Tempo


@pytest.fixture
def command(tmp_path, capsys):
    """Runs a command; gives what was written and what was printed."""

    def run(name, *words):
        out = tmp_path / name
        capsys.readouterr()
        assert main([*map(str, words), "--no-wav", "--out", str(out)]) == 0
        return {path.name: path.read_bytes() for path in out.iterdir()}, capsys.readouterr().out

    return run


@pytest.fixture
def refused(tmp_path, capsys):
    """Runs a command that must fail with one line of error and write nothing."""

    def run(*words):
        capsys.readouterr()
        assert main([*map(str, words), "--out", str(tmp_path / "refused")]) == 2
        printed, err = capsys.readouterr()
        (line,) = err.splitlines()
        assert printed == "" and not (tmp_path / "refused").exists()
        return line.removeprefix("rnngan: error: ")

    return run


@pytest.fixture
def primer(tmp_path):
    """A bar and a half in 6/8, too fast for the corpus, for a flute."""
    rows = [(12 * i, 12 * i + 12, 66 + i % 3, 50 + i, 73) for i in range(9)]
    piece = Piece.from_rows(rows, metres=(Metre(0, 6, 8),), tempos=(Tempo(0, 171.0),))
    write_midi(piece, tmp_path / "primer.mid")
    return tmp_path / "primer.mid"


def read_by_all(path):
    """The piece, after three other readers have found as many notes."""
    piece = read_midi(path)
    by_pretty_midi = sum(len(i.notes) for i in pretty_midi.PrettyMIDI(str(path)).instruments)
    by_mido = sum(
        message.type == "note_on" and message.velocity > 0
        for track in mido.MidiFile(path).tracks
        for message in track
    )
    assert len(piece.notes) == by_pretty_midi == by_mido == symusic.Score(path).note_num()
    return piece


# Generation


@pytest.mark.parametrize(
    "words",
    [
        ["--beam", "3"],
        ["--beam", "2", "--stochastic-beam", "--num", "3"],
        ["--no-repeat-ngram", "9", "--repetition-penalty", "1.2", "--num", "2"],
        ["--min-bars", "2", "--max-bars", "3", "--num", "2", "--top-p", "0.9"],
    ],
)
def test_every_way_gives_the_same_bytes_again(command, trained, tmp_path, words):
    (one, told), (two, _) = (command(name, "generate", trained, *words) for name in "ab")
    assert one == two and len(one) in (2, 3)
    assert ("log-probabilities of the pieces: -" in told) == ("--beam" in words)
    plain, _ = command("plain", "generate", trained, "--num", "3")
    assert one["000.mid"] != plain["000.mid"]
    for path in (tmp_path / "a").iterdir():
        read_by_all(path)


def test_seeds_matter_to_a_stochastic_beam_alone(command, trained):
    def pieces(name, *words):
        return command(name, "generate", trained, "--beam", "2", "--bars", "2", *words)[0]

    assert pieces("a") == pieces("b", "--seed", "1")
    assert pieces("c", "--stochastic-beam") != pieces("d", "--stochastic-beam", "--seed", "1")


def test_bounds_on_bars_and_tokens(trained):
    model = find_model(trained)
    bars = [
        int((row == model.tokenizer.bar).sum())
        for row in generate_tokens(model, num=8, seed=0, min_bars=2, max_bars=4)
    ]
    assert min(bars) >= 2 and max(bars) <= 4
    assert max(map(len, generate_tokens(model, num=8, seed=0, max_tokens=30))) <= 30


def test_the_attention_picture(command, trained, tmp_path):
    words = ["--num", "1", "--bars", "3", "--attention-picture", tmp_path / "a.png"]
    _, told = command("a", "generate", trained, *words)
    assert (tmp_path / "a.png").read_bytes()[1:4] == b"PNG"
    assert f"wrote {tmp_path / 'a.png'}" in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--beam", "0"], "--beam must be 1 to 1024, got 0"),
        (["--beam", "2", "--num", "3"], "--num must be at most --beam, 2"),
        (["--beam", "2", "--guide", "resample"], "leave one of them out"),
        (["--stochastic-beam"], "--stochastic-beam needs --beam"),
        (["--beam", "2", "--length-penalty", "-1"], "length_penalty must be at least 0"),
        (["--bars", "2", "--min-bars", "1"], "--bars is exact"),
        (["--min-bars", "3", "--max-bars", "2"], "--max-bars must be at least --min-bars"),
        (["--max-tokens", "1"], "--max-tokens must be above the 1 tokens"),
        (["--no-repeat-ngram", "1"], "no_repeat_ngram must be at least 2"),
        (["--repetition-penalty", "0"], "repetition_penalty must be above 0"),
        (["--repetition-window", "0"], "repetition_window must be at least 1"),
        (["--seed", "-1"], "--seed must be 0 to 2^64 - 1, got -1"),
        (["--seed", str(2**64)], f"--seed must be 0 to 2^64 - 1, got {2**64}"),
        (["--stochastic-bean", "2"], "did you mean '--stochastic-beam'?"),
    ],
)
def test_bad_options_are_one_clear_line(refused, trained, words, message):
    assert message in refused("generate", trained, *words)


# Primers


@pytest.mark.parametrize(
    "way",
    [
        [],
        ["--temperature", "0.7", "--top-k", "8", "--no-repeat-ngram", "12"],
        ["--guide", "resample", "--guide-candidates", "3"],
        ["--guide", "particles", "--guide-candidates", "3"],
        ["--beam", "3"],
        ["--beam", "3", "--stochastic-beam"],
    ],
)
def test_a_primer_is_continued_in_every_way(command, trained, primer, tmp_path, way):
    words = ["continue", primer, "--checkpoint", trained, "--num", "2", "--bars", "3", *way]
    (files, _), (again, _) = command("a", *words), command("b", *words)
    assert files == again and sorted(files) == ["000.mid", "001.mid"]
    command("alone", *words, "--no-primer")
    begun = read_midi(primer)
    for name in files:
        piece = read_by_all(tmp_path / "a" / name)
        assert piece.notes[: len(begun.notes)].tolist() == begun.notes.tolist()
        new = piece.notes[len(begun.notes) :]
        assert (new["start"] >= begun.end).all() and set(new["program"].tolist()) <= {73}
        assert np.searchsorted(piece.bar_lines(), new["start"].max(initial=0), "right") <= 2 + 3
        assert piece.tempos[0].quarters_per_minute == pytest.approx(171, abs=0.01)
        assert piece.metres[0].name == "6/8"
        rest = read_by_all(tmp_path / "alone" / name)
        assert (rest.tempos, rest.metres[0]) == (piece.tempos, piece.metres[0])
        # The bar in which the primer ends is the first.
        assert np.array_equal(rest.notes["start"], new["start"] - 72)
        assert np.array_equal(rest.notes["pitch"], new["pitch"])


def test_a_continuation_goes_on_with_the_primer(command, trained, primer):
    """Another primer, another music behind it, though the numbers are the same."""
    words = ["--checkpoint", trained, "--num", "1", "--bars", "2", "--no-primer"]
    one, _ = command("a", "continue", primer, *words)
    write_midi(read_midi(primer).transposed(3), primer)
    other, _ = command("b", "continue", primer, *words)
    assert one != other


def test_eight_pieces_behind_a_primer_longer_than_max_tokens(command, trained, tmp_path):
    """`--max-tokens` counts what is new; and any metre and pitch will do."""
    rows = [(12 * i, 12 * i + 12, 30 + i % 5, 80) for i in range(70)]
    write_midi(Piece.from_rows(rows, metres=(Metre(0, 7, 8),)), tmp_path / "p.mid")
    words = ["continue", tmp_path / "p.mid", "--checkpoint", trained, "--max-tokens", "30"]
    files, said = command("a", *words)
    assert len(files) == 8 and "the model knows no 7/8: " in said
    for name in files:
        piece = read_by_all(tmp_path / "a" / name)
        assert piece.notes["pitch"][:70].tolist() == [row[2] for row in rows]
        assert len(piece.notes) <= 70 + 30 // 2


def test_a_model_file_continues_as_its_run_does(command, trained, primer):
    words = ["continue", primer, "--num", "1", "--bars", "2", "--checkpoint"]
    file = trained / "checkpoints" / "refine-best.safetensors"
    assert command("a", *words, trained)[0] == command("b", *words, file)[0]


@pytest.mark.parametrize(
    ("piece", "words", "message"),
    [
        (None, [], "No such file"),
        (b"no music", [], "cannot continue"),
        (b"", [], "the file is empty"),
        (Piece.from_rows([(0, 24, 3), (24, 48, 125)]), [], "its pitches are 3 to 125"),
        (Piece.from_rows([(0, 24, 66)]), ["--max-tokens", "0"], "--max-tokens must be at least 1"),
        (Piece.from_rows([(0, 24, 66)]), ["--seed", "-1"], "--seed must be 0 to 2^64 - 1, got -1"),
        (
            Piece.from_rows([(0, 24, 66)]),
            ["--tag", "style=x"],
            "--tag style=x: this model knows no",
        ),
        (Piece.from_rows([(0, 24, 66)]), ["--tag-weight", "1"], "--tag-weight needs tags that it"),
        (Piece.from_rows([(0, 24, 66)]), ["--bars", "0"], "--bars must be 1 to 1000, got 0"),
        (Piece.from_rows([]), [], "cannot continue"),
    ],
)
def test_a_bad_primer_is_one_clear_line(refused, trained, tmp_path, piece, words, message):
    path = tmp_path / "bad.mid"
    if isinstance(piece, bytes):
        path.write_bytes(piece)
    elif piece is not None:
        write_midi(piece, path)
    assert message in refused("continue", path, "--checkpoint", trained, *words)


def test_a_primer_needs_a_model(refused, primer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no run in runs/demo" in refused("continue", primer)
    assert "continue: " in refused("continue")
