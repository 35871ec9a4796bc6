"""From a checkpoint to music."""

from __future__ import annotations

from pathlib import Path

from rnngan.errors import UserError
from rnngan.generator.sampling import sample, uniforms
from rnngan.music.audio import render_wav
from rnngan.music.midi import write_midi
from rnngan.music.piece import Piece
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
    model: Model,
    *,
    num: int,
    seed: int,
    bars: int | None = None,
    temperature: float = 1.0,
    max_tokens: int = MAX_TOKENS,
) -> list[Piece]:
    """Pieces drawn from a model; piece `i` has random numbers of its own, from (seed, i).

    Args:
        model: Its generator is used.
        num: How many.
        seed: Of the draws.
        bars: Exactly so many; by default the model ends the piece.
        temperature: Divides the logits; above 0.
        max_tokens: Where a piece is cut; `bars` get room for more if need be.

    Raises:
        UserError: A number or the temperature is out of range.
    """
    if num < 1:
        raise UserError(f"--num must be at least 1, got {num}")
    if bars is not None and not 1 <= bars <= 1000:
        raise UserError(f"--bars must be 1 to 1000, got {bars}")
    if bars is not None:
        max_tokens = max(max_tokens, _TOKENS_PER_BAR * bars)
    tokenizer = model.tokenizer
    pieces: list[Piece] = []
    for first in range(0, num, _BATCH):
        draws = uniforms(seed, range(first, min(first + _BATCH, num)), max_tokens)
        samples = sample(
            model.generator,
            tokenizer.grammar,
            draws,
            temperature=temperature,
            bar=tokenizer.bar,
            num_bars=bars,
        )
        pieces += [tokenizer.decode(row) for row in samples.tokens.numpy()]
    return pieces


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
