"""The command line: `rnngan COMMAND`, and `python train_gan.py COMMAND`.

Nothing here imports torch before a command needs it, so that help answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

import tyro

from rnngan import __version__
from rnngan.config import RunConfig, preset, read_toml
from rnngan.errors import UserError, nearest_name
from rnngan.progress import clock

if TYPE_CHECKING:
    from rnngan.latents import ReadPiece
    from rnngan.music.piece import Piece
    from rnngan.music.vocabulary import Tokens
    from rnngan.training.checkpoint import Model, TuplesModel

Options = TypeVar("Options")
TrainKind = TypeVar("TrainKind", bound="TrainOptions")


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of every training stage; settings come from the run, a file, or a preset."""

    run: Path | None = None
    """Run folder; runs/CORPUS by default."""
    store: Path | None = None
    """Prepared corpus to use, or to make; RUN/store by default."""
    config: Path | None = None
    """TOML file of settings."""
    preset: str = "base"
    """Whole configuration to begin with: base, vae or tiny."""
    resume: bool = False
    """Go on from the last checkpoint."""
    workers: int | None = None
    """Processes that read files; as many as processors by default."""
    threads: int | None = None
    """Threads that compute; as many as processors by default."""
    settings: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=RunConfig)
    """Settings of the run."""


@dataclass(frozen=True, kw_only=True)
class PrepareOptions(TrainOptions):
    """Options of preparation; with --store alone no run is begun."""

    report: bool = False
    """Measure what the tokens lose, and print a report; it stands in the store's report.json."""


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Options of the demo; one that was broken off goes on where it was."""

    run: Path = Path("runs/demo")
    """Run folder."""
    seed: int = 0
    """Of everything random."""


@dataclass(frozen=True, kw_only=True)
class DecodingOptions:
    """How a model writes pieces, and where they go."""

    usual_num: ClassVar[int] = 16

    num: int | None = None
    """Pieces; by default 16, or with a beam as many as it is wide."""
    bars: int | None = None
    """Exactly so many bars; by default each piece ends where the model ends it."""
    min_bars: int | None = None
    """At least so many bars."""
    max_bars: int | None = None
    """At most so many bars."""
    max_tokens: int = 1024
    """A piece that has not ended after so many tokens is cut there; of tuples, so many notes."""
    temperature: float = 1.0
    """Divides the logits; below 1 is safer, above 1 is wilder."""
    top_k: int = 0
    """Draw from so many likeliest tokens alone; 0: from all."""
    top_p: float = 1.0
    """Draw from the fewest likeliest tokens that have this probability together; 1: from all."""
    no_repeat_ngram: int = 0
    """Write no run of so many tokens twice; 0: no such rule. A note takes about 3 tokens."""
    repetition_penalty: float = 1.0
    """Above 1 the tokens that came last become less likely; of all kinds, bar lines, too."""
    repetition_window: int = 64
    """So many tokens came last."""
    guide: Literal["none", "resample", "reject", "particles", "chains"] = "none"
    """Let the discriminator choose: of finished candidates (resample, reject), among growing
    ones (particles; it needs a causal head), or one after the other (chains)."""
    guide_candidates: int = 50
    """Candidates per piece that it chooses from."""
    guide_strength: float = 1.0
    """Exponent of the density ratio by which it chooses; above 1 makes up for few candidates."""
    beam: int | None = None
    """Search for the likeliest pieces with a beam of this width, best first."""
    stochastic_beam: bool = False
    """Draw the beam's pieces without replacement: none comes twice."""
    length_penalty: float = 0.6
    """Of the beam: 0 compares plain log-probabilities, which favours short pieces."""
    tag_weight: float = 0.0
    """Above 0 the tags count for more than in the corpus; 1 or 2 is much."""
    attention_picture: Path | None = None
    """PNG file for what the generator looked back at in the first piece."""
    seed: int = 0
    """The same seed gives the same bytes."""
    stage: Literal["pretrain", "refine"] | None = None
    """Model of this stage of the run; the last one by default."""
    wav: bool = True
    """Write sound beside each MIDI file."""


@dataclass(frozen=True, kw_only=True)
class GenerateOptions(DecodingOptions):
    """Options of generation."""

    model: tyro.conf.Positional[Path]
    """Run folder or .safetensors file."""
    tag: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """KEY=VALUE that every piece has, such as style=reel, mode=minor or metre=6/8; may be repeated.
    Without any the model chooses all tags, and else it is told of no others."""
    out: Path = Path("generated")
    """Folder for the MIDI and WAV files."""


@dataclass(frozen=True, kw_only=True)
class ContinueOptions(DecodingOptions):
    """Options of continuing; bars and tokens are those behind the primer."""

    usual_num: ClassVar[int] = 8

    num: int | None = None
    """Pieces; by default 8, or with a beam as many as it is wide."""
    primer: tyro.conf.Positional[Path]
    """MIDI, ABC or MusicXML file to go on from."""
    checkpoint: Path = Path("runs/demo")
    """Run folder or .safetensors file."""
    with_primer: Annotated[
        bool,
        tyro.conf.arg(
            name="primer",
            aliases=["--with-primer"],
            help_behavior_hint="(default: with the primer)",
        ),
    ] = True
    """Begin each piece with the primer."""
    tag: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """KEY=VALUE that the model is told in place of what the primer says, such as style=reel; may be
    repeated."""
    out: Path = Path("continued")
    """Folder for the MIDI and WAV files."""


@dataclass(frozen=True, kw_only=True)
class HarmonizeOptions:
    """Options of accompanying a melody."""

    melody: tyro.conf.Positional[Path]
    """MIDI, ABC or MusicXML file; of several parts the highest is the melody."""
    checkpoint: Path = Path("runs/demo")
    """Run folder or .safetensors file of a seq2seq generator."""
    out: Path = Path("harmonized")
    """Folder for the MIDI and WAV files."""
    score: Path | None = None
    """PNG file for the score of the first piece."""
    num: int = 4
    """Pieces."""
    temperature: float = 1.0
    """Divides the logits; below 1 is safer, above 1 is wilder."""
    top_k: int = 0
    """Draw from so many likeliest tokens alone; 0: from all."""
    top_p: float = 1.0
    """Draw from the fewest likeliest tokens that have this probability together; 1: from all."""
    seed: int = 0
    """The same seed gives the same bytes."""
    wav: bool = True
    """Write sound beside each MIDI file."""


@dataclass(frozen=True, kw_only=True)
class LatentOptions:
    """Options of moving in the space of an autoencoder."""

    checkpoint: Path = Path("runs/demo")
    """Run folder of a vae or autoencoder; to interpolate, a .safetensors file serves, too."""
    temperature: float = 0.2
    """Divides the logits; the nearer to 0, the nearer to the likeliest piece."""
    seed: int = 0
    """The same seed gives the same bytes."""
    wav: bool = True
    """Write sound beside each MIDI file."""


@dataclass(frozen=True, kw_only=True)
class InterpolateOptions(LatentOptions):
    """Options of interpolation."""

    first: tyro.conf.Positional[Path]
    """MIDI, ABC or MusicXML file."""
    last: tyro.conf.Positional[Path]
    """Another one."""
    steps: int = 8
    """Pieces, those two written again among them."""
    out: Path = Path("interpolated")
    """Folder for the MIDI and WAV files."""


@dataclass(frozen=True, kw_only=True)
class RestyleOptions(LatentOptions):
    """Options of another style."""

    piece: tyro.conf.Positional[Path]
    """MIDI, ABC or MusicXML file."""
    style: str
    """Style of pieces in the corpus, such as jig."""
    from_style: str | None = None
    """The piece's own style; by default what its file says, or else what all pieces have in
    common."""
    by: Literal["shift", "tag"] = "shift"
    """Move what is kept of the piece by the difference of the styles, or tell the other style by
    its tag."""
    num: int = 1
    """Pieces."""
    out: Path = Path("restyled")
    """Folder for the MIDI and WAV files."""


@dataclass(frozen=True, kw_only=True)
class FrontierOptions:
    """Options of the quality-diversity frontier."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders of one corpus and split; the control and placebo runs among them."""
    out: Path = Path("frontier")
    """Folder for frontier.json, frontier.csv and frontier.png."""
    num: int = 128
    """Pieces per generator and setting."""
    temperatures: tuple[float, ...] = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2)
    """Temperatures to draw at."""
    top_k: tuple[int, ...] = ()
    """All temperatures once more with each of these top-k."""
    top_p: tuple[float, ...] = ()
    """All temperatures once more with each of these top-p."""
    guide: Literal["none", "resample", "reject", "particles", "chains"] = "none"
    """Also sweep what the discriminators choose, see generate; of runs that are no controls."""
    guide_candidates: int = 50
    """Candidates per piece that they choose from."""
    guide_strength: float = 1.0
    """Exponent of the density ratio by which they choose."""
    quality: Literal["bleu", "precision", "lm-score"] = "bleu"
    """What the verdict compares; all are measured."""
    diversity: Literal["self-bleu", "recall"] = "self-bleu"
    """What has to match."""
    seed: int = 0
    """Of the pieces and of all resampling."""


@dataclass(frozen=True, kw_only=True)
class CorporaOptions:
    """Options of the list of corpora."""

    name: tyro.conf.Positional[str | None] = None
    """Corpus to tell all about."""


@dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """Options of inspection."""

    store: tyro.conf.Positional[Path]
    """Prepared corpus, or the folder of a run."""
    piece: tyro.conf.Positional[str | None] = None
    """Piece to look at: its name or title, its number, or a part of a name; by default the
    figures of the whole corpus are shown."""
    bars: int = 64
    """Show so many bars of a piece."""
    out: Path = Path("inspected")
    """Folder for the piano roll, the MIDI file and the sound of a piece."""
    wav: bool = True
    """Write the sound, too."""
    report: bool = False
    """Show what `prepare --report` measured."""


@dataclass(frozen=True, kw_only=True)
class RenderOptions:
    """Options of rendering."""

    files: tyro.conf.Positional[tuple[Path, ...]]
    """MIDI files."""
    soundfont: Path | None = None
    """SF2 file for FluidSynth; by default the built-in synthesiser plays."""
    score: bool = False
    """Also draw each as a score, FILE.score.png."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 for success, 2 for bad input, 130 for an interrupt."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Threads of OpenMP that wait by spinning for long keep the processor from what else runs, and
    # so from each other; those that sleep at once are slow to wake (docs/experiments.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # numpy's products, in the evaluation, are so small that threads would wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Every length of batch makes oneDNN keep another set of programs, a gigabyte in the end.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    try:
        if not words or words[0] in ("-h", "--help", "help"):
            print(_help())
            return 0
        if words[0] in ("-V", "--version"):
            print(f"rnngan {__version__}")
            return 0
        if words[0] not in COMMANDS:
            raise UserError(
                f"unknown command {words[0]!r}{nearest_name(words[0], list(COMMANDS))}; "
                "see rnngan --help"
            )
        return COMMANDS[words[0]][1](words[1:])
    except UserError as error:
        print(f"rnngan: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("rnngan: interrupted; a training run goes on with --resume", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    except OSError as error:
        print(f"rnngan: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _help() -> str:
    lines = [
        "rnngan: adversarially refined recurrent music generation",
        "",
        "usage: rnngan COMMAND [OPTIONS]        rnngan COMMAND --help",
        "",
        *(f"  {name:<11} {text}" for name, (text, _) in COMMANDS.items()),
    ]
    return "\n".join(lines)


def parse(kind: type[Options], words: Sequence[str], command: str, **options: Any) -> Options:
    """Options from the command line.

    Raises:
        UserError: An option or a value that does not exist or fit, in one line.
    """
    errors = io.StringIO()
    parsed: Options
    unknown: list[str]
    try:
        with contextlib.redirect_stderr(errors):
            parsed, unknown = tyro.cli(
                kind,
                args=list(words),
                prog=f"rnngan {command}",
                return_unknown_args=True,
                **options,
            )
    except SystemExit as exit_:
        if exit_.code in (0, None):
            raise
        raise UserError(f"{command}: {_one_line(errors.getvalue())}") from None
    if unknown:
        known = sorted(set(_flags(kind, command, options)))
        raise UserError(
            f"{command}: unknown option {unknown[0]!r}"
            f"{nearest_name(unknown[0].split('=')[0], known)}; see rnngan {command} --help"
        )
    seed = getattr(parsed, "seed", 0)
    if not 0 <= seed < 2**64:
        raise UserError(f"--seed must be 0 to 2^64 - 1, got {seed}")
    return parsed


def _flags(kind: type[Any], command: str, options: dict[str, Any]) -> list[str]:
    """All option names, read off the help."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        tyro.cli(kind, args=["--help"], prog=f"rnngan {command}", **options)
    return re.findall(r"--[a-z][a-z0-9.-]*", text.getvalue())


def _one_line(box: str) -> str:
    """What a boxed message says, without the box."""
    plain = re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", box)
    return re.sub(r"\s+", " ", plain.split("For full helptext")[0]).strip()


def _settings(kind: type[TrainKind], words: Sequence[str], command: str) -> TrainKind:
    """Options whose settings begin from the run's own, a file, or a preset."""
    first = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    for name in ("--run", "--config", "--preset"):
        first.add_argument(name)
    first.add_argument("--corpus", "--data.corpus", default=RunConfig().data.corpus)
    try:
        named, _ = first.parse_known_args(list(words))
    except argparse.ArgumentError as error:
        raise UserError(f"{command}: {error}") from None
    run = Path(named.run) if named.run else _default_run(named.corpus)
    if named.config:
        settings = read_toml(Path(named.config))
    elif named.preset or not (run / "config.toml").exists():
        settings = preset(named.preset or "base")
    else:
        settings = read_toml(run / "config.toml")
    return parse(kind, words, command, default=kind(settings=settings))


def _default_run(corpus: str) -> Path:
    return Path("runs") / (Path(corpus).name or "corpus")


def _train(stages: tuple[str, ...], command: str) -> Callable[[Sequence[str]], int]:
    def run_stages(words: Sequence[str]) -> int:
        options = _settings(TrainOptions, words, command)
        return _follow(
            folder=options.run or _default_run(options.settings.data.corpus),
            config=options.settings,
            stages=stages,
            store=options.store,
            resume=options.resume,
            workers=options.workers,
            threads=options.threads,
        )

    return run_stages


def _prepare(words: Sequence[str]) -> int:
    options = _settings(PrepareOptions, words, "prepare")
    settings = options.settings
    if options.store and not options.run:
        import train_gan

        folder = options.store
        train_gan.prepare_store(
            settings.data,
            folder,
            seed=settings.seed,
            workers=options.workers,
            measure_loss=options.report,
        )
    else:
        run = options.run or _default_run(settings.data.corpus)
        _follow(
            folder=run,
            config=settings,
            stages=("prepare",),
            store=options.store,
            resume=options.resume,
            workers=options.workers,
            measure_loss=options.report,
        )
        folder = options.store or run / "store"
    if options.report:
        from rnngan.data.inspection import report_text

        print(report_text(folder))
    return 0


def _demo(words: Sequence[str]) -> int:
    options = parse(DemoOptions, words, "demo")
    config = dataclasses.replace(preset("base"), seed=options.seed)
    return _follow(folder=options.run, config=config, resume=(options.run / "config.toml").exists())


def _follow(*, threads: int | None = None, **plan_fields: Any) -> int:
    """Carry out a plan, then say where everything is and how long it took."""
    if threads is not None:
        import torch

        if threads < 1:
            raise UserError(f"--threads must be at least 1, got {threads}")
        torch.set_num_threads(threads)
    import train_gan

    plan = train_gan.Plan(**plan_fields)
    run = train_gan.main(plan)
    print()
    for what, path in (
        ("MIDI and sound", run.folder / "samples"),
        ("report", run.folder / "report" / "report.html"),
        ("models", run.checkpoints),
        ("prepared corpus", run.store_folder),
    ):
        if path.exists():
            print(f"{what:>16}  {path}")
    print(f"{'curves':>16}  tensorboard --logdir {run.tensorboard}")
    times = "  ".join(f"{stage} {clock(seconds)}" for stage, seconds in plan.seconds.items())
    print(f"{'time':>16}  {times}  (all {clock(sum(plan.seconds.values()))})")
    return 0


def _write(pieces: list[Piece], folder: Path, *, wav: bool) -> None:
    """MIDI files and sound in a folder, and a line that says so."""
    from rnngan.generate import write_music

    paths = write_music(pieces, folder, wav=wav)
    print(f"wrote {len(paths)} pieces to {folder}: {paths[0].name} to {paths[-1].name}")


def _generate(words: Sequence[str]) -> int:
    options = parse(GenerateOptions, words, "generate")
    from rnngan.generate import find_model
    from rnngan.music.tokenizers.tags import parse_tags, tagged_prefix
    from rnngan.training.checkpoint import TuplesModel

    tags = parse_tags(options.tag)
    model = find_model(options.model, options.stage)
    if isinstance(model, TuplesModel):
        return _write_tuples(model, options)
    rows = _written(model, options, prefix=tagged_prefix(model.tokenizer, tags))
    _write([model.tokenizer.decode(row) for row in rows], options.out, wav=options.wav)
    return 0


_OF_TUPLES = ("model", "out", "num", "max_tokens", "seed", "stage", "wav")
"""Options of generation that need no tokens."""


def _write_tuples(model: TuplesModel, options: GenerateOptions) -> int:
    """Generation by a model of real numbers."""
    from rnngan.generate import generate_tuples

    for option in dataclasses.fields(options):
        if option.name not in _OF_TUPLES and getattr(options, option.name) != option.default:
            raise UserError(
                f"--{option.name.replace('_', '-')} needs tokens with probabilities, and this "
                "model writes tuples, real numbers; leave it out"
            )
    pieces = generate_tuples(
        model,
        num=options.usual_num if options.num is None else options.num,
        seed=options.seed,
        max_notes=options.max_tokens,
    )
    _write(pieces, options.out, wav=options.wav)
    return 0


def _continue(words: Sequence[str]) -> int:
    options = parse(ContinueOptions, words, "continue")
    from rnngan.continuation import read_primer
    from rnngan.generate import data_settings, find_model
    from rnngan.music.tokenizers.tags import parse_tags
    from rnngan.training.checkpoint import of_tokens

    if options.max_tokens < 1:
        raise UserError(f"--max-tokens must be at least 1, got {options.max_tokens}")
    model = of_tokens(find_model(options.checkpoint, options.stage))
    data, tags = data_settings(options.checkpoint), parse_tags(options.tag)
    primer = read_primer(options.primer, model.tokenizer, data, tags=tags)
    if primer.remark:
        print(primer.remark)
    rows = _written(
        model,
        options,
        prefix=primer.tokens,
        bars_before=primer.num_bars,
        max_tokens=len(primer.tokens) + options.max_tokens,
    )
    pieces = [primer.continued(row, with_primer=options.with_primer) for row in rows]
    _write(pieces, options.out, wav=options.wav)
    return 0


def _harmonize(words: Sequence[str]) -> int:
    options = parse(HarmonizeOptions, words, "harmonize")
    from rnngan.generate import data_settings, find_model
    from rnngan.generator.sampling import Decoding
    from rnngan.harmony import harmonize, read_melody
    from rnngan.training.checkpoint import of_tokens

    model = of_tokens(find_model(options.checkpoint, "pretrain"))
    melody = read_melody(options.melody, model, data_settings(options.checkpoint))
    if told := melody.in_words():
        print(told)
    decoding = Decoding(temperature=options.temperature, top_k=options.top_k, top_p=options.top_p)
    pieces = harmonize(model, melody, num=options.num, seed=options.seed, decoding=decoding)
    _write(pieces, options.out, wav=options.wav)
    if options.score:
        from rnngan.music.score import score_png

        score_png(pieces[0], options.score, title=f"{options.melody.stem}, harmonized")
        print(f"wrote {options.score}")
    return 0


def _interpolate(words: Sequence[str]) -> int:
    options = parse(InterpolateOptions, words, "interpolate")
    from rnngan.generate import data_settings, find_model
    from rnngan.latents import interpolate, read_piece
    from rnngan.training.checkpoint import of_tokens

    model = of_tokens(find_model(options.checkpoint, "pretrain"))
    data = data_settings(options.checkpoint)
    ends = []
    for path in (options.first, options.last):
        ends.append(read_piece(path, model, data, aim="interpolate"))
        _tell(ends[-1], path)
    pieces = interpolate(
        model, *ends, steps=options.steps, seed=options.seed, temperature=options.temperature
    )
    _write(pieces, options.out, wav=options.wav)
    return 0


def _tell(piece: ReadPiece, path: Path) -> None:
    """What the model is not told of a file, or otherwise."""
    if piece.remark:
        print(piece.remark)
    if piece.num_left_out:
        print(f"left out of {path}: its last {piece.num_left_out} bars")


def _restyle(words: Sequence[str]) -> int:
    options = parse(RestyleOptions, words, "restyle")
    from rnngan.data.store import Store
    from rnngan.generate import data_settings, find_model
    from rnngan.latents import read_piece, restyle
    from rnngan.training.checkpoint import of_tokens
    from rnngan.training.run import Run

    run = Run.open(options.checkpoint)
    model = of_tokens(find_model(options.checkpoint, "pretrain"))
    piece = read_piece(options.piece, model, data_settings(options.checkpoint), aim="restyle")
    _tell(piece, options.piece)
    pieces = restyle(
        model,
        piece,
        Store.open(run.store_folder),
        options.style,
        from_style=options.from_style,
        tag=options.by == "tag",
        num=options.num,
        seed=options.seed,
        temperature=options.temperature,
    )
    _write(pieces, options.out, wav=options.wav)
    return 0


_DRAWING = (
    *("seed", "bars", "min_bars", "max_bars", "max_tokens", "temperature", "top_k", "top_p"),
    *("no_repeat_ngram", "repetition_penalty", "repetition_window", "tag_weight"),
)
"""Options that say how every piece is drawn, by whatever way."""


def _written(model: Model, options: DecodingOptions, **start: Any) -> list[Tokens]:
    """Tokens of the pieces that are asked for, and the picture of attention if it is, too."""
    from rnngan.generate import (
        check_attention,
        draw_attention,
        generate_beams,
        generate_guided,
        generate_tokens,
    )
    from rnngan.music.tokenizers.tags import untagged

    how: dict[str, Any] = {name: getattr(options, name) for name in _DRAWING} | start
    how["untagged"] = bare = untagged(model.tokenizer.vocabulary)
    if options.tag_weight and all(bare[token] == token for token in how["prefix"]):
        raise UserError("--tag-weight needs tags that it weighs; add --tag KEY=VALUE")
    how["num"] = (options.beam or options.usual_num) if options.num is None else options.num
    if options.stochastic_beam and options.beam is None:
        raise UserError("--stochastic-beam needs --beam, its width")
    if options.attention_picture:
        check_attention(model)
    if options.beam is not None:
        if options.guide != "none":
            raise UserError("--beam and --guide choose in different ways: leave one of them out")
        found = generate_beams(
            model,
            beam=options.beam,
            stochastic=options.stochastic_beam,
            length_penalty=options.length_penalty,
            **how,
        )
        rows = found.tokens
        print(found.in_words())
    elif options.guide != "none":
        guided = generate_guided(
            model,
            guide=options.guide,
            candidates=options.guide_candidates,
            strength=options.guide_strength,
            **how,
        )
        rows = guided.tokens
        print(guided.in_words(options.guide_candidates))
    else:
        rows = generate_tokens(model, **how)
    if options.attention_picture:
        draw_attention(
            model, rows[0], options.attention_picture, title="attention in the first piece"
        )
        print(f"wrote {options.attention_picture}")
    return rows


def _evaluate(words: Sequence[str]) -> int:
    from eval.__main__ import main as evaluate

    return evaluate(list(words))


def _frontier(words: Sequence[str]) -> int:
    options = parse(FrontierOptions, words, "frontier")
    import shlex

    from rich.console import Console

    from eval.frontier import terminal_table
    from eval.report import make_folder
    from rnngan.frontier import draw_frontier, settings_of, write_frontier
    from rnngan.progress import Progress
    from rnngan.training.run import Run

    settings = settings_of(options.temperatures, options.top_k, options.top_p)
    runs = [Run.open(folder) for folder in options.runs]
    make_folder(options.out)
    with Progress("frontier", 1) as progress:
        frontier = draw_frontier(
            runs,
            settings,
            num=options.num,
            seed=options.seed,
            quality=options.quality,
            diversity=options.diversity,
            guide=None if options.guide == "none" else options.guide,
            candidates=options.guide_candidates,
            strength=options.guide_strength,
            progress=progress,
        )
    command = shlex.join(["rnngan", "frontier", *words])
    paths = write_frontier(frontier, options.out, command=command, seed=options.seed)
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    console.print(terminal_table(frontier))
    print(*frontier.sentences, sep="\n")
    print(f"wrote {', '.join(str(path) for path in paths)}")
    return 0


def _corpora(words: Sequence[str]) -> int:
    options = parse(CorporaOptions, words, "corpora")
    from rnngan.data.inspection import corpora_text, corpus_text

    print(corpora_text() if options.name is None else corpus_text(options.name))
    return 0


def _inspect(words: Sequence[str]) -> int:
    options = parse(InspectOptions, words, "inspect")
    from rnngan.data import inspection
    from rnngan.data.store import Store
    from rnngan.training.run import Run

    folder = options.store
    if (folder / "config.toml").exists():
        folder = Run.open(folder).store_folder
    store = Store.open(folder)
    if options.report:
        if options.piece is not None:
            raise UserError("inspect: --report is about the whole corpus; leave out the piece")
        print(inspection.report_text(folder))
    elif options.piece is None:
        print(inspection.statistics_text(store))
    else:
        index = inspection.find_piece(store, options.piece)
        print(inspection.piece_text(store, index, bars=options.bars))
        paths = inspection.write_piece(store, index, options.out, wav=options.wav)
        print("\nwrote " + "\n      ".join(map(str, paths)))
    return 0


def _render(words: Sequence[str]) -> int:
    options = parse(RenderOptions, words, "render")
    if not options.files:
        raise UserError("render: name at least one MIDI file")
    from rnngan.music.audio import render_wav
    from rnngan.music.midi import read_midi
    from rnngan.music.picture import piano_roll_png
    from rnngan.music.score import score_png

    for path in options.files:
        piece = read_midi(path)
        render_wav(piece, path.with_suffix(".wav"), soundfont=options.soundfont)
        piano_roll_png([piece], [path.stem], path.with_suffix(".png"))
        if options.score:
            score_png(piece, path.with_suffix(".score.png"), title=path.stem)
        kinds = [".wav", ".png", *([".score.png"] if options.score else [])]
        print(f"wrote {', '.join(str(path.with_suffix(kind)) for kind in kinds)}")
    return 0


COMMANDS: dict[str, tuple[str, Callable[[Sequence[str]], int]]] = {
    "demo": ("real corpus to trained model, music and report, in ten minutes", _demo),
    "corpora": ("list the corpora that have a name", _corpora),
    "prepare": ("corpus to tokens on disk", _prepare),
    "inspect": ("what is in a prepared corpus, or a piece of it to look at and hear", _inspect),
    "pretrain": ("maximum likelihood", _train(("pretrain",), "pretrain")),
    "refine": ("adversarial refinement of what was pretrained", _train(("refine",), "refine")),
    "train": (
        "all stages, then music and report",
        _train(("prepare", "pretrain", "refine", "report"), "train"),
    ),
    "generate": ("model to MIDI and sound", _generate),
    "continue": ("a file of music, and how a model goes on with it", _continue),
    "harmonize": ("a melody, and the parts that a model writes to it", _harmonize),
    "interpolate": ("two pieces, and what lies between them", _interpolate),
    "restyle": ("a piece in another style", _restyle),
    "evaluate": ("generated music against real music", _evaluate),
    "frontier": ("quality against diversity of runs, and whether refinement paid", _frontier),
    "render": ("MIDI to sound and piano roll", _render),
}
"""Each command, what it does, and the function that does it."""
