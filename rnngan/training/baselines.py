"""Held-out likelihood of a model beside what counting n-grams reaches on the same tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from eval.ngrams import NGramModel
from rnngan.config import WITH_ENCODER
from rnngan.data.batches import MAX_HELD_OUT, division_of, held_out_batches, num_notes
from rnngan.data.store import Store
from rnngan.files import write_atomically
from rnngan.music.tokenizers.tuples import COLUMNS
from rnngan.objectives.likelihood import held_out_likelihood
from rnngan.objectives.squared_error import held_out_squared_errors
from rnngan.progress import Say
from rnngan.training.checkpoint import Model, TuplesModel
from rnngan.training.run import Run
from rnngan.training.seeds import seed_for

_NOT_COMPARED = {
    "seq2seq": "A seq2seq is told the melody, and counts what it writes to it alone.",
    "vae": "A vae's figures are bounds, of the bars that it keeps of a piece.",
    "autoencoder": "An autoencoder's figures are what it loses of the bars that it has read.",
}
"""Why some models' figures are not those of a model that writes whole pieces."""


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """Held-out negative log-likelihood; every token but Start is summed."""

    name: str
    bits_per_token: float
    bits_per_note: float


def ngram_likelihoods(store: Store, orders: tuple[int, ...]) -> list[Likelihood]:
    """Witten–Bell models on the test split, under the same grammar as the network.

    They count the training pieces as they stand: counting all transpositions besides makes them
    worse (docs/experiments.md).
    """
    size = len(store.tokenizer.vocabulary)
    training = [store.piece_tokens(int(i)) for i in store.indices("train")]
    test = [store.piece_tokens(int(i)) for i in store.indices("test", limit=MAX_HELD_OUT)]
    grammar = store.tokenizer.grammar
    allowed = [
        grammar.allowed[grammar.states_before(tokens[None], np.array([len(tokens)]))[0]]
        for tokens in test
    ]
    notes = sum(len(piece.notes) for piece in store.pieces("test", limit=MAX_HELD_OUT))
    found = []
    for order in orders:
        bits = NGramModel.fit(training, order=order, vocab_size=size).bits(test, allowed)
        found.append(
            Likelihood(
                name=f"{order}-gram" if order > 1 else "unigram",
                bits_per_token=float(bits.mean()),
                bits_per_note=float(bits.sum() / notes),
            )
        )
    return found


def network_likelihood(name: str, model: Model, store: Store) -> Likelihood:
    """A generator on the test split, computed in float32."""
    division = division_of(model.generator.config, store.codec)
    test = held_out_batches(store, "test", division=division)
    bits, num_tokens = held_out_likelihood(
        model.generator, test, store.tokenizer.grammar, precision="float32"
    )
    return Likelihood(
        name=name,
        bits_per_token=bits / num_tokens,
        bits_per_note=bits / num_notes(test, store.tokenizer),
    )


def report_likelihoods(run: Run, store: Store, models: dict[str, Model], *, say: Say) -> None:
    """Print the table of unigram, 5-gram and these models, and keep it as `likelihood.json`."""
    found = ngram_likelihoods(store, (1, 5))
    for name, model in models.items():
        found.append(network_likelihood(name, model, store))
    say(f"{'held-out test tunes':>20}  bits per token  bits per note")
    for row in found:
        say(f"{row.name:>20}  {row.bits_per_token:14.4f}  {row.bits_per_note:13.4f}")
    if run.config.generator.kind in WITH_ENCODER:
        say(_NOT_COMPARED[run.config.generator.kind])
    data = json.dumps([asdict(row) for row in found], indent=1)
    write_atomically(run.folder / "likelihood.json", data.encode())


@dataclass(frozen=True, kw_only=True)
class SquaredError:
    """Held-out squared error of the next note, of each column; columns have deviation 1."""

    name: str
    gap: float
    length: float
    frequency: float
    velocity: float


def report_squared_errors(
    run: Run, store: Store, models: Mapping[str, TuplesModel], *, say: Say
) -> None:
    """Print the table of two simple guesses and these models; keep it as `squared_error.json`."""
    batches = held_out_batches(store, "test")
    notes = [row[:length] for b in batches for row, length in zip(b.tokens, b.lengths)]
    after = np.concatenate([np.diff(row, axis=0, prepend=0) for row in notes])
    errors = {
        "average note": (np.concatenate(notes).astype(np.float64) ** 2).mean(0),
        "note before": (after.astype(np.float64) ** 2).mean(0),
    }
    seed = seed_for(run.config.seed, "held-out noise")
    for name, model in models.items():
        errors[name] = held_out_squared_errors(
            model.generator, batches, seed=seed, precision="float32"
        ).numpy()
    rows = [
        SquaredError(name=name, **dict(zip(COLUMNS, map(float, found))))
        for name, found in errors.items()
    ]
    say(f"{'held-out test tunes':>20}  squared error of {'  '.join(COLUMNS)}")
    for row in rows:
        figures = "  ".join(f"{getattr(row, name):{len(name)}.3f}" for name in COLUMNS)
        say(f"{row.name:>20}                   {figures}")
    data = json.dumps([asdict(row) for row in rows], indent=1)
    write_atomically(run.folder / "squared_error.json", data.encode())
