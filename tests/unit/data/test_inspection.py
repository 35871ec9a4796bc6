"""What is told of a corpus, on stores small enough to be counted by hand."""

import json
import re
import unicodedata
from collections import Counter
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import pytest

from rnngan.config import DataConfig
from rnngan.data import inspection
from rnngan.data.corpora import CORPORA, MUSIC21_RIGHTS, corpus_files
from rnngan.data.inspection import (
    WIDTH,
    Statistics,
    corpora_text,
    corpus_text,
    find_piece,
    piece_text,
    report_text,
    statistics_text,
    write_piece,
)
from rnngan.data.prepare import prepare_pieces
from rnngan.data.reading import MusicFile, Reading, Source, contents_of, read_or_reject
from rnngan.errors import Reject, UserError
from rnngan.music.midi import read_midi
from rnngan.music.piece import DRUMS, Metre, Piece

JIG = Piece.from_rows([(0, 24, 60), (24, 48, 64)], tags={"style": "jig", "title": "The Rover"})
WALTZ = Piece.from_rows([(0, 72, 67), (72, 144, 65)], metres=(Metre(0, 3, 4),))
BOTH = Piece.from_rows(
    [(0, 96, 60), (96, 168, 62)],
    metres=(Metre(0, 4, 4), Metre(96, 3, 4)),
    tags={"style": "reel", "title": "The Second Rover"},
)
SOURCES = [
    Source("jig.mid", "a" * 64, JIG),
    Source("higher.mid", "b" * 64, JIG.transposed(2)),
    Source("waltz.abc#1", "c" * 64, WALTZ),
    Source("deep-both.mid", "d" * 64, BOTH),
]
SETTINGS = {"corpus": "four", "validation_rate": 0.3, "test_rate": 0.3}


def store_of(sources, folder, *, rejects=(), **settings):
    config = DataConfig(**{**SETTINGS, **settings})
    return prepare_pieces(sources, config, folder / "store", seed=0, rejects=rejects)


@pytest.fixture
def four(tmp_path):
    """Two jigs, one the other transposed; a waltz; and a piece in both metres."""
    return store_of(SOURCES, tmp_path, rejects=[Reject("x.mid", "empty", "the file is empty")])


def lines_of(text, store=None):
    """The lines, each checked to be fit for a terminal; the store's own path is left out."""
    lines = text.replace(str(store and store.folder), "STORE").split("\n")
    assert all(len(line) <= WIDTH and line == line.rstrip() for line in lines)
    assert all(line.isprintable() for line in lines)
    return lines


# Of the whole corpus


def test_statistics_are_what_one_counts_by_hand(four):
    found = Statistics.of(four)
    # Start Metre Bar, three tokens a note, End; a second bar costs a token, its metre another.
    assert found.sizes.tolist() == [[10, 1, 2], [10, 1, 2], [11, 2, 2], [12, 2, 2]]
    assert found.metres == {"4/4": 3, "3/4": 2}
    assert found.programs == {}  # one instrument needs no token
    assert found.tags == {
        "style": {"jig": 2, "reel": 1},
        "title": {"The Rover": 2, "The Second Rover": 1},
    }
    assert [group.tolist() for group in found.groups] == [[0, 1]]
    names = four.tokenizer.vocabulary.names
    counts = {names[i]: int(count) for i, count in enumerate(found.token_counts) if count}
    assert counts == {
        **{"Start": 4, "End": 4, "Bar": 6, "Metre_4/4": 3, "Metre_3/4": 2},
        **{"Position_0": 6, "Position_24": 2, "Pitch_60": 2, "Pitch_62": 2, "Pitch_64": 1},
        **{"Pitch_65": 1, "Pitch_66": 1, "Pitch_67": 1},
        **{"Duration_24": 4, "Duration_72": 3, "Duration_96": 1},
    }


@pytest.mark.parametrize("chunk", [1, 7, 40, 100])
def test_the_size_of_a_chunk_changes_nothing(tmp_path, monkeypatch, chunk):
    random = np.random.default_rng(0)
    pieces = [
        Piece.from_rows(
            [(24 * j, 24 * j + 24, 60 + 2 * j, 64, 10 * p) for j, p in enumerate(programs)],
            metres=(Metre(0, int(random.integers(2, 6)), 4),),
        )
        for programs in (random.integers(4, size=1 + i).tolist() for i in range(12))
    ]
    store = store_of([Source(f"{i}", "", piece) for i, piece in enumerate(pieces)], tmp_path)
    monkeypatch.setattr(inspection, "_CHUNK", chunk)
    found = Statistics.of(store)
    counts = np.bincount(store.tokens, minlength=len(store.tokenizer.vocabulary))
    assert found.token_counts.tolist() == counts.tolist()
    assert found.metres == Counter(piece.metres[0].name for piece in pieces)
    assert found.programs == Counter(
        f"{program}" for piece in pieces for program in set(piece.notes["program"].tolist())
    )


def test_programs_are_counted_by_piece_and_named(tmp_path):
    def piece(i, *programs):
        return Piece.from_rows([(0, 24 + 6 * i, 40, 64, p, t) for t, p in enumerate(programs)])

    programs = [(0,), (0, 40), (40, DRUMS), (40, 40, DRUMS)]
    sources = [Source(f"{i}", "", piece(i, *some)) for i, some in enumerate(programs)]
    store = store_of(sources, tmp_path)
    assert Statistics.of(store).programs == {"0": 2, "40": 3, "128": 2}
    text = statistics_text(store)
    assert "  program   Violin 3  Acoustic Grand Piano 2  Drums 2\n" in text
    assert "programs    Drums 1  Violin 1\n" in piece_text(store, 2, bars=1)


def test_groups_come_by_size_then_by_their_first_piece():
    groups = inspection._members(np.array([5, 0, 2, 0, 2, 2, 5, 7]))
    assert [group.tolist() for group in groups] == [[2, 4, 5], [0, 6], [1, 3]]


def test_the_text_says_all_of_it(four):
    lines = lines_of(statistics_text(four), four)
    assert lines[0] == "four: 4 pieces of 5 files, in STORE"
    of_all = [line.split()[::4] for line in lines[5:9]]
    assert of_all == [["pieces", "4"], ["tokens", "43"], ["bars", "6"], ["notes", "8"]]
    splits = [f"{four.manifest['splits'][name]}" for name in ("train", "validation", "test")]
    assert ["pieces", *splits, "4"] in [line.split() for line in lines]
    assert ["tokens", "10", "10", "10", "10", "11", "12", "12"] in [line.split() for line in lines]
    for line in (
        "tokenizer   events, a vocabulary of 127; 16 tokens occur",
        "  metre     4/4 3  3/4 2",
        "  program   all Acoustic Grand Piano",
        "  beats     notated 4",
        "  style     jig 2  reel 1",
        "rejects     empty 1",
        "duplicates  1 group of near-duplicates, 2 pieces; none with pieces in more than one split",
        "            0 jig.mid  1 higher.mid",
    ):
        assert line in lines
    start = lines.index("largest pieces")
    assert [line.split() for line in lines[start + 1 :]] == [
        ["number", "tokens", "bars", "notes", "name"],
        ["3", "12", "2", "2", "deep-both.mid"],
        ["2", "11", "2", "2", "waltz.abc#1"],
        ["0", "10", "1", "2", "jig.mid"],
        ["1", "10", "1", "2", "higher.mid"],
    ]


def test_rows_of_numbers_are_no_tokens(tmp_path):
    store = store_of(SOURCES, tmp_path, tokenizer="tuples")
    found = Statistics.of(store)
    assert found.sizes[:, 0].tolist() == [2, 2, 2, 2]
    assert len(found.token_counts) == 0
    lines = lines_of(statistics_text(store), store)
    assert "tokenizer   tuples, real numbers: gap, length, frequency, velocity" in lines
    assert "  metre     not told; decoded as 4/4" in lines
    assert ["rows", "2", "2", "2", "2", "2", "2", "2"] in [line.split() for line in lines]


def test_names_and_tags_cannot_disturb_the_terminal(tmp_path):
    odd = ["\x1b[31mred\x1b[0m\n", "long " * 60, "é\u202eevil", "x" * 300]
    sources = [
        source._replace(
            name=name,
            piece=Piece.from_rows(
                [(0, 24, 60 + i), (24, 60 + i, 62)],
                tags={"title": name, f"key{name}": name, "style": "\N{NO-BREAK SPACE}".join(name)},
            ),
        )
        for i, (source, name) in enumerate(zip(SOURCES, odd))
    ]
    store = store_of(sources, tmp_path, tags=("title",))
    lines_of(statistics_text(store), store)
    for i in range(4):
        text = "\n".join(lines_of(piece_text(store, i, bars=4), store))
        assert not any(unicodedata.category(c) in ("Cc", "Cf") for c in text.replace("\n", ""))
        assert all(path.parent == tmp_path for path in write_piece(store, i, tmp_path, wav=False))


# Of one piece


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ("jig.mid", 0),
        ("2", 2),
        ("waltz.abc#1", 2),
        ("WALTZ", 2),
        ("deep", 3),
        ("The Second Rover", 3),
        ("second", 3),
        ("#1", 2),
    ],
)
def test_a_piece_is_found(four, wanted, index):
    assert find_piece(four, wanted) == index


def test_a_name_goes_before_a_number(tmp_path):
    names = ["1", "0", "tune 20", "3"]
    sources = [source._replace(name=name) for name, source in zip(names, SOURCES)]
    store = store_of(sources, tmp_path)
    assert [find_piece(store, text) for text in ("0", "1", "2", "20", "3")] == [1, 0, 2, 2, 3]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("waltzes.abc#1", r"no piece 'waltzes.abc#1' in .*; did you mean 'waltz.abc#1'\?$"),
        ("4", "no piece '4' in .*; give a number from 0 to 3, a name, or a part of a name$"),
        ("-1", "no piece '-1' in "),
        ("", "no piece '' in "),
        ("9" * 5000, "no piece '9999"),
        ("²", "no piece '²' in "),
        ("rover", "'rover' means any of 3 pieces: 0 jig.mid, 1 higher.mid, 3 deep-both.mid; give"),
        ("The Rover", "'The Rover' means any of 2 pieces: 0 jig.mid, 1 higher.mid; give the num"),
    ],
)
def test_what_is_no_single_piece_is_an_error(four, wanted, message):
    with pytest.raises(UserError, match=message):
        find_piece(four, wanted)


def test_a_piece_is_told_bar_by_bar(four):
    lines = lines_of(piece_text(four, 3, bars=9), four)
    for line in (
        "name        deep-both.mid",
        f"sha256      {'d' * 64}",
        f"split       {four.entry(3)['split']}",
        "size        2 bars, 2 notes, 12 tokens, 3.5 s",  # seven quarters at 120
        "metres      4/4, 3/4",
        "tempo       120 quarters a minute",
        "programs    Acoustic Grand Piano 2",
        "beats       notated; onsets exact",
        "tags        style: reel",
        "            title: The Second Rover",
        "duplicates  none",
    ):
        assert line in lines
    assert lines[-3:] == [
        "       Start Metre_4/4",
        "    1  Bar Position_0 Pitch_60 Duration_96",
        "    2  Bar Metre_3/4 Position_0 Pitch_62 Duration_72 End",
    ]
    assert "duplicates  1 higher.mid" in lines_of(piece_text(four, 0, bars=1), four)


def test_only_so_many_bars_are_told(four):
    assert lines_of(piece_text(four, 3, bars=1), four)[-2:] == [
        "    1  Bar Position_0 Pitch_60 Duration_96",
        "… 1 more bar, shown with a larger --bars",
    ]
    with pytest.raises(UserError, match="--bars must be at least 1, got 0"):
        piece_text(four, 3, bars=0)


def test_every_token_of_a_long_bar_is_told_once(tmp_path):
    rows = [(6 * i, 6 * i + 6, 60 + i % 5) for i in range(16)]
    sources = [*SOURCES, Source("long.mid", "e" * 64, Piece.from_rows(rows))]
    store = store_of(sources, tmp_path)
    text = "\n".join(lines_of(piece_text(store, 4, bars=1), store))
    names = store.tokenizer.vocabulary.names
    told = text[text.index("Start") :].replace("    1  ", " ").split()
    assert told == [names[i] for i in store.piece_tokens(4).tolist()]


def test_rows_of_numbers_are_told_in_their_units(tmp_path):
    jig = Piece.from_rows([(0, 24, 60, 64), (24, 48, 64, 127), (96, 99, 61, 1)])
    store = store_of([Source("x", "", jig), *SOURCES[1:]], tmp_path, tokenizer="tuples")
    lines = lines_of(piece_text(store, 0, bars=2), store)
    assert [line.split() for line in lines[-5:]] == [
        ["bar", "gap", "length", "frequency", "note", "velocity"],
        ["quarters", "quarters", "semitones", "of", "127"],
        ["1", "0.000", "1.000", "60.00", "C4", "64.0"],
        ["1.000", "1.000", "64.00", "E4", "127.0"],
        ["2", "3.000", "0.125", "61.00", "C♯4", "1.0"],
    ]
    lines = lines_of(piece_text(store, 0, bars=1), store)
    assert lines[-1] == "… 1 more bar, shown with a larger --bars"
    assert lines[-2].split()[3] == "E4"


def test_a_piece_is_written_to_look_at_and_hear(four, tmp_path):
    out = tmp_path / "new" / "folder"
    png, midi, wav = paths = write_piece(four, 2, out, wav=True)
    assert [path.name for path in paths] == ["2-waltz-1.png", "2-waltz-1.mid", "2-waltz-1.wav"]
    assert sorted(out.iterdir()) == sorted(paths)
    assert png.read_bytes().startswith(b"\x89PNG")
    assert wav.read_bytes().startswith(b"RIFF")
    assert read_midi(midi).notes.tolist() == four.piece(2).notes.tolist()
    assert write_piece(four, 2, out, wav=False) == [png, midi]


def test_a_folder_that_cannot_be_made_is_an_error(four, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot make folder .*file"):
        write_piece(four, 0, tmp_path / "file", wav=False)


# The report

REPORT = {
    "files": 1250,
    "pieces": 1200,
    "notes": 100_000,
    "bars": 8_000,
    "tokens": 320_000,
    "tokens_per_bar": 40.0,
    "tokens_per_note": 3.2,
    "splits": {"test": 120, "train": 960, "validation": 120},
    "rejects": {"empty": 3, "truncated": 7},
    "filtered": {"not meter==4/4": 30, "not polyphony<=4": 10},
    "beats": {"file": 1000, "estimated": 150, "fixed": 50},
    "reading_onset_error_quarters": {"mean": 0.005, "largest": 0.0205},
    "duplicates": {
        "groups": 4,
        "pieces_in_them": 9,
        "largest": 3,
        "groups_on_several_sides": 0,
    },
    "vocabulary": {
        "size": 8,
        "used": 6,
        "never_used": ["Pad", "Pitch_61"],
        "counts": {
            **{"Start": 1200, "End": 1200, "Bar": 8000},
            **{"Pitch_60": 109_600, "Pitch_62": 100_000, "Duration_12": 100_000},
        },
    },
    "tokens_lose": {
        "notes_dropped": 500,
        "notes_dropped_rate": 0.005,
        "onset_error_quarters": {"mean": 0.00001, "largest": 0.041667},
    },
}


def told(folder, **changes):
    (folder / "report.json").write_text(json.dumps({**REPORT, **changes}))
    return lines_of(report_text(folder))


def test_the_report_in_words(tmp_path):
    assert told(tmp_path)[2:] == [
        "pieces      1,200 of 1,250 files: 960 train, 120 validation, 120 test",
        "rejects     truncated 7  empty 3",
        "filters     not meter==4/4 30  not polyphony<=4 10",
        "duplicates  4 groups of near-duplicates, 9 pieces, 3 in the largest; none with pieces in "
        "more than",
        "            one split",
        "",
        "notes       100,000 in 8,000 bars",
        "beats       file 1,000  estimated 150  fixed 50",
        # A 16th is a quarter of a quarter: 0.005 quarters are 2 % of it.
        "reading     onsets off by 0.0050 quarters on average (2.0 % of a 16th), 0.0205 at most "
        "(8.2 %)",
        "encoding    onsets off by less than 0.0001 quarters on average (0.0 % of a 16th), 0.0417 "
        "at most",
        "            (16.7 %)",
        "            500 notes dropped (0.5 %)",
        "",
        "tokens      320,000: 40.00 a bar, 3.20 a note",
        "vocabulary  8, of which 6 occur (75.0 %)",
        "",
        "kind       tokens   share   occur  commonest",
        "Pitch     209,600  65.5 %  2 of 3  Pitch_60",
        "Duration  100,000  31.2 %  1 of 1  Duration_12",
        "Bar         8,000   2.5 %  1 of 1  Bar",
        "End         1,200   0.4 %  1 of 1  End",
        "Start       1,200   0.4 %  1 of 1  Start",
    ]


def test_a_report_without_anything_lost(tmp_path):
    nothing = {"mean": 0.0, "largest": 0.0}
    lines = told(
        tmp_path,
        rejects={},
        filtered={},
        reading_onset_error_quarters=nothing,
        duplicates={
            **{"groups": 0, "pieces_in_them": 0, "largest": 1},
            "groups_on_several_sides": 0,
        },
        tokens_lose={
            "notes_dropped": 0,
            "notes_dropped_rate": 0.0,
            "onset_error_quarters": nothing,
        },
    )
    for line in (
        "rejects     none",
        "filters     none left out",
        "duplicates  no two pieces are near-duplicates",
        "reading     onsets exact",
        "encoding    onsets exact",
        "            0 notes dropped (0.0 %)",
    ):
        assert line in lines


def test_a_corpus_without_a_report_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"no report in .*: ?.*prepare with --report into a new fo"):
        report_text(tmp_path)


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", "null", '{"files": "x"}'])
def test_a_damaged_report_is_an_error(tmp_path, damage):
    (tmp_path / "report.json").write_text(damage)
    with pytest.raises(UserError, match=r"the report .*report.json is damaged"):
        report_text(tmp_path)


# The named corpora


@pytest.mark.parametrize("corpus", CORPORA.values(), ids=list(CORPORA))
def test_every_piece_is_in_a_metre_and_nearly_every_one_in_a_key(corpus):
    assert sum(corpus.metres.values()) == corpus.num_pieces
    assert 0.99 * corpus.num_pieces < sum(corpus.keys.values()) <= corpus.num_pieces
    assert all(re.fullmatch(r"\d+/\d+", metre) for metre in corpus.metres)
    assert all(re.fullmatch("[A-G][#b]? [a-z]+", key) for key in corpus.keys)


def test_the_list_of_corpora():
    lines = lines_of(corpora_text())
    for line in (
        "ryans-mammoth: 1,059 pieces",
        "  title     Ryan's Mammoth Collection: reels, hornpipes, jigs, strathspeys, clogs",
        "  metres    2/4 462  2/2 301  6/8 200  4/4 54  9/8 41  12/8 1",
        "  keys      G major 295  D major 265  A major 157  Bb major 94  F major 65  C major 47  …",
        "bach-chorales: 364 pieces",
    ):
        assert line in lines
    text = " ".join(" ".join(lines).split())
    assert f'"{MUSIC21_RIGHTS}"' in text
    assert all(corpus.rights in text and corpus.source in text for corpus in CORPORA.values())


def test_a_corpus_in_full():
    lines = lines_of(corpus_text("airds"))
    text = " ".join(" ".join(lines).split())
    airds = CORPORA["airds"]
    assert all(f"{key} {count}" in text for key, count in {**airds.metres, **airds.keys}.items())
    assert "G mixolydian 2 without 2 source" in text
    for part in (airds.title, airds.source, airds.rights, MUSIC21_RIGHTS, "corpus/airdsAirs/*.abc"):
        assert part in text
    assert lines[-1] == "to prepare it: rnngan prepare --corpus airds"
    assert "without" not in corpus_text("oneills")


def test_a_corpus_that_does_not_exist():
    with pytest.raises(UserError, match="unknown corpus 'aird'; did you mean 'airds'"):
        corpus_text("aird")


def music21_version():
    try:
        return version("music21")
    except PackageNotFoundError:
        return ""


@pytest.mark.slow
@pytest.mark.skipif(not music21_version().startswith("10.5"), reason="counted in music21 10.5")
@pytest.mark.parametrize("name", CORPORA)
def test_metres_and_keys_are_those_of_the_files(name):
    files = corpus_files(name)
    pieces = []
    for path in files.paths:
        found = read_or_reject(MusicFile(path, path), contents_of(path), Reading())
        assert not isinstance(found, Reject)
        pieces += [source.piece for source in found]
    wanted = files.corpus.num_parts
    pieces = [piece for piece in pieces if wanted in (None, len(piece.track_names))]
    assert len(pieces) == files.corpus.num_pieces
    assert Counter(piece.metres[0].name for piece in pieces) == files.corpus.metres
    keys = Counter(piece.tags["key"] for piece in pieces if "key" in piece.tags)
    assert keys == files.corpus.keys
