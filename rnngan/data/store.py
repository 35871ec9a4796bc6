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
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
            offsets = np.load(folder / "offsets.npy", allow_pickle=False)
            tokens = np.load(folder / "tokens.npy", mmap_mode="r", allow_pickle=False)
            tokenizer = Events.from_json(manifest["tokenizer"])
            if manifest["format"] != FORMAT:
                raise ValueError(f"format {manifest['format']}, this version reads {FORMAT}")
            if not (
                tokens.dtype == np.uint16
                and tokens.ndim == offsets.ndim == 1
                and len(offsets) == len(manifest["pieces"]) + 1
                and offsets[-1] == len(tokens)
            ):
                raise ValueError("tokens, offsets and manifest do not fit together")
        except FileNotFoundError as error:
            raise UserError(
                f"no prepared corpus in {folder} ({Path(error.filename).name} is missing); "
                "make one with: rnngan prepare"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise UserError(f"the prepared corpus in {folder} is damaged: {error}") from None
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
            found.append(
                Piece(notes=piece.notes, metres=piece.metres, tempos=piece.tempos, tags=tags)
            )
        return found


def melody_key(piece: Piece) -> str:
    """The same for pieces that are equal up to transposition, and hardly for others."""
    notes = piece.notes
    pitch = notes["pitch"].astype(np.int16)
    pitched = notes["program"] != DRUMS
    if pitched.any():
        pitch[pitched] -= pitch[pitched].min()
    shape = np.stack([notes["start"] - notes["start"].min(initial=0), notes["end"], pitch])
    shape[1] -= notes["start"]
    return hashlib.sha256(np.ascontiguousarray(shape, dtype="<i4").tobytes()).hexdigest()


def split_by_group(
    groups: Sequence[str], *, validation_rate: float, test_rate: float, seed: int
) -> list[Split]:
    """A split for every piece; pieces of one group stay together.

    Groups are dealt out in the order of a keyed hash, so that a piece more or less in the corpus
    moves few others.

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
    order = sorted(sizes, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest())
    wanted = {
        "test": max(1, round(test_rate * len(groups))) if test_rate else 0,
        "validation": max(1, round(validation_rate * len(groups))) if validation_rate else 0,
    }
    split_of: dict[str, Split] = {}
    for group in order:
        split: Split = "train"
        if group != order[-1]:  # so that training is never left empty
            if wanted["test"] > 0:
                split = "test"
            elif wanted["validation"] > 0:
                split = "validation"
        if split != "train":
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
        folder: Must not exist, or hold no more than an interrupted attempt.
        sources: At least three distinct pieces.
        rejects: Listed in `rejects.csv`.
        tags: Keys of the tags that become tokens.
        validation_rate: Share of the pieces.
        test_rate: Share of the pieces.
        seed: Of the split.
        margin: Semitones of room for transposition in the vocabulary.
        about: Further entries of the manifest, such as corpus, fingerprint and versions.

    Raises:
        UserError: Too few pieces, or the disk does not take them.
    """
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
    if attempt.exists():
        shutil.rmtree(attempt)
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
    return text.getvalue().encode()
