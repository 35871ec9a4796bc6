"""`rnngan inspect` and `rnngan corpora` as they are typed."""

import json
import shutil
import subprocess
import sys

import pytest

from rnngan.cli import main
from rnngan.data.corpora import CORPORA
from rnngan.data.inspection import WIDTH, corpora_text, corpus_text, statistics_text
from rnngan.data.store import Store


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def answer(capsys):
    """What a command that must succeed prints."""

    def command(*words):
        capsys.readouterr()
        assert main([*map(str, words)]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return command


@pytest.fixture
def refusal(capsys, in_an_empty_folder):
    """What a command that must fail says, in one line; it writes nothing."""

    def command(*words):
        capsys.readouterr()
        assert main([*map(str, words)]) == 2
        out, err = capsys.readouterr()
        assert out == "" and list(in_an_empty_folder.iterdir()) == []
        [line] = err.splitlines()
        assert line.startswith("rnngan: error: ")
        return line

    return command


def test_a_prepared_corpus(answer, store, in_an_empty_folder):
    assert answer("inspect", store.folder) == statistics_text(store) + "\n"
    assert list(in_an_empty_folder.iterdir()) == []


def test_a_run_stands_for_its_corpus(answer, store, new_run):
    run = new_run()
    assert answer("inspect", run.folder) == answer("inspect", store.folder)


def test_a_run_that_was_moved_has_its_corpus_with_it(answer, store, new_run, tmp_path):
    run = new_run()
    shutil.copytree(store.folder, run.folder / "store")
    run.folder.rename(tmp_path / "moved")
    about = json.loads((tmp_path / "moved" / "run.json").read_text())
    (tmp_path / "moved" / "run.json").write_text(json.dumps({**about, "store": "/no/more"}))
    assert "12 pieces" in answer("inspect", tmp_path / "moved")


@pytest.mark.parametrize("piece", ["3", "03.mid", "03"])
def test_a_piece(answer, store, in_an_empty_folder, piece):
    text = answer("inspect", store.folder, piece)
    stem = in_an_empty_folder / "inspected" / "3-03"
    written = [stem.with_suffix(suffix) for suffix in (".mid", ".png", ".wav")]
    assert sorted(in_an_empty_folder.glob("*/*")) == written
    assert "\nname        03.mid\n" in text
    assert text.count("Bar") == store.entry(3)["bars"]
    assert text.endswith(
        "\nwrote inspected/3-03.png\n      inspected/3-03.mid\n      inspected/3-03.wav\n"
    )


def test_a_piece_without_sound_in_another_folder(answer, store, in_an_empty_folder):
    text = answer("inspect", store.folder, "3", "--bars", "2", "--no-wav", "--out", "a/b")
    assert sorted(path.name for path in in_an_empty_folder.glob("a/b/*")) == [
        "3-03.mid",
        "3-03.png",
    ]
    assert text.count("Bar") == 2 and "more bars" in text


def test_what_preparing_measured(answer, midi_folder, tmp_path, capsys):
    words = ["--corpus", midi_folder, "--store", tmp_path / "store", "--workers", "1"]
    words += ["--data.test-rate", "0.2", "--report"]
    assert main(["prepare", *map(str, words)]) == 0
    printed = capsys.readouterr().out
    text = answer("inspect", tmp_path / "store", "--report")
    assert printed.endswith(text)
    entries = list(Store.open(tmp_path / "store").entries())
    notes, bars = (sum(entry[what] for entry in entries) for what in ("notes", "bars"))
    for line in (
        "pieces      12 of 12 files: 9 train, 1 validation, 2 test",
        "rejects     none",
        f"notes       {notes:,} in {bars:,} bars",
        "beats       file 12",
        "reading     onsets exact",
        "            0 notes dropped (0.0 %)",
    ):
        assert line in text.splitlines()


def test_bad_input_is_one_clear_line(refusal, store, tmp_path):
    for words, message in (
        (["inspect"], "inspect: "),
        (["inspect", tmp_path / "no"], "no prepared corpus in "),
        (["inspect", store.folder, "--peice", "3"], "unknown option '--peice'"),
        (["inspect", store.folder, "12"], "give a number from 0 to 11"),
        (["inspect", store.folder, "mid"], "'mid' means any of 12 pieces: 0 00.mid, 1 01.mid"),
        (["inspect", store.folder, "003.mid"], "no piece '003.mid'"),
        (["inspect", store.folder, "3", "--bars", "0"], "--bars must be at least 1, got 0"),
        (["inspect", store.folder, "3", "--report"], "leave out the piece"),
        (["inspect", store.folder, "--report"], "prepare with --report into a new folder"),
        (["corpora", "aird"], "unknown corpus 'aird'; did you mean 'airds'?"),
        (["corpora", "airds", "oneills"], "unknown option 'oneills'"),
    ):
        assert message in refusal(*words)


def test_the_corpora(answer):
    assert answer("corpora") == corpora_text() + "\n"
    for name in CORPORA:
        text = answer("corpora", name)
        assert text == corpus_text(name) + "\n"
        assert all(len(line) <= WIDTH for line in text.splitlines())


def test_to_look_at_music_needs_no_torch(store):
    program = (
        "from rnngan.cli import main; import sys; "
        "assert main(['inspect', sys.argv[1]]) == 0; "
        "assert main(['inspect', sys.argv[1], '1']) == 0; "
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(store.folder)], check=True, capture_output=True
    )


@pytest.mark.parametrize("words", [["corpora"], ["corpora", "airds"]])
def test_the_list_of_corpora_reads_none(words):
    program = (
        "from rnngan.cli import main; import sys; "
        "assert main(sys.argv[1:]) == 0; "
        "assert not {'torch', 'music21', 'pretty_midi', 'matplotlib'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program, *words], check=True, capture_output=True)
