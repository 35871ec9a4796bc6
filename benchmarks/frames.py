"""Negative log-likelihood per frame of the four piano-roll sets, beside published values.

    python benchmarks/frames.py --data FOLDER --work WORK --out benchmarks/frames.md
        [--sets jsb nottingham …] [--seeds 0 1 2]

The sets are those of Boulanger-Lewandowski, Bengio & Vincent, "Modeling temporal dependencies in
high-dimensional sequences", 2012, with their splits: FOLDER/boulanger_lewandowski/*.mat. A piece is
a sequence of frames, a frame a set of the 88 pitches of a piano.

What is summed. A frame is written as its pitches, highest first, and then one frame-end; nothing
else is a spelling of it, because before every softmax the tokens that cannot come are masked: a
pitch that is not below the one before it, or is not one of the 88. So the probabilities of all 2⁸⁸
sets add up to 1, and the NLL of a frame is the sum over all of its tokens, the frame-end included,
in nats. The first frame of a piece counts like any other; that a piece ends is not predicted, as it
is not in the literature.

The network is the project's own LSTM, and is told beside each token what the frames before and the
tokens of this frame say anyway: see `told_of`. Where networks are averaged, it is their
probabilities of every token.

Networks are kept in WORK, and their figures, too: begun again, it goes on where it was. The best
epoch is chosen on the validation pieces; a test set is looked at when all its networks are done.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import machine, shared_data, table
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from rnngan.config import GeneratorConfig, PretrainConfig
from rnngan.errors import UserError
from rnngan.files import write_atomically
from rnngan.generator.recurrent import RecurrentGenerator, State
from rnngan.generator.registry import CELLS
from rnngan.layers import LockedDropout, grammar_log_softmax
from rnngan.objectives.likelihood import autocast
from rnngan.training.pretrain import learning_rate_at, optimizer_of

Roll = NDArray[np.bool_]
"""Frames of a piece, `(frames, pitches)`."""
Integers = NDArray[np.int64]
Nats = NDArray[np.float64]

REACH = 24
"""Semitones around a pitch that the network is told of, and moves by."""
MATCHES = (0, 1, 2, 4, 8, 16)
"""Numbers of frames from which an earlier likeness counts as longer."""
PLACES = 8
"""Notes of a frame that are counted."""
CYCLES = (12, 16)
"""Frame numbers are told modulo these."""


@dataclass(frozen=True, kw_only=True)
class Spelling:
    """How frames become tokens: pitches from the highest down, then an end.

    Tokens `0` to `width − 1` are pitches; pitch `p` of a piece that is transposed by `key` is token
    `p + shift + key`. The last token is the end of a frame, and what stands before the first.

    Attributes:
        num_pitches: That a frame may hold.
        shift: Semitones by which a piece may be transposed, down or up.
    """

    num_pitches: int = 88
    shift: int = 6

    @property
    def width(self) -> int:
        """Pitches of all keys."""
        return self.num_pitches + 2 * self.shift

    @property
    def end(self) -> int:
        """The frame-end."""
        return self.width

    def range_in(self, key: int) -> slice:
        """Tokens of the pitches in a key."""
        return slice(self.shift + key, self.shift + key + self.num_pitches)

    def allowed(self, tokens: Tensor, keys: Tensor) -> Tensor:
        """What may follow each token, `(batch, time, width + 1)`.

        Args:
            tokens: `(batch, time)`.
            keys: Semitones by which the pieces are transposed, `(batch,)`.
        """
        names = torch.arange(self.width + 1)
        lowest = (self.shift + keys)[:, None, None]
        inside = (names >= lowest) & (names < lowest + self.num_pitches)
        return (inside & (names < tokens[..., None])) | (names == self.end)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A piece, spelt, and for each token to be written where it stands.

    Attributes:
        roll: Its frames.
        tokens: A frame-end, and then all of its tokens.
        frames: Number of the frame that is being written, one for each token but the first, like
            all that follows.
        places: How many notes of it there are so far.
        last: Token of the note before; at the beginning of a frame that of the highest note of the
            frame before, or of the middle of the keyboard.
        beside: Token of the note at this place of the frame before; `last` where there is none.
        likely: Number of the frame that followed the longest, and among those the latest, earlier
            likeness of the frames before this one; −1 for none.
        match: How long that likeness was, as a place in `MATCHES`.
    """

    roll: Roll
    tokens: Integers
    frames: Integers
    places: Integers
    last: Integers
    beside: Integers
    likely: Integers
    match: Integers


def likenesses(roll: Roll) -> tuple[Integers, Integers]:
    """For each frame, what followed the longest earlier likeness of the frames before it.

    Returns:
        Numbers of frames, −1 where the frame before is new; and how many frames were alike, at most
        as many as the last of `MATCHES`.
    """
    num = len(roll)
    kinds = np.unique(roll, axis=0, return_inverse=True)[1].reshape(-1)
    follows, lengths = np.full(num, -1), np.zeros(num, np.int64)
    alike = np.zeros(num, np.int64)  # alike[j]: equal frames up to frame f − 1 and up to frame j
    for f in range(1, num):
        longer = np.zeros(num, np.int64)
        longer[1:f] = alike[: f - 1] + 1
        longer[0] = 1
        alike = np.where(kinds == kinds[f - 1], longer, 0)
        earlier = np.minimum(alike[: f - 1], MATCHES[-1])
        if earlier.any():
            lengths[f] = earlier.max()
            follows[f] = f - 1 - earlier[::-1].argmax()
    return follows, lengths


def piece_of(roll: Roll, spelling: Spelling) -> Piece:
    """Spell a piece in its own key."""
    tokens, rows = [spelling.end], []
    before: list[int] = []
    for number, frame in enumerate(roll):
        notes = [int(pitch) + spelling.shift for pitch in np.flatnonzero(frame)[::-1]]
        last = before[0] if before else spelling.width // 2
        for place, token in enumerate([*notes, spelling.end]):
            beside = before[place] if place < len(before) else last
            rows.append((number, min(place, PLACES - 1), last, beside))
            tokens.append(token)
            last = token
        before = notes
    frames, places, last_notes, beside_notes = np.array(rows).T
    follows, lengths = likenesses(roll)
    return Piece(
        roll=roll,
        tokens=np.array(tokens),
        frames=frames,
        places=places,
        last=last_notes,
        beside=beside_notes,
        likely=follows[frames],
        match=np.searchsorted(MATCHES, lengths, side="right")[frames] - 1,
    )


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Pieces in some keys, `(batch, time)` unless said otherwise; names as in `Piece`.

    Attributes:
        rolls: A frame of silence, and then those of the piece, `(batch, 1 + frames, width)`.
        tokens: `(batch, time + 1)`.
        keys: `(batch,)`.
        mask: True where a token is inside its piece.
    """

    rolls: Tensor
    tokens: Tensor
    keys: Tensor
    mask: Tensor
    frames: Tensor
    places: Tensor
    last: Tensor
    beside: Tensor
    likely: Tensor
    match: Tensor


def batch_of(pieces: Sequence[Piece], keys: Sequence[int], spelling: Spelling) -> Batch:
    """Transpose pieces and put them side by side."""

    def beside_each_other(name: str, padding: int = 0) -> Tensor:
        rows = [torch.from_numpy(getattr(piece, name)) for piece in pieces]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding)

    num_frames = max(len(piece.roll) for piece in pieces)
    rolls = torch.zeros(len(pieces), 1 + num_frames, spelling.width)
    for row, piece, key in zip(rolls, pieces, keys):
        row[1 : 1 + len(piece.roll), spelling.range_in(key)] = torch.from_numpy(piece.roll).float()
    moves = torch.tensor(keys)[:, None]
    tokens = beside_each_other("tokens", spelling.end)
    return Batch(
        rolls=rolls,
        tokens=torch.where(tokens == spelling.end, tokens, tokens + moves),
        keys=torch.tensor(keys),
        mask=beside_each_other("frames", -1) >= 0,
        frames=beside_each_other("frames"),
        places=beside_each_other("places"),
        last=beside_each_other("last", spelling.shift) + moves,
        beside=beside_each_other("beside", spelling.shift) + moves,
        likely=beside_each_other("likely"),
        match=beside_each_other("match"),
    )


def around(rows: Tensor, centres: Tensor) -> Tensor:
    """What stands around a pitch: `(batch, time, 2 REACH + 1)` from rows `(batch, time, width)`."""
    places = centres[..., None] + torch.arange(2 * REACH + 1)
    return F.pad(rows, (REACH, REACH)).gather(2, places)


def width_of_told(spelling: Spelling) -> int:
    """Width of what `told_of` returns."""
    return 3 * spelling.width + 5 * (2 * REACH + 1) + PLACES + sum(CYCLES) + len(MATCHES)


def told_of(batch: Batch, window: slice, spelling: Spelling) -> Tensor:
    """What the network is told before it writes each token: `(batch, time, told)`.

    All of it follows from the tokens before: the frame before, what is written of this one, and
    what followed the longest earlier likeness, each as pitches and as intervals from the note
    before and (not for what is written) from the note at this place of the frame before; how many
    notes are written; the frame's number in cycles; and the length of the likeness.
    """
    row = torch.arange(len(batch.tokens))[:, None]
    frames, last, beside = (x[:, window] for x in (batch.frames, batch.last, batch.beside))
    before = batch.rolls[row, frames]
    # The frame being written, as far as its notes are not below the latest token.
    latest = batch.tokens[:, :-1][:, window, None]
    written = batch.rolls[row, frames + 1] * (torch.arange(spelling.width) >= latest)
    likely = batch.rolls[row, batch.likely[:, window] + 1]
    parts = [
        before,
        written,
        likely,
        around(before, last),
        around(before, beside),
        around(written, last),
        around(likely, last),
        around(likely, beside),
        F.one_hot(batch.places[:, window], PLACES),
        *(F.one_hot(frames % cycle, cycle) for cycle in CYCLES),
        F.one_hot(batch.match[:, window], len(MATCHES)),
    ]
    return torch.cat([part.float() for part in parts], 2)


class FrameGenerator(RecurrentGenerator):
    """A generator of frames that is told what `told_of` says, and scores moves besides pitches.

    To the score of each pitch it adds one of the interval from the note before, and one of that
    from the note at this place of the frame before, so that it need not learn a voice's step anew
    on every pitch. The source of its state is what it is told in the tokens that come, and the two
    notes: `(told, last, beside)`.

    Args:
        config: Of the network.
        spelling: Of the frames.
        told_size: Width to which what it is told is reduced.
        told_dropout: Dropout upon that.
    """

    def __init__(
        self, config: GeneratorConfig, spelling: Spelling, *, told_size: int, told_dropout: float
    ) -> None:
        super().__init__(config, spelling.width + 1, cell=CELLS[config.kind], told_size=told_size)
        self.spelling = spelling
        self.reduce = nn.Sequential(
            nn.Linear(width_of_told(spelling), told_size), nn.ReLU(), LockedDropout(told_dropout)
        )
        self.moves = nn.Linear(config.hidden_size + config.attention, 2 * (2 * REACH + 1))
        nn.init.zeros_(self.moves.weight)
        nn.init.zeros_(self.moves.bias)

    def _told(self, inputs: Tensor, tokens: Tensor, source: tuple[Tensor, ...]) -> Tensor:  # noqa: ARG002
        return torch.cat([inputs, self.reduce(source[0])], 2)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Scores of the next token; the state must bring its source."""
        hidden, state = self.hidden(tokens, state)
        logits = self.logits(hidden).float()
        # One more interval, whose score is 0, for those that are too large.
        moves = F.pad(self.moves(hidden).float().unflatten(2, (2, -1)), (0, 1))
        for scores, centres in zip(moves.unbind(2), state.source[1:]):
            interval = torch.arange(self.spelling.width) - centres[..., None]
            place = torch.where(interval.abs() > REACH, 2 * REACH + 1, interval + REACH)
            logits = logits + F.pad(scores.gather(2, place), (0, 1))
        return logits, state


def log_probs(
    network: FrameGenerator, batch: Batch, size: int = 1024
) -> Iterator[tuple[slice, Tensor]]:
    """Of all tokens at every time, `(batch, time, width + 1)`, −inf where one cannot come.

    A window of so many tokens at a time, with the times that it covers; the state goes on from one
    to the next, its gradient does not.
    """
    state = network.start(len(batch.tokens))
    for start in range(0, batch.mask.shape[1], size):
        window = slice(start, start + size)
        told = told_of(batch, window, network.spelling)
        source = (told, batch.last[:, window], batch.beside[:, window])
        tokens = batch.tokens[:, :-1][:, window]
        logits, state = network(tokens, state._replace(source=source))
        state = state._replace(source=()).map(Tensor.detach)
        yield window, grammar_log_softmax(logits, network.spelling.allowed(tokens, batch.keys))


@torch.no_grad()
def frame_nats(
    mixtures: Sequence[Sequence[FrameGenerator]], pieces: Sequence[Piece], *, batch_size: int = 16
) -> list[list[Nats]]:
    """NLL of each frame, of each piece, under each mixture of networks.

    A mixture gives every token the mean of the probabilities that its networks give it.
    """
    networks = list(dict.fromkeys(network.eval() for mixture in mixtures for network in mixture))
    order = sorted(range(len(pieces)), key=lambda i: len(pieces[i].frames))
    found: list[list[Nats]] = [[np.empty(0)] * len(pieces) for _ in mixtures]
    for start in range(0, len(order), batch_size):
        group = order[start : start + batch_size]
        batch = batch_of([pieces[i] for i in group], [0] * len(group), networks[0].spelling)
        parts: list[list[Tensor]] = [[] for _ in mixtures]
        for steps in zip(*(log_probs(network, batch) for network in networks)):
            given = {
                network: scores.gather(2, batch.tokens[:, 1:][:, window, None])[..., 0].double()
                for network, (window, scores) in zip(networks, steps)
            }
            for part, mixture in zip(parts, mixtures):
                together = torch.stack([given[network] for network in mixture]).logsumexp(0)
                part.append(math.log(len(mixture)) - together)
        for nats, part in zip(found, parts):
            for i, row in zip(group, torch.cat(part, 1).numpy()):
                frames = pieces[i].frames
                nats[i] = np.bincount(frames, row[: len(frames)])
    return found


def pooled(nats: Sequence[Nats]) -> float:
    """Mean over all frames of all pieces."""
    return float(np.concatenate(nats).mean())


def by_piece(nats: Sequence[Nats]) -> float:
    """Mean over the pieces of the mean over their frames."""
    return float(np.mean([of_piece.mean() for of_piece in nats]))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the networks of a set are made and trained.

    Attributes:
        hidden_size: Units of a layer.
        num_layers: Of LSTM.
        attention: Width of the attention over all that was written before; 0 for none.
        dropout: Between layers and before the output.
        input_dropout: On the embedded tokens and on what is told beside them.
        epochs: Passes over the training pieces.
        batch_size: Pieces per batch, of about one length.
        window: Tokens of each per update, and how far its gradient runs back.
        learning_rate: At first; it falls to a hundredth on a cosine.
        weight_decay: AdamW's, on matrices only.
        transpose_rate: Share of the pieces that are transposed, by up to six semitones.
    """

    hidden_size: int = 300
    num_layers: int = 1
    attention: int = 0
    dropout: float = 0.5
    input_dropout: float = 0.25
    epochs: int = 60
    batch_size: int = 16
    window: int = 1024
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    transpose_rate: float = 0.9

    def network(self, spelling: Spelling) -> FrameGenerator:
        """A fresh one, drawn from torch's own random numbers."""
        config = GeneratorConfig(
            kind="lstm",
            embedding_size=64,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            embedding_dropout=self.input_dropout,
            layer_dropout=self.dropout,
            output_dropout=self.dropout,
            attention=self.attention,
        )
        return FrameGenerator(config, spelling, told_size=128, told_dropout=self.input_dropout)


GRADIENT_CLIP = 0.5
AVERAGING = 0.995
"""Share of itself that the running mean of the weights keeps per update."""
NUM_VALIDATIONS = 8


def training_batches(
    pieces: Sequence[Piece], recipe: Recipe, spelling: Spelling, random: np.random.Generator
) -> Iterator[Batch]:
    """One epoch: pieces of about one length together, some of them transposed."""
    lengths = np.array([len(piece.frames) for piece in pieces])
    order = np.argsort(lengths * random.uniform(0.9, 1.1, len(pieces)))
    groups = [order[i : i + recipe.batch_size] for i in range(0, len(order), recipe.batch_size)]
    for i in random.permutation(len(groups)):
        num = len(groups[i])
        keys = random.integers(-spelling.shift, spelling.shift + 1, num)
        keys *= random.random(num) < recipe.transpose_rate
        yield batch_of([pieces[j] for j in groups[i]], keys.tolist(), spelling)


def trained(
    recipe: Recipe,
    training: Sequence[Piece],
    validation: Sequence[Piece],
    *,
    spelling: Spelling,
    seed: int,
) -> FrameGenerator:
    """The running mean of a network's weights, as it was in its best epoch."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    network = recipe.network(spelling)
    mean = copy.deepcopy(network)
    best, best_weights = math.inf, mean.state_dict()
    optimizer = optimizer_of(
        network, learning_rate=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    num_batches = math.ceil(len(training) / recipe.batch_size)
    schedule = PretrainConfig(
        learning_rate=recipe.learning_rate, steps=recipe.epochs * num_batches, warmup_steps=20
    )
    done, updates, started = 0, 0, time.monotonic()
    validate_at = {round((i + 1) * recipe.epochs / NUM_VALIDATIONS) for i in range(NUM_VALIDATIONS)}
    for epoch in range(1, recipe.epochs + 1):
        network.train()
        for batch in training_batches(training, recipe, spelling, random):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(schedule, done, 0)
            done += 1
            with autocast("auto"):
                for window, scores in log_probs(network, batch, recipe.window):
                    mask = batch.mask[:, window]
                    targets = batch.tokens[:, 1:][:, window][mask]
                    # Not the mean: of the last window few tokens are left.
                    first = batch.mask[:, : recipe.window].sum()
                    loss = F.nll_loss(scores[mask], targets, reduction="sum") / first
                    optimizer.zero_grad()
                    loss.backward()
                    nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_CLIP)
                    optimizer.step()
                    updates += 1
                    # At first the mean is over few updates, or it would keep the first weights.
                    keep = min(AVERAGING, updates / (updates + 10))
                    with torch.no_grad():
                        for average, now in zip(mean.parameters(), network.parameters()):
                            average.lerp_(now, 1 - keep)
        if epoch in validate_at:
            (nats,) = frame_nats([[mean]], validation)
            print(
                f"  seed {seed}, epoch {epoch}: {pooled(nats):.4f} nats per validation frame, "
                f"{time.monotonic() - started:.0f} s",
                flush=True,
            )
            if pooled(nats) < best:
                best, best_weights = pooled(nats), copy.deepcopy(mean.state_dict())
    mean.load_state_dict(best_weights)
    return mean


@dataclass(frozen=True, kw_only=True)
class PianoRolls:
    """A set.

    Attributes:
        file: Its name.
        published: Nats per test frame, in the order of `PUBLISHED`.
        recipe: Of our networks.
        seeds: Of the networks, unless `--seeds` says otherwise.
    """

    file: str
    published: tuple[str, ...]
    recipe: Recipe
    seeds: Sequence[int] = (0,)


PUBLISHED = ("LSTM", "TCN", "RNN-NADE", "LSTM-RTRBM")
SETS = {
    "jsb": PianoRolls(
        file="JSB_Chorales.mat",
        published=("8.67", "8.10", "5.56", "4.72"),
        recipe=Recipe(epochs=60),
        seeds=(0, 1),
    ),
    "nottingham": PianoRolls(
        file="Nottingham.mat",
        published=("3.20", "3.07", "2.31", "–"),
        recipe=Recipe(
            dropout=0.3,
            input_dropout=0.1,
            epochs=6,
            window=256,
            weight_decay=0.02,
            transpose_rate=0.3,
        ),
    ),
    "musedata": PianoRolls(
        file="MuseData.mat",
        published=("6.23", "–", "5.60", "5.54"),
        recipe=Recipe(
            dropout=0.4,
            input_dropout=0.1,
            epochs=3,
            window=256,
            weight_decay=0.02,
            transpose_rate=0.5,
        ),
    ),
    "piano-midi": PianoRolls(
        file="Piano_midi.mat",
        published=("9.03", "–", "7.05", "–"),
        recipe=Recipe(
            dropout=0.2,
            input_dropout=0.1,
            epochs=3,
            window=128,
            transpose_rate=0.5,
        ),
    ),
}


class Trial:
    """One set: its pieces, its networks, and their figures.

    Args:
        name: Of the set, a key of `SETS`.
        data: Folder that holds `boulanger_lewandowski`.
        work: Folder that keeps networks and figures.
        seeds: Of the networks.
    """

    def __init__(self, name: str, data: Path, work: Path, seeds: Sequence[int]) -> None:
        self.name, self.set, self.seeds = name, SETS[name], seeds
        self.recipe, self.work, self.spelling = self.set.recipe, work, Spelling()
        self.rolls = read_rolls(data / "boulanger_lewandowski" / self.set.file)
        self.pieces = {
            split: [piece_of(roll, self.spelling) for roll in rolls]
            for split, rolls in self.rolls.items()
        }

    def network(self, seed: int) -> FrameGenerator:
        """The network of a seed, trained now if need be."""
        path = self.work / f"{self.name}-{seed}.pt"
        network = self.recipe.network(self.spelling)
        if path.exists():
            kept = torch.load(path, weights_only=True)
            if kept["recipe"] != repr(self.recipe):
                raise UserError(
                    f"{path} was trained with {kept['recipe']}; remove it to train anew"
                )
            network.load_state_dict(kept["weights"])
            return network
        network = trained(
            self.recipe,
            self.pieces["train"],
            self.pieces["valid"],
            spelling=self.spelling,
            seed=seed,
        )
        kept = {"weights": network.state_dict(), "recipe": repr(self.recipe)}
        buffer = io.BytesIO()
        torch.save(kept, buffer)
        write_atomically(path, buffer.getvalue())
        return network

    def figures(self, split: str) -> dict[str, list[Nats]]:
        """Of each mixture and piece the NLL of every frame; from their file, if measured before."""
        path = self.work / f"{self.name}-{split}.json"
        what = f"{self.recipe}, seeds {list(self.seeds)}"
        kept = json.loads(path.read_text()) if path.exists() else {}
        if kept.get("what") != what:
            mixtures = {f"seed {seed}": [self.network(seed)] for seed in self.seeds}
            if len(self.seeds) > 1:
                mixtures["averaged"] = [network for (network,) in mixtures.values()]
            found = frame_nats(list(mixtures.values()), self.pieces[split])
            nats = {
                name: [list(piece) for piece in of_all] for name, of_all in zip(mixtures, found)
            }
            kept = {"what": what, "nats": nats}
            write_atomically(path, json.dumps(kept).encode())
        return {name: list(map(np.array, pieces)) for name, pieces in kept["nats"].items()}


def read_rolls(path: Path) -> dict[str, list[Roll]]:
    """Rolls of the three splits `train`, `valid` and `test`; pitch 0 is MIDI's 21."""
    from scipy.io import loadmat

    data = loadmat(path)
    splits = ("train", "valid", "test")
    return {split: [roll.astype(bool) for roll in data[f"{split}data"][0]] for split in splits}


def leaked(training: Sequence[Roll], held_out: Sequence[Roll]) -> list[int]:
    """Numbers of the held-out pieces that are, frame for frame, training pieces."""
    known = {(roll.shape, roll.tobytes()) for roll in training}
    return [i for i, roll in enumerate(held_out) if (roll.shape, roll.tobytes()) in known]


def without(nats: Sequence[Nats], numbers: Sequence[int]) -> list[Nats]:
    """All pieces but those of these numbers."""
    return [of_piece for i, of_piece in enumerate(nats) if i not in numbers]


def rows_of(trial: Trial) -> list[list[str]]:
    """Figures of each mixture on the held-out pieces."""
    found = {split: trial.figures(split) for split in ("valid", "test")}
    known = leaked(trial.rolls["train"], trial.rolls["test"])
    rows = []
    for name in found["test"]:
        valid, test = (found[split][name] for split in ("valid", "test"))
        rows.append(
            [
                trial.name,
                name,
                f"{pooled(valid):.3f}",
                f"{pooled(test):.3f}",
                f"{by_piece(test):.3f}",
                f"{pooled(without(test, known)):.3f}" if known else "none leaked",
            ]
        )
    return rows


def beside_published(trial: Trial) -> list[str]:
    """The published figures, and ours on the test pieces."""
    test = trial.figures("test")
    alone = [pooled(test[f"seed {seed}"]) for seed in trial.seeds]
    single = f"{statistics.mean(alone):.2f}"
    if len(alone) > 1:
        single += f" ({min(alone):.2f} to {max(alone):.2f})"
    return [
        trial.name,
        *trial.set.published,
        single,
        f"{pooled(test['averaged']):.2f}" if len(alone) > 1 else "–",
    ]


def described(trial: Trial) -> list[str]:
    """Pieces and frames of the splits, the leaks, and the recipe."""
    sizes = [
        f"{len(rolls)} pieces, {sum(map(len, rolls)):,} frames" for rolls in trial.rolls.values()
    ]
    leaks = []
    for split in ("valid", "test"):
        numbers = leaked(trial.rolls["train"], trial.rolls[split])
        leaks.append(", ".join(f"number {i}" for i in numbers) or "none")
    recipe = trial.recipe
    return [
        trial.name,
        *sizes,
        *leaks,
        f"{sum(p.numel() for p in trial.network(trial.seeds[0]).parameters()):,}",
        f"{recipe.hidden_size}",
        f"{recipe.dropout:g} and {recipe.input_dropout:g}",
        f"{recipe.epochs}",
        f"{recipe.transpose_rate:g}",
    ]


def report(trials: Sequence[Trial]) -> str:
    """All tables."""
    return "\n\n".join(
        [
            "# Likelihood of piano-roll frames",
            machine(f"torch {torch.__version__}, {torch.get_num_threads()} threads"),
            INTRODUCTION,
            "## Beside published values",
            "Nats per test frame, all frames pooled. LSTM: Chung et al. 2014; TCN: Bai, Kolter & "
            "Koltun 2018; RNN-NADE: Boulanger-Lewandowski et al. 2012; LSTM-RTRBM: Lyu et al. "
            "2015.",
            table(
                ["set", *PUBLISHED, "ours, one network", "ours, averaged"],
                [beside_published(trial) for trial in trials],
            ),
            "## Every figure",
            table(
                [
                    "set", "networks", "validation", "test", "test, mean over pieces",
                    "test without leaked pieces",
                ],
                [row for trial in trials for row in rows_of(trial)],
            ),
            "## Sets and recipes",
            "Leaked pieces are those that are, frame for frame, training pieces too; numbers begin "
            "at 0.",
            table(
                [
                    "set", "training", "validation", "test", "leaked, validation", "leaked, test",
                    "weights", "hidden", "dropout, and on inputs", "epochs", "transposed",
                ],
                [described(trial) for trial in trials],
            ),
        ]
    )  # fmt: skip


INTRODUCTION = """A frame is a set of the 88 pitches; it is written as its pitches, highest first,
and a frame-end, and the NLL of a frame is the sum over all of these tokens, the frame-end included,
in nats. Tokens that cannot come are masked before the softmax, so that each set has one spelling
and the probabilities of all sets add up to 1. The first frame of a piece counts like any other; the
end of a piece is not predicted. Networks are the project's LSTM, told beside each token what its
past says anyway (`told_of` in the script), with dropout, and a running mean of the weights;
training pieces are transposed; the epoch is chosen on the validation pieces, and the test pieces
were read once. Averaged are the probabilities that the networks of all seeds give to a token."""


def main() -> None:
    """Train what is missing, and print, or write, the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder that holds boulanger_lewandowski")
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps everything")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, help="of the networks of every set")
    options = parser.parse_args()
    data = shared_data(options.data)
    if data is None:
        return
    options.work.mkdir(parents=True, exist_ok=True)
    trials = []
    for name in options.sets:
        print(name, flush=True)
        trials.append(Trial(name, data, options.work, options.seeds or SETS[name].seeds))
        for seed in trials[-1].seeds:
            trials[-1].network(seed)
    text = report(trials) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
