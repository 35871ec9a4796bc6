import json
import math
import shutil
import subprocess
import sys

import mido
import numpy as np
import pretty_midi
import pytest
import symusic
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rnngan.cli import main
from rnngan.config import GeneratorConfig, read_toml
from rnngan.data.splits import SPLITS
from rnngan.data.store import Store
from rnngan.generate import generate, write_music
from rnngan.generator.registry import new_generator
from rnngan.music.midi import read_midi
from rnngan.music.piece import DRUMS, Metre, Piece, Tempo
from rnngan.music.tokenizers.events import Events
from rnngan.music.tokenizers.summary import Summary
from rnngan.training.checkpoint import Model, read_model
from rnngan.training.run import Run
from rnngan.verdict import evaluate_stages


def lines_of(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def events(run, stage):
    return EventAccumulator(str(run / "tensorboard" / stage)).Reload()


# One command from files to music


def test_a_run_leaves_music(trained):
    samples = sorted((trained / "samples").iterdir())
    assert [path.name for path in samples] == ["000.mid", "000.wav", "001.mid", "001.wav"]
    for path in samples[::2]:
        assert len(read_midi(path).notes) > 0
    for path in samples[1::2]:
        assert path.read_bytes()[:4] == b"RIFF" and path.stat().st_size > 1000


def test_a_run_leaves_a_report_on_both_stages(trained):
    names = {path.name for path in (trained / "report").iterdir()}
    assert names >= {"metrics.json", "metrics.csv", "report.html", "summary.png"}
    text = (trained / "report" / "metrics.json").read_text()
    assert "pretrained" in text and "refined" in text and "held-out" in text


def test_a_run_leaves_the_likelihood_of_each_model(trained):
    rows = json.loads((trained / "likelihood.json").read_text())
    assert [row["name"] for row in rows] == ["unigram", "5-gram", "pretrained", "refined"]
    store = Store.open(trained / "store")
    pieces = [store.piece_tokens(int(i)) for i in store.indices("test")]
    per_note = sum(len(p) - 1 for p in pieces) / sum(len(p.notes) for p in store.pieces("test"))
    for row in rows:
        assert 0 < row["bits_per_token"] < 10
        assert row["bits_per_note"] == pytest.approx(row["bits_per_token"] * per_note)


def test_a_run_leaves_settings_log_and_curves(trained, midi_folder):
    config = read_toml(trained / "config.toml")
    assert (config.data.corpus, config.generator.hidden_size) == (str(midi_folder), 24)
    (start,) = json.loads((trained / "run.json").read_text())["started"]
    assert start["packages"].keys() >= {"torch", "symusic"}

    log = lines_of(trained)
    for stage, name, steps in (
        ("pretrain", "pretrain/train_bits_per_token", list(range(1, 9))),
        ("pretrain", "pretrain/val_bits_per_token", [4, 8]),
        ("refine", "adversarial/kl_to_reference", [1, 2]),
        ("refine", "adversarial/val_bits_per_token", [0, 1, 2]),
    ):
        logged = {line["step"]: line[name] for line in log if name in line}
        assert list(logged) == steps
        shown = {event.step: event.value for event in events(trained, stage).Scalars(name)}
        assert shown == pytest.approx(logged)
    for stage in ("pretrain", "refine"):
        tags = events(trained, stage).Tags()
        assert "piano_roll/0" in tags["images"] and "sound/0" in tags["audio"]
        assert {"pitch/real", "pitch/generated"} <= set(tags["histograms"])


def test_a_run_leaves_models_that_improve_on_chance(trained):
    for stage in ("pretrain", "refine"):
        model = read_model(trained / "checkpoints" / f"{stage}-best.safetensors")
        uniform = math.log2(len(model.tokenizer.vocabulary))
        assert 0 < model.metrics["val_bits_per_token"] < uniform
    assert model.discriminator is not None


def test_one_held_out_piece_costs_the_report_and_no_more(trained, tmp_path):
    """So that a folder of a dozen files can be trained on with the default split."""
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("report"))
    run = Run.open(tmp_path / "run")
    (run.folder / "likelihood.json").unlink()
    store = Store.open(run.store_folder)
    store.splits[store.indices("test")[0]] = SPLITS.index("train")
    assert len(store.indices("test")) == 1
    said = []
    assert evaluate_stages(run, store, say=said.append) is None
    assert (run.folder / "likelihood.json").exists() and not (run.folder / "report").exists()
    assert said[-1].startswith("no report: ")


# The same by other ways


def same_files(one, two, *names):
    return all((one / name).read_bytes() == (two / name).read_bytes() for name in names)


MODELS = [
    f"checkpoints/{name}.safetensors"
    for name in ("pretrain-best", "pretrain-0000008", "refine-best", "refine-0000002")
]
STORE = [
    f"store/{name}"
    for name in (
        "tokens.npy",
        "offsets.npy",
        "splits.npy",
        "pieces.jsonl",
        "manifest.json",
        "rejects.csv",
    )
]


def test_stage_by_stage_ends_bit_by_bit_where_train_does(trained, settings, tmp_path):
    run = tmp_path / "run"
    assert main(["prepare", *settings, "--run", str(run)]) == 0
    for stage in ("pretrain", "refine"):  # the settings lie in the run by now
        assert main([stage, "--run", str(run), "--threads", "1"]) == 0
    assert same_files(trained, run, *STORE, *MODELS)


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from rnngan.cli import main
sys.exit(main(sys.argv[2:]))
"""


def test_a_run_cut_off_by_a_full_disk_goes_on_to_the_same_end(trained, settings, tmp_path):
    run = tmp_path / "run"
    # Room for all of pretraining, and for the first but not the second checkpoint of refinement.
    small, large = (
        (trained / "checkpoints" / f"{name}.resume.pt").stat().st_size
        for name in ("pretrain-0000008", "refine-0000002")
    )
    limit = (small + large) // 2
    words = ["train", *settings, "--run", str(run)]
    cut = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), *words], capture_output=True, text=True
    )
    assert cut.returncode == 2 and "Traceback" not in cut.stderr
    (error,) = [line for line in cut.stderr.splitlines() if line.startswith("rnngan: error: ")]
    assert "cannot write" in error and "File too large" in error
    assert [line for line in cut.stderr.splitlines() if line.startswith("TensorBoard cannot")]
    assert not (run / "checkpoints" / "refine-0000001.resume.pt").exists()

    assert main(["refine", "--run", str(run), "--resume", "--threads", "1"]) == 0
    assert same_files(trained, run, *STORE, *MODELS)
    steps = [(line["stage"], line["step"]) for line in lines_of(run)]
    assert steps == [
        (line["stage"], line["step"]) for line in lines_of(trained) if line["stage"] != "report"
    ]


@pytest.mark.slow
def test_a_finished_run_resumed_stays_as_it_is(trained, settings, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    assert main(["train", *settings, "--run", str(run), "--resume"]) == 0
    assert same_files(trained, run, *MODELS, "likelihood.json", "samples/000.mid")
    assert lines_of(run) == lines_of(trained)


# What comes out is music everywhere


def rich_model():
    """Untrained, over all that tokens can tell: drums, velocities, metres, tempos, programs."""
    random = np.random.default_rng(0)
    pieces = [
        Piece.from_rows(
            [
                (12 * t, 12 * t + int(random.integers(3, 90)), 40 + int(random.integers(40)),
                 int(random.integers(1, 128)), program, track)
                for t in range(40)
                for track, program in enumerate((0, 33, 73, DRUMS))
            ],
            metres=(Metre(0, 4, 4), Metre(96, 7, 8), Metre(180, 3, 4)),
            tempos=(Tempo(0, 120.0), Tempo(96, 87.0), Tempo(200, 141.0)),
        )
    ]  # fmt: skip
    tokenizer = Events.fit(Summary.of(pieces))
    torch.manual_seed(0)
    network = new_generator(
        GeneratorConfig(embedding_size=16, hidden_size=24), len(tokenizer.vocabulary)
    )
    return Model(generator=network.eval(), tokenizer=tokenizer, metrics={})


def by_mido(path):
    """(start, end, pitch, velocity, channel) in file ticks, counted by hand from the messages."""
    notes = []
    for track in mido.MidiFile(path).tracks:
        tick, sounding = 0, {}
        for message in track:
            tick += message.time
            if message.type not in ("note_on", "note_off"):
                continue
            key = (message.channel, message.note)
            if message.type == "note_on" and message.velocity > 0:
                assert key not in sounding, "struck again before it ended"
                sounding[key] = (tick, message.velocity)
            else:
                start, velocity = sounding.pop(key)  # a KeyError: an end without a beginning
                notes.append((start, tick, message.note, velocity, message.channel == 9))
        assert not sounding, "left hanging"
    return sorted(notes)


def by_symusic(path):
    return sorted(
        (note.time, note.end, note.pitch, note.velocity, track.is_drum)
        for track in symusic.Score(str(path)).tracks
        for note in track.notes
    )


def by_pretty_midi(path):
    midi = pretty_midi.PrettyMIDI(str(path))
    tick = midi.time_to_tick
    return sorted(
        (tick(note.start), tick(note.end), note.pitch, note.velocity, instrument.is_drum)
        for instrument in midi.instruments
        for note in instrument.notes
    )


@pytest.mark.parametrize("num", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_all_samples_are_midi_that_every_reader_reads_alike(tmp_path, num):
    model = rich_model()
    pieces = generate(model, num=num, seed=0, bars=3)
    assert len(pieces) == num and sum(len(piece.notes) for piece in pieces) > 10 * num
    paths = write_music(pieces, tmp_path, wav=False)
    for piece, path in zip(pieces, paths):
        expected = sorted(
            (20 * int(n["start"]), 20 * int(n["end"]), int(n["pitch"]), int(n["velocity"]),
             bool(n["program"] == DRUMS))
            for n in piece.notes
        )  # fmt: skip
        assert by_mido(path) == expected
        assert by_symusic(path) == expected
        assert by_pretty_midi(path) == expected
        fields = ["start", "end", "pitch", "velocity", "program"]
        if expected:
            assert read_midi(path).notes[fields].tolist() == piece.notes[fields].tolist()


def test_samples_have_the_bars_that_were_asked_for():
    model = rich_model()
    for bars in (1, 5, 40):
        draw = generate(model, num=4, seed=1, bars=bars)
        last = [
            np.searchsorted(piece.bar_lines(), piece.notes["start"].max(), side="right")
            for piece in draw
        ]
        assert max(last) == bars
