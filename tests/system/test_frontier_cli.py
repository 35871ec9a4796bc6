import csv
import json
import shutil
import subprocess
import sys

import pytest

from rnngan.cli import main

QUICK = ["--num", "10", "--temperatures", "0.5", "1.0"]


@pytest.fixture
def frontier(tmp_path, capsys):
    """Runs the command; gives the folder and what was printed."""

    def command(name, *words):
        out = tmp_path / name
        capsys.readouterr()
        assert main(["frontier", *map(str, words), "--out", str(out)]) == 0
        return out, capsys.readouterr()

    return command


@pytest.fixture
def refused(tmp_path, capsys):
    def command(*words):
        capsys.readouterr()
        assert main(["frontier", *map(str, words), "--out", str(tmp_path / "out")]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        return err.splitlines()[-1].removeprefix("rnngan: error: ")

    return command


def with_objective(run, folder, objective, **replaced):
    """A copy of a run that says it was refined in another way."""
    shutil.copytree(run, folder)
    path = folder / "config.toml"
    text = path.read_text()
    for old, new in {'"leave-one-out"': f'"{objective}"', **replaced}.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_run_is_swept_and_judged(frontier, trained):
    out, (text, progress) = frontier("a", trained, *QUICK, "--top-k", "1")
    assert sorted(contents(out)) == ["frontier.csv", "frontier.json", "frontier.png"]
    found = json.loads((out / "frontier.json").read_text())
    assert list(found["curves"]) == ["trained pretrained", "trained refined (leave-one-out)"]
    (verdict,) = found["verdicts"]
    assert verdict["outcome"] != "beats likelihood"
    assert verdict["sentence"] in text.replace("\n", " ") and "eta" not in text
    assert (
        "frontier 8/8" in progress and "only 2 held-out pieces: quality rests on little" in progress
    )
    for points, likelihood in zip(
        found["curves"].values(), json.loads((trained / "likelihood.json").read_text())[-2:]
    ):
        assert [(p["temperature"], p["top_k"]) for p in points] == [
            (0.5, 0), (1.0, 0), (0.5, 1), (1.0, 1),
        ]  # fmt: skip
        assert points[1]["bits_per_token"] == pytest.approx(likelihood["bits_per_token"], rel=1e-4)
        assert points[1]["bits_per_note"] == pytest.approx(likelihood["bits_per_note"], rel=1e-4)
        assert points[2]["bits_per_token"] is None and 0 < points[2]["impossible_rate"] < 1
        # The likeliest tokens are the same at every temperature: ten times one piece.
        cold, warm = (points[i]["lm_score[n=5]"] for i in (2, 3))
        assert [cold["value"], *cold["interval"]] == pytest.approx(
            [warm["value"], *warm["interval"]]
        )


def test_the_same_seed_gives_the_same_bytes(frontier, trained):
    (one, _), (two, _), (other, _) = (
        frontier(name, trained, *QUICK, "--seed", seed)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    for name in ("frontier.csv", "frontier.png"):
        assert contents(one)[name] == contents(two)[name] != contents(other)[name]


def test_a_point_is_the_same_whatever_is_measured_beside_it(frontier, trained):
    (few, _), (many, _) = (
        frontier("a", trained, *QUICK),
        frontier("b", trained, "--num", 10, "--temperatures", 1.0, 0.5, 0.7, "--top-p", 0.5),
    )
    few_rows, many_rows = (
        list(csv.reader((out / "frontier.csv").read_text().splitlines())) for out in (few, many)
    )
    assert len(many_rows) == 2 + 2 * 6
    assert all(row in many_rows for row in few_rows)


def test_controls_are_found_by_what_they_were_refined_with(frontier, trained, tmp_path):
    others = [
        with_objective(trained, tmp_path / name, name)
        for name in ("likelihood", "placebo-constant", "placebo-random")
    ]
    out, _ = frontier("a", trained, *others, *QUICK)
    found = json.loads((out / "frontier.json").read_text())
    (verdict,) = found["verdicts"]
    assert verdict["run"] == "trained" and verdict["missing"] == ["placebo-shuffled"]
    assert [arm["objective"] for arm in found["arms"]] == [
        "leave-one-out", "likelihood", "placebo-constant", "placebo-random",
    ]  # fmt: skip
    # Equal weights are measured once.
    assert len(found["curves"]) == 2
    out, (text, _) = frontier("b", *others, *QUICK)
    assert "nothing to judge" in text
    assert json.loads((out / "frontier.json").read_text())["verdicts"] == []


def test_a_run_without_refinement_has_one_curve(frontier, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").glob("refine-*"):
        path.unlink()
    out, (text, _) = frontier("a", tmp_path / "run", *QUICK)
    assert list(json.loads((out / "frontier.json").read_text())["curves"]) == ["run pretrained"]
    assert "nothing to judge" in text


def test_runs_of_other_music_are_one_clear_line(refused, trained, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    path = other / "store" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["sha256"]["splits.npy"] = "0" * 64
    path.write_text(json.dumps(manifest))
    message = refused(trained, other, *QUICK)
    assert "their prepared corpora differ in music or split; train them on one store" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["RUN", "RUN", *QUICK], "is named twice; name every run once"),
        (["RUN", "no/such/run", *QUICK], "no run in no/such/run"),
        (QUICK, "name at least one run"),
        (["RUN", "--num", "9"], "--num must be at least 10, got 9"),
        (["RUN", "--temperatures", "1.0"], "temperatures must be two or more"),
        (["RUN", "--temperatures", "1.0", "-1"], "temperatures must be above 0, got -1"),
        (["RUN", "--top-k", "0"], "top-k must be at least 1, got 0"),
        (["RUN", "--top-p", "1.5"], "top-p must be above 0 and below 1, got 1.5"),
        (["RUN", "--quality", "recall"], "bleu"),
        (["RUN", "--seed", "-1"], "--seed must be 0 to 2^64 - 1, got -1"),
        (["RUN", "--tempratures", "1.0"], "did you mean '--temperatures'?"),
    ],
)
def test_bad_options_are_one_clear_line(refused, trained, words, message):
    assert message in refused(*(trained if word == "RUN" else word for word in words))


def test_help_does_not_wait_for_torch():
    program = (
        "import sys\nfrom rnngan.cli import main\n"
        "try:\n    main(['frontier', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'matplotlib', 'scipy'} & set(sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "--temperatures" in found.stdout


def test_generate_cuts_off_unlikely_tokens(trained, tmp_path):
    def generate(name, *words):
        out = tmp_path / name
        words = ["generate", str(trained), "--num", "2", "--no-wav", *words, "--out", str(out)]
        assert main(words) == 0
        return contents(out)

    plain = generate("plain")
    for number, words in enumerate((["--top-k", "2"], ["--top-p", "0.3"])):
        assert generate(f"a{number}", *words) == generate(f"b{number}", *words) != plain
    assert generate("all", "--top-k", "0", "--top-p", "1.0") == plain
    first = generate("first", "--top-k", "1")
    assert first["000.mid"] == first["001.mid"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--top-k", "-1"], "top_k must be at least 1, or 0 for all tokens, got -1"),
        (["--top-p", "0"], "top_p must be above 0 and at most 1, which is all tokens, got 0"),
        (["--top-p", "1.2"], "got 1.2"),
    ],
)
def test_bad_truncation_of_generate_is_one_clear_line(trained, tmp_path, capsys, words, message):
    out = tmp_path / "new"
    assert main(["generate", str(trained), "--out", str(out), *words]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not out.exists()
