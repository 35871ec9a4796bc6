"""Where the files of a corpus are: in music21, in a folder, in archives."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from rnngan.config import DataConfig
from rnngan.data.archives import ARCHIVE_SUFFIXES, is_archive, unpack
from rnngan.data.corpora import CORPORA, corpus_files
from rnngan.data.reading import (
    MUSIC_SUFFIXES,
    MusicFile,
    contents_of,
    find_files,
    name_below,
    suffix_of,
)
from rnngan.errors import Reject, RejectedFile, UserError, nearest_name
from rnngan.files import write_atomically

FILES_PER_SHARD = 32
BYTES_PER_SHARD = 8 << 20
"""Of files larger than that each is a shard: what it holds must fit into a worker's memory."""


class Archive(NamedTuple):
    """An archive among the files of a corpus.

    Attributes:
        prefix: Of the names of what is in it; none for an archive that is the whole corpus.
    """

    path: str
    name: str
    sha256: str
    prefix: str


@dataclass(frozen=True, kw_only=True)
class FoundFiles:
    """The files of a corpus, in shards.

    Attributes:
        shards: The files' paths.
        roots: Folders that the paths lie below, with what replaces them in names.
        num_plain: So many of the shards hold files that lie open; the rest come from archives.
        archives: Those among the files.
        rejects: Archives, and what in them is not to be unpacked.
        cache: Folder for shards as read.
    """

    shards: list[list[str]]
    roots: tuple[tuple[str, str], ...]
    num_plain: int
    archives: tuple[Archive, ...] = ()
    rejects: tuple[Reject, ...] = ()
    common_tags: dict[str, str]
    num_parts: int | None = None
    program: int | None = None
    cache: Path | None = None

    @property
    def num_files(self) -> int:
        """Those that can be read, as far as they are unpacked."""
        return sum(map(len, self.shards))

    def music_files(self, shard: list[str]) -> tuple[MusicFile, ...]:
        """The files of a shard, with their names."""
        found = []
        for path in shard:
            # From the last on: what was unpacked may lie in the folder of the corpus.
            root, prefix = next(r for r in reversed(self.roots) if path.startswith(r[0]))
            found.append(MusicFile(prefix + name_below(root, path), path))
        return tuple(found)


def find_corpus(config: DataConfig) -> FoundFiles:
    """Where the files of a corpus are, but for those in archives.

    Raises:
        UserError: There is no such corpus, or nothing in it is music by its name.
    """
    if config.corpus in CORPORA:
        named = corpus_files(config.corpus)
        shards = in_shards(named.paths)
        return FoundFiles(
            shards=shards,
            roots=((f"{named.folder}{os.sep}", ""),),
            num_plain=len(shards),
            common_tags={"corpus": config.corpus},
            num_parts=named.corpus.num_parts,
            program=named.corpus.program,
            cache=named.cache / ("repeats" if config.expand_repeats else "once"),
        )
    place = Path(config.corpus)
    if not place.exists() and place.name == config.corpus:
        raise UserError(
            f"unknown corpus {config.corpus!r}{nearest_name(config.corpus, list(CORPORA))}; "
            f"named corpora are {', '.join(CORPORA)}; anything else must be an existing folder, "
            "or a zip or tar file"
        )
    if place.is_file():
        found, root = [str(place)], f"{place.parent}{os.sep}"
        if not is_archive(place):
            raise UserError(f"{place} is not a folder, nor a zip or tar file")
    else:
        found, root = find_files(place, _wanted), f"{place}{os.sep}"
    if not found:
        raise _no_music(place)
    shards = in_shards(list(filter(_is_music, found)))
    return FoundFiles(
        shards=shards,
        roots=((root, ""),),
        num_plain=len(shards),
        archives=tuple(
            Archive(path, name, contents_of(path).sha256, f"{name}/" if place.is_dir() else "")
            for path in found
            if not _is_music(path)
            for name in [name_below(root, path)]
        ),
        common_tags={"corpus": name_below("", _without_suffix(place.resolve()))},
    )


def _without_suffix(place: Path) -> str:
    """Name of a folder, or of an archive without what says that it is one."""
    suffixes = ARCHIVE_SUFFIXES if place.is_file() else ()
    found = [suffix for suffix in suffixes if place.name.lower().endswith(suffix)]
    return place.name[: -len(found[0])] if found else place.name


def _no_music(place: object) -> UserError:
    known = ", ".join(sorted(MUSIC_SUFFIXES))
    return UserError(f"no music in {place}: looked for {known}, and zip and tar files")


def unpacked(files: FoundFiles, scratch: Path) -> FoundFiles:
    """With the music in the archives, which goes into the scratch folder.

    Raises:
        UserError: There is no room for it, or no music in all of them.
    """
    shards, roots, rejects = list(files.shards), list(files.roots), list(files.rejects)
    for number, archive in enumerate(files.archives):
        folder = scratch / "unpacked" / f"{number:04}-{archive.sha256[:16]}"
        rejects += _unpacked_once(archive, folder)
        shards += in_shards(find_files(folder, _is_music))
        roots.append((f"{folder}{os.sep}", archive.prefix))
    if files.archives and not shards and not rejects:
        raise _no_music(", ".join(archive.path for archive in files.archives))
    return replace(files, shards=shards, roots=tuple(roots), rejects=tuple(rejects))


def _unpacked_once(archive: Archive, folder: Path) -> list[Reject]:
    """Unpack an archive, unless an earlier attempt did; what of it was refused."""
    done = folder.with_suffix(".json")
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            rejects = unpack(Path(archive.path), folder, wanted=MUSIC_SUFFIXES)
        except RejectedFile as error:
            message = str(error).removeprefix(f"cannot unpack {archive.path}: ")
            rejects = [Reject("", error.reason, message)]
        write_atomically(done, json.dumps(rejects).encode())
    return [
        reject._replace(name=archive.prefix + reject.name if reject.name else archive.name)
        for reject in (Reject(*row) for row in json.loads(done.read_text(encoding="utf-8")))
    ]


def _is_music(name: str) -> bool:
    return suffix_of(name) in MUSIC_SUFFIXES


def _wanted(name: str) -> bool:
    return _is_music(name) or is_archive(Path(name))


def in_shards(paths: list[str]) -> list[list[str]]:
    """The files in lists of at most `FILES_PER_SHARD`, and of `BYTES_PER_SHARD` or a single one."""
    shards: list[list[str]] = []
    room = 0
    for path in paths:
        try:
            size = Path(path).stat().st_size
        except OSError:  # it will be among the rejects
            size = 0
        if not shards or len(shards[-1]) == FILES_PER_SHARD or size > room:
            shards.append([])
            room = BYTES_PER_SHARD
        shards[-1].append(path)
        room -= size
    return shards
