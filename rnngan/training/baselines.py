"""Held-out likelihood of a model beside what counting n-grams reaches on the same tokens."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np

from eval.ngrams import NGramModel
from rnngan.data.batches import MAX_HELD_OUT, held_out_batches
from rnngan.data.store import Store
from rnngan.files import write_atomically
from rnngan.objectives.likelihood import held_out_likelihood
from rnngan.progress import Say
from rnngan.training.checkpoint import Model
from rnngan.training.run import Run


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
    num_notes = sum(len(piece.notes) for piece in store.pieces("test", limit=MAX_HELD_OUT))
    found = []
    for order in orders:
        bits = NGramModel.fit(training, order=order, vocab_size=size).bits(test, allowed)
        found.append(
            Likelihood(
                name=f"{order}-gram" if order > 1 else "unigram",
                bits_per_token=float(bits.mean()),
                bits_per_note=float(bits.sum() / num_notes),
            )
        )
    return found


def network_likelihood(name: str, model: Model, store: Store) -> Likelihood:
    """A generator on the test split, computed in float32."""
    bits, num_tokens = held_out_likelihood(
        model.generator,
        held_out_batches(store, "test"),
        store.tokenizer.grammar,
        precision="float32",
    )
    num_notes = sum(len(piece.notes) for piece in store.pieces("test", limit=MAX_HELD_OUT))
    return Likelihood(name=name, bits_per_token=bits / num_tokens, bits_per_note=bits / num_notes)


def report_likelihoods(run: Run, store: Store, models: dict[str, Model], *, say: Say) -> None:
    """Print the table of unigram, 5-gram and these models, and keep it as `likelihood.json`."""
    found = ngram_likelihoods(store, (1, 5))
    for name, model in models.items():
        found.append(network_likelihood(name, model, store))
    say(f"{'held-out test tunes':>20}  bits per token  bits per note")
    for row in found:
        say(f"{row.name:>20}  {row.bits_per_token:14.4f}  {row.bits_per_note:13.4f}")
    data = json.dumps([asdict(row) for row in found], indent=1)
    write_atomically(run.folder / "likelihood.json", data.encode())
