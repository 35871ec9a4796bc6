import json
import shutil
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pretty_midi
import pytest

from eval.cache import load_side
from eval.features import select
from eval.pieces import Side
from eval.statistics import FeatureTable, Statistics, bins_of, row_dtype
from rnngan.errors import UserError
from rnngan.music.midi import read_midi, write_midi
from rnngan.music.piece import Piece


def tune(number):
    return Piece.from_rows([(0, 24, 60 + number), (24, 48, 62)])


@pytest.fixture
def folder(tmp_path):
    """Five tunes, one in a subfolder, and a file that is no music."""
    folder = tmp_path / "music"
    (folder / "more").mkdir(parents=True)
    for i, name in enumerate(["b.mid", "a.MID", "c.midi", "more/a.mid", "d.mid"]):
        write_midi(tune(i), folder / name)
    (folder / "notes.txt").write_text("not music")
    return folder


def sources(side):
    return [piece.tags["source"] for piece in side.pieces]


def packed(folder, path, **names):
    with zipfile.ZipFile(path, "w") as archive:
        for name, source in names.items():
            archive.writestr(name, (folder / source).read_bytes())
    return path


def test_a_folder_is_read_with_its_subfolders_in_the_order_of_names(folder):
    side = load_side(folder, [])
    assert side.name == "music"
    assert sources(side) == ["a.MID", "b.mid", "c.midi", "d.mid", "more/a.mid"]
    assert side.pieces[0].notes["pitch"].tolist() == [61, 62]
    assert not side.rejects


def test_limit_takes_pieces_from_all_over_the_folder(folder):
    assert sources(load_side(folder, [], limit=2)) == ["a.MID", "c.midi"]
    assert len(load_side(folder, [], limit=99).pieces) == 5


def test_broken_files_are_listed_and_left_out(folder):
    (folder / "broken.mid").write_bytes(b"MThd")
    (folder / "empty.mid").write_bytes(b"")
    side = load_side(folder, [])
    assert len(side.pieces) == 5
    assert [reject[:2] for reject in side.rejects] == [
        ("broken.mid", "truncated"),
        ("empty.mid", "empty"),
    ]


def test_archives_and_a_list_give_the_same_music_as_their_folder(folder, tmp_path):
    archive, tar = tmp_path / "music.zip", tmp_path / "music.tar.gz"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in folder.rglob("*"):
            file.write(path, path.relative_to(folder))
    with tarfile.open(tar, "w:gz") as file:
        file.add(folder, "")
    listed = folder / "list.txt"
    listed.write_text("a.MID\nb.mid\n\nc.midi\r\nd.mid\nmore/a.mid\n")
    sides = [load_side(path, []) for path in (folder, archive, tar, listed)]
    assert len({side.content_hash for side in sides}) == 1
    assert all(sources(side) == sources(sides[0]) for side in sides)
    assert load_side(archive, []).name == "music.zip"


def test_an_archive_in_a_folder_counts_as_music(folder, tmp_path):
    packed(folder, folder / "z.zip", **{"e.mid": "b.mid"})
    assert sources(load_side(folder, []))[-1] == "z.zip/e.mid"


TUNES = "".join(
    f"X:{n}\nT:Tune {n}\nM:3/4\nL:1/4\nK:C\n" + f"{note}DE|FGA|\n\n"
    for n, note in enumerate("CDEFG", 1)
)


def test_notation_stands_beside_midi(folder):
    (folder / "tunes.abc").write_text(TUNES)
    side = load_side(folder, [])
    assert len(side.pieces) == 10
    assert sources(side)[-5:] == [f"tunes.abc#{i}" for i in range(5)]
    assert side.pieces[-1].metres[0].name == "3/4"


def test_a_file_of_many_tunes_is_a_side(tmp_path):
    (tmp_path / "tunes.abc").write_text(TUNES)
    assert len(load_side(tmp_path / "tunes.abc", []).pieces) == 5
    assert sources(load_side(tmp_path / "tunes.abc", [], limit=2)) == ["tunes.abc#0", "tunes.abc#2"]


def test_midi_files_keep_their_own_beats(tmp_path):
    times = [i * 0.41 + 0.02 * (i * i % 7) for i in range(100)]  # played, not counted
    midi = pretty_midi.PrettyMIDI()
    piano = pretty_midi.Instrument(0)
    piano.notes = [
        pretty_midi.Note(64, 60 + i % 5, time, time + 0.3) for i, time in enumerate(times)
    ]
    midi.instruments = [piano]
    for name in "ab":
        midi.write(str(tmp_path / f"{name}.mid"))
    assert read_midi(tmp_path / "a.mid", beats="estimate").timing.grid == "estimated"
    assert {piece.timing.grid for piece in load_side(tmp_path, []).pieces} == {"file"}


def test_worker_processes_read_the_same(folder, monkeypatch):
    (folder / "broken.mid").write_bytes(b"MThd")
    alone = load_side(folder, [])
    monkeypatch.setattr("rnngan.data.finding.FILES_PER_SHARD", 2)
    steps = []

    def track(items, label):
        for item in items:
            steps.append(label)
            yield item

    side = load_side(folder, [], workers=2, track=track)
    assert side.pieces == alone.pieces
    assert side.rejects == alone.rejects
    assert steps == ["reading music"] * 6


def test_files_of_a_list_that_are_missing_or_no_music_are_listed(folder):
    listed = folder / "list.txt"
    listed.write_text("b.mid\nc.midi\nmissing.mid\nnotes.txt\n")
    assert [reject[:2] for reject in load_side(listed, []).rejects] == [
        ("missing.mid", "unreadable"),
        ("notes.txt", "not_notation"),
    ]


def test_the_content_hash_sees_one_changed_note(folder):
    before = load_side(folder, []).content_hash
    write_midi(tune(9), folder / "d.mid")
    assert load_side(folder, []).content_hash != before


@pytest.mark.parametrize("name", ["../out.mid", "/etc/out.mid", "a/../../out.mid", "C:\\out.mid"])
def test_zip_members_that_lead_out_are_refused(folder, tmp_path, name):
    archive = packed(
        folder, tmp_path / "z.zip", **{"a.mid": "b.mid", "b.mid": "b.mid", name: "b.mid"}
    )
    side = load_side(archive, [])
    assert [reject.reason for reject in side.rejects] == ["unsafe_name"]
    assert len(side.pieces) == 2


def test_a_zip_bomb_costs_one_file(folder, tmp_path):
    archive = packed(folder, tmp_path / "z.zip", **{"a.mid": "b.mid", "b.mid": "b.mid"})
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb.mid", b"MThd" + bytes(64 << 20))
    assert [reject[:2] for reject in load_side(archive, []).rejects] == [("bomb.mid", "too_large")]


def test_a_zip_file_of_too_much_music_is_refused(folder, tmp_path, monkeypatch):
    archive = packed(folder, tmp_path / "z.zip", **{"a.mid": "b.mid", "b.mid": "b.mid"})
    monkeypatch.setattr("rnngan.data.archives.MAX_TOTAL_BYTES", 10)
    with pytest.raises(UserError, match=r"only file in .* 1 archive_too_large; .* come out of it"):
        load_side(archive, [])


def test_a_damaged_zip_member_is_refused(folder, tmp_path):
    archive = packed(
        folder, tmp_path / "z.zip", **{"a.mid": "b.mid", "b.mid": "b.mid", "c.mid": "c.midi"}
    )
    data = bytearray(archive.read_bytes())
    data[data.index(b"MThd") + 30] ^= 0xFF  # the first member no longer fits its checksum
    archive.write_bytes(data)
    assert [reject[:2] for reject in load_side(archive, []).rejects] == [("a.mid", "damaged")]


def test_a_prepared_corpus_gives_its_splits(store):
    test, train = (load_side(store.folder, [], split=split) for split in ("test", "train"))
    assert list(test.pieces) == store.pieces("test")
    assert len(train.pieces) == len(store.pieces("train"))
    assert test.title(0).endswith(".mid")


@pytest.mark.parametrize("moved", [False, True])
def test_a_run_stands_for_its_corpus(store, tmp_path, moved):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").write_text("")
    (run / "run.json").write_text(
        json.dumps({"store": str(run / "store" if moved else store.folder)})
    )
    if moved:
        shutil.copytree(store.folder, run / "store")
        run = run.rename(tmp_path / "elsewhere")
    assert list(load_side(run, []).pieces) == store.pieces("test")


def statistics(count):
    names = select("note_density")
    return Statistics(
        table=FeatureTable(np.zeros(count, row_dtype(bins_of(names)))),
        titles=tuple(f"{i}.mid" for i in range(count)),
        piece_hashes=("ab",) * count,
    )


def test_a_side_may_be_without_its_music():
    side = Side(name="x", statistics=statistics(3))
    assert (side.num_pieces, side.num_distinct, side.title(1)) == (3, 1, "1.mid")
    with pytest.raises(UserError, match="copying is not available from statistics: x is here"):
        side.need_pieces("copying")
    assert Side(name="y", pieces=(tune(0),)).need_pieces("copying") == (tune(0),)


class TestBadInput:
    def refused(self, path, match, **options):
        with pytest.raises(UserError, match=match) as caught:
            load_side(path, [], **options)
        assert "\n" not in str(caught.value)

    def test_nothing_there(self, tmp_path):
        self.refused(tmp_path / "missing", "does not exist")

    def test_no_music(self, tmp_path):
        self.refused(tmp_path, "no music in")

    def test_no_music_in_a_zip_file(self, folder, tmp_path):
        self.refused(packed(folder, tmp_path / "z.zip", a="notes.txt"), "no music in")

    def test_all_of_it_broken(self, tmp_path):
        for i in range(3):
            (tmp_path / f"{i}.mid").write_bytes(b"MThd" * (i > 0))
        self.refused(tmp_path, "all 3 files in .* were refused: 2 truncated, 1 empty")

    def test_a_single_piece(self, folder):
        self.refused(folder / "b.mid", "gives 1 piece; .* at least 2")

    def test_a_file_of_another_kind(self, tmp_path):
        (tmp_path / "x.bin").write_bytes(bytes(range(256)))
        self.refused(tmp_path / "x.bin", "neither a folder, nor an archive, nor")

    def test_a_text_without_music(self, folder):
        self.refused(folder / "notes.txt", "no music in .*: no line ends in .abc")

    def test_an_archive_that_is_none(self, tmp_path):
        (tmp_path / "x.zip").write_text("hello")
        self.refused(tmp_path / "x.zip", "the only file in .*: 1 not_an_archive; the first: x.zip")

    def test_all_but_one_broken(self, folder, tmp_path):
        for name in ("x.mid", "y.mid"):
            (tmp_path / "few").mkdir(exist_ok=True)
            (tmp_path / "few" / name).write_bytes(b"MThd")
        shutil.copy(folder / "b.mid", tmp_path / "few")
        self.refused(tmp_path / "few", r"few \(2 files were refused\) gives 1 piece")

    def test_a_device(self):
        self.refused(Path("/dev/zero"), "neither a file nor a folder")

    def test_a_limit_that_leaves_nothing_to_compare(self, folder):
        self.refused(folder, "limit must be at least 2 pieces, got 1", limit=1)

    def test_a_run_that_does_not_say_where_its_corpus_is(self, tmp_path):
        (tmp_path / "config.toml").write_text("")
        (tmp_path / "run.json").write_text("{}")
        self.refused(tmp_path, "does not say where")


def test_names_that_no_terminal_should_get_are_made_harmless(tmp_path):
    for i in range(2):
        write_midi(tune(i), tmp_path / f"\x1b[31m{i}.mid")
    assert sources(load_side(tmp_path, [])) == ["?[31m0.mid", "?[31m1.mid"]


def test_distinct_pieces_are_counted_once():
    assert Side(name="x", pieces=(tune(0), tune(0), tune(1))).num_distinct == 2


class TestDraw:
    pieces = tuple(tune(i) for i in range(40))

    def test_all_of_a_small_side(self):
        assert Side(name="x", pieces=self.pieces).drawn(40, 0).tolist() == list(range(40))

    def test_it_depends_on_the_pieces_and_the_seed_alone(self):
        one = Side(name="x", pieces=self.pieces)
        turned = Side(name="y", path="elsewhere", pieces=self.pieces[::-1])
        drawn = one.drawn(10, 7).tolist()
        assert drawn == sorted(39 - i for i in turned.drawn(10, 7).tolist())
        assert drawn != one.drawn(10, 8).tolist()

    def test_a_larger_draw_holds_a_smaller_one(self):
        side = Side(name="x", pieces=self.pieces)
        assert set(side.drawn(10, 7)) < set(side.drawn(20, 7))

    def test_equal_pieces_are_drawn_one_by_one(self):
        others = (Piece.from_rows([(0, length, 60)]) for length in range(1, 1001))
        side = Side(name="x", pieces=(tune(0),) * 1000 + tuple(others))
        # Of 1000 each: 5 standard deviations of the hypergeometric distribution.
        assert abs((side.drawn(1000, 0) < 1000).sum() - 500) < 5 * 11.2

    def test_what_is_in_memory_comes_first(self):
        side = Side(name="x", pieces=self.pieces)
        known = replace(statistics(40), piece_hashes=side.piece_hashes)
        few = replace(side, statistics=known).thinned(6, 1)
        assert list(few.music) == side.drawn(6, 1).tolist()
        assert [few.pieces.index(few.music[i]) for i in few.kept] == list(range(6))
        assert set(few.kept) < set(few.drawn(12, 2).tolist())
        assert few.num_pieces == 40
