"""C-RNN-GAN from the command line: from a folder of MIDI to MIDI, and what it refuses."""

import json

import mido
import numpy as np
import pretty_midi
import pytest

from rnngan.cli import main
from rnngan.generate import find_model
from rnngan.music.midi import write_midi
from rnngan.music.tokenizers.tuples import COLUMNS
from rnngan.objectives.registry import OBJECTIVES
from rnngan.training.checkpoint import TuplesModel, model_bytes

KIND = ["--generator", "tuples", "--tokenizer", "tuples"]
MATCHING = ["--objective", "feature-matching"]


@pytest.fixture(scope="module")
def tuples_run(settings, tmp_path_factory):
    """A run of all stages; read only."""
    folder = tmp_path_factory.mktemp("tuples") / "run"
    assert main(["train", *settings, *KIND, *MATCHING, "--run", str(folder)]) == 0
    return folder


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def refusal(capsys, words):
    """What the one line of a command that fails says, nothing else being told."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert out == ""
    return line.removeprefix("rnngan: error: ")


def test_a_run_leaves_what_every_run_leaves(tuples_run):
    for name in ("report/report.html", "samples/001.mid", "samples/001.wav", "squared_error.json"):
        assert (tuples_run / name).stat().st_size > 0
    assert not (tuples_run / "likelihood.json").exists()  # of which there is none
    table = json.loads((tuples_run / "squared_error.json").read_text())
    assert [row.pop("name") for row in table] == [
        "average note", "note before", "pretrained", "refined",
    ]  # fmt: skip
    for row in table:
        assert tuple(row) == COLUMNS and all(np.isfinite(list(row.values())))
    for stage in ("pretrain", "refine"):
        assert isinstance(find_model(tuples_run, stage), TuplesModel)
        assert list((tuples_run / "tensorboard" / stage).glob("events.*"))
    metrics = json.loads((tuples_run / "report" / "metrics.json").read_text())
    assert "refined" in json.dumps(metrics) and "guided" not in json.dumps(metrics)


def test_what_it_writes_is_midi_as_long_as_was_learnt(tuples_run, tmp_path):
    words = ["generate", str(tuples_run), "--num", "5", "--no-wav", "--out"]
    assert main([*words, str(tmp_path / "one")]) == 0
    assert main([*words, str(tmp_path / "two")]) == 0
    one = files(tmp_path / "one")
    assert list(one) == [f"{i:03}.mid" for i in range(5)] and one == files(tmp_path / "two")
    most = int(find_model(tuples_run).generator.lengths.max())
    for name in one:
        midi = pretty_midi.PrettyMIDI(str(tmp_path / "one" / name))
        (instrument,) = midi.instruments
        assert 1 <= len(instrument.notes) <= most
        assert all(0 <= n.pitch <= 127 and 1 <= n.velocity <= 127 for n in instrument.notes)
        assert all(n.end > n.start >= 0 for n in instrument.notes)
        assert mido.MidiFile(tmp_path / "one" / name).tracks
    assert main([*words, str(tmp_path / "more"), "--seed", "1"]) == 0
    assert files(tmp_path / "more") != one
    assert main([*words, str(tmp_path / "short"), "--max-tokens", "2"]) == 0
    for path in (tmp_path / "short").iterdir():
        assert sum(len(i.notes) for i in pretty_midi.PrettyMIDI(str(path)).instruments) <= 2


def test_stages_apart_and_broken_off_come_to_the_same(settings, tuples_run, tmp_path):
    """The learning rate of the preset follows from the number of steps, so none is cut short."""
    where = ["--run", str(tmp_path / "run")]
    assert main(["prepare", *settings, *KIND, *where]) == 0
    assert main(["pretrain", *where, "--threads", "1"]) == 0
    assert main(["refine", *where, *MATCHING, "--threads", "1", "--refine.steps", "1"]) == 0
    words = ["--threads", "1", "--refine.steps", "2", "--resume"]
    assert main(["refine", *where, *MATCHING, *words]) == 0
    for stage in ("pretrain", "refine"):
        found = model_bytes(find_model(tmp_path / "run", stage))
        assert found == model_bytes(find_model(tuples_run, stage))


# What it refuses


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_objectives_of_tokens_refuse_it_before_anything_begins(
    settings, tmp_path, capsys, objective
):
    folder = tmp_path / "run"
    words = ["train", *settings, *KIND, "--objective", objective, "--run", folder]
    assert refusal(capsys, words) == (
        f"objective {objective} needs tokens with probabilities, and the generator tuples writes "
        "real numbers; add --objective feature-matching"
    )
    assert not folder.exists()


@pytest.mark.parametrize("kind", ["lstm", "gru", "conv-lstm"])
def test_feature_matching_refuses_generators_of_tokens(settings, tmp_path, capsys, kind):
    words = ["train", *settings, "--generator", kind, *MATCHING, "--run", tmp_path / "run"]
    assert "objective feature-matching needs the generator tuples" in refusal(capsys, words)
    assert not (tmp_path / "run").exists()


def test_the_wrong_tokenizer_is_said_before_anything_begins(settings, tmp_path, capsys):
    for words, message in (
        (KIND[:2], "the generator tuples needs data.tokenizer tuples, got events"),
        (KIND[2:], "data.tokenizer tuples makes real numbers, which the generator lstm cannot"),
    ):
        folder = tmp_path / "run"
        assert message in refusal(capsys, ["pretrain", *settings, *words, "--run", folder])
        assert not folder.exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--beam", "4"],
        ["--stochastic-beam"],
        ["--guide", "particles"],
        ["--tag", "style=reel"],
        ["--attention-picture", "picture.png"],
        ["--bars", "4"],
        ["--temperature", "0.9"],
        ["--top-p", "0.9"],
        ["--repetition-penalty", "1.1"],
    ],
)
def test_generation_refuses_what_needs_tokens(tuples_run, tmp_path, capsys, words):
    line = refusal(capsys, ["generate", tuples_run, *words, "--out", tmp_path / "out"])
    assert line == (
        f"{words[0]} needs tokens with probabilities, and this model writes tuples, real numbers; "
        "leave it out"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "value"), [("--num", "0"), ("--max-tokens", "-1")])
def test_numbers_out_of_range(tuples_run, tmp_path, capsys, name, value):
    line = refusal(capsys, ["generate", tuples_run, name, value, "--out", tmp_path / "out"])
    assert line == f"{name} must be at least 1, got {value}"


def test_other_commands_refuse_it(tuples_run, tunes, tmp_path, capsys):
    write_midi(tunes[0], tmp_path / "primer.mid")
    where = ["--checkpoint", tuples_run, "--out", tmp_path / "out"]
    for words in (
        ["continue", tmp_path / "primer.mid", *where],
        ["frontier", tuples_run, "--num", "12", "--out", tmp_path / "out"],
    ):
        assert "this model writes tuples, real numbers" in refusal(capsys, words)
