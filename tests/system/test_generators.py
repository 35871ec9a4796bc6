"""Every kind of generator from the command line: trained, resumed, refined, and heard."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rnngan.cli import main
from rnngan.config import changed, to_dict
from rnngan.data.store import Store
from rnngan.generate import find_model
from rnngan.generator.registry import CELLS
from rnngan.music.midi import read_midi
from rnngan.training.adversarial import Music
from rnngan.training.checkpoint import model_bytes, parse_model
from rnngan.training.run import Run


@pytest.fixture(scope="module")
def prepared(settings, tmp_path_factory):
    """A corpus that all runs share."""
    folder = tmp_path_factory.mktemp("prepared") / "store"
    assert main(["prepare", *settings, "--store", str(folder)]) == 0
    return folder


@pytest.fixture
def rnngan(settings, prepared, tmp_path, unwatched):
    """Runs a command on a run of its own."""

    def command(name, *words, run="run"):
        where = ["--run", str(tmp_path / run), "--store", str(prepared)]
        assert main([name, *settings, *where, *map(str, words)]) == 0
        return tmp_path / run

    return command


def logged(run, name):
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [line[name] for line in lines if name in line]


@pytest.mark.parametrize(("kind", "attention"), [*((kind, 8) for kind in CELLS), ("gru", 0)])
def test_every_kind_learns_and_writes_music(rnngan, tmp_path, kind, attention):
    run = rnngan("pretrain", "--generator", kind, "--attention", attention)
    first, last = logged(run, "pretrain/val_bits_per_token")
    assert last < first
    model = find_model(run)
    assert (model.generator.config.kind, model.generator.config.attention) == (kind, attention)
    for folder in ("one", "two"):
        words = ["--num", "2", "--bars", "2", "--no-wav", "--out", str(tmp_path / folder)]
        assert main(["generate", str(run), *words]) == 0
    for name in ("000.mid", "001.mid"):
        assert len(read_midi(tmp_path / "one" / name).notes) > 0
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("kind", ["peephole-lstm", "conv-lstm"])
def test_training_that_was_broken_off_ends_as_if_it_had_not_been(rnngan, kind):
    # A cosine and the share of steps in own keys follow from the number of steps.
    words = ["--generator", kind, "--pretrain.schedule", "plateau"]
    words += ["--pretrain.transpose-rate", "0"]
    whole = rnngan("pretrain", *words)
    rnngan("pretrain", *words, "--pretrain.steps", 4, run="parts")
    parts = rnngan("pretrain", *words, "--pretrain.steps", 8, "--resume", run="parts")
    assert model_bytes(find_model(parts)) == model_bytes(find_model(whole))


@pytest.mark.parametrize(
    ("kind", "objective"),
    [
        ("gru", "leave-one-out"),
        ("gru", "gumbel"),
        ("peephole-lstm", "leave-one-out"),
        ("peephole-lstm", "gumbel"),
        ("conv-lstm", "rollout"),
    ],
)
def test_what_a_discriminator_says_reaches_other_generators_too(rnngan, kind, objective):
    rnngan("pretrain", "--generator", kind)
    more = ["--discriminator.views", "tokens", "--refine.rollouts", "2"]
    run = rnngan("refine", "--generator", kind, "--objective", objective, *more)
    assert all(norm > 0 for norm in logged(run, "adversarial/generator_gradient_norm"))
    pretrained, refined = find_model(run, "pretrain"), find_model(run, "refine")
    assert model_bytes(pretrained) != model_bytes(refined)
    assert refined.generator.config.kind == kind


def test_a_model_from_before_there_were_kinds_is_an_lstm(rnngan, monkeypatch):
    model = find_model(rnngan("pretrain"))
    new = {"kind", "convolutions", "kernel_size", "pool_size"}

    def as_before(config):
        return {name: value for name, value in to_dict(config).items() if name not in new}

    with monkeypatch.context() as patch:
        patch.setattr("rnngan.training.checkpoint.to_dict", as_before)
        older = model_bytes(model)
    assert b"kernel_size" not in older
    found = parse_model(older, Path("older")).generator
    assert found.config == model.generator.config and found.config.kind == "lstm"
    assert found.state_dict().keys() == model.generator.state_dict().keys()


# Tags

TUNE = "X:1\nT:{0}\nR:{1}\nM:{2}\nL:1/8\nK:{3}\n{4}|\n"
STYLES = {"reel": ("4/4", 8), "jig": ("6/8", 6)}


@pytest.fixture(scope="session")
def tagged_run(tmp_path_factory):
    """Trained on reels and jigs in major and minor that are told so; read only."""
    folder = tmp_path_factory.mktemp("tagged") / "tunes"
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(24):
        style = "reel" if i % 2 else "jig"
        metre, count = STYLES[style]
        bars = ["".join(random.choice(list("cdefgab"), count)) for _ in range(4)]
        text = TUNE.format(f"tune {i}", style, metre, "C" if i % 3 else "Am", "|".join(bars))
        (folder / f"{i:02}.abc").write_text(text)
    run = tmp_path_factory.mktemp("runs") / "tagged"
    words = ["--corpus", str(folder), "--preset", "tiny", "--run", str(run), "--threads", "1"]
    words += ["--data.tags", "style", "mode", "--data.test-rate", "0.2", "--workers", "1"]
    assert main(["prepare", *words]) == 0
    learning = ["--pretrain.steps", "60", "--pretrain.learning-rate", "0.02"]
    learning += ["--pretrain.validate-every", "60"]
    assert main(["pretrain", *words, *learning]) == 0
    return run


@pytest.fixture
def tokens_of(monkeypatch):
    """What was written, as tokens by name."""
    written = []
    monkeypatch.setattr(
        "rnngan.generate.write_music",
        lambda pieces, *_, **__: written.extend(pieces) or [Path("a")],
    )
    return written


def test_pieces_have_the_tags_that_were_asked_for(tagged_run, tokens_of):
    words = ["generate", str(tagged_run), "--num", "8", "--bars", "2"]
    assert main([*words, "--tag", "style=reel", "--tag", "mode=minor", "--tag", "metre=6/8"]) == 0
    assert len(tokens_of) == 8
    for piece in tokens_of:
        assert piece.tags == {"style": "reel", "mode": "minor"}
        assert piece.metres[0].name == "6/8"
    del tokens_of[:]
    assert main([*words, "--tag", "style=jig", "--tag-weight", "1"]) == 0
    assert all(piece.tags == {"style": "jig"} for piece in tokens_of)


def test_a_tag_that_was_asked_for_shows_in_the_music(tagged_run, tokens_of):
    """In the corpus reels are in 4/4 and jigs in 6/8, and a network of 24 units has learnt that."""
    found = {}
    for style in ("reel", "jig"):
        words = ["--num", "40", "--bars", "1", "--tag", f"style={style}", "--no-wav"]
        assert main(["generate", str(tagged_run), *words]) == 0
        found[style] = sum(piece.metres[0].name == "6/8" for piece in tokens_of)
        del tokens_of[:]
    assert found["reel"] + 20 < found["jig"]


def test_a_tag_drawn_by_the_model_is_one_of_the_corpus(tagged_run, tokens_of):
    assert main(["generate", str(tagged_run), "--num", "8", "--bars", "1", "--no-wav"]) == 0
    for piece in tokens_of:
        assert piece.tags.get("style", "jig") in STYLES
        assert piece.tags.get("mode", "major") in ("major", "minor")


def test_the_discriminator_meets_real_pieces_without_tags_as_often_as_the_generator_did(tagged_run):
    """A share of r + (1 - r) r of them; of 800 rows, beyond 5 deviations once in 10^6 seeds."""
    run, rate = Run.open(tagged_run), 0.5
    store = Store.open(run.store_folder)
    music = Music(store, replace(run, config=changed(run.config, data={"tag_dropout": rate})))
    untold = store.tokenizer.vocabulary.index["Tag_style="]
    for batches in (music.openings, music.other_openings):
        rows = np.concatenate([batches.batch(step).tokens[:, 1] for step in range(200)])
        share = rate + (1 - rate) * rate
        assert abs((rows == untold).mean() - share) < 5 * (share * (1 - share) / len(rows)) ** 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--tag", "styl=reel"],
            "knows no tag 'styl'; did you mean 'style'?; it knows style, mode",
        ),
        (["--tag", "style=rel"], "had this style; did you mean 'reel'?; there are jig, reel"),
        (["--tag", "reel"], "--tag must be KEY=VALUE, such as style=reel, got 'reel'"),
        (["--tag-weight", "1"], "--tag-weight needs tags that it weighs; add --tag KEY=VALUE"),
    ],
)
def test_an_unknown_tag_is_one_line(tagged_run, tmp_path, capsys, words, message):
    assert main(["generate", str(tagged_run), *words, "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


def test_a_model_without_tags_says_so(rnngan, tmp_path, capsys):
    words = [
        "generate",
        str(rnngan("pretrain")),
        "--tag",
        "style=reel",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(words) == 2
    assert "this model knows no tag 'style'; it knows metre" in capsys.readouterr().err
