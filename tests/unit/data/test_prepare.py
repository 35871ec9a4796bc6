import csv
from dataclasses import replace

import pytest

from rnngan.config import DataConfig
from rnngan.data import prepare as module
from rnngan.data.prepare import open_prepared, prepare, read_sources
from rnngan.data.reading import Reject, Source
from rnngan.data.store import Store
from rnngan.errors import UserError
from rnngan.music.midi import write_midi
from rnngan.music.piece import Piece


def melody(i):
    return Piece.from_rows([(0, 24, 60), (24, 48, 62 + i), (48, 96, 60)], tags={"style": "jig"})


SOURCES = [Source(f"{i}.mid", "0" * 64, melody(i)) for i in range(10)]
TUNES = DataConfig(corpus="tunes", validation_rate=0.2, test_rate=0.2)


@pytest.fixture
def corpus(monkeypatch):
    """What the reader of the corpus `tunes` gives, and the arguments that it was called with."""
    given = {"sources": list(SOURCES), "rejects": [], "calls": []}

    def read_corpus(name, **options):
        given["calls"].append((name, options))
        return given["sources"], given["rejects"]

    monkeypatch.setattr(module, "CORPORA", {"tunes": None})
    monkeypatch.setattr(module, "read_corpus", read_corpus)
    return given


def stamps(folder):
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


def test_a_folder_becomes_a_store(tmp_path):
    folder = tmp_path / "music"
    folder.mkdir()
    for i in range(5):
        write_midi(melody(i), folder / f"{i}.mid")
    (folder / "bad.mid").write_bytes(b"")
    done = []
    store = prepare(
        DataConfig(corpus=str(folder)),
        tmp_path / "store",
        seed=3,
        workers=1,
        progress=lambda *counts: done.append(counts),
    )
    assert done[-1] == (6, 6)
    assert [piece["name"] for piece in store.manifest["pieces"]] == [f"{i}.mid" for i in range(5)]
    assert store.manifest["num_rejects"] == 1
    assert store.manifest["seed"] == 3
    assert {"rnngan", "symusic"} <= set(store.manifest["versions"])
    rows = list(csv.reader((tmp_path / "store" / "rejects.csv").read_text().splitlines()))
    assert rows[1:] == [["bad.mid", "empty", "the file is empty"]]
    low, high = store.tokenizer.config.lowest, store.tokenizer.config.highest
    assert (low, high) == (60 - 6, 66 + 6)  # room for transposition


def test_a_named_corpus_gets_all_options(tmp_path, corpus):
    corpus["rejects"] = [Reject("x.mid", "empty", "")]
    store = prepare(replace(TUNES, expand_repeats=True), tmp_path / "store", seed=0, workers=3)
    assert corpus["calls"] == [("tunes", {"expand_repeats": True, "workers": 3, "progress": None})]
    assert store.manifest["corpus"] == "tunes" and store.manifest["num_rejects"] == 1


def test_a_store_of_this_corpus_is_opened_again(tmp_path, corpus):
    prepare(TUNES, tmp_path / "store", seed=0)
    before = stamps(tmp_path / "store")
    # These settings act when batches are drawn.
    later = replace(TUNES, transpose=0, max_length=64)
    assert len(prepare(later, tmp_path / "store", seed=0).indices("test")) == 2
    assert stamps(tmp_path / "store") == before


@pytest.mark.parametrize(
    ("config", "seed", "first"),
    [
        (TUNES, 1, SOURCES[0]),
        (replace(TUNES, validation_rate=0.1), 0, SOURCES[0]),
        (replace(TUNES, tags=("style",)), 0, SOURCES[0]),
        (replace(TUNES, expand_repeats=True), 0, SOURCES[0]),
        (TUNES, 0, SOURCES[0]._replace(name="other.mid")),
        # The same file, read another way.
        (TUNES, 0, SOURCES[0]._replace(piece=SOURCES[0].piece.transposed(1))),
    ],
)
def test_a_store_of_another_corpus_is_left_alone(tmp_path, corpus, config, seed, first):
    prepare(TUNES, tmp_path / "store", seed=0)
    before = stamps(tmp_path / "store")
    corpus["sources"][0] = first
    with pytest.raises(UserError, match=r"already holds another prepared corpus \(tunes\)"):
        prepare(config, tmp_path / "store", seed=seed)
    assert stamps(tmp_path / "store") == before


def test_a_prepared_store_must_be_what_the_settings_ask_for(tmp_path, corpus):
    config = replace(TUNES, tags=("style",))
    prepare(config, tmp_path / "store", seed=0)
    later = replace(config, transpose=0, max_length=64)
    assert len(open_prepared(later, tmp_path / "store").indices("test")) == 2
    for other, message in (
        (replace(config, corpus="airds"), "data.corpus 'tunes', and the run has 'airds'"),
        (replace(config, tags=()), r"data.tags \['style'\], and the run has \[\]"),
        (replace(config, test_rate=0.1), "data.test_rate 0.2, and the run has 0.1"),
    ):
        with pytest.raises(UserError, match=message):
            open_prepared(other, tmp_path / "store")
    with pytest.raises(UserError, match="no prepared corpus"):
        open_prepared(config, tmp_path / "no")


def test_tags_count_where_they_become_tokens(tmp_path, corpus):
    config = replace(TUNES, tags=("style",))
    store = prepare(config, tmp_path / "store", seed=0)
    assert store.tokenizer.vocabulary.values("Tag") == ("style=", "style=jig")
    piece = replace(SOURCES[0].piece, tags={"style": "jig", "title": "new"})
    corpus["sources"][0] = SOURCES[0]._replace(piece=piece)
    prepare(config, tmp_path / "store", seed=0)
    corpus["sources"][0] = SOURCES[0]._replace(piece=replace(piece, tags={"style": "reel"}))
    with pytest.raises(UserError, match="another prepared corpus"):
        prepare(config, tmp_path / "store", seed=0)


def test_a_folder_with_something_else_in_it(tmp_path, corpus):
    (tmp_path / "store").mkdir()
    prepare(TUNES, tmp_path / "store", seed=0)  # an empty one will do
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(UserError, match="Directory not empty"):
        prepare(TUNES, tmp_path / "mine", seed=0)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_damaged_store_says_so(tmp_path, corpus):
    prepare(TUNES, tmp_path / "store", seed=0)
    (tmp_path / "store" / "tokens.npy").write_bytes(b"")
    with pytest.raises(UserError, match="damaged"):
        prepare(TUNES, tmp_path / "store", seed=0)
    assert not (tmp_path / "store" / "tokens.npy").read_bytes()
    with pytest.raises(UserError, match="damaged"):
        Store.open(tmp_path / "store")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tune", "unknown corpus 'tune'; did you mean 'tunes'.*named corpora are tunes; anything"),
        ("./tunes", "corpus folder tunes does not exist"),
        ("no/such", "corpus folder no/such does not exist"),
        ("../no", "does not exist"),
        ("file.mid", "corpus folder file.mid is not a folder"),
    ],
)
def test_no_such_corpus(tmp_path, monkeypatch, corpus, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.mid").write_bytes(b"")
    with pytest.raises(UserError, match=message):
        read_sources(DataConfig(corpus=name))
    assert corpus["calls"] == []
