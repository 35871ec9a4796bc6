"""Music out of zip and tar archives, whoever packed them.

Nothing that an archive says about itself is believed: bytes are counted as they come out, and no
member chooses where it is written.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import re
import stat
import tarfile
import tempfile
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from rnngan.errors import Reject, RejectedFile, UserError
from rnngan.music import midi, notation

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

MAX_MEMBERS = 1_000_000
"""The largest collections on the web hold fewer than half as many files."""
MAX_TOTAL_BYTES = 32 << 30
"""Unpacked; 170,000 files from the web take 6 GiB."""
MAX_RATIO = 200
"""Unpacked bytes per byte of the archive; MIDI packs 4 to 1, MusicXML 30 to 1, zeros 1,000 to 1."""
FREE_BYTES = 64 << 20
"""Unpacked bytes at which the ratio begins to count: a small archive may well repeat itself."""
MAX_HEADER_BYTES = 16 << 10
"""What may stand before a member of a tar archive: long names, and attributes that we pass over."""
_CHUNK = 1 << 20


def max_unpacked_bytes(packed_bytes: int) -> int:
    """How much may come out of so many packed bytes before we take it for a bomb."""
    return min(MAX_TOTAL_BYTES, max(FREE_BYTES, MAX_RATIO * packed_bytes))


class _Unpacked(NamedTuple):
    """A member on disk under a name of ours; sorted, whatever the order in the archive."""

    name: str
    sha256: str
    path: Path


def is_archive(path: Path) -> bool:
    """Whether the name says that this is an archive we unpack."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


def unpack(archive: Path, folder: Path, *, wanted: frozenset[str]) -> list[Reject]:
    """Unpack the music in an archive into a folder; what is no music is passed over.

    Which files come out, and their names, does not depend on the order of the members. Of names
    that are equal, or would be on some disks (letter case, Unicode forms), all but the first get a
    number: `a~2.mid`. Names that are not UTF-8 lose the bytes that are not.

    Members are refused, one row each, with the reasons `unsafe_name` (absolute, with a drive
    letter, `..`, or control characters), `link`, `not_a_file`, `encrypted`,
    `unsupported_compression`, `too_large` (8 MiB for MIDI, 32 MiB for notation), `damaged` and
    `nested_archive`. Where a tar archive is cut short or damaged, what follows is lost: one row
    `damaged` without a name.

    Args:
        archive: `.zip` or `.tar`, the latter plain or packed by gzip, bzip2 or xz; the bytes
            decide which, not the name.
        folder: Where the files go; must exist and be empty.
        wanted: Suffixes in lower case, as `.mid`.

    Returns:
        Members refused, sorted by name.

    Raises:
        RejectedFile: `unreadable`, `not_an_archive`, `damaged` (a zip archive without a sound
            directory), `too_many_members`, or `archive_too_large` (a bomb, or past
            `MAX_TOTAL_BYTES`). The folder stays empty then.
        UserError: The folder cannot be written.
    """
    try:
        with archive.open("rb") as file:
            head = file.read(6)
            packed_bytes = archive.stat().st_size
    except OSError as error:
        raise RejectedFile("unreadable", f"cannot read {archive}: {error.strerror}") from error
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-") as scratch:
            reader = _Reader(Path(scratch), wanted, packed_bytes)
            if head.startswith(b"PK"):
                reader.read_zip(archive)
            else:
                reader.read_tar(archive, head)
            _give_names(reader.unpacked, folder)
    except RejectedFile as error:
        raise RejectedFile(error.reason, f"cannot unpack {archive}: {error}") from error
    except OSError as error:
        raise UserError(f"cannot unpack {archive} into {folder}: {error.strerror}") from error
    return sorted(reader.rejects)


class _Reader:
    """Takes members in, in any order: onto the disk, or among the rejects."""

    def __init__(self, scratch: Path, wanted: frozenset[str], packed_bytes: int) -> None:
        self.scratch = scratch
        self.wanted = wanted
        self.max_bytes = max_unpacked_bytes(packed_bytes)
        self.num_bytes = 0
        self.unpacked: list[_Unpacked] = []
        self.rejects: list[Reject] = []

    def count(self, num_bytes: int) -> None:
        """So much came out of the archive.

        Raises:
            RejectedFile: `archive_too_large`.
        """
        self.num_bytes += num_bytes
        if self.num_bytes > self.max_bytes:
            raise RejectedFile(
                "archive_too_large", f"more than {self.max_bytes} bytes come out of it"
            )

    def refuse(self, name: str, reason: str, message: str) -> None:
        """Put a member among the rejects."""
        self.rejects.append(Reject(_printable(name), reason, message))

    def keep(self, name: str, data: bytes) -> None:
        """Write a member to the disk."""
        path = self.scratch / str(len(self.unpacked))
        path.write_bytes(data)
        self.unpacked.append(_Unpacked(name, hashlib.sha256(data).hexdigest(), path))

    def is_music(self, name: str) -> bool:
        """Whether to read a member further, by its name; what is unsafe or nested is refused."""
        lower = name.lower()
        if lower.endswith(ARCHIVE_SUFFIXES):
            self.refuse(name, "nested_archive", "archives in archives are not unpacked")
            return False
        parts = re.split(r"[/\\]", name)
        if PurePosixPath(lower).suffix not in self.wanted or "__MACOSX" in parts:
            return False  # the latter are not the music but what a Mac knows about it
        unsafe = (
            name.startswith(("/", "\\"))
            or re.match(r"[A-Za-z]:", name)
            or ".." in parts
            or any(unicodedata.category(letter) == "Cc" for letter in name)
            or max(len(part.encode()) for part in parts) > 200  # of the 255 that disks take
            or len(name.encode()) > 1000
        )
        if unsafe:
            self.refuse(name, "unsafe_name", "its name must stay in the folder, on any system")
        return not unsafe

    def read_zip(self, archive: Path) -> None:
        """Take in all members of a zip archive.

        Raises:
            RejectedFile: As `unpack`.
        """
        _check_directory(archive)
        try:
            # Python takes an archive for damaged if names said to be UTF-8 are not.
            file = zipfile.ZipFile(archive)
        except Exception as error:  # zipfile promises no particular exceptions
            raise RejectedFile("damaged", f"no sound zip archive ({error})") from error
        with file:
            for member in file.infolist():
                name = _zip_name(member)
                if not member.is_dir() and self.is_music(name):
                    self.read_zip_member(file, member, name)

    def read_zip_member(self, file: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> None:
        """Take in one member of a zip archive that is music by its name."""
        limit = _max_bytes(name)
        if stat.S_ISLNK(member.external_attr >> 16):
            self.refuse(name, "link", "links are not followed")
        elif member.flag_bits & 1:
            self.refuse(name, "encrypted", "it needs a password")
        elif member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # Of the others Python unpacks whole blocks at once, of up to gigabytes.
            self.refuse(name, "unsupported_compression", "only deflated and stored files are read")
        else:
            try:
                with file.open(member) as packed:
                    data = packed.read(limit + 1)
            except Exception as error:
                self.refuse(name, "damaged", f"{type(error).__name__}: {error}")
                return
            self.count(len(data))
            if len(data) > limit:
                self.refuse(name, "too_large", f"it is longer than {limit} bytes")
            else:
                self.keep(name, data)

    def read_tar(self, archive: Path, head: bytes) -> None:
        """Take in the members of a tar archive, up to where it is damaged.

        Raises:
            RejectedFile: As `unpack`.
        """
        with _opened(archive, head) as file:
            stream = _Stream(file, self)
            try:
                with tarfile.TarFile(fileobj=stream, errors="surrogateescape") as tar:  # type: ignore[arg-type]
                    for member in _tar_members(tar, stream):
                        self.read_tar_member(member, stream)
            except RejectedFile:
                raise
            except Exception as error:  # tarfile promises no particular exceptions
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # of the disk; damage to packed data has no number
                if stream.num_members == 0:
                    message = f"neither a zip nor a tar archive ({error})"
                    raise RejectedFile("not_an_archive", message) from error
                self.refuse("", "damaged", f"cut short or damaged: {error}")

    def read_tar_member(self, member: tarfile.TarInfo, stream: _Stream) -> None:
        """Take in one member of a tar archive; its bytes are next in the stream."""
        name = member.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        if member.isdir() or not self.is_music(name):
            return
        limit = _max_bytes(name)
        if member.islnk() or member.issym():
            self.refuse(name, "link", "links are not followed")
        elif not member.isreg() or member.sparse is not None:
            self.refuse(name, "not_a_file", "devices, pipes and sparse files are not read")
        elif member.size > limit:
            self.refuse(name, "too_large", f"it is longer than {limit} bytes")
        else:
            data = stream.take(member.size)
            if len(data) < member.size:
                raise EOFError(f"the archive ends inside {_printable(name)}")
            self.keep(name, data)


class _Stream:
    """What tarfile reads from: forward only, counted, and no more at a time than is allowed.

    Without that a header could have tarfile read gigabytes into memory.
    """

    def __init__(self, file: io.BufferedIOBase, reader: _Reader) -> None:
        self.file = file
        self.reader = reader
        self.position = 0
        self.num_members = 0
        self.last = b""  # what was read last
        self.end = MAX_HEADER_BYTES  # how far tarfile may read

    def tell(self) -> int:
        """Bytes read so far."""
        return self.position

    def read(self, size: int) -> bytes:
        """The next `size` bytes of a header, for tarfile.

        Raises:
            EOFError: As `take`, or a number in them is absurd.
            RejectedFile: `archive_too_large`.
        """
        data = self.take(size)
        if re.search(rb"\d{256}", data):  # tarfile's time would grow with the square of that
            raise EOFError("a header holds a number of hundreds of digits")
        return data

    def take(self, size: int) -> bytes:
        """The next `size` bytes, fewer only at the end.

        Raises:
            EOFError: They reach further than a header or member may.
            RejectedFile: `archive_too_large`.
        """
        if not 0 <= size <= self.end - self.position:
            raise EOFError(f"a header promises {size} bytes")
        self.last = data = self.file.read(size)
        self.position += len(data)
        self.reader.count(len(data))
        return data

    def seek(self, position: int) -> None:
        """Go on from a later byte.

        Raises:
            EOFError: It lies before this one, or after the last.
        """
        if position < self.position:
            raise EOFError("a header leads backwards")
        self.end = position
        while self.position < position:
            if not self.take(min(_CHUNK, position - self.position)):
                raise EOFError("the archive ends inside a member")


def _tar_members(tar: tarfile.TarFile, stream: _Stream) -> Iterator[tarfile.TarInfo]:
    """Members in order, the stream at the first byte of each.

    Raises:
        EOFError: The archive does not end as it should.
        RejectedFile: `too_many_members`.
    """
    while (member := tar.next()) is not None:
        stream.num_members += 1
        if stream.num_members > MAX_MEMBERS:
            raise RejectedFile("too_many_members", f"at most {MAX_MEMBERS} members are read")
        stream.seek(member.offset_data)
        stream.end = member.offset_data + member.size
        yield member
        stream.seek(tar.offset)
        stream.end = tar.offset + MAX_HEADER_BYTES
        tar.members.clear()  # type: ignore[attr-defined]  # it would remember them all
    if stream.last != bytes(tarfile.BLOCKSIZE):  # tarfile takes a damaged header for the end
        raise EOFError("no end mark where the members end")


def _opened(archive: Path, head: bytes) -> io.BufferedIOBase:
    """The tar archive without its packing."""
    if head.startswith(b"\x1f\x8b"):
        return gzip.open(archive)
    if head.startswith(b"BZh"):
        return bz2.open(archive)
    if head.startswith(b"\xfd7zXZ\0"):
        return lzma.open(archive)
    return archive.open("rb")


def _check_directory(archive: Path) -> None:
    """Refuse a zip archive with a directory that would take zipfile gigabytes of memory.

    Raises:
        RejectedFile: `too_many_members`.
    """
    num_members, last = 0, b""
    with archive.open("rb") as file:
        while chunk := file.read(_CHUNK):
            # Every entry begins so; in packed data that hardly ever stands by chance.
            num_members += (last + chunk).count(b"PK\1\2")
            last = chunk[-3:]
    if num_members > MAX_MEMBERS:
        raise RejectedFile("too_many_members", f"at most {MAX_MEMBERS} members are read")


def _zip_name(member: zipfile.ZipInfo) -> str:
    """Name of a member; most programs write UTF-8 without saying so."""
    if not member.flag_bits & 0x800:
        try:
            return member.filename.encode("cp437").decode("utf-8")
        except UnicodeError:
            pass
    return member.filename.encode("utf-8", "replace").decode()


def _printable(name: str) -> str:
    """The name without what would break a line or a terminal, not too long."""
    shown = "".join("�" if unicodedata.category(c) == "Cc" else c for c in name)
    return shown if len(shown) <= 300 else shown[:300] + "…"


def _max_bytes(name: str) -> int:
    """Bytes that the reader of such a file takes."""
    notated = notation.ABC_SUFFIXES | notation.MUSICXML_SUFFIXES
    is_notated = PurePosixPath(name).suffix.lower() in notated
    return notation.MAX_BYTES if is_notated else midi.MAX_BYTES


def _give_names(unpacked: Sequence[_Unpacked], folder: Path) -> None:
    """Move files to their own names, or to ones that no disk takes for another's."""

    def key(path: PurePosixPath) -> str:
        return unicodedata.normalize("NFC", unicodedata.normalize("NFC", str(path)).casefold())

    paths = {file: PurePosixPath(file.name.replace("\\", "/")) for file in unpacked}
    numbers: Counter[str] = Counter()
    taken = {key(parent) for path in paths.values() for parent in path.parents}
    for file in sorted(unpacked, key=lambda file: file[:2]):
        path = plain = paths[file]
        while key(path) in taken:
            numbers[key(plain)] += 1  # never from the beginning: a million may share a name
            number = numbers[key(plain)] + 1
            path = plain.with_name(f"{plain.stem}~{number}{plain.suffix}")
        taken.add(key(path))
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        file.path.replace(target)
