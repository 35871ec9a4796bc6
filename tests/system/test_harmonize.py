"""Accompaniment from the command line: trained on files of two tracks, resumed, and refused."""

import json

import mido
import numpy as np
import pretty_midi
import pytest
import symusic

from rnngan.cli import main
from rnngan.generate import find_model
from rnngan.music.midi import read_midi, write_midi
from rnngan.music.piece import Piece
from rnngan.training.checkpoint import model_bytes


def duo(number):
    """Four bars of quarters, and a chord of a half under every other note."""
    random = np.random.default_rng(number)
    rows = []
    for i in range(16):
        pitch = int(random.integers(67, 80))
        rows.append((24 * i, 24 * i + 24, pitch, 80, 0, 0))
        if i % 2 == 0:
            rows += [(24 * i, 24 * i + 48, pitch - fall, 60, 0, 1) for fall in (12, 16, 19)]
    return Piece.from_rows(rows)


@pytest.fixture(scope="module")
def duos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("duos") / "duos"
    folder.mkdir()
    for i in range(12):
        write_midi(duo(i), folder / f"{i:02}.mid")
    return [
        *("--corpus", str(folder), "--preset", "tiny", "--data.max-length", "400"),
        *("--data.test-rate", "0.2", "--workers", "1", "--threads", "1"),
        *("--generator", "seq2seq", "--generator.attention", "8"),
    ]


@pytest.fixture(scope="module")
def run(duos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "duos"
    assert main(["train", *duos, "--run", str(folder), "--pretrain.steps", "24"]) == 0
    return folder


@pytest.fixture(scope="module")
def melody(tmp_path_factory):
    path = tmp_path_factory.mktemp("melody") / "melody.mid"
    write_midi(Piece.from_rows([(24 * i, 24 * i + 24, 70 + i % 5, 90, 0) for i in range(10)]), path)
    return path


def logged(run, name):
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [line[name] for line in lines if name in line]


def test_train_leaves_refinement_out_and_learns(run):
    bits = logged(run, "pretrain/val_bits_per_token")
    assert bits[-1] < bits[0]
    assert not (run / "report").exists() and find_model(run).generator.config.kind == "seq2seq"


def test_a_melody_is_harmonized_and_read_by_all(run, melody, tmp_path):
    def harmonize(folder, *words):
        where = ["--checkpoint", str(run), "--out", str(tmp_path / folder)]
        assert main(["harmonize", str(melody), *where, "--num", "3", *words]) == 0
        return [(tmp_path / folder / f"00{i}.mid") for i in range(3)]

    paths = harmonize("one")
    own = read_midi(melody).notes
    for path, again in zip(paths, harmonize("two", "--no-wav")):
        assert path.read_bytes() == again.read_bytes()
        piece = read_midi(path)
        first = piece.notes[piece.notes["track"] == 0]
        assert first.tolist() == own.tolist()
        assert piece.num_bars <= 3
        count = len(piece.notes)
        assert count == sum(len(i.notes) for i in pretty_midi.PrettyMIDI(str(path)).instruments)
        assert count == sum(len(track.notes) for track in symusic.Score(str(path)).tracks)
        strokes = [m for m in mido.MidiFile(path) if m.type == "note_on" and m.velocity]
        assert count == len(strokes)
        assert path.with_suffix(".wav").exists() and not again.with_suffix(".wav").exists()
    assert any(len(read_midi(path).notes) > len(own) for path in paths)
    assert paths[0].read_bytes() != harmonize("three", "--seed", "1", "--no-wav")[0].read_bytes()


def test_the_first_piece_as_a_score(run, melody, tmp_path, capsys):
    words = ["--checkpoint", str(run), "--num", "1", "--no-wav", "--out", str(tmp_path / "out")]
    assert main(["harmonize", str(melody), *words, "--score", str(tmp_path / "score.png")]) == 0
    assert f"wrote {tmp_path / 'score.png'}" in capsys.readouterr().out
    assert (tmp_path / "score.png").read_bytes().startswith(b"\x89PNG")
    assert main(["render", str(tmp_path / "out" / "000.mid"), "--score"]) == 0
    assert len(list((tmp_path / "out").glob("000.*png"))) == 2


def test_a_run_that_was_broken_off_ends_alike(duos, tmp_path, unwatched):
    words = [*duos, "--pretrain.validate-every", "2"]
    for name, steps in (("whole", ["6"]), ("broken", ["4", "6"])):
        for i, count in enumerate(steps):
            more = ["--resume"] if i else []
            where = ["--run", str(tmp_path / name), "--pretrain.steps", count]
            # A cosine knows its end from the beginning; a plateau does not.
            rate = ["--pretrain.schedule", "plateau", "--pretrain.transpose-rate", "0"]
            command = ["train", *words, *where, *rate, *more]
            assert main(command) == 0
    whole, broken = (find_model(tmp_path / name) for name in ("whole", "broken"))
    assert model_bytes(whole) == model_bytes(broken)


def refusal(capsys, *words):
    assert main(list(map(str, words))) == 2
    *_, error = capsys.readouterr().err.strip().splitlines()
    assert error.startswith("rnngan: error: ")
    return error


def test_what_cannot_be_is_refused_in_a_line(run, melody, duos, tmp_path, capsys):
    error = refusal(capsys, "refine", *duos, "--run", run, "--pretrain.steps", 24)
    assert "refinement draws pieces from nothing; refine another --generator" in error
    assert "rnngan harmonize MELODY.mid" in refusal(capsys, "generate", run)
    error = refusal(capsys, "frontier", run, "--out", tmp_path / "frontier")
    assert f"{run}: seq2seq is told something before it writes, and the frontier" in error
    error = refusal(capsys, "continue", melody, "--checkpoint", run)
    assert "rnngan harmonize MELODY.mid" in error
    nowhere = tmp_path / "no.mid"
    error = refusal(capsys, "harmonize", nowhere, "--checkpoint", run)
    assert f"cannot harmonize {nowhere}" in error
    error = refusal(capsys, "harmonize", melody, "--checkpoint", run, "--temperature", 0)
    assert "temperature must be above 0" in error
    error = refusal(capsys, "train", *duos, "--tokenizer", "frames", "--run", tmp_path / "frames")
    assert "seq2seq needs a corpus prepared with --tokenizer events, got frames" in error


def test_a_corpus_of_one_part_leaves_nothing_to_write(settings, tmp_path, capsys):
    words = [*settings, "--generator", "seq2seq", "--run", str(tmp_path / "run")]
    error = refusal(capsys, "train", *words)
    assert "--generator seq2seq finds nothing to write" in error
