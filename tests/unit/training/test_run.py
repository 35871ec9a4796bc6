import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from rnngan.config import changed, preset, read_toml
from rnngan.errors import UserError
from rnngan.objectives.registry import OBJECTIVES
from rnngan.training.run import Run

TINY = preset("tiny")


def begin(folder, config=TINY, *, stages=("prepare", "pretrain"), store=None, resume=False):
    return Run.begin(folder, config, stages=stages, store=store, resume=resume)


def have_begun(run, *stages):
    """Leave what each stage leaves."""
    for stage in stages:
        if stage == "prepare":
            run.store_folder.mkdir(parents=True)
            (run.store_folder / "manifest.json").write_text("{}")
        else:
            run.checkpoints.mkdir(exist_ok=True)
            (run.checkpoints / f"{stage}-0000004.resume.pt").write_bytes(b"")


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(folder, **options):
    """The message, nothing being written or changed."""
    before = contents(folder.parent)
    with pytest.raises(UserError) as caught:
        begin(folder, **options)
    assert contents(folder.parent) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_new_run_holds_its_settings_and_where_it_comes_from(tmp_path):
    run = begin(tmp_path / "runs" / "new")
    assert read_toml(run.folder / "config.toml") == TINY
    about = json.loads((run.folder / "run.json").read_text())
    assert about["seed"] == TINY.seed
    (start,) = about["started"]
    assert start.keys() >= {"time", "command", "commit", "python", "machine", "packages"}
    assert start["packages"].keys() >= {"torch", "numpy"}
    assert Run.open(run.folder) == run
    assert run.store_folder == run.folder / "store"


def test_stages_have_begun_when_they_left_something(tmp_path):
    run = begin(tmp_path / "run")
    for stage in ("prepare", "pretrain", "refine"):
        assert not run.has_begun(stage)
        have_begun(run, stage)
        assert run.has_begun(stage)


def test_an_empty_folder_may_become_a_run(tmp_path):
    begin(tmp_path)
    assert (tmp_path / "config.toml").exists()


def test_a_folder_that_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    assert "is not a run and not empty; choose another --run" in refusal(tmp_path / "mine")


def test_a_file_is_no_run(tmp_path):
    (tmp_path / "file").write_text("precious")
    assert "is a file, not a run" in refusal(tmp_path / "file")


def test_a_run_that_was_begun_is_not_begun_again(tmp_path):
    folder = tmp_path / "run"
    have_begun(begin(folder), "prepare", "pretrain")
    assert "already holds a run (pretrain has begun); add --resume" in refusal(folder)
    begin(folder, resume=True)
    begin(folder, stages=("refine",))


def test_a_prepared_run_may_be_trained(tmp_path):
    have_begun(begin(tmp_path / "run", stages=("prepare",)), "prepare")
    begin(tmp_path / "run", stages=("prepare", "pretrain"))


def test_there_is_nothing_to_resume(tmp_path):
    assert "no run to resume in" in refusal(tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    ("stage", "part", "key", "value"),
    [
        ("prepare", "data", "corpus", "oneills"),
        ("prepare", "data", "test_rate", 0.3),
        ("pretrain", "generator", "hidden_size", 99),
        ("pretrain", "pretrain", "batch_size", 7),
        ("refine", "discriminator", "stride", 2),
        ("refine", "refine", "clip", 0.5),
    ],
)
def test_settings_of_a_stage_that_has_begun_stand(tmp_path, resume, stage, part, key, value):
    other = changed(TINY, **{part: {key: value}})
    folder = tmp_path / "run"
    run = begin(folder)
    begin(folder, other)  # nothing has begun
    begin(folder)
    have_begun(run, stage)
    message = refusal(folder, config=other, resume=resume, stages=())
    assert f"{part}.{key} was" in message and repr(value) in message
    assert f"after {stage} has begun; choose another --run" in message
    assert Run.open(folder).config == TINY


def test_another_seed_is_another_run(tmp_path):
    have_begun(begin(tmp_path / "run"), "prepare")
    other = dataclasses.replace(TINY, seed=5)
    assert "seed was 0 and is now 5" in refusal(tmp_path / "run", config=other)


def test_settings_of_later_stages_may_still_change(tmp_path):
    have_begun(begin(tmp_path / "run"), "prepare", "pretrain")
    other = changed(TINY, refine={"clip": 0.5}, output={"num_samples": 99})
    assert begin(tmp_path / "run", other, stages=("refine",)).config == other
    assert Run.open(tmp_path / "run").config == other


@pytest.mark.parametrize("part", ["pretrain", "refine"])
def test_a_stage_may_be_resumed_for_longer(tmp_path, part):
    have_begun(begin(tmp_path / "run"), "prepare", "pretrain", "refine")
    longer = changed(TINY, **{part: {"steps": 1000}})
    run = begin(tmp_path / "run", longer, resume=True)
    assert getattr(Run.open(run.folder).config, part).steps == 1000


def test_every_start_is_written_down(tmp_path):
    for i in range(3):
        begin(tmp_path / "run", resume=i > 0)
    assert len(json.loads((tmp_path / "run" / "run.json").read_text())["started"]) == 3


# The store


def test_a_store_elsewhere_is_remembered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begin(tmp_path / "run", store=Path("stores/a"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert Run.open(tmp_path / "run").store_folder == tmp_path / "stores" / "a"
    assert begin(tmp_path / "run").store_folder == tmp_path / "stores" / "a"


def test_a_store_may_be_named_again_in_other_words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begin(tmp_path / "run", store=Path("stores/a"))
    begin(tmp_path / "run", store=tmp_path / "stores" / "b" / ".." / "a", resume=True)


def test_another_store_is_refused(tmp_path):
    begin(tmp_path / "run", store=tmp_path / "a")
    message = refusal(tmp_path / "run", store=tmp_path / "b")
    assert f"was made with the corpus in {tmp_path / 'a'}" in message


def test_a_run_takes_its_own_store_along_when_it_moves(tmp_path):
    have_begun(begin(tmp_path / "here"), "prepare")
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert Run.open(tmp_path / "there").store_folder == tmp_path / "there" / "store"
    begin(tmp_path / "there")


# Damage


def test_open_says_that_there_is_no_run(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match=r"no run in .*; start one with: rnngan train"):
            Run.open(folder)


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b"\xff\xfe", b'{"store": 5}', b'{"started": 5}', b"null"]
)
def test_a_damaged_run_json_is_one_clear_line(tmp_path, damage):
    folder = begin(tmp_path / "run").folder
    (folder / "run.json").write_bytes(damage)
    assert f"cannot read {folder / 'run.json'}" in refusal(folder)
    with pytest.raises(UserError, match=r"cannot read .*run\.json"):
        Run.open(folder)


def test_a_lost_run_json_is_written_anew(tmp_path):
    folder = begin(tmp_path / "run").folder
    (folder / "run.json").unlink()
    assert Run.open(folder).config == TINY
    begin(folder)
    assert json.loads((folder / "run.json").read_text())["seed"] == 0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("seed = ", "cannot read configuration"),
        ("sed = 1", "unknown configuration key sed; did you mean 'seed'?"),
        ("[pretrain]\nstepz = 1", r"unknown configuration key pretrain\.stepz; did you mean"),
        ("[pretrain]\nsteps = 'many'", r"pretrain\.steps must be of type int, got 'many'"),
        ("[pretrain]\nsteps = 0", "steps must be above 0"),
        ("pretrain = 1", r"configuration key pretrain must be a table"),
    ],
)
def test_a_damaged_config_is_one_clear_line(tmp_path, damage, message):
    folder = begin(tmp_path / "run").folder
    (folder / "config.toml").write_text(damage)
    with pytest.raises(UserError, match=message):
        Run.open(folder)
    refusal(folder)


def test_a_run_below_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot make run folder" in refusal(tmp_path / "file" / "run")


# Tokens or tuples

TUPLES = changed(
    TINY,
    data={"tokenizer": "tuples"},
    generator={"kind": "tuples"},
    refine={"objective": "feature-matching"},
)


@pytest.mark.parametrize(
    ("config", "stages", "message"),
    [
        (
            changed(TUPLES, data={"tokenizer": "events"}),
            ("prepare", "pretrain"),
            "the generator tuples needs data.tokenizer tuples, got events; add --tokenizer tuples",
        ),
        (
            changed(TUPLES, generator={"kind": "lstm"}),
            ("pretrain",),
            "data.tokenizer tuples makes real numbers, which the generator lstm cannot learn; add "
            "--generator tuples, or choose another --tokenizer",
        ),
        *(
            (
                changed(TUPLES, refine={"objective": objective}),
                ("prepare", "pretrain", "refine"),
                f"objective {objective} needs tokens with probabilities, and the generator tuples "
                "writes real numbers; add --objective feature-matching",
            )
            for objective in (*OBJECTIVES,)
        ),
        (
            changed(TINY, refine={"objective": "feature-matching"}),
            ("pretrain", "refine"),
            "objective feature-matching needs the generator tuples, got lstm; add --generator "
            "tuples --tokenizer tuples, or choose another --objective",
        ),
    ],
)
def test_what_does_not_go_together_is_said_before_anything_begins(
    tmp_path, config, stages, message
):
    (tmp_path / "runs").mkdir()
    assert refusal(tmp_path / "runs" / "new", config=config, stages=stages) == message


def test_what_a_stage_has_no_use_for_does_not_matter(tmp_path):
    begin(tmp_path / "1", changed(TINY, data={"tokenizer": "tuples"}), stages=("prepare",))
    begin(tmp_path / "2", changed(TUPLES, refine={"objective": "leave-one-out"}))
    begin(tmp_path / "3", TUPLES, stages=("prepare", "pretrain", "refine", "report"))
