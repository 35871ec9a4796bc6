import errno
import json
import os
import pickle
import shutil
import subprocess
import sys

import pytest
import torch

from rnngan import __version__
from rnngan.cli import COMMANDS, main
from rnngan.config import PRESETS, to_toml
from rnngan.training.run import Run


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the trained run, to be changed at will."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def contents(folder):
    """All files but `run.json`, where every start is written down, those that fail, too."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "run.json")
    return {path: path.read_bytes() for path in files}


@pytest.fixture
def refused(tmp_path, capsys):
    """Runs a command that must fail: status 2, one line of error, nothing written over."""

    def command(*words):
        before = contents(tmp_path)
        capsys.readouterr()
        assert main([*map(str, words)]) == 2
        out, err = capsys.readouterr()
        after = contents(tmp_path)
        assert out == ""
        assert {path: after.get(path) for path in before} == before
        lines = [line for line in err.splitlines() if not line.lstrip().startswith("prepare ")]
        assert len(lines) == 1 and lines[0].startswith("rnngan: error: ")
        return lines[0].removeprefix("rnngan: error: ")

    return command


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


# Answers at once


@pytest.mark.parametrize(
    "program",
    [
        "import rnngan",
        "import eval",
        "from rnngan.cli import main; assert main(['--help']) == 0",
        "from rnngan.cli import main; assert main([]) == 0",
        "from rnngan.cli import main; assert main(['--version']) == 0",
        "from rnngan.cli import main; assert main(['trian']) == 2",
        "from rnngan.cli import main; assert main(['corpora']) == 0",
    ],
)
def test_what_needs_no_torch_does_not_wait_for_it(program):
    program += "; import sys; assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])
    assert not left.value.code
    assert "--" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"rnngan {__version__}\n"


def test_the_script_and_the_module_are_the_same_command(capsys):
    import train_gan

    words = [sys.executable, train_gan.__file__, "pretrian"]
    script = subprocess.run(words, capture_output=True, text=True)
    assert main(["pretrian"]) == script.returncode == 2
    assert capsys.readouterr().err == script.stderr


# Bad input


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["train", "--corups", "x"], "unknown option '--corups'; did you mean '--corpus'?"),
        (
            ["train", "--pretrain.stepz", "3"],
            "unknown option '--pretrain.stepz'; did you mean '--pretrain.steps'?",
        ),
        (["train", "--corpus=ryans-mamoth"], "did you mean 'ryans-mammoth'?"),
        (["train", "--corpus", "no/such/folder"], "corpus folder no/such/folder does not exist"),
        (["train", "--preset", "tniy"], "unknown preset 'tniy'; did you mean 'tiny'?"),
        (["train", "--config", "none.toml"], "cannot read configuration none.toml"),
        (["train", "--pretrain.steps", "many"], "pretrain.steps"),
        (["train", "--pretrain.steps", "0"], "pretrain.steps must be above 0, got 0"),
        (["train", "--pretrain.steps"], "pretrain.steps"),
        (["train", "--refine.objective", "leave-one-ut"], "leave-one-out"),
        (["train", "--run"], "--run"),
        (["train", "--seed", "-1"], "seed must be at least 0, got -1"),
        (["train", "--threads", "0"], "--threads must be at least 1, got 0"),
        (["train", "--resume", "--run", "none"], "no run to resume in none"),
        (["pretrain", "--run", "new"], "no prepared corpus in new"),
        (["refine", "--run", "new"], "no prepared corpus in new"),
        (["train", "nonsense"], "unknown option 'nonsense'"),
        (["generate"], "generate: "),
        (["generate", "none"], "no run in none"),
        (["generate", "none.safetensors"], "no run in none.safetensors"),
        (["generate", "none", "--temprature", "1"], "did you mean '--temperature'?"),
        (["render"], "name at least one MIDI file"),
        (["render", "none.mid"], "cannot read none.mid: No such file or directory"),
    ],
)
def test_bad_input_is_one_clear_line(refused, words, message):
    assert message in refused(*words)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        (
            "[pretrain]\nstepz = 3",
            "unknown configuration key pretrain.stepz; did you mean 'steps'?",
        ),
        ("[pretain]\nsteps = 3", "unknown configuration key pretain; did you mean 'pretrain'?"),
        ("[pretrain]\nsteps = '3'", "pretrain.steps must be of type int, got '3'"),
        ("[pretrain\n", "cannot read configuration"),
        ("[refine]\nobjective = 'leave-one-ut'", "did you mean 'leave-one-out'?"),
    ],
)
def test_a_bad_settings_file_is_one_clear_line(refused, tmp_path, toml, message):
    (tmp_path / "bad.toml").write_text(toml)
    assert message in refused("train", "--config", tmp_path / "bad.toml")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no music in "),
        ({"readme.txt": b"hello"}, "no music in "),
        ({"a.mid": b"MThd", "b.mid": b"", "c.mid": b"no music"}, "nothing is left of the 3 files"),
    ],
)
def test_a_folder_without_music_is_one_clear_line(refused, tmp_path, files, message):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name, data in files.items():
        (corpus / name).write_bytes(data)
    words = ["--corpus", corpus, "--run", tmp_path / "new", "--preset", "tiny", "--workers", "1"]
    assert message in refused("train", *words)


def test_a_corpus_too_small_to_split_is_one_clear_line(refused, midi_folder, tmp_path):
    (tmp_path / "few").mkdir()
    for name in ("00.mid", "01.mid"):
        shutil.copy(midi_folder / name, tmp_path / "few")
    words = ["--corpus", tmp_path / "few", "--run", tmp_path / "new", "--workers", "1"]
    assert "the corpus is too small to split: 2 distinct pieces" in refused("prepare", *words)


def test_after_a_mistake_the_same_run_may_be_begun_with_the_right_corpus(
    refused, settings, tmp_path
):
    new = ["--run", str(tmp_path / "new")]
    refused("prepare", "--corpus", "no/such", *new)
    assert main(["prepare", *settings, *new]) == 0


# Runs that are there


def test_a_run_is_not_begun_over_another(refused, run, settings):
    assert "already holds a run (pretrain has begun)" in refused("train", *settings, "--run", run)
    assert "already holds a run (refine has begun)" in refused("refine", "--run", run)


def test_other_settings_are_another_run(refused, run):
    words = ["pretrain", "--run", run, "--resume", "--generator.hidden-size", "32"]
    message = refused(*words)
    assert "generator.hidden_size was 24 and is now 32" in message
    words = ["train", "--run", run, "--resume", "--corpus", "oneills"]
    assert "data.corpus was" in refused(*words)


def test_a_folder_of_something_else_is_no_run(refused, settings, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    assert "is not a run and not empty" in refused("train", *settings, "--run", tmp_path / "mine")


def test_a_store_of_another_corpus_is_not_taken_for_this_one(refused, run, tmp_path):
    store = ["--store", run / "store"]
    message = refused("train", *store, "--run", tmp_path / "new", "--corpus", "oneills")
    assert "was prepared with data.corpus" in message and "'oneills'" in message


def test_a_store_may_serve_several_runs(run, settings, tmp_path, capsys):
    new = tmp_path / "new"
    words = [*settings, "--store", str(run / "store"), "--run", str(new)]
    assert main(["pretrain", *words]) == 0
    name = "checkpoints/pretrain-best.safetensors"
    assert (new / name).read_bytes() == (run / name).read_bytes()
    assert not (new / "store").exists()


def test_an_interrupt_is_one_line(settings, tmp_path, monkeypatch, capsys):
    import train_gan

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(train_gan, "main", interrupted)
    assert main(["train", *settings, "--run", str(tmp_path / "new")]) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert "goes on with --resume" in line


# Damaged and hostile checkpoints


def write_pickle(path, trap):
    path.write_bytes(pickle.dumps(Evil(trap)))


def write_torch_pickle(path, trap):
    torch.save({"optimizer": Evil(trap)}, path)


def write_nothing(path, trap):
    path.write_bytes(b"")


def write_noise(path, trap):
    path.write_bytes(bytes(range(256)) * 50)


def write_half(path, trap):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = [write_pickle, write_torch_pickle, write_nothing, write_noise, write_half]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_hostile_model_is_one_clear_line(refused, run, tmp_path, damage):
    best, trap = run / "checkpoints" / "refine-best.safetensors", tmp_path / "trap"
    damage(best, trap)
    for model in (best, run):
        message = refused("generate", model)
        assert "refine-best.safetensors is not a model of rnngan, or is damaged" in message
    assert not trap.exists()
    assert main(["generate", str(run), "--stage", "pretrain", "--num", "1", "--no-wav"]) == 0


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_or_hostile_resume_states_are_one_clear_line(run, tmp_path, capsys, damage):
    trap = tmp_path / "trap"
    for path in (run / "checkpoints").glob("refine-*.resume.pt"):
        damage(path, trap)
    before = contents(run / "checkpoints")
    assert main(["refine", "--run", str(run), "--resume"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4  # three checkpoints passed over, and the end of it
    assert all(line.endswith("going back to the checkpoint before") for line in lines[:3])
    assert "all refine checkpoints" in lines[3] and "are damaged" in lines[3]
    assert contents(run / "checkpoints") == before and not trap.exists()


def test_a_damaged_last_checkpoint_costs_the_steps_since_the_one_before(run, trained, capsys):
    (run / "checkpoints" / "refine-0000002.resume.pt").write_bytes(b"")
    assert main(["refine", "--run", str(run), "--resume", "--threads", "1"]) == 0
    err = capsys.readouterr().err
    assert "going back to the checkpoint before" in err and "going on after 1 steps" in err
    for name in ("refine-best.safetensors", "refine-0000002.safetensors"):
        ours, theirs = (folder / "checkpoints" / name for folder in (run, trained))
        assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("name", ["config.toml", "run.json", "store/manifest.json"])
def test_a_damaged_run_is_one_clear_line(refused, run, name):
    (run / name).write_bytes(b"{")
    assert name.split("/")[0] in refused("refine", "--run", run, "--resume")


def test_a_damaged_store_is_one_clear_line(refused, run):
    (run / "store" / "tokens.npy").write_bytes(b"")
    assert "the prepared corpus in" in refused("refine", "--run", run, "--resume")


# Generating


@pytest.fixture
def generate(trained, tmp_path):
    def command(name, *words):
        out = tmp_path / name
        assert main(["generate", str(trained), "--num", "2", *words, "--out", str(out)]) == 0
        return {path.name: path.read_bytes() for path in sorted(out.iterdir())}

    return command


def test_the_same_seed_gives_the_same_bytes(generate):
    one, two, other = generate("a"), generate("b", "--seed", "0"), generate("c", "--seed", "1")
    assert list(one) == ["000.mid", "000.wav", "001.mid", "001.wav"]
    assert one == two
    assert not any(one[name] == other[name] for name in one)


def test_temperature_and_stage_matter(generate, trained, tmp_path):
    words = ["--no-wav", "--bars", "4"]
    plain = generate("a", *words)
    assert generate("b", *words, "--temperature", "0.5") != plain
    assert generate("c", *words, "--stage", "refine") == plain
    assert list(plain) == ["000.mid", "001.mid"]


def test_a_model_file_does_as_well_as_its_run(generate, trained, tmp_path):
    model, out = trained / "checkpoints" / "refine-best.safetensors", tmp_path / "file"
    assert main(["generate", str(model), "--num", "2", "--out", str(out)]) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == generate("run")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--temperature", "0"], "temperature must be above 0, got 0"),
        (["--temperature", "-1"], "temperature must be above 0, got -1"),
        (["--temperature", "nan"], "temperature must be above 0, got nan"),
        (["--num", "0"], "--num must be at least 1, got 0"),
        (["--bars", "0"], "--bars must be 1 to 1000, got 0"),
        (["--bars", "1001"], "--bars must be 1 to 1000, got 1001"),
        (["--seed", "-1"], "seed"),
        (["--stage", "refind"], "refine"),
        (["--num", "x"], "--num"),
    ],
)
def test_bad_options_of_generate_are_one_clear_line(refused, trained, tmp_path, words, message):
    assert message in refused("generate", trained, "--out", tmp_path / "new", *words)
    assert not (tmp_path / "new").exists()


def test_an_output_folder_that_cannot_be_made(refused, trained, tmp_path):
    (tmp_path / "file").write_text("precious")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert "cannot make folder" in refused("generate", trained, "--out", out, "--num", "1")


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_is_one_clear_line(refused, generate, trained, tmp_path, monkeypatch, failing):
    generate("music", "--seed", "5")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    message = refused("generate", trained, "--num", "2", "--out", tmp_path / "music")
    assert "cannot write" in message and "No space left on device" in message


def test_what_the_system_refuses_is_one_clear_line(refused, monkeypatch):
    def denied(_):
        raise PermissionError(errno.EACCES, "Permission denied", "somewhere")

    monkeypatch.setitem(COMMANDS, "train", ("", denied))
    assert refused("train") == "[Errno 13] Permission denied: 'somewhere'"


# The other commands


def test_render_writes_sound_and_picture(midi_folder, tmp_path, capsys):
    shutil.copy(midi_folder / "00.mid", tmp_path)
    assert main(["render", str(tmp_path / "00.mid")]) == 0
    assert (tmp_path / "00.wav").read_bytes()[:4] == b"RIFF"
    assert (tmp_path / "00.png").read_bytes()[1:4] == b"PNG"
    assert "00.wav" in capsys.readouterr().out


def test_render_refuses_what_is_no_midi(refused, tmp_path):
    (tmp_path / "a.mid").write_text("no music")
    assert "cannot read" in refused("render", tmp_path / "a.mid")


def test_settings_from_a_file_and_from_the_run(midi_folder, tmp_path, capsys):
    (tmp_path / "mine.toml").write_text(to_toml(PRESETS["tiny"]))
    words = ["--config", str(tmp_path / "mine.toml"), "--run", str(tmp_path / "new")]
    words += ["--corpus", str(midi_folder), "--workers", "1", "--pretrain.learning-rate", "0.001"]
    assert main(["prepare", *words]) == 0
    config = Run.open(tmp_path / "new").config
    assert (config.generator.hidden_size, config.pretrain.learning_rate) == (24, 0.001)
    assert main(["prepare", "--run", str(tmp_path / "new")]) == 0
    assert Run.open(tmp_path / "new").config == config
    assert len(json.loads((tmp_path / "new" / "run.json").read_text())["started"]) == 2
