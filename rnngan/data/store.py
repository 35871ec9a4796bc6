"""The prepared corpus: tokens on disk, memory-mapped, with a manifest.

A store is a folder of `tokens.npy` (uint16, all pieces end to end), `offsets.npy` (where each
begins), `manifest.json` (tokenizer, settings, and of every piece its source's hash, split and
tags) and `rejects.csv`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rnngan.data.reading import Reject, Source
from rnngan.errors import UserError
from rnngan.files import write_atomically
from rnngan.music.piece import DRUMS, Piece
from rnngan.music.tokenizers.events import Events
from rnngan.music.vocabulary import Tokens

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Store:
    """A prepared corpus, opened.

    Attributes:
        folder: Where it lies.
        tokenizer: What its tokens mean.
        tokens: All pieces end to end, memory-mapped.
        offsets: Piece `i` is `tokens[offsets[i]:offsets[i + 1]]`.
        manifest: Contents of `manifest.json`.
    """

    folder: Path
    tokenizer: Events
    tokens: Tokens
    offsets: npt.NDArray[np.int64]
    manifest: dict[str, Any]

    @staticmethod
    def open(folder: Path) -> Store:
        """Open a prepared corpus.

        Raises:
            UserError: There is none in this folder, or it is damaged.
        """
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            offsets = np.array(np.lib.format.open_memmap(folder / "offsets.npy", mode="r"))
            tokens = np.lib.format.open_memmap(folder / "tokens.npy", mode="r")
            if manifest["format"] != FORMAT:
                raise ValueError(f"format {manifest['format']}, this version reads {FORMAT}")
            tokenizer = Events.from_json(manifest["tokenizer"])
            if not (
                tokens.dtype == np.uint16
                and offsets.dtype == np.int64
                and tokens.ndim == offsets.ndim == 1
                and np.diff(offsets).tolist() == [p["tokens"] for p in manifest["pieces"]]
                and (offsets[0], offsets[-1]) == (0, len(tokens))
                and {p["split"] for p in manifest["pieces"]} <= set(SPLITS)
            ):
                raise ValueError("tokens, offsets and manifest do not fit together")
        except FileNotFoundError as error:
            raise UserError(
                f"no prepared corpus in {folder} ({Path(error.filename).name} is missing); "
                "make one with: rnngan prepare"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"the prepared corpus in {folder} is damaged ({type(error).__name__}: {error}); "
                "delete it and make it anew with: rnngan prepare"
            ) from None
        return Store(
            folder=folder, tokenizer=tokenizer, tokens=tokens, offsets=offsets, manifest=manifest
        )

    def indices(self, split: Split) -> npt.NDArray[np.int64]:
        """Numbers of the pieces of a split, ascending."""
        pieces = self.manifest["pieces"]
        return np.array([i for i, p in enumerate(pieces) if p["split"] == split], dtype=np.int64)

    def piece_tokens(self, index: int) -> Tokens:
        """Tokens of one piece, Start and End included."""
        return np.asarray(self.tokens[self.offsets[index] : self.offsets[index + 1]])

    def pieces(self, split: Split) -> list[Piece]:
        """The pieces of a split as the tokens tell them, with all tags of the manifest."""
        found = []
        for i in self.indices(split).tolist():
            piece = self.tokenizer.decode(self.piece_tokens(i))
            entry = self.manifest["pieces"][i]
            tags = {**piece.tags, **entry["tags"], "source": entry["name"]}
            found.append(replace(piece, tags=tags))
        return found


def melody_key(piece: Piece) -> str:
    """The same for pieces that are equal up to transposition, and hardly for others."""
    notes = piece.notes
    drum = notes["program"] == DRUMS
    pitch = notes["pitch"].astype("<i4")
    pitch -= np.where(drum, 0, pitch.min(initial=127, where=~drum))
    start = notes["start"] - notes["start"][:1]
    rows = np.stack([start, notes["end"] - notes["start"], pitch, drum], axis=1).astype("<i4")
    # Not in the order of the notes: there drums and moving pitches change places.
    return hashlib.sha256(np.unique(rows, axis=0).tobytes()).hexdigest()


def split_by_group(
    groups: Sequence[str], *, validation_rate: float, test_rate: float, seed: int
) -> list[Split]:
    """A split for every piece; pieces of one group stay together, and no split is empty.

    Groups are dealt out in the order of a keyed hash, so that a piece more or less in the corpus
    moves few others.

    Args:
        groups: Of each piece, its group's name.
        validation_rate: Wanted share of the pieces, above 0.
        test_rate: Likewise.
        seed: Of the hash.

    Raises:
        UserError: Too few groups for each split to get one.
    """
    sizes: dict[str, int] = defaultdict(int)
    for group in groups:
        sizes[group] += 1
    if len(sizes) < 3:
        raise UserError(
            f"the corpus is too small to split: {len(sizes)} distinct pieces, at least 3 are "
            "needed for training, validation and test (20 or more make sense)"
        )
    wanted: dict[Split, float] = {
        "test": test_rate * len(groups),
        "validation": validation_rate * len(groups),
        "train": math.inf,
    }
    # The first ones dealt should not be larger than what a split wants.
    order = sorted(
        sizes,
        key=lambda group: (
            sizes[group] > max(1, min(wanted.values())),
            hashlib.sha256(f"{seed}:{group}".encode()).digest(),
        ),
    )
    split_of: dict[str, Split] = {}
    for place, group in enumerate(order):
        if place < len(SPLITS):
            split = list(wanted)[place]  # one group each, so that none stays empty
        else:
            # The first split that the group brings nearer to what it wants.
            split = next(s for s, missing in wanted.items() if missing >= sizes[group] / 2)
        wanted[split] -= sizes[group]
        split_of[group] = split
    return [split_of[group] for group in groups]


def write_store(
    folder: Path,
    sources: Sequence[Source],
    rejects: Sequence[Reject],
    *,
    tags: tuple[str, ...],
    validation_rate: float,
    test_rate: float,
    seed: int,
    margin: int,
    about: Mapping[str, Any],
) -> Store:
    """Tokenize, split and write a corpus; the folder appears whole or not at all.

    Args:
        folder: Must not exist, or be empty.
        sources: At least three distinct pieces.
        rejects: Listed in `rejects.csv`.
        tags: Keys of the tags that become tokens.
        validation_rate: Share of the pieces, above 0.
        test_rate: Share of the pieces, above 0.
        seed: Of the split.
        margin: Semitones of room for transposition in the vocabulary.
        about: Further entries of the manifest, such as corpus, fingerprint and versions.

    Raises:
        UserError: Too few pieces, or the disk does not take them.
    """
    folder = folder.resolve()
    tokenizer = Events.fit((source.piece for source in sources), tags=tags, margin=margin)
    encoded = [tokenizer.encode(source.piece) for source in sources]
    splits = split_by_group(
        [melody_key(source.piece) for source in sources],
        validation_rate=validation_rate,
        test_rate=test_rate,
        seed=seed,
    )
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    manifest = {
        "format": FORMAT,
        **about,
        "tokenizer": tokenizer.to_json(),
        "seed": seed,
        "pieces": [
            {
                "name": source.name,
                "sha256": source.sha256,
                "split": split,
                "notes": len(source.piece.notes),
                "tokens": len(tokens),
                "tags": dict(source.piece.tags),
            }
            for source, tokens, split in zip(sources, encoded, splits)
        ],
    }
    attempt = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(attempt, ignore_errors=True)
    try:
        attempt.mkdir(parents=True)
        write_atomically(attempt / "tokens.npy", _npy(np.concatenate(encoded)))
        write_atomically(attempt / "offsets.npy", _npy(offsets))
        write_atomically(attempt / "rejects.csv", _rejects_csv(rejects))
        write_atomically(
            attempt / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True).encode()
        )
        attempt.replace(folder)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}") from None
    finally:
        shutil.rmtree(attempt, ignore_errors=True)
    return Store.open(folder)


def _npy(array: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _rejects_csv(rejects: Sequence[Reject]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Reject._fields)
    writer.writerows(rejects)
    return text.getvalue().encode(errors="backslashreplace")
