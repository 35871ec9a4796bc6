"""Autoencoders from the command line: trained, resumed, heard, interpolated and restyled."""

import json

import numpy as np
import pytest

from rnngan.cli import main
from rnngan.generate import find_model
from rnngan.music.midi import read_midi
from rnngan.training.checkpoint import model_bytes

TUNE = "X:1\nT:{0}\nR:{1}\nM:{2}\nL:1/8\nK:C\n{3}|\n"
STYLES = {"reel": ("4/4", 8), "jig": ("6/8", 6)}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("styles") / "tunes"
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(20):
        style = "reel" if i % 2 else "jig"
        metre, count = STYLES[style]
        bars = ["".join(random.choice(list("cdefgab"), count)) for _ in range(4)]
        (folder / f"{i:02}.abc").write_text(TUNE.format(f"tune {i}", style, metre, "|".join(bars)))
    return folder


@pytest.fixture(scope="module")
def words(corpus):
    return [
        *("--corpus", str(corpus), "--preset", "tiny", "--workers", "1", "--threads", "1"),
        *("--data.tags", "style", "--data.test-rate", "0.2", "--generator.bars", "2"),
        *("--generator.attention", "0", "--generator.latent-size", "4"),
        *("--generator.latent-slots", "2"),
    ]


@pytest.fixture(scope="module")
def run(words, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "vae"
    learning = ["--pretrain.steps", "30", "--pretrain.validate-every", "15"]
    learning += ["--pretrain.learning-rate", "0.02", "--pretrain.kl-warmup-steps", "10"]
    command = ["train", *words, *learning, "--generator", "vae", "--run", str(folder)]
    assert main(command) == 0
    return folder


def logged(run, name):
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [line[name] for line in lines if name in line]


def test_train_tells_the_parts_of_the_bound_and_writes_pieces_and_report(run, capsys):
    bits = logged(run, "pretrain/val_bits_per_token")
    written = logged(run, "pretrain/val_reconstruction_bits_per_token")
    nats = logged(run, "pretrain/val_kl_nats_per_piece")
    units = logged(run, "pretrain/val_active_units")
    assert bits[-1] < bits[0]
    assert all(w < b for w, b in zip(written, bits)) and all(n > 0 for n in nats)
    assert all(0 <= count <= 4 for count in units)
    assert len(list((run / "samples").glob("*.mid"))) == 2
    assert (run / "report" / "report.html").exists()
    assert not list((run / "checkpoints").glob("refine*"))


@pytest.mark.parametrize("options", [["vae"], ["autoencoder", "--generator.hierarchical"]])
def test_training_that_was_broken_off_ends_alike(words, tmp_path, options, unwatched):
    kind, *more = options
    rate = ["--pretrain.schedule", "plateau", "--pretrain.transpose-rate", "0"]
    rate += ["--pretrain.validate-every", "2", "--pretrain.kl-warmup-steps", "5", *more]
    for name, counts in (("whole", ["6"]), ("broken", ["4", "6"])):
        run = ["--run", str(tmp_path / name), "--store", str(tmp_path / "store")]
        for i, count in enumerate(counts):
            command = [*words, *rate, *run, "--generator", kind, "--pretrain.steps", count]
            if not (tmp_path / "store").exists():
                assert main(["prepare", *command]) == 0
            assert main(["pretrain", *command, *(["--resume"] if i else [])]) == 0
    whole, broken = (find_model(tmp_path / name) for name in ("whole", "broken"))
    assert model_bytes(whole) == model_bytes(broken)
    nats = logged(tmp_path / "whole", "pretrain/val_kl_nats_per_piece")
    assert all(n == 0 for n in nats) == (kind == "autoencoder")


def test_pieces_between_two_pieces(run, corpus, tmp_path, capsys):
    ends = [str(corpus / "00.abc"), str(corpus / "01.abc")]

    def interpolate(folder, *more):
        where = ["--checkpoint", str(run), "--out", str(tmp_path / folder)]
        assert main(["interpolate", *ends, *where, "--steps", "4", *more]) == 0
        return [(tmp_path / folder / f"00{i}.mid") for i in range(4)]

    paths = interpolate("one")
    assert f"left out of {ends[0]}: its last 2 bars" in capsys.readouterr().out
    for path, again in zip(paths, interpolate("two", "--no-wav")):
        assert path.read_bytes() == again.read_bytes()
        assert path.with_suffix(".wav").exists() and not again.with_suffix(".wav").exists()
        read_midi(path)
    model = str(run / "checkpoints" / "pretrain-best.safetensors")
    assert main(["interpolate", *ends, "--checkpoint", model, "--out", str(tmp_path / "file")]) == 0
    assert len(list((tmp_path / "file").glob("*.mid"))) == 8


def test_a_piece_in_another_style(run, corpus, tmp_path):
    piece = str(corpus / "00.abc")  # a jig
    for how in ("shift", "tag"):
        where = ["--checkpoint", str(run), "--out", str(tmp_path / how), "--no-wav"]
        assert main(["restyle", piece, "--style", "reel", "--by", how, "--num", "2", *where]) == 0
        assert len(list((tmp_path / how).glob("*.mid"))) == 2


def refusal(capsys, *words):
    assert main(list(map(str, words))) == 2
    *_, error = capsys.readouterr().err.strip().splitlines()
    assert error.startswith("rnngan: error: ")
    return error


def test_what_cannot_be_is_refused_in_a_line(run, corpus, tmp_path, capsys):
    tune, other = corpus / "00.abc", corpus / "01.abc"
    error = refusal(capsys, "interpolate", tune, other, "--checkpoint", run, "--steps", "1")
    assert "--steps must be 2 to 256, got 1" in error
    error = refusal(capsys, "interpolate", tune, tmp_path / "no.mid", "--checkpoint", run)
    assert f"cannot interpolate {tmp_path / 'no.mid'}" in error
    error = refusal(capsys, "restyle", tune, "--style", "waltz", "--checkpoint", run)
    assert "no training piece of the corpus has the style 'waltz'; there are jig, reel" in error
    model = run / "checkpoints" / "pretrain-best.safetensors"
    error = refusal(capsys, "restyle", tune, "--style", "reel", "--checkpoint", model)
    assert "no run in" in error
    error = refusal(capsys, "frontier", run, "--out", tmp_path / "frontier")
    assert f"{run}: vae is told something before it writes, and the frontier compares" in error
    assert "--seed must be 0 to" in refusal(
        capsys, "interpolate", tune, other, "--checkpoint", run, "--seed", "-1"
    )
    error = refusal(capsys, "generate", run, "--attention-picture", tmp_path / "a.png")
    assert "attention is drawn of generators alone that are told nothing before" in error


def test_a_model_is_heard_from_nothing(run, tmp_path):
    words = ["--num", "2", "--bars", "2", "--no-wav"]
    assert main(["generate", str(run), *words, "--out", str(tmp_path / "one")]) == 0
    assert main(["generate", str(run), *words, "--beam", "2", "--out", str(tmp_path / "two")]) == 0
    assert len(list((tmp_path / "one").glob("*.mid"))) == 2
