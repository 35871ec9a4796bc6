import json
import zipfile
from pathlib import Path

import pytest

from eval.pieces import Side, load_side
from rnngan.errors import UserError
from rnngan.music.midi import write_midi
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
    side = load_side(folder)
    assert side.name == "music"
    assert sources(side) == ["a.MID", "b.mid", "c.midi", "d.mid", "more/a.mid"]
    assert side.pieces[0].notes["pitch"].tolist() == [61, 62]
    assert not side.rejects


def test_limit_takes_pieces_from_all_over_the_folder(folder):
    assert sources(load_side(folder, limit=2)) == ["a.MID", "c.midi"]
    assert len(load_side(folder, limit=99).pieces) == 5


def test_broken_files_are_listed_and_left_out(folder):
    (folder / "broken.mid").write_bytes(b"MThd")
    (folder / "empty.mid").write_bytes(b"")
    side = load_side(folder)
    assert len(side.pieces) == 5
    assert [reject[:2] for reject in side.rejects] == [
        ("broken.mid", "truncated"),
        ("empty.mid", "empty"),
    ]


def test_a_zip_file_and_a_list_give_the_same_music_as_their_folder(folder, tmp_path):
    archive = tmp_path / "music.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in folder.rglob("*"):
            file.write(path, path.relative_to(tmp_path))
    listed = folder / "list.txt"
    listed.write_text("a.MID\nb.mid\n\nc.midi\r\nd.mid\nmore/a.mid\n")
    sides = [load_side(path) for path in (folder, archive, listed)]
    assert len({side.content_hash for side in sides}) == 1
    assert sources(sides[2]) == sources(sides[0])


def test_the_content_hash_sees_one_changed_note(folder):
    before = load_side(folder).content_hash
    write_midi(tune(9), folder / "d.mid")
    assert load_side(folder).content_hash != before


@pytest.mark.parametrize("name", ["../out.mid", "/etc/out.mid", "a/../../out.mid", "C:\\out.mid"])
def test_zip_members_that_lead_out_are_refused(folder, tmp_path, name):
    archive = packed(
        folder, tmp_path / "z.zip", **{"a.mid": "b.mid", "b.mid": "b.mid", name: "b.mid"}
    )
    side = load_side(archive)
    assert [reject.reason for reject in side.rejects] == ["unsafe_name"]
    assert len(side.pieces) == 2


def test_a_zip_bomb_costs_one_file(folder, tmp_path):
    archive = packed(folder, tmp_path / "z.zip", **{"a.mid": "b.mid", "b.mid": "b.mid"})
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb.mid", b"MThd" + bytes(64 << 20))
    assert [reject[:2] for reject in load_side(archive).rejects] == [("bomb.mid", "too_large")]


def test_a_zip_file_of_too_much_music_is_refused(folder, tmp_path, monkeypatch):
    archive = packed(folder, tmp_path / "z.zip", **{"a.mid": "b.mid", "b.mid": "b.mid"})
    monkeypatch.setattr("eval.pieces.MAX_ARCHIVE_BYTES", 10)
    with pytest.raises(UserError, match="unpacks to"):
        load_side(archive)


def test_a_damaged_zip_member_is_refused(folder, tmp_path):
    archive = packed(
        folder, tmp_path / "z.zip", **{"a.mid": "b.mid", "b.mid": "b.mid", "c.mid": "c.midi"}
    )
    data = bytearray(archive.read_bytes())
    data[data.index(b"MThd") + 30] ^= 0xFF  # the first member no longer fits its checksum
    archive.write_bytes(data)
    assert [reject[:2] for reject in load_side(archive).rejects] == [("a.mid", "damaged")]


def test_a_prepared_corpus_gives_its_splits(store):
    test, train = (load_side(store.folder, split=split) for split in ("test", "train"))
    assert list(test.pieces) == store.pieces("test")
    assert len(train.pieces) == len(store.pieces("train"))
    assert test.title(0).endswith(".mid")


@pytest.mark.parametrize("absolute", [True, False])
def test_a_run_stands_for_its_corpus(store, tmp_path, absolute):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").write_text("")
    path = str(store.folder) if absolute else "corpus"
    (run / "run.json").write_text(json.dumps({"store": path}))
    if not absolute:
        (run / "corpus").symlink_to(store.folder)
    assert list(load_side(run).pieces) == store.pieces("test")


class TestBadInput:
    def refused(self, path, match, **options):
        with pytest.raises(UserError, match=match) as caught:
            load_side(path, **options)
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
        self.refused(tmp_path / "x.bin", "neither a folder, nor a zip file, nor a text file")

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
    assert sources(load_side(tmp_path)) == ["?[31m0.mid", "?[31m1.mid"]


def test_distinct_pieces_are_counted_once():
    assert Side(name="x", pieces=(tune(0), tune(0), tune(1))).num_distinct == 2
