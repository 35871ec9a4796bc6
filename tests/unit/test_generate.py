"""From a model to tokens: what is asked for, and the ways to choose."""

import numpy as np
import pytest
import torch

from rnngan.config import GeneratorConfig
from rnngan.errors import UserError
from rnngan.generate import (
    Plan,
    check_attention,
    draw_attention,
    generate_beams,
    generate_tokens,
)
from rnngan.generator.registry import new_generator
from rnngan.music.tokenizers.events import Events, EventsConfig
from rnngan.music.vocabulary import END, START
from rnngan.training.checkpoint import Model

TUNES = Events(EventsConfig(metres=("2/4", "3/4"), lowest=60, highest=72))


@pytest.fixture(scope="module")
def model():
    return model_with(attention=8)


def model_with(**config):
    torch.manual_seed(0)
    settings = {"embedding_size": 8, "hidden_size": 12, "attention_heads": 2, **config}
    generator = new_generator(GeneratorConfig(**settings), len(TUNES.vocabulary)).eval()
    with torch.no_grad():
        generator.output.weight *= 5
        generator.output.bias[[END, TUNES.bar]] += 2
    return Model(generator=generator, tokenizer=TUNES, metrics={})


def bars_of(tokens):
    return int((np.asarray(tokens) == TUNES.bar).sum())


def test_a_plan_counts_bars_behind_those_of_the_prefix(model):
    prefix = [START, TUNES.vocabulary.index["Metre_2/4"], TUNES.bar, TUNES.bar]
    plan = Plan.of(model, num=1, bars=3, prefix=prefix, bars_before=2, top_k=4)
    assert (plan.decoding.min_bars, plan.decoding.max_bars, plan.decoding.top_k) == (5, 5, 4)
    assert plan.max_tokens == 1024 and plan.prefix == tuple(prefix)
    assert Plan.of(model, num=1, bars=100).max_tokens > 100 * 100
    free = Plan.of(model, num=1, max_tokens=50)
    assert (free.decoding.min_bars, free.decoding.max_bars, free.max_tokens) == (0, None, 50)
    rows = generate_tokens(model, num=4, seed=0, bars=3, prefix=prefix, bars_before=2)
    assert [bars_of(row) for row in rows] == [5] * 4
    assert all(row[:4].tolist() == prefix for row in rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num": 0}, "--num must be at least 1, got 0"),
        ({"bars": 0}, "--bars must be 1 to 1000, got 0"),
        ({"min_bars": 1001}, "--min-bars must be 1 to 1000, got 1001"),
        ({"max_bars": 0}, "--max-bars must be 1 to 1000, got 0"),
        ({"min_bars": 4, "max_bars": 3}, "--max-bars must be at least --min-bars, 4, got 3"),
        ({"bars": 4, "max_bars": 3}, "--bars is exact: leave out --min-bars and --max-bars"),
        ({"max_tokens": 1}, "--max-tokens must be above the 1 tokens that a piece begins with"),
        ({"repetition_penalty": -1.0}, "repetition_penalty must be above 0"),
    ],
)
def test_plans_that_make_no_sense(model, options, message):
    with pytest.raises(UserError, match=message):
        Plan.of(model, **{"num": 1, **options})


def test_beams_are_the_best_first_and_their_number_is_what_is_asked_for(model):
    four = generate_beams(model, num=4, beam=4, bars=2)
    assert four.log_probs == sorted(four.log_probs, reverse=True)  # all are of one length here
    assert len({tuple(row.tolist()) for row in four.tokens}) == 4
    assert all(bars_of(row) == 2 for row in four.tokens)
    two = generate_beams(model, num=2, beam=4, bars=2)
    assert [row.tolist() for row in two.tokens] == [row.tolist() for row in four.tokens[:2]]
    wide = generate_beams(model, num=1, beam=16, bars=2, length_penalty=0.0)
    narrow = generate_beams(model, num=1, beam=1, bars=2, length_penalty=0.0)
    assert wide.log_probs[0] >= narrow.log_probs[0]


def test_stochastic_beams_come_in_sets_of_their_own(model):
    """Sets are drawn a few at a time, and none depends on how many there are."""
    seven = generate_beams(model, num=40, beam=3, stochastic=True, seed=2, max_tokens=12)
    words = [tuple(row.tolist()) for row in seven.tokens]
    assert len(words) == 40
    for first in range(0, 39, 3):
        assert len(set(words[first : first + 3])) == 3
    assert words[:4] == [
        tuple(row.tolist())
        for row in generate_beams(
            model, num=4, beam=3, stochastic=True, seed=2, max_tokens=12
        ).tokens
    ]
    other = generate_beams(model, num=4, beam=3, stochastic=True, seed=3, max_tokens=12)
    assert [tuple(row.tolist()) for row in other.tokens] != words[:4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam": 0}, "--beam must be 1 to 1024, got 0"),
        ({"beam": 1025}, "--beam must be 1 to 1024, got 1025"),
        ({"beam": 2, "num": 3}, "--num must be at most --beam, 2"),
        ({"beam": 2, "length_penalty": -1.0}, "length_penalty must be at least 0"),
        ({"beam": 2, "stochastic": True, "seed": -1}, "seed and index must be 0 to"),
    ],
)
def test_beams_that_make_no_sense(model, options, message):
    with pytest.raises(UserError, match=message):
        generate_beams(model, **{"num": 2, **options})


def test_attention_needs_a_generator_that_has_some(model, tmp_path):
    (row,) = generate_tokens(model, num=1, seed=0, bars=4)
    draw_attention(model, row, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[1:4] == b"PNG"
    without = model_with(attention=0)
    for ask in (check_attention, lambda m: draw_attention(m, row, tmp_path / "b.png")):
        with pytest.raises(UserError, match="there is no attention to draw"):
            ask(without)
    assert not (tmp_path / "b.png").exists()
