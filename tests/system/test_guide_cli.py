"""Music that the discriminator chooses, from the command line."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from rnngan.cli import main
from rnngan.generate import find_model, generate_guided
from rnngan.music.midi import read_midi
from rnngan.training.checkpoint import Checkpoints, model_bytes, read_model
from rnngan.training.residual import new_residual

GUIDES = ("resample", "reject", "particles")
QUICK = ["--num", "3", "--guide-candidates", "4", "--no-wav"]
SWEEP = ["--num", "10", "--temperatures", "0.5", "1.0", "--guide-candidates", "4"]


@pytest.fixture
def generate(trained, tmp_path, capsys):
    """Runs the command; gives what was written and what was printed."""

    def command(name, *words, model=trained):
        out = tmp_path / name
        capsys.readouterr()
        assert main(["generate", str(model), *words, "--out", str(out)]) == 0
        return contents(out), capsys.readouterr().out

    return command


@pytest.fixture
def refused(tmp_path, capsys):
    """Runs a command that must fail with one line of error and write nothing."""

    def command(*words):
        out = tmp_path / "refused"
        capsys.readouterr()
        assert main([*map(str, words), "--out", str(out)]) == 2
        printed, err = capsys.readouterr()
        (line,) = err.splitlines()
        assert printed == "" and not (out.exists() and any(out.iterdir()))
        return line.removeprefix("rnngan: error: ")

    return command


@pytest.fixture
def frontier(tmp_path, capsys):
    def command(name, *words):
        out = tmp_path / name
        assert main(["frontier", *map(str, words), *SWEEP, "--out", str(out)]) == 0
        return json.loads((out / "frontier.json").read_text())

    return command


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def without_refinement(run, folder):
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("refine-*"))
    return folder


def with_objective(run, folder, objective):
    """A copy of a run that says it was refined in another way."""
    shutil.copytree(run, folder)
    path = folder / "config.toml"
    text = path.read_text()
    assert '"leave-one-out"' in text
    path.write_text(text.replace('"leave-one-out"', f'"{objective}"'))
    return folder


# Generation


@pytest.mark.parametrize("guide", GUIDES)
def test_the_same_command_gives_the_same_bytes_and_says_how_much_choice_there_was(generate, guide):
    words = [*QUICK, "--guide", guide]
    (one, text), (two, again) = generate("a", *words), generate("b", *words)
    assert list(one) == ["000.mid", "001.mid", "002.mid"] and one == two
    assert text.replace("/a:", "/b:") == again
    other, _ = generate("c", *words, "--seed", "1")
    plain, silent = generate("plain", *QUICK)
    assert one != other and one != plain
    assert len(text.splitlines()) == 2 and len(silent.splitlines()) == 1
    if guide == "reject":
        share, drawn = re.match(r"accepted ([\d.]+)% of (\d+) candidates\n", text).groups()
        assert 0 < float(share) <= 100 and int(drawn) >= 3
        return
    median, low, high = map(
        float,
        re.match(
            r"effective candidates per piece: ([\d.]+) of 4 \(median; ([\d.]+) to ([\d.]+)\)\n",
            text,
        ).groups(),
    )
    assert 1 <= low <= median <= high <= 4


def test_chains_write_the_same_bytes_and_need_a_residual(generate, refused, trained, tmp_path):
    words = [*QUICK, "--guide", "chains", "--bars", "4"]
    assert "needs a model with a residual" in refused("generate", trained, *words)
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    torch.manual_seed(0)
    residual = new_residual()
    residual.committees.extend([residual.new_committee(), residual.new_committee()])
    best = Checkpoints(run / "checkpoints", "refine", keep=1, say=print)
    best.replace_best(replace(find_model(run), residual=residual))
    (one, text), (two, again) = generate("a", *words, model=run), generate("b", *words, model=run)
    assert list(one) == ["000.mid", "001.mid", "002.mid"] and one == two
    assert text.replace("/a:", "/b:") == again
    assert re.match(r"accepted [\d.]+% of 15 candidates\n", text)
    plain, _ = generate("plain", *QUICK, "--bars", "4", model=run)
    assert one != plain
    model = find_model(run)
    found = generate_guided(model, num=3, seed=0, guide="chains", candidates=4, bars=4)
    assert all((row == model.tokenizer.bar).sum() == 4 for row in found.tokens)


@pytest.mark.parametrize("guide", GUIDES)
def test_guided_pieces_have_the_bars_that_were_asked_for(generate, trained, guide):
    model = find_model(trained)
    found = generate_guided(model, num=3, seed=0, guide=guide, candidates=4, bars=4)
    for tokens in found.tokens:
        assert (tokens == model.tokenizer.bar).sum() == 4
    files, _ = generate("out", *QUICK, "--bars", "4", "--guide", guide)
    assert len(files) == 3


def test_four_bars_are_four_bars_of_the_file(generate, tmp_path):
    generate("out", *QUICK, "--num", "6", "--bars", "4", "--guide", "resample")
    pieces = [read_midi(path) for path in sorted((tmp_path / "out").iterdir())]
    last = [
        int(np.searchsorted(piece.bar_lines(), piece.notes["start"].max(), side="right"))
        for piece in pieces
        if len(piece.notes)
    ]
    assert max(last) == 4


def test_a_model_file_guides_as_its_run_does(generate, trained):
    words = [*QUICK, "--guide", "resample"]
    file = trained / "checkpoints" / "refine-best.safetensors"
    assert generate("a", *words)[0] == generate("b", *words, model=file)[0]


def test_what_was_only_pretrained_has_no_discriminator_to_ask(refused, trained, tmp_path):
    message = "guide 'resample' needs a model with a discriminator, and this one has none"
    guide = ["--guide", "resample"]
    assert message in refused("generate", trained, "--stage", "pretrain", *guide)
    bare = without_refinement(trained, tmp_path / "bare")
    assert message in refused("generate", bare, *guide)
    file = trained / "checkpoints" / "pretrain-best.safetensors"
    assert message in refused("generate", file, *guide)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--guide-candidates", "1"], "guide-candidates must be 2 to 256, got 1"),
        (["--guide-candidates", "257"], "guide-candidates must be 2 to 256, got 257"),
        (["--num", "0"], "--num must be at least 1, got 0"),
        (["--bars", "0"], "--bars must be 1 to 1000, got 0"),
        (["--temperature", "0"], "temperature must be above 0, got 0"),
        (["--top-p", "0"], "top_p must be above 0"),
        (["--seed", "-1"], "--seed must be 0 to 2^64 - 1, got -1"),
        (["--guide", "resmple"], "resample"),
    ],
)
def test_bad_options_of_guidance_are_one_clear_line(refused, trained, words, message):
    assert message in refused("generate", trained, "--guide", "resample", *words)


# The frontier


@pytest.fixture(scope="module")
def control(trained, tmp_path_factory):
    """A copy of the run that says it is a control; its networks are equal."""
    return with_objective(trained, tmp_path_factory.mktemp("runs") / "control", "placebo-random")


def test_the_frontier_sweeps_the_guided_generator_too(frontier, trained):
    found = frontier("a", trained, "--guide", "resample")
    refined = "trained refined (leave-one-out)"
    assert list(found["curves"]) == [
        "trained pretrained", refined, f"{refined} guided (resample)",
    ]  # fmt: skip
    before, after, guided = found["curves"].values()
    assert [arm["run"] for arm in found["arms"]] == ["trained", "trained guided"]
    assert [verdict["run"] for verdict in found["verdicts"]] == ["trained", "trained guided"]
    for points in (before, after):
        assert all(point["bits_per_token"] > 0 for point in points)
    assert not any("bits_per_token" in point for point in guided)  # nobody can write it down
    assert [point["temperature"] for point in guided] == [0.5, 1.0]
    # Beside the guided one the others are as they are alone.
    alone = frontier("b", trained)
    assert list(alone["curves"].values()) == [before, after]
    assert after != guided


def test_a_control_is_not_guided(frontier, trained, control):
    """Whichever comes first, though both generators are equal and measured once."""
    names = []
    for name, runs in (("a", [trained, control]), ("b", [control, trained])):
        found = frontier(name, *runs, "--guide", "resample")
        assert len(found["curves"]) == 3
        guided = [arm for arm in found["arms"] if arm["run"].endswith("guided")]
        assert [arm["run"] for arm in guided] == ["trained guided"]
        assert {arm["run"] for arm in found["arms"]} == {"trained", "control", "trained guided"}
        names.append(list(found["curves"])[-1])
    assert names == ["trained refined (leave-one-out) guided (resample)"] * 2


def test_a_run_is_guided_by_its_own_discriminator(frontier, trained, tmp_path):
    """Where another has the same generator, too, as after `--refine.steps 0`."""
    bare, other = tmp_path / "bare", tmp_path / "other"
    for run, sign in ((bare, 0), (other, -1)):
        shutil.copytree(trained, run)
        best = run / "checkpoints" / "refine-best.safetensors"
        model = read_model(best)
        with torch.no_grad():
            model.discriminator.output.weight.mul_(sign)
        judge = model.discriminator if sign else None
        best.write_bytes(model_bytes(replace(model, discriminator=judge)))
    alone, beside = (
        frontier(name, *runs, "--guide", "resample")["curves"]
        for name, runs in (("a", [trained]), ("b", [bare, other, trained]))
    )
    ours, theirs = (
        f"{name} refined (leave-one-out) guided (resample)" for name in ("trained", "other")
    )
    assert list(beside) == ["bare pretrained", "bare refined (leave-one-out)", theirs, ours]
    assert beside[ours] == alone[ours] != beside[theirs]


def test_controls_alone_cannot_be_guided(refused, control, trained, tmp_path):
    message = "--guide resample: no run has a discriminator that serves"
    bare = without_refinement(trained, tmp_path / "bare")
    for run in (control, bare):
        assert message in refused("frontier", run, *SWEEP, "--guide", "resample")
