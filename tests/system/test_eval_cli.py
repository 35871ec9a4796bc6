import csv
import json
import re
import subprocess
import sys
import zipfile
from html.parser import HTMLParser

import numpy as np
import pytest

from eval.__main__ import main
from eval.features import FEATURES
from rnngan.music.midi import write_midi
from rnngan.music.piece import Piece

FILES = {"metrics.json", "metrics.csv", "report.html", "summary.png"}
QUICK = ["--resamples", "20", "--permutations", "199"]
EVERY_PICTURE = "pitch_class_transitions,interval_histogram,pitch_entropy"


def melody(rng, up=0):
    lengths = rng.choice([12, 24], 24)
    ends = np.cumsum(lengths)
    pitches = np.array([60, 62, 64, 65, 67, 69, 71])[rng.integers(7, size=24)] + up
    return Piece.from_rows(zip(ends - lengths, ends, pitches))


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    """Folders `real`, `same` (more of it), `high` (an octave up) and `broken`."""
    root = tmp_path_factory.mktemp("music")
    for seed, (name, count, up) in enumerate([("real", 24, 0), ("same", 24, 0), ("high", 24, 12)]):
        (root / name).mkdir()
        rng = np.random.default_rng(seed)
        for i in range(count):
            write_midi(melody(rng, up), root / name / f"{i:02}.mid")
    (root / "broken").mkdir()
    (root / "broken" / "a.mid").write_bytes(b"MThd")
    (root / "broken" / "b.mid").write_bytes(b"no music")
    return root


@pytest.fixture
def run(music, tmp_path, capsys):
    """Runs the command; names that stand in `music` become paths there."""

    def command(*words, out=tmp_path / "report"):
        paths = [str(music / word) if (music / word).exists() else word for word in words]
        status = main([*QUICK, *paths, "--out", str(out)])
        return status, capsys.readouterr()

    return command


@pytest.fixture
def report(tmp_path):
    def read():
        def refuse(name):
            raise ValueError(f"{name} is no JSON")

        text = (tmp_path / "report" / "metrics.json").read_text(encoding="utf-8")
        return json.loads(text, parse_constant=refuse)

    return read


@pytest.fixture(autouse=True)
def _few_pieces(monkeypatch):
    """Piano rolls take most of the time of a small report, and many show no more than one."""
    monkeypatch.setattr("eval.gallery.EACH", 1)


class Page(HTMLParser):
    """What a page says, and what it would load."""

    def __init__(self, text):
        super().__init__()
        self.words, self.links, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.words.append(data)


def test_the_whole_report_from_the_command_line(music, tmp_path):
    out = tmp_path / "deep" / "report"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "eval",
            music / "real",
            music / "high",
            "--out",
            out,
            "--metrics",
            "pitch",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pictures = {"distributions.png", "histograms.png", "transitions.png", "self_similarity.png"}
    assert {path.name for path in out.iterdir()} == FILES | pictures
    assert "high (24 pieces) against real (24 pieces)" in done.stdout
    assert re.search(r"pitch_histogram\[count\].*higher", done.stdout)
    assert f"Wrote to {out}" in done.stdout
    assert "reading real: 24" in done.stderr  # progress, away from the results
    for path in out.glob("*.png"):
        assert path.read_bytes()[:4] == b"\x89PNG"


def test_different_music_is_told_apart_and_more_of_the_same_is_not(run, report):
    status, captured = run("real", "same", "high", "--metrics", "pitch_histogram,note_density")
    assert status == 0
    told = report()["features_told_apart"]
    assert told["same"] == 0
    assert told["high"] > 0
    rows = {(row["side"], row["feature"]): row for row in report()["rows"]}
    moved = rows["high", "pitch_histogram[count]"]
    assert moved["verdict"] == "higher"
    assert moved["distance"]["value"] == pytest.approx(12, abs=1)
    assert moved["distance"]["interval_95"][0] > moved["distance"]["real_against_real_95"][1]
    assert rows["high", "note_density[beat]"]["verdict"] == "no difference seen"
    assert "same, high against real" in captured.out


def test_table_json_and_csv_agree(run, report, tmp_path):
    run("real", "high", "--metrics", "texture,drum_pattern_rate")
    with (tmp_path / "report" / "metrics.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    rows = report()["rows"]
    assert [line["feature"] for line in lines] == [row["feature"] for row in rows]
    for line, row in zip(lines, rows):
        value = row["distance"]["value"]
        assert line["distance"] == ("" if value is None else str(value))
    drums = next(row for row in rows if row["feature"] == "drum_pattern_rate")
    assert drums["distance"]["value"] is None  # undefined, and not 0
    assert drums["real"]["undefined"] == 24


def test_equal_runs_write_equal_bytes(run, tmp_path):
    written = []
    for _ in range(2):
        run("real", "high", "--metrics", EVERY_PICTURE)
        files = sorted((tmp_path / "report").iterdir())
        written.append({path.name: path.read_bytes() for path in files})
    assert written[0] == written[1]


def test_the_record_says_where_every_number_comes_from(run, report, music):
    run("real", "high", "--metrics", "pitch_entropy", "--seed", "7", "--limit", "10")
    record = report()
    assert record["seed"] == 7
    assert (record["resamples"], record["permutations"]) == (20, 199)
    assert record["real"]["path"] == str(music / "real")
    assert record["real"]["pieces"] == record["fakes"][0]["pieces"] == 10
    assert record["real"]["content_hash"] != record["fakes"][0]["content_hash"]
    assert "--limit 10" in record["command"]
    assert {"python", "numpy", "rnngan"} <= set(record["versions"])


def test_the_page_stands_alone(run, tmp_path):
    run("real", "high", "same", "--training", "same", "--metrics", EVERY_PICTURE)
    page = Page((tmp_path / "report" / "report.html").read_text(encoding="utf-8"))
    pictures = [link for link in page.links if link.startswith("data:image/png;base64,")]
    sounds = [link for link in page.links if link.startswith("data:audio/wav;base64,")]
    assert len(pictures) + len(sounds) == len(page.links)
    assert len(pictures) == 5 + len(sounds)  # each piece has a piano roll
    said = " ".join(page.words)
    for text in (
        "high, same against real",
        "Side by side",
        "Copying from the training set",
        "Seed",
    ):
        assert text in said


def test_the_best_the_worst_and_the_odd_pieces_are_named(run, report, music, tmp_path):
    odd = melody(np.random.default_rng(9))
    rows = [(*row[:2], row[2] + up) for up in (0, 30) for row in odd.notes.tolist()]
    write_midi(Piece.from_rows(rows), tmp_path / "odd.mid")  # in parallels, two octaves too wide
    mixed = tmp_path / "mixed.txt"
    paths = [*sorted((music / "same").iterdir()), tmp_path / "odd.mid"]
    mixed.write_text("\n".join(map(str, paths)))
    run("real", str(mixed), "--metrics", "pitch_range,pitch_count,note_count", "--no-controls")
    gallery = report()["gallery"]
    assert "Best and worst" in gallery["ranking"]
    assert {side: list(kinds) for side, kinds in gallery["sides"].items()} == {
        "real": ["typical", "outlier"],
        "mixed.txt": ["typical", "best", "worst", "outlier"],
    }
    (best,), (worst,) = (gallery["sides"]["mixed.txt"][kind] for kind in ("best", "worst"))
    assert best["distance"] < worst["distance"]
    assert best["farther_than_real_share"] <= worst["farther_than_real_share"]
    assert worst["piece"].endswith("odd.mid")
    extreme = worst["extremes"][0]
    assert (extreme["feature"], extreme["value"]) == ("note_count", 48)
    assert extreme["real_middle_95"] == [24, 24]


def test_statistics_have_no_music_to_show(run, report, music, tmp_path):
    saved = tmp_path / "real.npz"
    run("real", "high", "--metrics", "pitch_entropy", "--save-stats", str(saved))
    kept = report()["gallery"]["sides"]
    status, _ = run(str(saved), "high", "--metrics", "pitch_entropy")
    assert status == 0
    assert report()["gallery"]["sides"] == kept  # which needs no music
    said = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert said.count("without its music") == 1


def test_names_of_sides_are_text_and_not_markup(music, tmp_path, capsys):
    strange = tmp_path / "<b>[red]x"
    strange.symlink_to(music / "high")
    twin = tmp_path / "<i>&[link]"
    twin.mkdir()
    for path in (music / "high").iterdir():
        (twin / path.name).write_bytes(path.read_bytes())
    out = tmp_path / "report"
    options = ["--out", str(out), "--metrics", "pitch_entropy", *QUICK]
    assert main([str(music / "real"), str(twin), *options]) == 0
    assert "<i>&[link] (24 pieces)" in capsys.readouterr().out
    assert "<i>" not in (out / "report.html").read_text(encoding="utf-8")


def test_copying_is_measured_against_a_training_set(run, report):
    status, captured = run("real", "high", "--training", "same", "--metrics", "pitch_entropy")
    assert status == 0
    shares = {part["side"]: part["share"] for part in report()["copying"]}
    assert shares == {"real": 0, "high": 0}
    assert "Copying: 0 % of its pieces" in captured.out


def test_copies_of_training_pieces_are_named(run, report, music):
    run("real", "high", "--training", "high", "--metrics", "pitch_entropy")
    part = report()["copying"][1]
    assert part["share"] == 1
    worst = part["worst"][0]
    assert (worst["notes"], worst["training_piece"]) == (24, worst["piece"])
    assert worst["bars"] == worst["training_bars"]
    assert worst["bars"][0] == 1


def test_a_prepared_corpus_brings_its_training_set_along(store, music, tmp_path, capsys):
    out = tmp_path / "report"
    words = [str(store.folder), str(music / "same"), "--metrics", "pitch_entropy", *QUICK]
    assert main([*words, "--out", str(out)]) == 0
    record = json.loads((out / "metrics.json").read_text())
    assert record["real"]["pieces"] == len(store.pieces("test"))
    assert record["training"]["pieces"] == len(store.pieces("train"))
    assert "has only" in capsys.readouterr().out


def test_a_run_as_generated_side_stands_for_its_samples(music, tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.toml").write_text("")
    (folder / "run.json").write_text("{}")
    words = [str(music / "real"), str(folder), "--metrics", "pitch_entropy", *QUICK]
    words += ["--out", str(tmp_path / "report")]
    assert main(words) == 2
    assert "has no samples yet; make some with: rnngan generate" in capsys.readouterr().err
    (folder / "samples").symlink_to(music / "high")
    assert main(words) == 0


def test_a_zip_file_is_a_side(run, report, music, tmp_path):
    archive = tmp_path / "high.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in (music / "high").iterdir():
            file.write(path, path.name)
    assert run("real", str(archive), "--metrics", "pitch_entropy")[0] == 0
    assert report()["fakes"][0]["name"] == "high.zip"


def test_the_same_folder_twice_is_noticed(run):
    status, captured = run("real", "real", "--metrics", "pitch_entropy")
    assert status == 0
    assert "Note:" in captured.out
    assert "are the same music" in captured.out


def test_sides_of_one_name_are_told_apart(run, report, music, tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "high").symlink_to(music / "same")
    other = tmp_path / "c" / "high"
    other.mkdir(parents=True)
    for path in (music / "same").iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    run("real", "high", str(other), "--metrics", "pitch_entropy")
    names = [side["name"] for side in report()["fakes"]]
    assert names == [f"{music.name}/high", "c/high"]


def test_pictures_of_an_earlier_report_do_not_stay(run, tmp_path):
    run("real", "high", "--metrics", EVERY_PICTURE)
    assert (tmp_path / "report" / "transitions.png").exists()
    run("real", "high", "--metrics", "pitch_entropy")
    assert not (tmp_path / "report" / "transitions.png").exists()


def test_refused_files_are_counted_and_do_not_stop_the_run(run, report, music, tmp_path):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for path in [*(music / "high").iterdir(), *(music / "broken").iterdir()]:
        (mixed / path.name).write_bytes(path.read_bytes())
    status, captured = run("real", str(mixed), "--metrics", "pitch_entropy")
    assert status == 0
    assert "mixed: 2 of 26 files were refused" in captured.out
    reasons = [reject["reason"] for reject in report()["fakes"][0]["rejects"]]
    assert reasons == ["truncated", "not_midi"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["real"], "the following arguments are required: FAKE"),
        (["real", "missing"], "missing does not exist"),
        (["real", "broken"], "all 2 files in .* were refused: 1 truncated, 1 not_midi"),
        (["real", "high", "--metrics", "ptch"], "did you mean 'pitch'"),
        (["real", "high", "--metrics", ""], "no feature"),
        (["real", "high", "--limit", "1"], "limit must be at least 2 pieces, got 1"),
        (["real", "high", "--limit", "many"], "--limit: invalid int value: 'many'"),
        (["real", "high", "--seed", "-1"], "seed must not be negative, got -1"),
        (["real", "high", "--resamples", "0"], "resamples must be at least 1, got 0"),
        (["real", "high", "--training", "broken"], "were refused"),
        (["real", "high", "--colour"], "unrecognized arguments: --colour"),
    ],
)
def test_bad_input_gets_one_line_and_status_2(run, music, tmp_path, capsys, words, message):
    paths = [str(music / word) if (music / word).exists() else word for word in words]
    assert main([*QUICK, "--out", str(tmp_path / "report"), *paths]) == 2
    (line,) = [
        line for line in capsys.readouterr().err.splitlines() if not re.match(r"\w+ing \w+: ", line)
    ]
    assert line.startswith("eval: error: ")
    assert re.search(message, line)


def test_a_report_that_cannot_be_written_is_said_before_the_work(run, tmp_path):
    (tmp_path / "file").write_text("")
    status, captured = run("real", "high", out=tmp_path / "file" / "report")
    assert status == 2
    assert captured.err.startswith("eval: error: cannot write to")
    assert captured.err.count("\n") == 1


def test_list_metrics_names_every_feature(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--list-metrics"])
    assert left.value.code == 0
    listed = [re.split(r"  +", line)[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == list(FEATURES)


def test_importing_the_command_loads_nothing_heavy():
    heavy = "{'torch', 'matplotlib', 'scipy', 'rich', 'music21', 'pretty_midi'}"
    code = f"import eval.__main__, eval.report, sys; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pieces_without_transitions_have_none_to_show(run, music, tmp_path):
    # Warnings are errors here: of no numbers there is no largest one.
    (tmp_path / "lone").mkdir()
    for i in range(4):
        write_midi(Piece.from_rows([(0, 24, 60 + i)]), tmp_path / "lone" / f"{i}.mid")
    status, _ = run("real", str(tmp_path / "lone"), "--metrics", EVERY_PICTURE)
    assert status == 0
