"""A tokenizer of the miditok package in our frame; needs the extra `miditok`.

    Start Tag* token*  End

The tokens between are miditok's own, by its own names, of REMI, TSD, MIDILike or Structured. Which
kind may follow which is read from miditok's graph of types; it knows less of music than the grammar
of `events`, and nothing of where in the bar a position lies. An excerpt from the middle of a piece
begins with Continue in place of Start.

References:
    Fradet et al., "MidiTok: A Python package for MIDI file tokenization", ISMIR 2021.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
import symusic

from rnngan.errors import UserError
from rnngan.music.piece import (
    DRUMS,
    NOTE,
    TICKS_PER_QUARTER,
    Piece,
    Tempo,
    nearest_ticks,
    one_at_a_time,
    regular_metres,
    regular_tempos,
)
from rnngan.music.tokenizers.base import check_tags, check_tokens, keys_of, settings_of
from rnngan.music.tokenizers.steps import commonest_tempo, metre_of, one_program
from rnngan.music.tokenizers.summary import Summary
from rnngan.music.vocabulary import (
    CONTINUE,
    END,
    FRAME_TOKENS,
    PAD,
    START,
    Grammar,
    Tokens,
    Vocabulary,
    build_grammar,
)

KINDS = ("REMI", "TSD", "MIDILike", "Structured")
"""Tokenizers of miditok that write one id after the other."""

_PITCHED = ("Pitch", "NoteOn", "NoteOff")
_DRUM_KINDS = ("PitchDrum", "DrumOn", "DrumOff")
_KIT = "Program_-1"
_LONGEST_BAR = 16 * TICKS_PER_QUARTER
_NUM_TEMPOS = 32
_MISSING = (
    'this tokenizer needs the package miditok in a recent version: pip install "rnngan[miditok]"'
)


class MidiTok:
    """Tokenizer between `Piece` and the tokens of miditok.

    What encoding changes in a piece is miditok's business, but for this: the tracks of a program
    become one, which holds one note per pitch at a time, without Program tokens all programs become
    one and the drums are left out, and notes that miditok moves to one place are sorted anew.

    Args:
        tokenizer: One of `KINDS`, from miditok.
        program: Of every decoded note where there are no Program tokens.
        velocity: Of every decoded note where there are no Velocity tokens.
        tempo: Of every decoded piece where there are no Tempo tokens, in quarters per minute.
        tags: Tag tokens at the head, `key=value`; a piece that lacks a key, or has another value,
            gets `key=`, which every key needs.

    Raises:
        UserError: The tokenizer is of another kind, was trained, or writes several sequences.
    """

    name = "miditok"
    dtype = np.dtype(np.uint16)
    width = 0

    def __init__(
        self,
        tokenizer: Any,
        *,
        program: int = 0,
        velocity: int = 80,
        tempo: float = 120.0,
        tags: tuple[str, ...] = (),
    ) -> None:
        config = tokenizer.config
        kind = type(tokenizer).__name__
        if kind not in KINDS:
            raise UserError(f"miditok's {kind} cannot stand in here; choose {', '.join(KINDS)}")
        if tokenizer.is_trained:
            raise UserError(
                f"this {kind} of miditok was trained to merge tokens, and merged tokens have no "
                "grammar; use it as it was before training"
            )
        if config.use_programs and not (
            config.one_token_stream_for_programs and config.use_pitchdrum_tokens
        ):
            raise UserError(
                "with use_programs, miditok needs one_token_stream_for_programs and "
                "use_pitchdrum_tokens: one sequence a piece, and drums that no transposition moves"
            )
        check_tags(tags)
        self.tokenizer = tokenizer
        self.kind = kind
        self.program, self.velocity, self.tempo, self.tags = program, velocity, tempo, tags

        theirs = [name for name in tokenizer.vocab if name not in tokenizer.special_tokens]
        kinds = list(dict.fromkeys(map(_kind, theirs)))
        theirs.sort(key=lambda name: kinds.index(_kind(name)))
        head = (*FRAME_TOKENS, *(f"Tag_{tag}" for tag in tags))
        self.vocabulary = Vocabulary((*head, *theirs))
        self.bar: int | None = self.vocabulary.index.get("Bar_None")
        self.pitched_kinds = tuple(kind for kind in _PITCHED if kind in kinds)
        self.tag_keys = keys_of(tags)
        self._their_ids = np.array([tokenizer.vocab[name] for name in theirs], dtype=np.int64)
        self._our_ids = np.zeros(len(tokenizer.vocab), dtype=np.int64)
        self._our_ids[self._their_ids] = len(head) + np.arange(len(theirs))

    @staticmethod
    def fit(
        summary: Summary,
        *,
        tags: tuple[str, ...] = (),
        margin: int = 6,
        velocity_bins: int = 8,
        kind: str = "REMI",
        resolution: int = 12,
    ) -> MidiTok:
        """Tokenizer with the metres, pitches, programs, velocities and tempos of a corpus.

        Args:
            summary: The corpus.
            tags: Keys of `Piece.tags` to write at the head.
            margin: Semitones kept free on both sides for transposition.
            velocity_bins: Velocities to tell apart where the corpus has more than one, evenly
                spaced.
            kind: One of `KINDS`.
            resolution: Steps of a quarter, or more: miditok divides the beat, every metre's alike.
                Beyond four beats lengths are told in a sixth of the steps.

        Raises:
            ValueError: There are no pieces.
            UserError: There is no such kind, or miditok is missing.
        """
        if not summary.num_pieces:
            raise ValueError("cannot fit a tokenizer to no pieces")
        if kind not in KINDS:
            raise UserError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
        lowest, highest = summary.pitch_range(margin)
        drums = DRUMS in summary.programs
        if drums:
            # miditok decodes no drum that lies outside the range of the pitches.
            lowest, highest = min(lowest, 27), max(highest, 88)
        metres = {metre_of(name) for name in summary.metres}
        metres.add(metre_of("4/4"))  # which miditok takes where nothing fits
        numerators: dict[int, list[int]] = {}
        for metre in sorted(metres):
            if metre.ticks_per_bar <= _LONGEST_BAR:
                numerators.setdefault(metre.denominator, []).append(metre.numerator)
        steps = resolution * 4 // min(numerators)
        tempos = summary.tempos or {120.0: 1}
        config = _miditok().TokenizerConfig(
            pitch_range=(lowest, highest),
            beat_res={(0, 4): steps, (4, 16): max(1, steps // 6)},
            num_velocities=velocity_bins,
            special_tokens=["PAD"],
            use_velocities=bool(np.count_nonzero(summary.velocities) > 1),
            use_programs=drums or len(summary.programs) > 1,
            programs=sorted(-1 if program == DRUMS else program for program in summary.programs),
            use_tempos=len(tempos) > 1,
            num_tempos=_NUM_TEMPOS,
            tempo_range=(max(1, math.floor(min(tempos))), math.ceil(max(tempos))),
            log_tempos=True,
            use_time_signatures=set(summary.metres) - {"4/4"} != set(),
            time_signature_range=numerators,
        )
        return MidiTok(
            getattr(_miditok(), kind)(config),
            program=one_program(summary),
            velocity=int(summary.velocities.argmax()) or 80,
            tempo=commonest_tempo(summary),
            tags=summary.tag_tokens(tags),
        )

    def to_json(self) -> dict[str, Any]:
        """What `from_json` needs to make this tokenizer again."""
        return {
            "name": self.name,
            "kind": self.kind,
            "config": self.tokenizer.config.to_dict(serialize=True),
            "program": self.program,
            "velocity": self.velocity,
            "tempo": self.tempo,
            "tags": list(self.tags),
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> MidiTok:
        """The tokenizer that `to_json` wrote down.

        Raises:
            ValueError: The data describes another tokenizer or none.
            UserError: There is no such kind, or miditok is missing.
        """
        fields = settings_of(data, MidiTok.name)
        if (kind := fields.pop("kind", None)) not in KINDS:
            raise UserError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
        miditok = _miditok()
        try:
            config = miditok.TokenizerConfig.from_dict(_unserialised(fields.pop("config")))
            return MidiTok(getattr(miditok, kind)(config), **fields)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"damaged tokenizer description: {error!r}") from None

    def encode(self, piece: Piece) -> Tokens:
        """Tokens of a piece, Start and End included: `(time,)`.

        Miditok works note by note in Python: some 10 ms for 1,000 notes.
        """
        score = self.tokenizer.preprocess_score(self._score(piece))
        for track in score.tracks:
            track.notes.sort()  # or notes of one position would stand in order of lost fractions
        found = self.tokenizer.encode(score, no_preprocess_score=True)
        if isinstance(found, list):  # without programs one sequence a track
            found = found[0] if found else _miditok().TokSequence(ids=[])
        index = self.vocabulary.index
        head = [START]
        for key in self.tag_keys:
            tag = f"Tag_{key}={piece.tags.get(key, '')}"
            head.append(index.get(tag, index[f"Tag_{key}="]))
        body = self._our_ids[np.array(found.ids, dtype=np.int64)]
        return np.concatenate([head, body, [END]]).astype(np.uint16)

    def _score(self, piece: Piece) -> Any:
        """The piece as symusic has it, one track a program."""
        notes = piece.notes.copy() if self._has_programs else piece.pitched.copy()
        notes["track"] = 0
        if not self._has_programs:
            notes["program"] = self.program
        notes = one_at_a_time(notes)
        score = symusic.Score(TICKS_PER_QUARTER)
        for metre in piece.metres:
            score.time_signatures.append(symusic.TimeSignature(*metre))
        for tempo in piece.tempos:
            score.tempos.append(symusic.Tempo(*tempo))
        for program in np.unique(notes["program"]).tolist():
            part = notes[notes["program"] == program]
            drums = program == DRUMS
            track = symusic.Track(program=0 if drums else program, is_drum=drums)
            track.notes = symusic.Note.from_numpy(
                time=part["start"].astype(np.int32),
                duration=(part["end"] - part["start"]).astype(np.int32),
                pitch=part["pitch"].astype(np.int8),
                velocity=part["velocity"].astype(np.int8),
            )
            score.tracks.append(track)
        score.sort()  # miditok takes notes in order of onset, length and pitch
        return score

    @property
    def _has_programs(self) -> bool:
        return bool(self.tokenizer.config.use_programs)

    def decode(self, tokens: npt.NDArray[np.integer], *, strict: bool = False) -> Piece:
        """The piece that the tokens tell; tokens after End are not read.

        Without `strict` what makes no sense where it stands is passed over, so that any sequence
        of ids gives a valid piece.

        Raises:
            ValueError: `strict`, and the grammar does not allow the sequence.
        """
        if strict:
            check_tokens(self, tokens)
        first = len(self.vocabulary) - len(self._their_ids)
        tags: dict[str, str] = {}
        state, body = self._first_state, []
        for token in tokens.tolist():
            if token == END:
                break
            if token >= first and (after := int(self.grammar.next_state[state, token])) >= 0:
                state = after
                body.append(token)
            elif token < first and not body:
                key, _, value = self.vocabulary.names[token].removeprefix("Tag_").partition("=")
                if value:
                    tags[key] = value
        sequence = _miditok().TokSequence(ids=self._their_ids[np.array(body, int) - first].tolist())
        if self._has_programs:
            score = self.tokenizer.decode(sequence)
        else:
            score = self.tokenizer.decode([sequence], programs=[(self.program, False)])
        return self._piece(score, tags)

    @cached_property
    def _first_state(self) -> int:
        """Where the grammar stands behind the head."""
        state = int(self.grammar.next_state[0, START])
        for key in self.tag_keys:
            state = int(self.grammar.next_state[state, self.vocabulary.index[f"Tag_{key}="]])
        return state

    def _piece(self, score: Any, tags: Mapping[str, str]) -> Piece:
        config = self.tokenizer.config
        scale = TICKS_PER_QUARTER / score.ticks_per_quarter
        parts = [np.empty(0, NOTE)]
        for track in score.tracks:
            found = track.notes.numpy()
            notes = np.zeros(len(found["time"]), NOTE)
            notes["start"] = nearest_ticks(found["time"] * scale)
            end = nearest_ticks((found["time"] + found["duration"]) * scale)
            notes["end"] = np.maximum(end, notes["start"] + 1)
            notes["pitch"] = found["pitch"]
            notes["velocity"] = found["velocity"] if config.use_velocities else self.velocity
            notes["program"] = DRUMS if track.is_drum else track.program
            parts.append(notes)
        notes = np.concatenate(parts)
        notes["track"] = np.searchsorted(np.unique(notes["program"]), notes["program"])

        def tick(change: Any) -> int:
            return int(nearest_ticks(change.time * scale))

        return Piece(
            notes=one_at_a_time(notes),
            metres=regular_metres(
                (tick(change), change.numerator, change.denominator)
                for change in score.time_signatures
            ),
            tempos=regular_tempos((tick(change), round(change.qpm, 3)) for change in score.tempos)
            if config.use_tempos
            else (Tempo(0, self.tempo),),
            tags=tags,
        )

    @cached_property
    def grammar(self) -> Grammar:
        """Automaton of miditok's graph of types."""
        return build_grammar(("begin",), self._moves, len(self.vocabulary))

    def _moves(self, state: tuple[Any, ...]) -> Iterable[tuple[range, tuple[Any, ...]]]:
        """Which tokens may come in a state, and the state they lead to.

        A state is named by the kind that came last, and of Program tokens by the drums.
        """
        ids = self.vocabulary.ids
        graph = self.tokenizer.tokens_types_graph
        match state:
            case ("begin",):
                yield range(START, CONTINUE + 1), ("head", 0)
            case ("head", int(i)) if i < len(self.tag_keys):
                prefix = self.tag_keys[i] + "="
                for token, tag in zip(ids("Tag"), self.vocabulary.values("Tag")):
                    if tag.startswith(prefix):
                        yield range(token, token + 1), ("head", i + 1)
            case ("head", _):
                first = {"Bar"} if self.bar else {"TimeShift", *graph["TimeShift"]}
                yield from self._kinds(first)
                yield range(END, END + 1), ("end",)
            case ("end",):
                yield range(PAD, PAD + 1), ("end",)
            case ("after", "Program", drums):
                theirs = _PITCHED if drums else _DRUM_KINDS
                yield from self._kinds(set(graph["Program"]) - set(theirs))
            case ("after", kind, _):
                yield from self._kinds(graph[kind])
                # The piece may end where time may go on, and so not within a note.
                if {"Bar", "TimeShift", "Position"} & set(graph[kind]):
                    yield range(END, END + 1), ("end",)

    def _kinds(self, kinds: Iterable[str]) -> Iterable[tuple[range, tuple[Any, ...]]]:
        for kind in sorted(kinds):
            if found := self.vocabulary.ids(kind):  # not so miditok's special tokens
                yield found, ("after", kind, False)
        if "Program" in kinds and (kit := self.vocabulary.index.get(_KIT)):
            yield range(kit, kit + 1), ("after", "Program", True)


def _kind(name: str) -> str:
    return name.split("_", 1)[0]


def _unserialised(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of miditok as its constructor takes them, from what JSON made of them."""
    settings = dict(config)
    for name in ("beat_res", "beat_res_rest"):
        settings[name] = {tuple(map(int, k.split("_"))): v for k, v in config[name].items()}
    metres = config["time_signature_range"]
    settings["time_signature_range"] = {int(beat): counts for beat, counts in metres.items()}
    return settings


def _miditok() -> Any:
    """The package, imported when it is first needed, for most do without it.

    Raises:
        UserError: It is missing or too old.
    """
    if (miditok := sys.modules.get("miditok")) is None:
        # Its loaders would import torch, which processes that prepare a corpus do without; where
        # they cannot be imported miditok goes without them.
        loaders = "miditok.pytorch_data"
        sys.modules[loaders] = None  # type: ignore[assignment]
        try:
            miditok = import_module("miditok")
        except ImportError as error:
            raise UserError(_MISSING) from error
        finally:
            del sys.modules[loaders]
    if not hasattr(miditok, "TokSequence"):
        raise UserError(_MISSING)
    return miditok
