"""From a checkpoint to music."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from rnngan.errors import UserError
from rnngan.generator.sampling import sample, uniforms
from rnngan.guidance import Guide, Guided, guided
from rnngan.music.audio import render_wav
from rnngan.music.midi import write_midi
from rnngan.music.piece import Piece
from rnngan.music.vocabulary import Tokens
from rnngan.training.checkpoint import Checkpoints, Model, read_model
from rnngan.training.run import Run

MAX_TOKENS = 1024
"""A piece without a set number of bars ends here at the latest."""
_BATCH = 64
_TOKENS_PER_BAR = 128
"""Room for a bar where their number is set; a reel's has some 25."""


def find_model(path: Path, stage: str | None = None) -> Model:
    """The model in a `.safetensors` file, or the best of a run.

    Args:
        path: A file or a run's folder.
        stage: `pretrain` or `refine`; the last one that the run has by default.

    Raises:
        UserError: There is none, or it is damaged.
    """
    if path.is_file():
        return read_model(path)
    run = Run.open(path)
    if stage is None:
        stage = "refine" if run.has_begun("refine") else "pretrain"
    return Checkpoints(run.checkpoints, stage, keep=1, say=_ignore).read_best()


def _ignore(_: str) -> None:
    """`Say` for where nothing is passed over."""


def generate(
    model: Model, *, guide: Guide | None = None, candidates: int = 16, **how: Any
) -> list[Piece]:
    """Pieces drawn from a model: see `generate_tokens`, and with a guide `generate_guided`."""
    if guide is None:
        rows = generate_tokens(model, **how)
    else:
        rows = generate_guided(model, guide=guide, candidates=candidates, **how).tokens
    return [model.tokenizer.decode(row) for row in rows]


def generate_tokens(
    model: Model,
    *,
    num: int,
    seed: int,
    bars: int | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    max_tokens: int = MAX_TOKENS,
) -> list[Tokens]:
    """Pieces as a model writes them; piece `i` has random numbers of its own, from (seed, i).

    Args:
        model: Its generator is used.
        num: How many.
        seed: Of the draws.
        bars: Exactly so many; by default the model ends the piece.
        temperature: Divides the logits; above 0.
        top_k: Draw from so many likeliest tokens alone; 0 draws from all.
        top_p: Draw from the likeliest tokens of this probability in sum alone; 1 draws from all.
        max_tokens: Where a piece is cut; `bars` get room for more if need be.

    Returns:
        Of each piece all tokens, Start and End included, `(length,)`.

    Raises:
        UserError: A number is out of range.
    """
    max_tokens = _room(num, bars, max_tokens)
    tokenizer = model.tokenizer
    rows: list[Tokens] = []
    for first in range(0, num, _BATCH):
        draws = uniforms(seed, range(first, min(first + _BATCH, num)), max_tokens)
        samples = sample(
            model.generator,
            tokenizer.grammar,
            draws,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            bar=tokenizer.bar,
            num_bars=bars,
        )
        tokens = samples.tokens.numpy().astype(np.uint16)
        rows += [row[:length] for row, length in zip(tokens, samples.lengths.tolist())]
    return rows


def generate_guided(
    model: Model,
    *,
    num: int,
    seed: int,
    guide: Guide,
    candidates: int,
    bars: int | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    max_tokens: int = MAX_TOKENS,
) -> Guided:
    """Pieces chosen by the model's discriminator, see `rnngan.guidance`.

    Raises:
        UserError: A number is out of range, or the model's discriminator does not serve.
    """
    return guided(
        model,
        num=num,
        seed=seed,
        guide=guide,
        candidates=candidates,
        max_tokens=_room(num, bars, max_tokens),
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        num_bars=bars,
    )


def guide_for(model: Model, wanted: Guide | Literal["none"]) -> Guide | None:
    """The guide that is wanted, if the model's discriminator serves for it."""
    judge = model.discriminator
    if wanted == "none" or judge is None:
        return None
    return None if wanted == "particles" and not judge.config.causal_head else wanted


def _room(num: int, bars: int | None, max_tokens: int) -> int:
    """Where a piece is cut."""
    if num < 1:
        raise UserError(f"--num must be at least 1, got {num}")
    if bars is None:
        return max_tokens
    if not 1 <= bars <= 1000:
        raise UserError(f"--bars must be 1 to 1000, got {bars}")
    return max(max_tokens, _TOKENS_PER_BAR * bars)


def write_music(pieces: list[Piece], folder: Path, *, wav: bool = True) -> list[Path]:
    """`000.mid`, `000.wav`, … in a folder, which is made if need be; returns the MIDI files.

    Raises:
        UserError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make folder {folder}: {error.strerror}") from None
    paths = []
    for i, piece in enumerate(pieces):
        path = folder / f"{i:03}.mid"
        write_midi(piece, path)
        if wav:
            render_wav(piece, path.with_suffix(".wav"))
        paths.append(path)
    return paths
