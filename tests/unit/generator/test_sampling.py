from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rnngan.config import GeneratorConfig
from rnngan.errors import UserError
from rnngan.generator import fast
from rnngan.generator.fast import FastStepper
from rnngan.generator.registry import new_generator
from rnngan.generator.sampling import (
    Decoding,
    _next_allowed,
    drawing_log_probs,
    ends_repeated_ngram,
    penalised,
    sample,
    truncated,
    uniforms,
)
from rnngan.music.piece import Metre, Piece
from rnngan.music.tokenizers.events import Events, EventsConfig
from rnngan.music.tokenizers.summary import Summary
from rnngan.music.vocabulary import CONTINUE, END, PAD, START

TUNES = Events.fit(
    Summary.of(
        [
            Piece.from_rows([(0, 24, 60), (24, 36, 72)]),
            Piece.from_rows([(0, 12, 65)], metres=(Metre(0, 6, 8),)),
        ]
    )
)
BAND = Events(
    EventsConfig(
        metres=("4/4", "3/4"),
        lowest=40,
        highest=80,
        programs=(0, 32, 128),
        velocities=(40, 80, 120),
        tempos=(90.0, 120.0),
        tags=("style=", "style=jig", "style=reel", "mode=", "mode=dorian"),
    )
)
DRUMS = Events(EventsConfig(metres=("2/4",), lowest=60, highest=60, programs=(128,)))
PLAIN = Events(EventsConfig(metres=("4/4",), lowest=55, highest=90))
TOKENIZERS = {"tunes": TUNES, "band": BAND, "drums": DRUMS, "plain": PLAIN}


def decided(tokenizer, seed=0, scale=30.0, closing=3.0, **config):
    """A generator with random weights and clear preferences, inclined to close bars and pieces."""
    torch.manual_seed(seed)
    settings = {"embedding_size": 8, "hidden_size": 12, "attention": 4, "attention_heads": 2}
    settings |= config
    generator = new_generator(GeneratorConfig(**settings), len(tokenizer.vocabulary))
    with torch.no_grad():
        generator.embedding.weight *= 10
        if generator.attention is not None:
            generator.attention.of_tokens.weight /= 10
        generator.output.weight *= scale / (10 if generator.config.tied else 1)
        generator.output.bias[[END, tokenizer.bar]] += closing
    return generator.eval()


def pieces_of(samples):
    return [
        tokens[:length].numpy() for tokens, length in zip(samples.tokens, samples.lengths.tolist())
    ]


def assert_sound(samples, tokenizer, max_length):
    """Lengths, End and padding are as promised and the grammar allows every token."""
    assert samples.tokens.dtype == samples.lengths.dtype == torch.long
    assert samples.tokens.shape[1] == samples.lengths.max() <= max_length
    for row, tokens in zip(samples.tokens, pieces_of(samples)):
        assert tokenizer.grammar.first_error(tokens) is None
        assert (tokens[-1] == END) != (len(tokens) == max_length and END not in tokens)
        assert END not in tokens[:-1]
        assert (row[len(tokens) :] == PAD).all()


# --- What the grammar and the settings promise


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 1000),
    temperature=st.sampled_from([0.01, 0.8, 1.0, 3.0, 100.0]),
    truncation=st.sampled_from([{}, {"top_k": 1}, {"top_k": 3, "top_p": 0.5}, {"top_p": 0.95}]),
    precision=st.sampled_from(["auto", "bfloat16", "float32"]),
    max_length=st.integers(2, 90),
)
def test_samples_obey_the_grammar(name, seed, temperature, truncation, precision, max_length):
    tokenizer = TOKENIZERS[name]
    samples = sample(
        decided(tokenizer, seed),
        tokenizer.grammar,
        uniforms(seed, range(5), max_length),
        Decoding(temperature=temperature, **truncation),
        precision=precision,
    )
    assert_sound(samples, tokenizer, max_length)
    for tokens in pieces_of(samples):
        tokenizer.decode(tokens, strict=True)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), num_bars=st.integers(1, 5))
def test_num_bars_is_exact(name, seed, num_bars):
    tokenizer = TOKENIZERS[name]
    samples = sample(
        decided(tokenizer, seed, scale=3.0, closing=4.0),
        tokenizer.grammar,
        uniforms(seed, range(6), 600),
        Decoding(min_bars=num_bars, max_bars=num_bars),
        bar=tokenizer.bar,
    )
    assert_sound(samples, tokenizer, 600)
    for tokens in pieces_of(samples):
        assert tokens[-1] == END
        assert np.count_nonzero(tokens == tokenizer.bar) == num_bars


@pytest.mark.parametrize("num_bars", [2, 4])
def test_bars_of_the_prefix_count(num_bars):
    index = TUNES.vocabulary.index
    names = ("Metre_4/4", "Bar", "Position_0", "Pitch_60", "Duration_24", "Bar")
    prefix = [CONTINUE, *(index[name] for name in names)]
    samples = sample(
        decided(TUNES, scale=3.0, closing=4.0),
        TUNES.grammar,
        uniforms(0, range(8), 800),
        Decoding(min_bars=num_bars, max_bars=num_bars),
        prefix=prefix,
        bar=TUNES.bar,
    )
    assert (samples.tokens[:, : len(prefix)] == torch.tensor(prefix)).all()
    assert_sound(samples, TUNES, 800)
    assert ((samples.tokens == TUNES.bar).sum(1) == num_bars).all()


@pytest.mark.parametrize("number", [0.0, 1 - 2**-24, 1.0])
@pytest.mark.parametrize("temperature", [1e-300, 1.0])
def test_extreme_draws_find_a_likely_token(number, temperature):
    """Those next to 0 and 1, where shares that vanish in float32 lie beside them."""
    generator = decided(BAND)
    ids = BAND.vocabulary.ids
    kinds = [ids(kind) for kind in ("Pitch", "Drum", "Duration", "Velocity")]
    unlikely = [token for kind in kinds for token in (kind[0], kind[-1])]
    with torch.no_grad():
        generator.output.bias[unlikely] -= 1e4
    style, mode = BAND.vocabulary.index["Tag_style="], BAND.vocabulary.index["Tag_mode="]
    head = [START, style, mode, ids("Metre")[0], ids("Tempo")[0]]
    samples = sample(
        generator,
        BAND.grammar,
        np.full((3, 80), number),
        Decoding(temperature=temperature, min_bars=2, max_bars=2),
        prefix=[*head, BAND.bar, ids("Position")[0], ids("Program")[0]],
        bar=BAND.bar,
    )
    assert_sound(samples, BAND, 80)
    assert not np.isin(samples.tokens.numpy(), unlikely).any()


def test_found_tokens_are_made_allowed():
    """Whatever the search in the distribution function finds, from 0 to the number of tokens."""
    allowed = np.array([[False, True, False, True, False], [True, False, False, False, False]])
    expected = [[1, 1, 3, 3, 3, 3], [0, 0, 0, 0, 0, 0]]
    assert _next_allowed(allowed).T.tolist() == expected


def test_cold_samples_are_the_likeliest_tokens():
    generator = decided(BAND)
    draws = uniforms(0, range(2), 60)
    cold = sample(generator, BAND.grammar, draws, Decoding(temperature=1e-12), precision="float32")
    tokens = cold.tokens[:1]
    assert torch.equal(tokens, cold.tokens[1:])
    logits, _ = generator(tokens[:, :-1])
    states = BAND.grammar.states_before(tokens.numpy(), cold.lengths[:1].numpy())[:, 1:]
    allowed = torch.from_numpy(BAND.grammar.allowed[states])
    likeliest = logits.masked_fill(~allowed, -torch.inf).argmax(-1)
    length = int(cold.lengths[0])
    assert torch.equal(likeliest[:, : length - 1], tokens[:, 1:length])


# --- Random numbers


def test_uniforms_follow_from_seed_and_index_alone():
    table = uniforms(7, [3, 0, 2**40], 50)
    assert np.array_equal(table[2], uniforms(7, [2**40], 50)[0])
    assert np.array_equal(table[:, :20], uniforms(7, [3, 0, 2**40], 20))
    assert table.min() >= 0 and table.max() < 1
    others = np.concatenate([table, uniforms(8, [3, 0, 2**40], 50), uniforms(3, [7], 50)])
    assert len(np.unique(others[:, 0])) == 7


def test_uniforms_are_uniform_and_independent():
    """Fixed seed; a sound generator would fail for one seed in a thousand."""
    table = uniforms(1, range(400), 50)
    assert stats.kstest(table.ravel(), "uniform").pvalue > 0.0005
    neighbours = stats.pearsonr(table[:-1].ravel(), table[1:].ravel())
    assert neighbours.pvalue > 0.0005


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (0, -1), (2**64, 0)])
def test_uniforms_refuse_what_is_no_64_bit_number(seed, index):
    with pytest.raises(UserError, match="2\\^64"):
        uniforms(seed, [index], 4)


def test_same_seed_same_tokens_and_each_index_its_own():
    generator = decided(BAND)
    first = sample(generator, BAND.grammar, uniforms(5, range(6), 100))
    again = sample(generator, BAND.grammar, uniforms(5, range(6), 100))
    assert torch.equal(first.tokens, again.tokens)
    assert len({tuple(tokens) for tokens in pieces_of(first)}) == 6
    other = sample(generator, BAND.grammar, uniforms(6, range(6), 100))
    assert not {tuple(t) for t in pieces_of(first)} & {tuple(t) for t in pieces_of(other)}


# --- Agreement with the model


def plain_loop(generator, grammar, draws, temperature):
    """One step of `nn.LSTM` at a time, float64 from the logits on.

    Also says where a draw is so near a border that rounding may decide (and all that follows is
    then open): `(num, time)`.
    """
    num, max_length = draws.shape
    tokens = np.full((num, max_length), PAD)
    tokens[:, 0] = START
    open_ = np.zeros((num, max_length), dtype=bool)
    states = grammar.next_state[0, tokens[:, 0]]
    ended = np.zeros(num, dtype=bool)
    memory = None
    for time in range(1, max_length):
        with torch.no_grad():
            logits, memory = generator.step(torch.from_numpy(tokens[:, time - 1]), memory)
        scores = np.where(grammar.allowed[states], logits.double().numpy() / temperature, -np.inf)
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        cdf = np.cumsum(shares / shares.sum(axis=1, keepdims=True), axis=1)
        number = draws[:, time : time + 1]
        chosen = np.minimum((cdf <= number).sum(axis=1), len(cdf[0]) - 1)
        open_[:, time] = open_[:, time - 1] | (np.abs(cdf - number).min(axis=1) < 3e-6)
        tokens[:, time] = np.where(ended, PAD, chosen)
        states = grammar.next_state[states, tokens[:, time]]
        ended |= tokens[:, time] == END
    return tokens, open_


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("name", "num", "temperature", "config"),
    [
        ("plain", 1, 1.0, {}),
        ("tunes", 16, 1.0, {"num_layers": 1}),
        ("band", 24, 0.7, {"tied": True}),
        ("band", 5, 1.3, {"num_layers": 3, "embedding_size": 5}),
        ("tunes", 1, 1.0, {"attention": 0}),
        ("band", 24, 0.7, {"attention": 0, "tied": True}),
    ],
)
def test_float32_is_the_plain_loop_token_for_token(
    monkeypatch, packed, name, num, temperature, config
):
    """Batches are large enough that rows end, and are dropped, at different times."""
    if not packed:
        monkeypatch.setattr(fast, "_HAS_PACKED_LSTM", False)
    tokenizer = TOKENIZERS[name]
    generator = decided(tokenizer, closing=0.0, **config)
    draws = uniforms(3, range(num), 100)
    decoding = Decoding(temperature=temperature)
    samples = sample(generator, tokenizer.grammar, draws, decoding, precision="float32")
    expected, open_ = plain_loop(generator, tokenizer.grammar, draws, temperature)
    time = samples.tokens.shape[1]
    assert (expected[:, time:] == PAD).all()
    same = samples.tokens.numpy() == expected[:, :time]
    assert (same | open_[:, :time]).all()
    assert same.mean() > 0.8  # else too much was left open to show anything


def test_a_piece_depends_on_its_own_numbers_alone():
    generator = decided(BAND)
    together = sample(generator, BAND.grammar, uniforms(2, range(9), 80), precision="float32")
    for i in range(9):
        alone = sample(generator, BAND.grammar, uniforms(2, [i], 80), precision="float32")
        assert np.array_equal(pieces_of(together)[i], pieces_of(alone)[0])


def first_two_shares(generator, tokenizer, prefix, temperature):
    """Probability of every pair of tokens behind the prefix: `(vocab, vocab)`."""
    grammar, vocab_size = tokenizer.grammar, len(tokenizer.vocabulary)
    state = 0
    for token in prefix:
        state = grammar.next_state[state, token]

    def shares(logits, state):
        allowed = torch.from_numpy(grammar.allowed[state])
        scores = (logits.double() / temperature).masked_fill(~allowed, -torch.inf)
        return scores.softmax(-1).numpy()

    with torch.no_grad():
        logits, _ = generator(torch.tensor([prefix]))
        first = shares(logits[0, -1], state)
        pairs = np.zeros((vocab_size, vocab_size))
        for token in np.flatnonzero(first):
            logits, _ = generator(torch.tensor([[*prefix, token]]))
            pairs[token] = first[token] * shares(logits[0, -1], grammar.next_state[state, token])
    return pairs


def chi_square_p_value(counts, shares):
    """Cells that expect fewer than 5 are taken together."""
    expected = counts.sum() * shares
    large = expected >= 5
    observed = np.append(counts[large], counts[~large].sum())
    wanted = np.append(expected[large], expected[~large].sum())
    return stats.chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue


def test_tokens_come_as_often_as_the_model_says():
    """Chi-square over pairs of tokens; a sound sampler would fail for one seed in ten thousand."""
    generator, temperature = decided(TUNES, scale=8.0), 0.8
    index = TUNES.vocabulary.index
    prefix = [START, index["Metre_4/4"], index["Bar"], index["Position_0"]]
    draws = uniforms(0, range(20_000), len(prefix) + 2)
    shares = first_two_shares(generator, TUNES, prefix, temperature)

    def counts(temperature=temperature):
        decoding = Decoding(temperature=temperature)
        samples = sample(
            generator, TUNES.grammar, draws, decoding, prefix=prefix, precision="float32"
        )
        table = np.zeros(shares.shape)
        first, second = samples.tokens[:, len(prefix) :].T.numpy()
        np.add.at(table, (first, second), 1)
        return table

    assert (20_000 * shares >= 5).sum() > 200
    assert chi_square_p_value(counts(), shares) > 1e-4
    # What a wrong sampler would get:
    assert chi_square_p_value(counts(temperature=1.0), shares) < 1e-8
    shifted = np.roll(counts(), 1, axis=1)
    assert chi_square_p_value(shifted, shares) < 1e-8


# --- Truncation


@pytest.mark.parametrize(
    ("top_k", "top_p", "kept"),
    [
        (0, 1.0, [0.1, 0.4, 0.2, 0.0, 0.3]),
        (2, 1.0, [0, 4 / 7, 0, 0, 3 / 7]),
        (1, 1.0, [0, 1, 0, 0, 0]),
        (9, 1.0, [0.1, 0.4, 0.2, 0.0, 0.3]),
        (0, 0.1, [0, 1, 0, 0, 0]),
        (0, 0.41, [0, 4 / 7, 0, 0, 3 / 7]),
        (0, 0.71, [0, 4 / 9, 2 / 9, 0, 3 / 9]),
        (3, 0.5, [0, 4 / 7, 0, 0, 3 / 7]),  # half of what the three likeliest have, 0.9
        (2, 0.5, [0, 1, 0, 0, 0]),
    ],
)
def test_truncation_by_hand(top_k, top_p, kept):
    probs = torch.tensor([[0.1, 0.4, 0.2, 0.0, 0.3]])
    torch.testing.assert_close(
        truncated(probs, top_k=top_k, top_p=top_p), torch.tensor([kept], dtype=torch.float32)
    )


def test_of_equally_likely_tokens_the_lower_id_is_kept():
    kept = truncated(torch.full((6,), 1 / 6), top_k=4, top_p=0.6)
    torch.testing.assert_close(kept, torch.tensor([1, 1, 1, 0, 0, 0]) / 3)


def shares_kept(shares, top_k, top_p):
    """The definition, for one distribution at a time."""
    left = sorted(range(len(shares)), key=lambda token: (-shares[token], token))
    left = left[: top_k or None]
    goal = top_p * sum(shares[token] for token in left)
    nucleus, mass = [], 0.0
    for token in left:
        if mass < goal and shares[token] > 0:
            nucleus.append(token)
            mass += shares[token]
    kept = np.zeros(len(shares))
    kept[nucleus] = shares[nucleus] / mass
    return kept


TRUNCATIONS = [{"top_k": 3}, {"top_p": 0.8}, {"top_k": 5, "top_p": 0.9}]


@pytest.mark.parametrize("truncation", TRUNCATIONS)
def test_truncated_tokens_come_as_often_as_the_definition_says(truncation):
    """Chi-square; a sound sampler would fail for one seed in ten thousand."""
    generator = decided(TUNES, scale=8.0)
    index = TUNES.vocabulary.index
    prefix = [START, index["Metre_4/4"], index["Bar"], index["Position_0"]]
    whole = first_two_shares(generator, TUNES, prefix, 0.8).sum(axis=1)
    wanted = shares_kept(whole, truncation.get("top_k", 0), truncation.get("top_p", 1.0))
    samples = sample(
        generator,
        TUNES.grammar,
        uniforms(0, range(20_000), len(prefix) + 1),
        Decoding(temperature=0.8, **truncation),
        prefix=prefix,
        precision="float32",
    )
    counts = np.bincount(samples.tokens[:, -1].numpy(), minlength=len(whole))
    assert not counts[wanted == 0].any() and (wanted > 0).sum() >= 3
    assert stats.chisquare(counts[wanted > 0], 20_000 * wanted[wanted > 0]).pvalue > 1e-4


@pytest.mark.parametrize("truncation", [{}, *TRUNCATIONS])
def test_drawing_log_probs_are_those_of_the_samples(truncation):
    """Every token that was drawn has a probability, and the likeliest ones sum to 1."""
    generator = decided(BAND)
    samples = sample(
        generator,
        BAND.grammar,
        uniforms(4, range(6), 80),
        Decoding(temperature=0.7, **truncation),
        precision="float32",
    )
    tokens = samples.tokens
    states = BAND.grammar.states_before(tokens.numpy(), samples.lengths.numpy())[:, 1:]
    allowed = torch.from_numpy(BAND.grammar.allowed[states])
    with torch.no_grad():
        logits, _ = generator(tokens[:, :-1])
    log_probs = drawing_log_probs(logits, allowed, temperature=0.7, **truncation)
    inside = torch.arange(1, tokens.shape[1]) < samples.lengths[:, None]
    drawn = log_probs.gather(2, tokens[:, 1:, None])[..., 0]
    assert drawn[inside].isfinite().all()
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(allowed.shape[:2]))
    whole = (logits / 0.7).masked_fill(~allowed, -torch.inf).softmax(-1).double().numpy()
    for row, time in [(0, 1), (2, 9), (5, 0)]:
        expected = shares_kept(
            whole[row, time], truncation.get("top_k", 0), truncation.get("top_p", 1.0)
        )
        np.testing.assert_allclose(log_probs[row, time].exp().numpy(), expected, atol=1e-6)


def test_truncation_that_keeps_all_changes_nothing():
    generator, draws = decided(BAND), uniforms(0, range(4), 60)
    plain = sample(generator, BAND.grammar, draws, precision="float32")
    kept = sample(generator, BAND.grammar, draws, Decoding(top_k=10_000), precision="float32")
    assert torch.equal(plain.tokens, kept.tokens)
    fewer = sample(generator, BAND.grammar, draws, Decoding(top_k=2), precision="float32")
    assert not torch.equal(plain.tokens, fewer.tokens)


def test_the_first_alone_is_the_likeliest():
    generator, draws = decided(BAND), uniforms(0, range(3), 60)
    cold = sample(generator, BAND.grammar, draws, Decoding(temperature=1e-12), precision="float32")
    for truncation in ({"top_k": 1}, {"top_p": 1e-9}):
        decoding = Decoding(**truncation)
        first = sample(generator, BAND.grammar, draws, decoding, precision="float32")
        assert torch.equal(first.tokens, cold.tokens)


ALL_RULES = Decoding(
    temperature=0.9, top_k=20, top_p=0.95, min_bars=2, max_bars=5, no_repeat_ngram=6,
    repetition_penalty=1.2, repetition_window=16,
)  # fmt: skip


@pytest.mark.parametrize("decoding", [Decoding(top_k=8, top_p=0.9), ALL_RULES])
def test_a_piece_depends_on_its_own_numbers_alone_whatever_the_rules(decoding):
    generator, options = decided(BAND), {"precision": "float32", "bar": BAND.bar}
    together = sample(generator, BAND.grammar, uniforms(2, range(5), 80), decoding, **options)
    for i in range(5):
        alone = sample(generator, BAND.grammar, uniforms(2, [i], 80), decoding, **options)
        assert np.array_equal(pieces_of(together)[i], pieces_of(alone)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": -1}, "top_k must be at least 1, or 0 for all tokens, got -1"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, which is all tokens, got 0.0"),
        ({"top_p": 1.01}, "got 1.01"),
        ({"top_p": float("nan")}, "got nan"),
        ({"temperature": 0.0}, "temperature must be above 0, got 0.0"),
        ({"temperature": -1.0}, "temperature must be above 0"),
        ({"temperature": float("nan")}, "temperature must be above 0"),
        ({"min_bars": -1}, "min_bars must be at least 0, got -1"),
        ({"max_bars": 0}, "max_bars must be at least 1"),
        ({"min_bars": 3, "max_bars": 2}, "max_bars must be at least 1 and min_bars, 3, got 2"),
        ({"no_repeat_ngram": 1}, "no_repeat_ngram must be at least 2, or 0 for none, got 1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0, and 1 is none, got 0.0"),
        ({"repetition_penalty": float("nan")}, "got nan"),
        ({"repetition_window": 0}, "repetition_window must be at least 1, got 0"),
    ],
)
def test_ways_to_draw_that_make_no_sense(options, message):
    with pytest.raises(UserError, match=message):
        Decoding(**options)
    if options.keys() <= {"temperature", "top_k", "top_p"}:
        logits = torch.zeros(1, 3)
        with pytest.raises(UserError, match=message):
            drawing_log_probs(logits, torch.ones_like(logits, dtype=torch.bool), **options)


# --- Length and repetition


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize(("least", "most"), [(0, 2), (3, None), (2, 4), (1, 1)])
def test_bars_stay_within_their_bounds(name, least, most):
    tokenizer = TOKENIZERS[name]
    samples = sample(
        decided(tokenizer, 1, scale=3.0, closing=4.0),
        tokenizer.grammar,
        uniforms(0, range(40), 900),
        Decoding(min_bars=least, max_bars=most),
        bar=tokenizer.bar,
    )
    assert_sound(samples, tokenizer, 900)
    bars = {int((tokens == tokenizer.bar).sum()) for tokens in pieces_of(samples)}
    assert all(tokens[-1] == END for tokens in pieces_of(samples))
    assert max(least, 1) == min(bars) and max(bars) <= (most or 900)
    assert (max(bars) == most) if most else (max(bars) > least)


@settings(max_examples=50, deadline=None)
@given(
    history=st.lists(st.lists(st.integers(0, 3), min_size=12, max_size=12), min_size=1, max_size=4),
    time=st.integers(1, 12),
    size=st.integers(2, 5),
)
def test_what_would_repeat_an_ngram_is_found(history, time, size):
    rows = [row[:time] for row in history]
    found = ends_repeated_ngram(torch.tensor(rows), size, 4)
    for row, repeats in zip(rows, found.tolist()):
        ngrams = {tuple(row[i : i + size]) for i in range(len(row) - size + 1)}
        context = row[len(row) - size + 1 :] if len(row) >= size - 1 else None
        expected = [context is not None and (*context, token) in ngrams for token in range(4)]
        assert repeats == expected


def ngrams_of(tokens, size):
    return [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]


@pytest.mark.parametrize("size", [5, 9])
@pytest.mark.parametrize("temperature", [0.3, 1e-12])
def test_no_ngram_comes_twice(size, temperature):
    """A cold generator repeats itself without the rule, and with it every n-gram is new."""
    generator, draws = decided(TUNES, closing=0.0), uniforms(0, range(6), 200)

    def repeats(**rule):
        decoding = Decoding(temperature=temperature, **rule)
        samples = sample(generator, TUNES.grammar, draws, decoding, precision="float32")
        assert_sound(samples, TUNES, 200)
        found = [ngrams_of(tokens.tolist(), size) for tokens in pieces_of(samples)]
        return sum(len(ngrams) - len(set(ngrams)) for ngrams in found)

    assert repeats() > 50
    assert repeats(no_repeat_ngram=size) == 0


def test_a_rule_that_leaves_nothing_is_passed_over():
    """Between Bar and Pitch of a world of one pitch, one metre and one place nothing can change."""
    samples = sample(
        decided(DRUMS, closing=0.0),
        DRUMS.grammar,
        uniforms(0, range(4), 300),
        Decoding(no_repeat_ngram=2, min_bars=60),
        bar=DRUMS.bar,
    )
    assert_sound(samples, DRUMS, 300)


def test_penalty_by_hand():
    logits = torch.tensor([[2.0, -1.0, 0.5, 0.0], [2.0, -1.0, 0.5, 3.0]])
    recent = torch.tensor([[0, 1, 0], [3, 3, 3]])
    expected = torch.tensor([[1.0, -2.0, 0.5, 0.0], [2.0, -1.0, 0.5, 1.5]])
    torch.testing.assert_close(penalised(logits, recent, 2.0), expected)


def test_the_penalty_reaches_as_far_as_its_window():
    """Pitches of the last tokens come less often; with a window of one token there are none."""
    generator, draws = decided(TUNES, closing=0.0), uniforms(0, range(60), 120)
    pitches = TUNES.vocabulary.ids("Pitch")

    def returns(**rule):
        decoding = Decoding(temperature=0.5, **rule)
        samples = sample(generator, TUNES.grammar, draws, decoding, precision="float32")
        found = total = 0
        for tokens in pieces_of(samples):
            line = [token for token in tokens.tolist() if token in pitches]
            found += sum(a == b for a, b in pairwise(line))
            total += len(line) - 1
        return found / total

    plain = returns()
    assert returns(repetition_penalty=3.0, repetition_window=8) < 0.7 * plain
    assert returns(repetition_penalty=3.0, repetition_window=1) == pytest.approx(plain, abs=0.1)


def test_rules_that_are_off_change_nothing():
    generator, draws = decided(BAND), uniforms(0, range(4), 60)
    plain = sample(generator, BAND.grammar, draws)
    off = Decoding(repetition_window=3, min_bars=0, no_repeat_ngram=0, top_k=0, top_p=1.0)
    assert torch.equal(plain.tokens, sample(generator, BAND.grammar, draws, off).tokens)


def test_a_long_prefix_is_what_the_pieces_go_on_from():
    """As if its tokens had been drawn: what follows is the same."""
    generator = decided(TUNES, closing=0.0)
    draws = uniforms(3, [0], 90)
    whole = sample(generator, TUNES.grammar, draws, precision="float32")
    prefix = whole.tokens[0, :40].tolist()
    for num in (1, 3):
        again = sample(
            generator, TUNES.grammar, np.repeat(draws, num, 0), prefix=prefix, precision="float32"
        )
        assert all(torch.equal(row, whole.tokens[0]) for row in again.tokens)


# --- The stepper


@pytest.mark.parametrize("batch_size", [1, 7])
@pytest.mark.parametrize("tied", [False, True])
def test_stepper_in_float32_is_the_generator(batch_size, tied):
    generator = decided(BAND, tied=tied)
    tokens = torch.randint(len(BAND.vocabulary), (batch_size, 20))
    with torch.inference_mode():
        stepper = FastStepper(generator, batch_size=batch_size, precision="float32")
        stepped = torch.stack([stepper.step(tokens[:, time]) for time in range(20)], dim=1)
        torch.testing.assert_close(stepped, generator(tokens)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("packed", [True, False])
def test_stepper_in_bfloat16_is_near_float32(monkeypatch, packed):
    """Log-probabilities along random sequences of 100 tokens, for a network of trained scale."""
    if not packed:
        monkeypatch.setattr(fast, "_HAS_PACKED_LSTM", False)
    generator = decided(BAND, scale=15.0, embedding_size=32, hidden_size=64)
    tokens = torch.randint(len(BAND.vocabulary), (4, 100))
    with torch.inference_mode():
        stepper = FastStepper(generator, batch_size=4, precision="bfloat16")
        stepped = torch.stack([stepper.step(tokens[:, time]) for time in range(100)], dim=1)
        exact = generator(tokens)[0].log_softmax(-1)
    assert stepped.dtype == torch.float32
    error = (stepped.log_softmax(-1) - exact).abs()
    assert 0 < error.mean() < 0.02
    assert error.max() < 0.2
    assert exact.std() > 1  # so that there was something to miss


@pytest.mark.parametrize("packed", [True, False])
def test_stepper_select_names_pieces(monkeypatch, packed):
    if not packed:
        monkeypatch.setattr(fast, "_HAS_PACKED_LSTM", False)
    generator = decided(TUNES)
    with torch.inference_mode():
        stepper = FastStepper(generator, batch_size=3, precision="float32")
        stepper.step(torch.tensor([5, 6, 7]))
        stepper.select(torch.tensor([2, 0, 2, 2]))
        logits = stepper.step(torch.tensor([8, 8, 8, 9]))
        expected, _ = generator(torch.tensor([[7, 8], [5, 8], [7, 8], [7, 9]]))
    torch.testing.assert_close(logits, expected[:, -1])


def test_stepper_wants_a_token_per_piece():
    with torch.inference_mode():
        stepper = FastStepper(decided(TUNES), batch_size=3, precision="float32")
        with pytest.raises(ValueError, match="need 3 tokens, got 2"):
            stepper.step(torch.tensor([5, 6]))


# --- What is around it


def test_dropout_is_off_and_the_mode_stays():
    generator = decided(BAND, layer_dropout=0.5)
    draws = uniforms(0, range(3), 60)
    still = sample(generator, BAND.grammar, draws)
    generator.train()
    assert torch.equal(sample(generator, BAND.grammar, draws).tokens, still.tokens)
    assert generator.training and generator.rnn.training
    generator.eval()
    sample(generator, BAND.grammar, draws)
    assert not generator.training


def test_samples_may_be_trained_on():
    generator = decided(TUNES).train()
    samples = sample(generator, TUNES.grammar, uniforms(0, range(2), 30))
    logits, _ = generator(samples.tokens[:, :-1])
    logits.mean().backward()
    assert generator.embedding.weight.grad is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prefix": ()}, "at least one token"),
        ({"prefix": (START, END)}, "not so token 1: 3"),
        ({"prefix": (START, PLAIN.vocabulary.index["Metre_4/4"], PLAIN.bar, END)}, "nothing can"),
        ({"decoding": Decoding(min_bars=2)}, "needs a tokenizer that has bars"),
        ({"decoding": Decoding(max_bars=2)}, "needs a tokenizer that has bars"),
        ({"draws": np.zeros((2, 1))}, "max_length must exceed the prefix's 1, got 1"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    arguments = {"draws": np.zeros((2, 20)), **arguments}
    with pytest.raises(UserError, match=message):
        sample(decided(PLAIN), PLAIN.grammar, **arguments)


def test_fewer_bars_than_the_prefix_has_are_refused():
    prefix = (START, PLAIN.vocabulary.index["Metre_4/4"], PLAIN.bar, PLAIN.bar)
    with pytest.raises(UserError, match="the prefix's 2, got 1"):
        sample(
            decided(PLAIN),
            PLAIN.grammar,
            np.zeros((1, 20)),
            Decoding(max_bars=1),
            prefix=prefix,
            bar=PLAIN.bar,
        )


def test_damaged_weights_are_reported():
    generator = decided(PLAIN)
    with torch.no_grad():
        generator.output.weight[7, 3] = torch.nan
    with pytest.raises(UserError, match="not finite"):
        sample(generator, PLAIN.grammar, uniforms(0, [0], 20))
