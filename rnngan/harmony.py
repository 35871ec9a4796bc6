"""A melody that somebody wrote, and the parts that a model writes to it.

The melody is read and cleaned as the corpus of the model was, and encoded as the melodies that the
model learnt from. What is written has the melody's head, bars, metres and tempos, which the grammar
sees to (`rnngan.music.tokenizers.skeleton`); in the piece the melody keeps its own notes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from rnngan.config import DataConfig
from rnngan.errors import UserError
from rnngan.generator.sampling import AS_THE_MODEL, Decoding, sample, uniforms
from rnngan.generator.seq2seq import Seq2Seq
from rnngan.given import read_given
from rnngan.music.parts import accompanied, melody_line
from rnngan.music.piece import Piece
from rnngan.music.tokenizers.parts import events_or_refuse, melody_and_rest
from rnngan.music.tokenizers.skeleton import skeleton_of, with_skeleton
from rnngan.music.vocabulary import END, START, Tokens
from rnngan.training.checkpoint import Model

MAX_BARS = 400
_TOKENS_PER_BAR = 512
"""Room for a bar of all other parts; one of a chorale has some 40."""
_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Melody:
    """What is to be accompanied.

    Attributes:
        piece: As it is written again: one voice, with its metres and tempos.
        source: As the encoder reads it, Start and End included, `(time,)`.
        num_left_out: Notes of the file's highest part that sounded below its top line.
        num_parts: Parts of the file; all but the highest were left out.
        remark: What stands in it otherwise than in the file, in a line; empty if nothing does.
    """

    piece: Piece
    source: Tokens
    num_left_out: int
    num_parts: int
    remark: str

    def in_words(self) -> str:
        """What was taken for the melody, in a line; empty where the file was taken as it is."""
        told = []
        if self.num_parts > 1:
            told.append(f"the highest of {self.num_parts} parts")
        if self.num_left_out:
            told.append(f"the top line of it, without {self.num_left_out} notes that sound below")
        taken = [f"the melody is {', '.join(told)}"] if told else []
        return "; ".join([*filter(None, [self.remark]), *taken])


def read_melody(path: Path, model: Model, data: DataConfig | None = None) -> Melody:
    """The melody in a MIDI, ABC or MusicXML file.

    Of several parts it is the one that is highest on average, and of that the top line.

    Args:
        path: Of the file; it holds one piece.
        model: Will accompany it.
        data: How the model's corpus was read and cleaned; by default as settings are by default.

    Raises:
        UserError: The file cannot be read, or holds no piece or several; no note in it has a
            pitch; a pitch has no token; or it has too many bars.
    """
    tokenizer = events_or_refuse(model.tokenizer, "to harmonize")

    whole: list[Piece] = []

    def one_voice(piece: Piece) -> Piece:
        whole.append(piece)
        return replace(piece, notes=melody_line(piece)[0])

    given = read_given(path, tokenizer, data or DataConfig(), aim="harmonize", change=one_voice)
    if given.told.num_bars > MAX_BARS:
        raise given.refused(f"it has {given.told.num_bars} bars, more than {MAX_BARS}; cut it")
    source, _ = melody_and_rest(tokenizer.encode(given.told), tokenizer)
    return Melody(
        piece=given.placed,
        source=source,
        num_left_out=melody_line(whole[0])[1],
        num_parts=len(np.unique(whole[0].notes[["track", "program"]])),
        remark=given.remark,
    )


def harmonize(
    model: Model,
    melody: Melody,
    *,
    num: int,
    seed: int,
    decoding: Decoding = AS_THE_MODEL,
) -> list[Piece]:
    """Pieces with that melody, each with other parts; piece `i` is drawn from (seed, i).

    Args:
        model: Its generator reads melodies.
        melody: As `read_melody` gives it.
        num: How many.
        seed: Of the draws.
        decoding: How tokens are chosen.

    Raises:
        UserError: A number is out of range, or the model reads no melodies.
    """
    generator = model.generator
    if num < 1:
        raise UserError(f"--num must be at least 1, got {num}")
    if not isinstance(generator, Seq2Seq):
        raise UserError(
            f"this model, {generator.config.kind}, reads no melody; harmonize needs one that was "
            "trained with --generator seq2seq"
        )
    tokenizer = events_or_refuse(model.tokenizer, "to harmonize")
    skeleton = skeleton_of(melody.source.tolist(), tokenizer)
    grammar = with_skeleton(tokenizer, skeleton)
    length = len(skeleton) + _TOKENS_PER_BAR * skeleton.count(tokenizer.bar)
    source = torch.from_numpy(melody.source.astype(np.int64))
    pieces = []
    for first in range(0, num, _BATCH):
        count = min(_BATCH, num - first)
        with torch.inference_mode():
            start = generator.encode(
                source.expand(count, -1), torch.full((count,), len(source))
            ).state
        drawn = sample(
            generator,
            grammar,
            uniforms(seed, range(first, first + count), length),
            decoding,
            prefix=(START,),
            start=start,
        )
        rows = drawn.tokens.numpy()
        if not (rows == END).any(1).all():
            raise UserError(
                f"the model did not get through the melody within {length} tokens; it is not "
                "trained, or --temperature is too high"
            )
        pieces += [accompanied(melody.piece, tokenizer.decode(row)) for row in rows]
    return pieces
