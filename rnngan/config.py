"""Every setting: frozen dataclasses, presets, TOML in and out.

The string under a field is its meaning, and what `--help` prints.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

import tyro

from rnngan.errors import UserError, nearest_name

Settings = TypeVar("Settings")


def _require(config: object, name: str, fits: Callable[[Any], bool], rule: str) -> None:
    value = getattr(config, name)
    if not fits(value):
        table = type(config).__name__.removesuffix("Config").lower()
        raise UserError(f"{table}.{name} must be {rule}, got {value!r}")


def _check_rates(config: object, *names: str) -> None:
    for name in names:
        _require(config, name, lambda value: 0 <= value < 1, "at least 0 and below 1")


def _check_positive(config: object, *names: str) -> None:
    for name in names:
        _require(config, name, lambda value: 0 < value < math.inf, "above 0")


def _check_not_negative(config: object, *names: str) -> None:
    for name in names:
        _require(config, name, lambda value: 0 <= value < math.inf, "at least 0")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """From a corpus to training batches."""

    corpus: Annotated[str, tyro.conf.arg(aliases=["--corpus"])] = "ryans-mammoth"
    """Name of a corpus; or a folder, zip or tar file of MIDI, ABC or MusicXML."""
    expand_repeats: bool = False
    """Play repeated sections of notated music twice; otherwise each is taken once."""
    beats: Annotated[Literal["estimate", "fixed", "file"], tyro.conf.arg(aliases=["--beats"])] = (
        "estimate"
    )
    """For MIDI files that were played without regard to the file's beats: estimate beats, lay a
    fixed grid of 120 quarters a minute, or trust every file."""
    merge_tracks: bool = False
    """Make one track of all tracks with the same program."""
    melody: Annotated[Literal["off", "skyline", "track"], tyro.conf.arg(aliases=["--melody"])] = (
        "off"
    )
    """Keep one voice: the highest note at each onset, or the track that melody_track names."""
    melody_track: str = "melody"
    """Part of that track's name, capitals or small."""
    trim: bool = False
    """Cut empty bars off both ends."""
    only: Annotated[str, tyro.conf.arg(aliases=["--only"])] = ""
    """Keep pieces of which this holds: metre==4/4 and polyphony<=4 (docs/data.md has all names)."""
    tokenizer: Annotated[
        Literal["events", "melody", "frames", "tuples", "miditok"],
        tyro.conf.arg(aliases=["--tokenizer"]),
    ] = "events"
    """How music becomes tokens."""
    velocity_bins: int = 8
    """Loudnesses that events tell apart at most."""
    ticks_per_step: int = 6
    """Of melody and frames; 24 are a quarter."""
    held: bool = True
    """Frames tell notes that go on from notes that are struck."""
    miditok: str = "REMI"
    """Which tokenizer of MidiTok."""
    tags: tuple[str, ...] = ()
    """Tags to write at the head of each piece, such as style, composer, mode, density or folder."""
    split: str = "random"
    """How pieces are dealt out: random; folders, where the corpus has folders train, validation
    and test; or a CSV file with columns name and split."""
    validation_rate: float = 0.1
    """Share of pieces that decide when to stop."""
    test_rate: float = 0.1
    """Share of pieces kept for the evaluation."""
    max_reject_rate: Annotated[float, tyro.conf.arg(aliases=["--max-reject-rate"])] = 0.5
    """Preparing fails when a larger share of the files cannot be read."""
    transpose: int = 5
    """Training pieces are transposed by up to so many semitones, at random, each time anew."""
    tempo_factor: float = 1.0
    """Tempos of training pieces are multiplied by up to this, or divided, at random."""
    duration_factor: float = 1.0
    """Likewise the lengths of their notes; onsets stay."""
    velocity_jitter: int = 0
    """Velocities of training pieces move by up to so many bins, each note for itself."""
    tag_dropout: float = 0.1
    """A training piece loses all its tags with this probability, and else each of them."""
    max_length: int = 512
    """Tokens of a training excerpt; longer pieces are cut at a bar line, at random."""

    def __post_init__(self) -> None:
        _require(self, "corpus", bool, "the name of a corpus, a folder, or a zip or tar file")
        _require(
            self,
            "tags",
            lambda tags: all(tags) and not any("=" in tag for tag in tags),
            "names without an equals sign",
        )
        for name in ("validation_rate", "test_rate"):
            _require(self, name, lambda value: 0 < value < 1, "above 0 and below 1")
        _require(
            self,
            "test_rate",
            lambda value: value + self.validation_rate < 1,
            f"below {1 - self.validation_rate:g}, what validation_rate leaves",
        )
        _require(self, "max_reject_rate", lambda value: 0 <= value <= 1, "0 to 1")
        _require(self, "velocity_bins", lambda value: 1 <= value <= 127, "1 to 127")
        _require(
            self, "ticks_per_step", lambda value: value >= 1 and 96 % value == 0, "a divisor of 96"
        )
        _require(self, "transpose", lambda value: 0 <= value <= 127, "0 to 127")
        for name in ("tempo_factor", "duration_factor"):
            _require(self, name, lambda value: 1 <= value <= 4, "1 to 4")
        _require(self, "velocity_jitter", lambda value: 0 <= value <= 127, "0 to 127")
        _check_rates(self, "tag_dropout")
        _require(self, "max_length", lambda value: value >= 16, "at least 16")


WITH_ENCODER = ("seq2seq", "vae", "autoencoder")
"""Kinds of generators that are told something before they write."""


_WITH_LATENT = ("vae", "autoencoder")


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """Recurrent network that writes tokens one after another."""

    kind: Annotated[
        Literal[
            "lstm",
            "gru",
            "rnn",
            "peephole-lstm",
            "conv-lstm",
            "seq2seq",
            "vae",
            "autoencoder",
            "tuples",
        ],
        tyro.conf.arg(aliases=["--generator"]),
    ] = "lstm"
    """Cell of its layers; conv-lstm is an LSTM behind causal convolutions; seq2seq reads a melody
    and writes what accompanies it; vae and autoencoder write what they have read from a few
    numbers; tuples makes notes as real numbers from noise."""
    embedding_size: int = 128
    """Width of a token's embedding."""
    hidden_size: int = 256
    """Units per layer."""
    num_layers: int = 2
    """Stacked recurrent layers."""
    embedding_dropout: float = 0.1
    """Dropout on the embedded tokens."""
    layer_dropout: float = 0.2
    """Dropout between recurrent layers."""
    output_dropout: float = 0.2
    """Dropout before the output layer."""
    tied: bool = False
    """Output layer shares its weights with the embedding, through a projection."""
    attention: Annotated[int, tyro.conf.arg(aliases=["--attention"])] = 128
    """Width of the attention over all that was written before, which lets a phrase return; 0 for
    none."""
    attention_heads: int = 4
    """Places that are looked at at once."""
    convolutions: int = 2
    """Convolutional layers (conv-lstm)."""
    kernel_size: int = 4
    """Tokens that a convolution sees, the latest and those before it (conv-lstm)."""
    pool_size: int = 2
    """Times of which the largest output of a convolution is kept (conv-lstm)."""
    latent_size: int = 128
    """Numbers that are kept of a piece (vae, autoencoder)."""
    latent_slots: int = 16
    """Parts of those numbers, each for an equal share of the bars; 1 tells all of the whole (vae,
    autoencoder)."""
    bars: int = 4
    """A piece is cut after so many bars; 0 for whole ones, which had better be short (vae,
    autoencoder)."""
    hierarchical: bool = False
    """An upper LSTM plans each bar from those numbers (vae, autoencoder)."""
    token_dropout: float = 0.0
    """Share of the tokens that the decoder does not see while it learns to write them (vae,
    autoencoder)."""

    def __post_init__(self) -> None:
        _check_positive(
            self, "embedding_size", "hidden_size", "num_layers", "attention_heads", "convolutions",
            "kernel_size", "pool_size",
        )  # fmt: skip
        _check_positive(self, "latent_size", "latent_slots")
        _check_not_negative(self, "attention", "bars")
        _check_rates(self, "embedding_dropout", "layer_dropout", "output_dropout", "token_dropout")
        _require(
            self,
            "attention",
            lambda value: value % self.attention_heads == 0,
            f"a multiple of attention_heads, {self.attention_heads}",
        )
        _require(
            self,
            "latent_size",
            lambda value: value % self.latent_slots == 0,
            f"a multiple of latent_slots, {self.latent_slots}",
        )
        _require(
            self,
            "latent_slots",
            lambda value: value == 1 or self.bars > 0 or self.kind not in _WITH_LATENT,
            "1 where generator.bars is 0, for pieces of any length",
        )


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """Network that tells real pieces from generated ones."""

    kind: Literal["gru", "conv", "conv-gru"] = "gru"
    """Bidirectional GRU, convolutions of several widths, or convolutions before a GRU."""
    views: Literal["tokens", "relative", "both"] = "both"
    """What it sees of a piece: its tokens; what transposing leaves as it is, such as intervals,
    place in the bar and repetition; or both."""
    causal_head: bool = True
    """Also judge every beginning of a piece, from what came before alone; `dense` and guidance
    by particles need it."""
    spectral_norm: bool = False
    """Bound the largest singular value of every weight matrix by 1."""
    minibatch_features: int = 0
    """Statistics of a piece's distance to the others of its batch; 0 for none."""
    embedding_size: int = 64
    """Width of a token's embedding."""
    hidden_size: int = 64
    """Units per direction, or channels."""
    num_layers: int = 1
    """Stacked recurrent layers."""
    stride: int = 0
    """Tokens that share one step of the GRU, joined by a convolution; 1 for a step per token, 0 for
    as many as a note of the corpus takes on average, rounded down."""
    max_length: int = 0
    """Tokens of a piece that it sees at most; 0 for as many as refine.max_length."""
    dropout: float = 0.2
    """Dropout on the input and before the output."""

    def __post_init__(self) -> None:
        _check_positive(self, "embedding_size", "hidden_size", "num_layers")
        _check_not_negative(self, "stride", "minibatch_features", "max_length")
        _check_rates(self, "dropout")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Maximum likelihood; of the generator tuples, squared error."""

    steps: int = 500
    """Updates at most."""
    batch_size: int = 32
    """Excerpts per update."""
    learning_rate: float = 4e-3
    """Largest learning rate."""
    warmup_steps: int = 50
    """Updates over which the learning rate rises from 0."""
    schedule: Literal["cosine", "plateau"] = "cosine"
    """After the warm-up: a cosine to a hundredth, or halved when validation stops improving."""
    weight_decay: float = 0.01
    """AdamW's, on matrices only."""
    gradient_clip: float = 0.25
    """Largest norm of the gradient."""
    validate_every: int = 100
    """Updates from one validation, and checkpoint, to the next."""
    patience: int = 8
    """Validations without improvement before training stops."""
    transpose_rate: float = 0.7
    """Share of the steps in which pieces are transposed. In the rest they stay in their own keys,
    so that the generator learns which keys are common."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of the matrix products; auto is bfloat16 where the processor computes in it."""
    kl_weight: float = 0.1
    """Weight of the divergence of what is kept of a piece from noise (vae)."""
    kl_warmup_steps: int = 300
    """Updates over which that weight rises from 0 (vae)."""
    free_bits: float = 0.0
    """Bits that each kept number may tell of a piece at no cost (vae)."""

    def __post_init__(self) -> None:
        _check_positive(
            self, "steps", "batch_size", "learning_rate", "gradient_clip", "validate_every",
            "patience",
        )  # fmt: skip
        _check_not_negative(
            self, "warmup_steps", "weight_decay", "kl_weight", "kl_warmup_steps", "free_bits"
        )
        _require(self, "transpose_rate", lambda value: 0 <= value <= 1, "0 to 1")


Objective = Literal[
    "residual", "leave-one-out", "rollout", "dense", "gumbel", "importance", "cooperative",
    "feature-matching", "likelihood", "placebo-constant", "placebo-random", "placebo-shuffled",
]  # fmt: skip
"""How the generator is refined; the last four are controls. residual leaves it as it is.
feature-matching is for the generator tuples, and nothing else is."""
Loss = Literal["logistic", "hinge", "relativistic", "wasserstein"]
Penalty = Literal["none", "r1", "interpolated"]


@dataclass(frozen=True, kw_only=True)
class RefineConfig:
    """Adversarial refinement of the pretrained generator."""

    objective: Annotated[Objective, tyro.conf.arg(aliases=["--objective"])] = "residual"
    """How the discriminator's verdict becomes a gradient. residual, which gains most, moves no
    generator: it fits what the guide chains needs. likelihood and the placebos are controls, and
    feature-matching is for the generator tuples."""
    steps: int = 20
    """Generator updates: batches of samples, each used for several epochs; of residual there are
    none."""
    batch_size: int = 64
    """Samples per step."""
    max_length: int = 512
    """Tokens of a sample at most; real pieces are cut at the same length."""
    learning_rate: float = 5e-4
    """Generator's."""
    gradient_clip: float = 1.0
    """Largest norm of either gradient."""
    epochs: int = 2
    """Passes over each batch of samples."""
    minibatches: int = 2
    """Parts of the batch, each an update."""
    clip: float = 0.2
    """Ratio of new to old probability beyond which a token gives no more gradient (PPO)."""
    kl_target: float = 0.02
    """Wanted divergence from the pretrained generator, nats per token."""
    kl_weight: float = 0.1
    """First weight of that divergence; adapted to hold the target."""
    likelihood_weight: float = 0.5
    """Weight of the likelihood of real pieces mixed into each update."""
    rollouts: int = 16
    """Completions of every beginning (rollout)."""
    discount: float = 0.99
    """Weight of a reward one token later (dense)."""
    inverse_temperature: float = 100.0
    """Of the Gumbel-softmax at the last step; it rises from 1 exponentially (gumbel)."""
    chunk: int = 64
    """Tokens that a gradient runs back through (gumbel), or notes (feature-matching)."""
    freeze_below: float = 0.7
    """Share of the other network's loss below which a network waits; 0 for never
    (feature-matching)."""
    offline: bool = False
    """Draw candidates from the pretrained generator and learn those that the discriminator
    resamples, instead of weighting the present samples (importance)."""
    candidates: int = 8
    """Candidates per sample that is learnt (importance, offline)."""
    discriminator_learning_rate: float = 3e-3
    """Discriminator's largest; before the generator moves it falls to a tenth, and stays there."""
    discriminator_loss: Loss = "logistic"
    """What the discriminator minimises."""
    gradient_penalty: Penalty = "none"
    """On the discriminator's gradient at real pieces, or between real and generated ones."""
    penalty_weight: float = 10.0
    """Weight of that penalty."""
    discriminator_pretrain_steps: int = 80
    """Discriminator updates before the generator moves."""
    discriminator_updates: int = 2
    """Discriminator updates per step."""
    discriminator_gate: float = 0.98
    """AUC on held-out pieces above which the discriminator waits."""
    discriminator_transpose: int = 0
    """Semitones at most by which the pieces that it learns from are transposed, down or up; then it
    knows nothing of the keys that real pieces like."""
    replay_rate: float = 0.0
    """Share of older samples among the generated pieces that it learns from."""
    label_smoothing: float = 0.1
    """Target of real pieces is 1 minus this."""
    validate_every: int = 10
    """Steps from one validation, and checkpoint, to the next."""
    residual_rounds: int = 4
    """Times that, at the end, a committee learns to tell what chains write from real pieces, which
    the guide chains needs; 0 for never."""
    residual_chains: int = 96
    """Chains that it learns from."""
    residual_steps: int = 50
    """Steps of the chains, in all rounds together; as many as `output.guide_candidates` at best."""

    def __post_init__(self) -> None:
        _check_positive(
            self, "learning_rate", "gradient_clip", "epochs", "minibatches", "clip",
            "kl_target", "rollouts", "inverse_temperature", "chunk", "candidates",
            "discriminator_learning_rate", "penalty_weight", "validate_every", "residual_steps",
        )  # fmt: skip
        _check_not_negative(
            self, "steps", "kl_weight", "likelihood_weight", "discriminator_pretrain_steps",
            "discriminator_updates", "discriminator_transpose", "residual_rounds",
        )  # fmt: skip
        _require(self, "max_length", lambda value: value >= 16, "at least 16")
        _require(self, "batch_size", lambda value: value >= 2, "at least 2")
        _require(self, "residual_chains", lambda value: value >= 8, "at least 8")
        _require(
            self,
            "minibatches",
            lambda value: self.batch_size % value == 0,
            f"a divisor of batch_size, {self.batch_size}",
        )
        _require(self, "discount", lambda value: 0 <= value <= 1, "0 to 1")
        _require(self, "freeze_below", lambda value: 0 <= value <= 1, "0 to 1")
        _require(self, "discriminator_gate", lambda value: 0 <= value <= 1, "0 to 1")
        _check_rates(self, "label_smoothing", "replay_rate")


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """Limits of refinement; past one, it goes back to the last good checkpoint."""

    likelihood_rise: float = 0.03
    """Rise of held-out bits per token over those before refinement, as a share."""
    entropy_drop: float = 0.5
    """Fall of the entropy of a token below that before refinement, as a share."""
    kl: float = 0.5
    """Divergence from the pretrained generator, nats per token."""
    self_bleu_rise: float = 0.1
    """Rise of self-BLEU of the samples."""
    copied_rise: float = 0.1
    """Rise of the share of the samples' n-grams that stand in the training music."""
    auc: float = 0.999
    """The discriminator's on held-out pieces, at two validations in a row."""
    retries: int = 3
    """Times that refinement goes back, each with half the learning rate, before it stops."""

    def __post_init__(self) -> None:
        _check_positive(self, "likelihood_rise", "kl", "self_bleu_rise", "copied_rise")
        _require(self, "entropy_drop", lambda value: 0 < value <= 1, "above 0, at most 1")
        _require(self, "auc", lambda value: 0.5 < value <= 1, "above 0.5, at most 1")
        _check_not_negative(self, "retries")


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """What a run writes beside its checkpoints."""

    keep_checkpoints: int = 3
    """Last checkpoints kept per stage, beside the best."""
    log_every: int = 10
    """Updates from one line of the log to the next."""
    evaluate_samples: bool = True
    """Compare samples with held-out music at every validation, for the log."""
    num_samples: int = 16
    """Pieces generated at the end."""
    num_evaluated: int = 64
    """Pieces of each generator that the evaluation compares with held-out music."""
    temperature: float = 1.0
    """Of those pieces."""
    top_p: float = 0.98
    """They are drawn from the likeliest tokens of this probability in sum alone; 1 for all."""
    guide: Literal["none", "resample", "reject", "particles", "chains"] = "chains"
    """How the discriminator guides the pieces generated at the end."""
    guide_candidates: int = 50
    """Candidates per piece that it chooses from, of chains one after the other."""
    guide_strength: float = 1.0
    """Exponent of the density ratio by which it chooses; above 1 makes up for few candidates."""

    def __post_init__(self) -> None:
        _check_positive(
            self, "keep_checkpoints", "log_every", "num_samples", "temperature", "guide_strength"
        )
        _require(self, "top_p", lambda value: 0 < value <= 1, "above 0 and at most 1")
        _require(self, "num_evaluated", lambda value: value >= 2, "at least 2")
        _require(self, "guide_candidates", lambda value: 2 <= value <= 256, "2 to 256")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run: corpus, networks, and how they are trained."""

    seed: int = 0
    """All randomness follows from it."""
    data: DataConfig = field(default_factory=DataConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    output: OutputConfig = field(default_factory=OutputConfig)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UserError(f"seed must be at least 0, got {self.seed}")


PRESETS: dict[str, RunConfig] = {
    "base": RunConfig(),
    # Excerpts about as long as what is kept, so that more than the openings of pieces are learnt;
    # no attention, which looks past the latent; no dropout, of which the noise on it is enough.
    "vae": RunConfig(
        data=DataConfig(max_length=128),
        generator=GeneratorConfig(
            kind="vae", attention=0, embedding_dropout=0.0, layer_dropout=0.0, output_dropout=0.0
        ),
        pretrain=PretrainConfig(steps=1500, patience=15),
    ),
    "tiny": RunConfig(
        data=DataConfig(max_length=96),
        generator=GeneratorConfig(embedding_size=16, hidden_size=24),
        discriminator=DiscriminatorConfig(embedding_size=8, hidden_size=8),
        pretrain=PretrainConfig(steps=8, batch_size=4, warmup_steps=2, validate_every=4),
        refine=RefineConfig(
            objective="leave-one-out",
            steps=2,
            batch_size=4,
            max_length=96,
            discriminator_pretrain_steps=2,
            validate_every=1,
            residual_rounds=0,
        ),
        guard=GuardConfig(
            likelihood_rise=10.0,
            entropy_drop=1.0,
            kl=10.0,
            self_bleu_rise=1.0,
            copied_rise=1.0,
            auc=1.0,
        ),
        output=OutputConfig(
            log_every=1, num_samples=2, num_evaluated=4, guide="particles", guide_candidates=2
        ),
    ),
}
"""Whole configurations: `base` is the demo's, `vae` is for moving between pieces, `tiny` runs in
seconds and learns nothing."""


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain data."""
    return dataclasses.asdict(config)


def from_dict(kind: type[Settings], data: dict[str, Any], where: str = "") -> Settings:
    """Settings from nested plain data; what is not said keeps its default.

    Raises:
        UserError: A key that does not exist, or a value of the wrong type or out of range.
    """
    hints = get_type_hints(kind)
    known = {f.name: hints[f.name] for f in fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in data.items():
        path = f"{where}{key}"
        if key not in known:
            raise UserError(f"unknown configuration key {path}{nearest_name(key, list(known))}")
        values[key] = _checked(known[key], value, path)
    return kind(**values)


def _checked(hint: Any, value: Any, path: str) -> Any:
    if is_dataclass(hint):
        if not isinstance(value, dict):
            raise UserError(f"configuration key {path} must be a table, got {value!r}")
        return from_dict(hint, value, f"{path}.")  # type: ignore[arg-type]
    options = get_args(hint)
    if options and all(isinstance(option, str) for option in options):
        if value not in options:
            raise UserError(
                f"{path} must be one of {', '.join(options)}, got {value!r}"
                + nearest_name(str(value), list(options))
            )
        return value
    if options:  # tuple[str, ...]
        if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
            raise UserError(f"{path} must be a list of strings, got {value!r}")
        return tuple(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise UserError(f"{path} must be of type {hint.__name__}, got {value!r}")
    return value


def to_toml(config: Any) -> str:
    """The settings as TOML, tables last."""
    data = to_dict(config)
    lines = [f"{k} = {_toml_value(v)}" for k, v in data.items() if not isinstance(v, dict)]
    for name, table in data.items():
        if isinstance(table, dict):
            lines += ["", f"[{name}]", *(f"{k} = {_toml_value(v)}" for k, v in table.items())]
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's too, but TOML wants one for DEL as well.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml_value, value))}]"
    return repr(value)


def read_toml(path: Path) -> RunConfig:
    """Settings from a TOML file.

    Raises:
        UserError: No such file, no TOML, or settings that do not exist or fit.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"cannot read configuration {path}: {error}") from None
    return from_dict(RunConfig, data)


def preset(name: str) -> RunConfig:
    """A whole configuration by name.

    Raises:
        UserError: No such preset.
    """
    if name not in PRESETS:
        raise UserError(
            f"unknown preset {name!r}{nearest_name(name, list(PRESETS))}; "
            f"there are {', '.join(PRESETS)}"
        )
    return PRESETS[name]


def changed(config: RunConfig, **parts: dict[str, Any]) -> RunConfig:
    """A copy with some settings replaced: `changed(config, pretrain={"steps": 10})`."""
    return dataclasses.replace(
        config,
        **{
            name: dataclasses.replace(getattr(config, name), **values)
            for name, values in parts.items()
        },
    )
