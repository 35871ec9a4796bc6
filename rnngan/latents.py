"""Music as points in the space of an autoencoder: between two pieces, or from style to style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rnngan.config import DataConfig
from rnngan.data.batches import Batch, padded
from rnngan.data.store import Store
from rnngan.errors import UserError, nearest_name
from rnngan.generator.sampling import Decoding, sample, uniforms
from rnngan.generator.vae import VAE, slerp
from rnngan.given import read_given
from rnngan.music.piece import Piece
from rnngan.music.tokenizers.parts import events_or_refuse, first_bars
from rnngan.music.tokenizers.tags import tagged_prefix
from rnngan.music.vocabulary import START, Tokens
from rnngan.training.checkpoint import Model

MAX_TOKENS = 1024
"""A piece that has not ended by then is cut."""
MOST_STEPS = 256
_MOST_OF_STYLE = 512
"""Pieces of a style, at most, whose mean stands for it."""
_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class ReadPiece:
    """A piece as the encoder reads it.

    Attributes:
        tokens: `(time,)`.
        num_left_out: Bars behind those that the model keeps.
        style: Of the file, if it says.
        remark: What the model was told otherwise than the file has it, in a line, or nothing.
    """

    tokens: Tokens
    num_left_out: int = 0
    style: str | None = None
    remark: str = ""


def network_of(model: Model, aim: str) -> VAE:
    """The model's generator, if it is an autoencoder.

    Raises:
        UserError: It is not; `aim` needs one.
    """
    if not isinstance(model.generator, VAE):
        raise UserError(
            f"this model, {model.generator.config.kind}, has no space to move in; {aim} needs one "
            "that was trained with --generator vae"
        )
    return model.generator


def read_piece(path: Path, model: Model, data: DataConfig | None, *, aim: str) -> ReadPiece:
    """A piece in a MIDI, ABC or MusicXML file, as far as the model keeps it.

    Args:
        path: Of the file; it holds one piece.
        model: Will read it.
        data: How the model's corpus was read and cleaned; by default as settings are by default.
        aim: What is to be done with it, a verb for messages.

    Raises:
        UserError: As `read_given`, or the model is no autoencoder.
    """
    network = network_of(model, aim)
    tokenizer = events_or_refuse(model.tokenizer, f"to {aim}")
    given = read_given(path, tokenizer, data or DataConfig(), aim=aim)
    whole = tokenizer.encode(given.told)
    tokens = first_bars(whole, tokenizer, network.config.bars)
    bars = [int((row == tokenizer.bar).sum()) for row in (whole, tokens)]
    return ReadPiece(
        tokens=tokens,
        num_left_out=bars[0] - bars[1],
        style=given.piece.tags.get("style"),
        remark=given.remark,
    )


def means_of(network: VAE, rows: Sequence[Tokens]) -> Tensor:
    """What is kept of pieces `(time,)` each, without noise: `(pieces, latent)`."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found = torch.empty(len(rows), network.config.latent_size)
    with torch.inference_mode():
        for first in range(0, len(rows), _BATCH):
            chosen = order[first : first + _BATCH]
            batch: Batch = padded([rows[i] for i in chosen])
            mean, _ = network.posterior(
                torch.from_numpy(batch.tokens), torch.from_numpy(batch.lengths)
            )
            found[chosen] = mean
    return found


def written(
    model: Model,
    latents: Tensor,
    *,
    seed: int,
    decoding: Decoding,
    prefix: Sequence[int] = (START,),
    alike: bool = False,
) -> list[Piece]:
    """The pieces that an autoencoder writes from latents `(pieces, latent)`.

    Args:
        model: With an autoencoder.
        latents: A row for each piece.
        seed: Of the draws; piece `i` is drawn from (seed, i).
        decoding: How tokens are chosen.
        prefix: Tokens that every piece begins with.
        alike: All pieces are drawn with the same random numbers, so that they differ by their
            latents alone.
    """
    network = network_of(model, "this")
    pieces = []
    for first in range(0, len(latents), _BATCH):
        rows = latents[first : first + _BATCH]
        indices = [0 if alike else first + i for i in range(len(rows))]
        with torch.inference_mode():
            start = network.begin(rows)
        drawn = sample(
            network,
            model.tokenizer.grammar,
            uniforms(seed, indices, MAX_TOKENS),
            decoding,
            prefix=prefix,
            bar=model.tokenizer.bar,
            start=start,
        )
        pieces += [model.tokenizer.decode(row) for row in drawn.tokens.numpy()]
    return pieces


def interpolate(
    model: Model,
    one: ReadPiece,
    other: ReadPiece,
    *,
    steps: int,
    seed: int = 0,
    temperature: float = 0.2,
) -> list[Piece]:
    """Pieces on the arc from one to another, see `slerp`; the first and last are written again.

    Args:
        model: With an autoencoder.
        one: The first.
        other: The last.
        steps: Pieces in all, 2 to `MOST_STEPS`.
        seed: Of the draws, which are the same for all pieces.
        temperature: Divides the logits.

    Raises:
        UserError: A number is out of range, or the model is no autoencoder.
    """
    network = network_of(model, "interpolate")
    if not 2 <= steps <= MOST_STEPS:
        raise UserError(f"--steps must be 2 to {MOST_STEPS}, got {steps}")
    first, last = means_of(network, [one.tokens, other.tokens])
    points = slerp(first, last, np.linspace(0, 1, steps).tolist())
    decoding = _decoding(model, temperature, one, other)
    return written(model, points, seed=seed, decoding=decoding, alike=True)


def restyle(
    model: Model,
    piece: ReadPiece,
    store: Store,
    style: str,
    *,
    from_style: str | None = None,
    tag: bool = False,
    num: int = 1,
    seed: int = 0,
    temperature: float = 0.2,
) -> list[Piece]:
    """The piece as the model would have it in another style.

    What is kept of it moves by the difference of two means, over pieces of the corpus in the style
    that is wanted, and over those in its own; where its own is not known, over all (Roberts et al.,
    2018, section 5.4, attribute vectors). Or it stays, and the piece is written behind a head that
    tells the other style.

    Args:
        model: With an autoencoder.
        piece: As `read_piece` gives it.
        store: The model's corpus, with styles.
        style: The one that is wanted.
        from_style: The piece's own; by default what its file says.
        tag: Tell the style by its tag, which the model has to know, and leave the latent.
        num: Pieces.
        seed: Of the draws; piece `i` is drawn from (seed, i).
        temperature: Divides the logits.

    Raises:
        UserError: A number is out of range, there is no such style, the model knows no style tags,
            or is no autoencoder.
    """
    network = network_of(model, "restyle")
    if num < 1:
        raise UserError(f"--num must be at least 1, got {num}")
    prefix: tuple[int, ...] = (START,)
    (latent,) = means_of(network, [piece.tokens])
    if tag:
        prefix = tagged_prefix(model.tokenizer, {"style": style})
    else:
        own = from_style or piece.style
        latent = latent + _mean_of_style(network, store, style)
        latent = latent - _mean_of_style(network, store, own)
    return written(
        model,
        latent.expand(num, -1),
        seed=seed,
        decoding=_decoding(model, temperature, piece),
        prefix=prefix,
    )


def _mean_of_style(network: VAE, store: Store, style: str | None) -> Tensor:
    """Mean latent `(latent,)` of the training pieces in a style, or of any where it is None.

    Raises:
        UserError: There is none.
    """
    styles = {i: store.entry(i)["tags"].get("style") for i in store.indices("train").tolist()}
    chosen = [i for i, found in styles.items() if style is None or found == style]
    if not chosen:
        known = sorted({found for found in styles.values() if found})
        near = nearest_name(style or "", known)
        there = f"there are {', '.join(known[:24])}" if known else "none says its style"
        raise UserError(f"no training piece of the corpus has the style {style!r}{near}; {there}")
    tokenizer = events_or_refuse(store.codec, "to restyle")
    chosen = chosen[:: -(-len(chosen) // _MOST_OF_STYLE)]
    rows = [first_bars(store.piece_tokens(i), tokenizer, network.config.bars) for i in chosen]
    return means_of(network, rows).mean(0)


def _decoding(model: Model, temperature: float, *given: ReadPiece) -> Decoding:
    """At most as many bars as the model keeps, and at least as many as the shortest piece has.

    Between two pieces the decoder may take a latent for the end of one.
    """
    least = min(int((piece.tokens == model.tokenizer.bar).sum()) for piece in given)
    most = model.generator.config.bars or None
    return Decoding(temperature=temperature, min_bars=least, max_bars=most)
