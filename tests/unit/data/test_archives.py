"""Archives as people pack them, and as nobody should."""

import bz2
import gzip
import io
import itertools
import lzma
import random
import struct
import tarfile
import unicodedata
import warnings
import zipfile

import pytest

from rnngan.data import archives
from rnngan.data.archives import is_archive, unpack
from rnngan.errors import RejectedFile, UserError
from rnngan.music import midi

WANTED = frozenset({".mid", ".abc", ".mxl"})
TREE = {"b.mid": b"one", "sub/A.MID": b"two", "sub/deep/c.abc": b"three", "read.me": b"no music"}
MUSIC = {name: data for name, data in TREE.items() if name != "read.me"}


def zipped(members, method=zipfile.ZIP_DEFLATED):
    """A zip archive of `(name or ZipInfo, bytes)` pairs."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names that come twice
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def tarred(members, form=tarfile.PAX_FORMAT, **info):
    """A tar archive of `(name, bytes)` pairs."""
    file = io.BytesIO()
    with tarfile.TarFile(fileobj=file, mode="w", format=form) as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            for key, value in info.items():
                setattr(member, key, value)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


PACKERS = {
    "a.zip": lambda members: zipped(members),
    "stored.zip": lambda members: zipped(members, zipfile.ZIP_STORED),
    "a.tar": tarred,
    "gnu.tar": lambda members: tarred(members, tarfile.GNU_FORMAT),
    "ustar.tar": lambda members: tarred(members, tarfile.USTAR_FORMAT),
    "a.tar.gz": lambda members: gzip.compress(tarred(members)),
    "a.tgz": lambda members: gzip.compress(tarred(members)),
    "a.tar.bz2": lambda members: bz2.compress(tarred(members)),
    "a.tar.xz": lambda members: lzma.compress(tarred(members)),
}


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def unpacked(tmp_path, out):
    """Unpacks bytes; gives the files by name, and the rejects as names with reasons."""

    def run(data):
        (tmp_path / "archive").write_bytes(data)
        rejects = unpack(tmp_path / "archive", out, wanted=WANTED)
        assert all(reject.message for reject in rejects)
        files = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*.*")}
        return files, [reject[:2] for reject in rejects]

    return run


def refused(unpacked, data):
    with pytest.raises(RejectedFile, match="cannot unpack") as caught:
        unpacked(data)
    return caught.value.reason


@pytest.mark.parametrize("name", PACKERS)
def test_the_music_comes_out_and_nothing_else(unpacked, out, name):
    assert is_archive(out / name.upper())
    assert unpacked(PACKERS[name](TREE.items())) == (MUSIC, [])
    assert sorted(path.name for path in out.iterdir()) == ["b.mid", "sub"]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_and_foreign_names(unpacked, form):
    names = ["a/" * 90 + "ü.mid", "日本/" * 20 + "x.mid"]
    assert unpacked(tarred([(n, b"x") for n in names], form))[0] == dict.fromkeys(names, b"x")


def test_not_an_archive_by_name(tmp_path):
    assert not is_archive(tmp_path / "a.mid")
    assert not is_archive(tmp_path / "a.mxl")


BAD_NAMES = [
    "/etc/a.mid",
    "//host/a.mid",
    "\\a.mid",
    "C:/a.mid",
    "c:a.mid",
    "../a.mid",
    "a/../../b.mid",
    "a\\..\\..\\b.mid",
    "a\nb.mid",
    "x" * 300 + ".mid",
]


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_lead_elsewhere(unpacked, tmp_path, pack, name):
    before = set(tmp_path.iterdir())
    files, rejects = unpacked(pack([("a.mid", b"fine"), (name, b"foul")]))
    assert files == {"a.mid": b"fine"}
    assert [reason for _, reason in rejects] == ["unsafe_name"]
    assert set(tmp_path.iterdir()) - before == {tmp_path / "archive"}


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_dots_lead_nowhere_else_and_backslashes_are_slashes(unpacked, pack):
    files, rejects = unpacked(pack([("./a/./b.mid", b"1"), ("d\\e.mid", b"2")]))
    assert files == {"a/b.mid": b"1", "d/e.mid": b"2"}
    assert rejects == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_in_tar(unpacked, kind):
    data = tarred([("a.mid", b"")], type=kind, linkname="/etc/passwd")
    assert unpacked(data) == ({}, [("a.mid", "link")])


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_in_tar(unpacked, kind):
    assert unpacked(tarred([("a.mid", b"")], type=kind)) == ({}, [("a.mid", "not_a_file")])


def test_folders_are_no_music(unpacked):
    assert unpacked(tarred([("a.mid", b"")], type=tarfile.DIRTYPE)) == ({}, [])
    assert unpacked(zipped([("a.mid/", b"")])) == ({}, [])


def test_links_in_zip(unpacked):
    link = zipfile.ZipInfo("a.mid")
    link.external_attr = 0o120777 << 16
    assert unpacked(zipped([(link, b"/etc/passwd")])) == ({}, [("a.mid", "link")])


def test_what_a_mac_adds_is_no_music(unpacked):
    assert unpacked(zipped([("__MACOSX/._a.mid", b"x"), ("a.mid", b"y")])) == ({"a.mid": b"y"}, [])


def test_encrypted_members(unpacked):
    data = bytearray(zipped([("a.mid", b"secret"), ("b.mid", b"open")]))
    data[data.index(b"PK\1\2") + 8] |= 1
    assert unpacked(bytes(data)) == ({"b.mid": b"open"}, [("a.mid", "encrypted")])


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_of_zip(unpacked, method):
    data = zipped([("a.mid", b"x")], method)
    assert unpacked(data) == ({}, [("a.mid", "unsupported_compression")])


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_nested_archives_are_named_not_unpacked(unpacked, pack):
    data = pack([("in/b.ZIP", zipped(TREE.items())), ("c.tar.gz", b"x"), ("d.mxl", b"PK")])
    assert unpacked(data) == (
        {"d.mxl": b"PK"},
        [("c.tar.gz", "nested_archive"), ("in/b.ZIP", "nested_archive")],
    )


@pytest.mark.parametrize("name", PACKERS)
def test_a_member_too_large_costs_itself(unpacked, monkeypatch, name):
    monkeypatch.setattr(midi, "MAX_BYTES", 10)
    members = [("a.mid", bytes(11)), ("b.mid", bytes(10)), ("c.abc", bytes(11))]
    files, rejects = unpacked(PACKERS[name](members))
    assert sorted(files) == ["b.mid", "c.abc"]
    assert rejects == [("a.mid", "too_large")]


# Bombs


@pytest.mark.parametrize("name", PACKERS)
def test_more_bytes_than_allowed(unpacked, out, monkeypatch, name):
    data = PACKERS[name]([(f"{i}.mid", bytes(2000)) for i in range(10)])
    monkeypatch.setattr(archives, "MAX_TOTAL_BYTES", 15_000)
    assert refused(unpacked, data) == "archive_too_large"
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_too_high_a_ratio(unpacked, out, monkeypatch, name):
    monkeypatch.setattr(archives, "FREE_BYTES", 1000)
    data = PACKERS[name]([("a.mid", bytes(1 << 20))])
    assert refused(unpacked, data) == "archive_too_large"
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_what_is_no_music_counts_where_it_must_be_unpacked(unpacked, monkeypatch, name):
    monkeypatch.setattr(archives, "FREE_BYTES", 1000)
    data = PACKERS[name]([("zeros.bin", bytes(1 << 20)), ("a.mid", b"x")])
    assert refused(unpacked, data) == "archive_too_large"


def overlapping(num_members, size):
    """A zip archive whose members all are the same deflated zeros, as D. Fifield's bombs."""
    data = zipped([("0.mid", bytes(size))])
    directory = data.index(b"PK\1\2")
    entry = data[directory : data.rindex(b"PK\5\6")]
    end = struct.pack(
        "<4s4H2IH",
        b"PK\5\6",
        0,
        0,
        num_members,
        num_members,
        num_members * len(entry),
        directory,
        0,
    )
    return data[:directory] + entry * num_members + end


def test_members_that_overlap_count_each_time(unpacked, monkeypatch):
    assert len(unpacked(overlapping(3, 1000))[0]) == 3
    monkeypatch.setattr(archives, "FREE_BYTES", 1 << 20)
    assert refused(unpacked, overlapping(500, 100_000)) == "archive_too_large"


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.xz"])
def test_too_many_members(unpacked, out, monkeypatch, name):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 20)
    assert len(unpacked(PACKERS[name]([(f"{i}.mid", b"x") for i in range(20)]))[0]) == 20
    for path in out.iterdir():
        path.unlink()
    data = PACKERS[name]([(f"{i}.txt", b"x") for i in range(21)])
    assert refused(unpacked, data) == "too_many_members"


def test_signatures_on_the_border_of_two_reads_are_counted(unpacked, monkeypatch):
    data = zipped([(f"{i}.mid", b"x") for i in range(30)])
    monkeypatch.setattr(archives, "MAX_MEMBERS", 30)
    monkeypatch.setattr(archives, "_CHUNK", 5)
    assert len(unpacked(data)[0]) == 30
    monkeypatch.setattr(archives, "MAX_MEMBERS", 29)
    assert refused(unpacked, data) == "too_many_members"


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g"])
def test_tar_headers_that_ask_for_memory(unpacked, kind):
    header = tarfile.TarInfo("long")
    header.type = kind
    header.size = 512_000
    data = tarred([("a.mid", b"x")])[:1024] + header.tobuf(tarfile.GNU_FORMAT) + bytes(512_000)
    assert unpacked(data + tarred([("b.mid", b"y")])) == ({"a.mid": b"x"}, [("", "damaged")])


def test_tar_headers_that_ask_for_time(unpacked):
    header = tarfile.TarInfo("long")
    header.type = tarfile.XHDTYPE
    header.size = 10_000
    bomb = header.tobuf(tarfile.USTAR_FORMAT) + b"1" * 10_000 + bytes(240)
    data = tarred([("a.mid", b"x")])[:1024] + bomb + tarred([("b.mid", b"y")])
    assert unpacked(data) == ({"a.mid": b"x"}, [("", "damaged")])


def test_zip_headers_that_promise_too_little(unpacked):
    data = zipped([("a.mid", bytes(5000)), ("b.mid", b"x")])
    data = data.replace(struct.pack("<I", 5000), struct.pack("<I", 50))
    assert unpacked(data) == ({"b.mid": b"x"}, [("a.mid", "damaged")])


def test_zip_headers_that_promise_too_much(unpacked):
    data = zipped([("a.mid", bytes(5000)), ("b.mid", b"x")])
    data = data.replace(struct.pack("<I", 5000), struct.pack("<I", 0xFFFFFFF0))
    files, rejects = unpacked(data)
    assert len(files.pop("a.mid", bytes(5000))) == 5000
    assert files == {"b.mid": b"x"}
    assert rejects in ([], [("a.mid", "damaged")])


# Damage


def noise(size, seed=0):
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_what_comes_before_the_damage_is_saved(unpacked, name):
    members = [(f"{i}.mid", noise(300_000, seed=i)) for i in range(9)]
    data = PACKERS[name](members)
    files, rejects = unpacked(data[: len(data) // 2])
    assert 0 < len(files) < 9
    assert files.items() <= dict(members).items()
    assert rejects == [("", "damaged")]


def test_a_damaged_tar_header_is_no_end(unpacked):
    data = bytearray(tarred([("a.mid", b"x"), ("b.mid", b"y")]))
    data[1024 + 20] ^= 1
    assert unpacked(bytes(data)) == ({"a.mid": b"x"}, [("", "damaged")])


def test_a_damaged_zip_member_costs_itself(unpacked):
    data = bytearray(zipped([("a.mid", noise(1000)), ("b.mid", b"y")]))
    data[200] ^= 1
    assert unpacked(bytes(data)) == ({"b.mid": b"y"}, [("a.mid", "damaged")])


def test_a_zip_archive_cut_short_is_refused(unpacked):
    assert refused(unpacked, zipped(TREE.items())[:-30]) == "damaged"


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", bytes(100), noise(5000), gzip.compress(b"no tar", mtime=0), b"\x1f\x8bhello"],
)
def test_no_archive_at_all(unpacked, out, data):
    assert refused(unpacked, data) == "not_an_archive"
    assert list(out.iterdir()) == []


def test_a_missing_archive(tmp_path, out):
    with pytest.raises(RejectedFile) as caught:
        unpack(tmp_path / "none.zip", out, wanted=WANTED)
    assert caught.value.reason == "unreadable"


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped([("a.mid", b"x")]))
    with pytest.raises(UserError, match="No such file") as caught:
        unpack(tmp_path / "a.zip", tmp_path / "none", wanted=WANTED)
    assert not isinstance(caught.value, RejectedFile)


@pytest.mark.parametrize("name", PACKERS)
def test_no_damage_breaks_the_reader(tmp_path, name):
    whole = PACKERS[name](TREE.items())
    mutate = random.Random(1)
    for round_ in range(60):
        data = bytearray(whole)
        for _ in range(mutate.randrange(1, 4)):
            data[mutate.randrange(len(data))] = mutate.randrange(256)
        folder = tmp_path / str(round_)
        folder.mkdir()
        (tmp_path / "archive").write_bytes(data)
        try:
            unpack(tmp_path / "archive", folder, wanted=WANTED)
        except RejectedFile:
            assert list(folder.iterdir()) == []


# Names


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_names_that_some_disk_confuses_stay_apart_whatever_their_order(tmp_path, pack):
    members = [
        ("a.mid", b"1"),
        ("a.mid", b"2"),
        ("A.mid", b"3"),
        ("é.mid", b"4"),
        (unicodedata.normalize("NFD", "é.mid"), b"5"),
        ("x.mid", b"6"),
        ("x.mid/y.mid", b"7"),
    ]
    found = []
    for i, order in enumerate([members, members[::-1], members[3:] + members[:3]]):
        folder = tmp_path / str(i)
        folder.mkdir()
        (tmp_path / "archive").write_bytes(pack(order))
        assert unpack(tmp_path / "archive", folder, wanted=WANTED) == []
        files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
        found.append({name: path.read_bytes() for name, path in files.items()})
    assert found[0] == found[1] == found[2]
    assert sorted(found[0].values()) == [data for _, data in members]
    assert {"A.mid", "a~2.mid", "a~3.mid", "x~2.mid", "x.mid/y.mid"} <= set(found[0])
    folded = [unicodedata.normalize("NFC", name).casefold() for name in found[0]]
    assert len(set(folded)) == len(members)


def test_a_number_that_is_taken_is_passed_over(unpacked):
    files, _ = unpacked(zipped([("a.mid", b"1"), ("A.mid", b"2"), ("a~2.mid", b"3")]))
    assert sorted(files.values()) == [b"1", b"2", b"3"]


def test_names_in_no_encoding(unpacked):
    name = "\udcfc.mid"  # Latin-1, which old archives hold
    assert unpacked(tarred([(name, b"x")], tarfile.GNU_FORMAT)) == ({"\ufffd.mid": b"x"}, [])


def test_zip_names_in_utf8_that_do_not_say_so(unpacked):
    data = zipped([("ü.mid", b"x")])
    for signature, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = data.index(signature) + place
        data = data[: at + 1] + bytes([data[at + 1] & ~8]) + data[at + 2 :]
    assert unpacked(data) == ({"ü.mid": b"x"}, [])


def test_rows_are_fit_to_print(tmp_path, out):
    (tmp_path / "a").write_bytes(tarred([("\x1b[31m\n" + "x" * 999 + ".mid", b"")]))
    [reject] = unpack(tmp_path / "a", out, wanted=WANTED)
    assert reject.name.isprintable()
    assert len(reject.name) < 310


def test_many_equal_names(unpacked):
    data = zipped(itertools.repeat(("a.mid", b""), 3000))
    assert len(unpacked(data)[0]) == 3000
