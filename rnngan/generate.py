"""From a checkpoint to music."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rnngan.config import DataConfig, OutputConfig
from rnngan.errors import UserError
from rnngan.generator.encoder import EncoderDecoder
from rnngan.generator.recurrent import RecurrentGenerator, State
from rnngan.generator.sampling import MAX_TOKENS, Decoding, sample, uniforms
from rnngan.generator.search import MAX_BEAMS, beam_search, stochastic_beam_search
from rnngan.generator.seq2seq import Seq2Seq
from rnngan.generator.tuples import draw
from rnngan.generator.vae import VAE, latents_from_prior
from rnngan.guidance import Guide, Guided, guided
from rnngan.music.audio import render_wav
from rnngan.music.midi import write_midi
from rnngan.music.picture import attention_png
from rnngan.music.piece import Piece
from rnngan.music.vocabulary import START, Tokens
from rnngan.training.checkpoint import AnyModel, Checkpoints, Model, TuplesModel, read_model
from rnngan.training.run import Run

_BATCH = 64
_TOKENS_PER_BAR = 128
"""Room for a bar where their number is set; a reel's has some 25."""


def find_model(path: Path, stage: str | None = None) -> AnyModel:
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


def data_settings(path: Path) -> DataConfig | None:
    """How the corpus of a model was read and cleaned; None for a file that lies in no run.

    Args:
        path: As of `find_model`.

    Raises:
        UserError: The run's settings are damaged.
    """
    run = path if path.is_dir() else path.resolve().parent.parent
    return Run.open(run).config.data if (run / "config.toml").exists() else None


def _ignore(_: str) -> None:
    """`Say` for where nothing is passed over."""


def generate(
    model: Model,
    *,
    guide: Guide | None = None,
    candidates: int = 16,
    strength: float = 1.0,
    **how: Any,
) -> list[Piece]:
    """Pieces drawn from a model: see `generate_tokens`, and with a guide `generate_guided`."""
    if guide is None:
        rows = generate_tokens(model, **how)
    else:
        rows = generate_guided(
            model, guide=guide, candidates=candidates, strength=strength, **how
        ).tokens
    return [model.tokenizer.decode(row) for row in rows]


def generate_tokens(model: Model, *, num: int, seed: int, **how: Any) -> list[Tokens]:
    """Pieces as a model writes them; piece `i` has random numbers of its own, from (seed, i).

    Args:
        model: Its generator is used.
        num: How many.
        seed: Of the draws.
        how: See `Plan.of`.

    Returns:
        Of each piece all tokens, Start and End included, `(length,)`.

    Raises:
        UserError: A number is out of range.
    """
    plan = Plan.of(model, num=num, **how)
    rows: list[Tokens] = []
    for first in range(0, num, _BATCH):
        samples = sample(
            model.generator,
            model.tokenizer.grammar,
            uniforms(seed, range(first, min(first + _BATCH, num)), plan.max_tokens),
            plan.decoding,
            prefix=plan.prefix,
            bar=model.tokenizer.bar,
            start=_start(model.generator, seed, range(first, min(first + _BATCH, num))),
        )
        rows += _rows(samples.tokens, samples.lengths)
    return rows


def _start(generator: RecurrentGenerator, seed: int, indices: Sequence[int]) -> State | None:
    """Where pieces begin of which nothing is known; an autoencoder's anywhere in its space."""
    if not isinstance(generator, VAE):
        return None
    with torch.inference_mode():
        return generator.begin(latents_from_prior(seed, indices, generator.config.latent_size))


def generate_guided(
    model: Model,
    *,
    num: int,
    seed: int,
    guide: Guide,
    candidates: int,
    strength: float = 1.0,
    **how: Any,
) -> Guided:
    """Pieces chosen by the model's discriminator, see `rnngan.guidance`; `how` as in `Plan.of`.

    Raises:
        UserError: A number is out of range, or the model's discriminator does not serve.
    """
    plan = Plan.of(model, num=num, **how)
    return guided(
        model,
        num=num,
        seed=seed,
        guide=guide,
        candidates=candidates,
        max_tokens=plan.max_tokens,
        strength=strength,
        decoding=plan.decoding,
        prefix=plan.prefix,
    )


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a beam search found.

    Attributes:
        tokens: Of each piece, `(length,)`.
        log_probs: Nats of each piece's tokens behind the prefix.
    """

    tokens: list[Tokens]
    log_probs: list[float]

    def in_words(self) -> str:
        """How likely they are, in a line."""
        least, most = min(self.log_probs), max(self.log_probs)
        return f"log-probabilities of the pieces: {most:.1f} to {least:.1f} nats"


def generate_beams(
    model: Model,
    *,
    num: int,
    beam: int,
    seed: int = 0,
    stochastic: bool = False,
    length_penalty: float = 0.6,
    **how: Any,
) -> Found:
    """The likeliest pieces, best first; or, `stochastic`, pieces that are drawn and all differ.

    Args:
        model: Its generator is used.
        num: How many; at most `beam`, unless stochastic: then sets of `beam` pieces are drawn, each
            from (seed, its number), and only those of a set surely differ.
        beam: Width of the beam.
        seed: Of what is stochastic.
        stochastic: See `stochastic_beam_search`.
        length_penalty: See `beam_search`; it does not act where it is stochastic.
        how: See `Plan.of`.

    Raises:
        UserError: A number is out of range.
    """
    plan = Plan.of(model, num=num, **how)
    if not 1 <= beam <= MAX_BEAMS:
        raise UserError(f"--beam must be 1 to {MAX_BEAMS}, got {beam}")
    if num > beam and not stochastic:
        raise UserError(
            f"--num must be at most --beam, {beam}, of which each beam is a piece, got {num}; "
            "or add --stochastic-beam"
        )
    model_and_plan = model.generator, model.tokenizer.grammar, beam, plan.decoding
    options: dict[str, Any] = {
        "max_length": plan.max_tokens,
        "prefix": plan.prefix,
        "bar": model.tokenizer.bar,
    }
    tokens: list[Tokens] = []
    log_probs: list[float] = []
    num_sets, together = -(-num // beam), max(_BATCH // beam, 1)
    for first in range(0, num_sets, together):
        if stochastic:
            groups = range(first, min(first + together, num_sets))
            beams = stochastic_beam_search(*model_and_plan, seed=seed, groups=groups, **options)
        else:
            beams = beam_search(*model_and_plan, length_penalty=length_penalty, **options)
        tokens += _rows(beams.tokens.flatten(0, 1), beams.lengths.flatten())
        log_probs += beams.log_probs.flatten().tolist()
    # A model that has fewer sequences than there are beams fills up with some of probability 0.
    real = [i for i, log_prob in enumerate(log_probs) if log_prob > -np.inf][:num]
    return Found(tokens=[tokens[i] for i in real], log_probs=[log_probs[i] for i in real])


def _rows(tokens: Tensor, lengths: Tensor) -> list[Tokens]:
    """Of each piece its own tokens."""
    rows = tokens.cpu().numpy().astype(np.uint16)
    return [row[:length] for row, length in zip(rows, lengths.tolist())]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How pieces are written, whatever chooses among them.

    Attributes:
        decoding: How tokens are chosen; bars of the prefix are among those that it bounds.
        max_tokens: Where a piece is cut, the prefix included.
        prefix: Tokens that every piece begins with.
    """

    decoding: Decoding
    max_tokens: int
    prefix: tuple[int, ...]

    @staticmethod
    def of(
        model: Model,
        *,
        num: int,
        bars: int | None = None,
        min_bars: int | None = None,
        max_bars: int | None = None,
        max_tokens: int = MAX_TOKENS,
        prefix: Sequence[int] = (START,),
        bars_before: int = 0,
        **options: Any,
    ) -> Plan:
        """The plan of what a user asks for.

        Args:
            model: Writes the pieces.
            num: How many.
            bars: Exactly so many; by default the model ends the piece.
            min_bars: At least so many.
            max_bars: At most so many.
            max_tokens: Where a piece is cut, the prefix included; bars that are asked for get room
                for more if need be.
            prefix: Tokens that every piece begins with.
            bars_before: Bars of the prefix that do not count.
            options: Of `Decoding`.

        Raises:
            UserError: A number is out of range, or the prefix leaves no room.
        """
        if num < 1:
            raise UserError(f"--num must be at least 1, got {num}")
        if isinstance(model.generator, Seq2Seq):
            raise UserError(
                "this model writes what accompanies a melody: rnngan harmonize MELODY.mid"
            )
        for name, value in (("bars", bars), ("min-bars", min_bars), ("max-bars", max_bars)):
            if value is not None and not 1 <= value <= 1000:
                raise UserError(f"--{name} must be 1 to 1000, got {value}")
            if value is not None and model.tokenizer.bar is None:
                raise UserError(f"--{name} needs a tokenizer that has bars; this model's has none")
        if bars is not None:
            if min_bars is not None or max_bars is not None:
                raise UserError("--bars is exact: leave out --min-bars and --max-bars")
            min_bars = max_bars = bars
        if min_bars is not None and max_bars is not None and min_bars > max_bars:
            raise UserError(f"--max-bars must be at least --min-bars, {min_bars}, got {max_bars}")
        if len(prefix) >= max_tokens:
            raise UserError(
                f"--max-tokens must be above the {len(prefix)} tokens that a piece begins with, "
                f"got {max_tokens}"
            )
        return Plan(
            decoding=Decoding(
                min_bars=bars_before + min_bars if min_bars else 0,
                max_bars=bars_before + max_bars if max_bars else None,
                **options,
            ),
            max_tokens=max(max_tokens, len(prefix) + _TOKENS_PER_BAR * (min_bars or 0)),
            prefix=tuple(prefix),
        )


def generate_tuples(
    model: TuplesModel, *, num: int, seed: int, max_notes: int = MAX_TOKENS
) -> list[Piece]:
    """Pieces of a model of tuples, as long as those it learnt from; `i` follows from (seed, i).

    Args:
        model: Its generator is used.
        num: How many.
        seed: Of the draws.
        max_notes: Where a piece is cut.

    Raises:
        UserError: A number is out of range.
    """
    for name, value in (("num", num), ("max-tokens", max_notes)):
        if value < 1:
            raise UserError(f"--{name} must be at least 1, got {value}")
    pieces: list[Piece] = []
    for first in range(0, num, _BATCH):
        indices = range(first, min(first + _BATCH, num))
        batch = draw(model.generator, seed, indices, max_length=max_notes)
        pieces += [
            model.tokenizer.decode(row[:length]) for row, length in zip(batch.tokens, batch.lengths)
        ]
    return pieces


def generate_output(
    model: AnyModel, output: OutputConfig, *, num: int, seed: int, guide: Guide | None
) -> list[Piece]:
    """Pieces as the settings of a run's output want them, guided or not."""
    if isinstance(model, TuplesModel):
        return generate_tuples(model, num=num, seed=seed)
    return generate(
        model,
        guide=guide,
        candidates=output.guide_candidates,
        strength=output.guide_strength,
        num=num,
        seed=seed,
        temperature=output.temperature,
        top_p=output.top_p,
    )


def guide_for(model: AnyModel, wanted: Guide | Literal["none"]) -> Guide | None:
    """The guide that is wanted, if the model's discriminator serves for it."""
    judge = model.discriminator
    if wanted == "none" or judge is None or isinstance(model, TuplesModel):
        return None
    if wanted == "chains" and model.residual is None:
        return None
    return None if wanted == "particles" and not judge.config.causal_head else wanted


def check_attention(model: Model) -> None:
    """See that a generator looks back at all, and begins from nothing.

    Raises:
        UserError: It does not.
    """
    if isinstance(model.generator, EncoderDecoder):
        raise UserError("attention is drawn of generators alone that are told nothing before")
    if not model.generator.config.attention:
        raise UserError(
            "there is no attention to draw: this generator has none; train one with "
            "--generator.attention 128"
        )


def draw_attention(model: Model, tokens: Tokens, path: Path, *, title: str = "") -> None:
    """Write a picture of what the generator looked back at while it wrote a piece.

    Args:
        model: With attention; all heads are drawn as one, their mean.
        tokens: Of the piece, `(length,)`.
        path: Of the PNG file.
        title: Stands above.

    Raises:
        UserError: The generator has no attention, or the file cannot be written.
    """
    check_attention(model)
    batch = torch.from_numpy(tokens.astype(np.int64))[None]
    with torch.inference_mode():
        weights = model.generator.attention_weights(batch)[0].mean(0).numpy()
    attention_png(model.tokenizer, tokens, weights, path, title=title)


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
