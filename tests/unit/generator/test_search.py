"""Beam search on a world so small that all its sequences can be listed."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rnngan.config import GeneratorConfig
from rnngan.errors import UserError
from rnngan.generator.registry import new_generator
from rnngan.generator.sampling import AS_THE_MODEL, SHRINK, Decoding, sample, stream, uniforms
from rnngan.generator.search import (
    MAX_BEAMS,
    _in_place,
    beam_search,
    length_norm,
    next_greatest,
    stochastic_beam_search,
)
from rnngan.music.vocabulary import END, PAD, START, build_grammar

VOCAB_SIZE, MAX_LENGTH = 7, 5
LETTERS, BAR = range(4, 7), 4


def moves(state):
    """Up to three letters, not all of them alike in what may follow; then End."""
    match state:
        case ("begin",):
            yield range(START, START + 1), ("word", 0, -1)
        case ("word", size, last):
            if size:
                yield range(END, END + 1), ("end",)
            for letter in LETTERS:
                if size < 3 and letter != last:
                    yield range(letter, letter + 1), ("word", size + 1, letter)
        case ("end",):
            yield range(PAD, PAD + 1), ("end",)


GRAMMAR = build_grammar(("begin",), moves, VOCAB_SIZE)
WORDS = [
    (START, *letters, END)
    for size in (1, 2, 3)
    for letters in itertools.product(LETTERS, repeat=size)
    if all(a != b for a, b in itertools.pairwise(letters))
]


def decided(seed, sharpness=6):
    torch.manual_seed(seed)
    config = GeneratorConfig(embedding_size=6, hidden_size=8, attention=4, attention_heads=2)
    generator = new_generator(config, VOCAB_SIZE).eval()
    with torch.no_grad():
        generator.output.weight *= sharpness
    return generator


@pytest.fixture(scope="module")
def generator():
    return decided(2, sharpness=10)


def distribution(generator, decoding=AS_THE_MODEL):
    """Log-probability of every word, one token at a time in float64."""
    found = {}
    for word in WORDS:
        with torch.no_grad():
            logits, _ = generator(torch.tensor([word[:-1]]))
        total, state = 0.0, 0
        for time, token in enumerate(word[1:]):
            state = GRAMMAR.next_state[state, word[time]]
            scores = logits[0, time].double().numpy() / decoding.temperature
            scores = np.where(GRAMMAR.allowed[state], scores, -np.inf)
            total += scores[token] - np.logaddexp.reduce(scores)
        found[word] = total
    return found


def words_of(beams):
    return [
        [tuple(row[:length]) for row, length in zip(rows, lengths)]
        for rows, lengths in zip(beams.tokens.tolist(), beams.lengths.tolist())
    ]


@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_with_as_many_beams_as_words_it_lists_them_all_best_first(
    generator, length_penalty, temperature
):
    decoding = Decoding(temperature=temperature)
    truth = distribution(generator, decoding)
    assert math.fsum(map(math.exp, truth.values())) == pytest.approx(1)
    beams = beam_search(
        generator, GRAMMAR, len(WORDS), decoding, max_length=MAX_LENGTH,
        length_penalty=length_penalty, precision="float32",
    )  # fmt: skip
    (found,) = words_of(beams)
    scores = {w: p / ((5 + len(w) - 1) / 6) ** length_penalty for w, p in truth.items()}
    assert found == sorted(WORDS, key=scores.__getitem__, reverse=True)
    np.testing.assert_allclose(beams.log_probs[0], [truth[word] for word in found], atol=1e-5)
    np.testing.assert_allclose(beams.scores[0], [scores[word] for word in found], atol=1e-5)
    assert (beams.tokens[0][torch.arange(MAX_LENGTH) >= beams.lengths[0][:, None]] == PAD).all()


def test_more_beams_than_words_are_filled_up_at_probability_0(generator):
    beams = beam_search(generator, GRAMMAR, len(WORDS) + 5, max_length=MAX_LENGTH)
    assert (beams.log_probs[0, len(WORDS) :] == -torch.inf).all()
    assert sorted(words_of(beams)[0][: len(WORDS)]) == sorted(WORDS)


def test_a_single_beam_is_the_likeliest_token_every_time(generator):
    beams = beam_search(generator, GRAMMAR, 1, max_length=MAX_LENGTH, length_penalty=0.0)
    cold = sample(generator, GRAMMAR, uniforms(0, [0], MAX_LENGTH), Decoding(temperature=1e-9))
    assert words_of(beams)[0][0] == tuple(cold.tokens[0].tolist())


def plain_beam_search(generator, width, length_penalty):
    """The definition, a beam at a time; beams are (word, log-probability)."""
    beams = [((START,), 0.0)]
    for _ in range(MAX_LENGTH - 1):
        children = []
        for word, log_prob in beams:
            if word[-1] == END:
                children.append((word, log_prob))
                continue
            state = 0
            for token in word:
                state = GRAMMAR.next_state[state, token]
            with torch.no_grad():
                logits = generator(torch.tensor([word]))[0][0, -1].double().numpy()
            logits = np.where(GRAMMAR.allowed[state], logits, -np.inf)
            shares = logits - np.logaddexp.reduce(logits)
            allowed = np.flatnonzero(GRAMMAR.allowed[state]).tolist()
            children += [((*word, token), log_prob + shares[token]) for token in allowed]
        norm = lambda word: ((5 + len(word) - 1) / 6) ** length_penalty  # noqa: E731
        beams = sorted(children, key=lambda c: c[1] / norm(c[0]), reverse=True)[:width]
    return [word for word, _ in beams]


@pytest.mark.parametrize("width", [2, 3, 6])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_it_is_the_plain_beam_search(generator, width, length_penalty):
    beams = beam_search(
        generator, GRAMMAR, width, max_length=MAX_LENGTH, length_penalty=length_penalty,
        precision="float32",
    )  # fmt: skip
    assert words_of(beams)[0] == plain_beam_search(generator, width, length_penalty)


@pytest.mark.parametrize("seed", range(8))
def test_ended_beams_make_way_for_better_ones(seed):
    """With a penalty so high that long words win late, over short ones that have ended."""
    generator = decided(seed, sharpness=2)
    beams = beam_search(
        generator, GRAMMAR, 4, max_length=MAX_LENGTH, length_penalty=4.0, precision="float32"
    )
    assert words_of(beams)[0] == plain_beam_search(generator, 4, 4.0)


@settings(max_examples=60)
@given(
    parents=st.lists(st.lists(st.integers(0, 5), min_size=6, max_size=6), min_size=1, max_size=3)
)
def test_children_stand_where_their_parents_do(parents):
    """Each child once, and every beam that has children is followed by the first of them."""
    order = _in_place(np.array(parents))
    for row, children in zip(parents, order.tolist()):
        assert sorted(children) == list(range(6))
        for beam in set(row):
            assert children[beam] == row.index(beam)


def test_length_norm_by_hand():
    """|y| = 1 is the unit; 7 tokens count (12 / 6)^α."""
    norms = length_norm(np.array([1, 7, 13]), 0.5)
    np.testing.assert_allclose(norms, [1, math.sqrt(2), math.sqrt(3)])
    np.testing.assert_allclose(length_norm(np.array([1, 7]), 0.0), [1, 1])


def test_rules_hold_in_the_beams_too(generator):
    """Letter 4 taken for a bar: no word ends before the second, unless it is full; and prefixes."""
    decoding = Decoding(min_bars=2, max_bars=2)
    expected = sorted(word for word in WORDS if len(word) == 5)
    for found in (
        beam_search(generator, GRAMMAR, 30, decoding, max_length=MAX_LENGTH, bar=BAR),
        stochastic_beam_search(
            generator, GRAMMAR, 30, decoding, seed=0, max_length=MAX_LENGTH, bar=BAR
        ),
    ):
        real = [w for w, p in zip(words_of(found)[0], found.log_probs[0]) if p > -torch.inf]
        assert sorted(real) == expected
    beams = beam_search(generator, GRAMMAR, 4, max_length=MAX_LENGTH, prefix=(START, 5, 6))
    real = [w for w, p in zip(words_of(beams)[0], beams.log_probs[0]) if p > -torch.inf]
    assert all(word[:3] == (START, 5, 6) for word in words_of(beams)[0])
    assert sorted(real) == sorted(word for word in WORDS if word[:3] == (START, 5, 6))


def test_no_ngram_comes_twice_in_a_beam(generator):
    beams = beam_search(generator, GRAMMAR, 30, Decoding(no_repeat_ngram=2), max_length=MAX_LENGTH)
    rule = {w: p for w, p in zip(words_of(beams)[0], beams.log_probs[0]) if p > -torch.inf}
    assert math.fsum(math.exp(p) for p in rule.values()) == pytest.approx(1, abs=1e-6)
    pairs = [list(itertools.pairwise(word)) for word in rule]
    assert all(len(found) == len(set(found)) for found in pairs)


# --- Stochastic


def test_next_greatest_by_hand():
    """−ln(exp(−G) + E exp(−φ)), in float64 and far away from 0; nothing comes from nothing."""
    last, log_mass = np.array([0.3, -1.2, 2.0]), np.array([-0.5, 1.0, -3.0])
    numbers = np.array([0.2, 0.5, 0.9])
    plain = -np.log(np.exp(-last) - np.log(1 - numbers) * np.exp(-log_mass))
    np.testing.assert_allclose(next_greatest(last, log_mass, numbers), plain)
    e = -math.log(0.5)
    far = next_greatest(np.array([0.0, 900.0]), np.array([-800.0, 900.0]), np.array([0.5, 0.5]))
    np.testing.assert_allclose(far, [-800 - math.log(e), 900 - math.log1p(e)])
    with np.errstate(divide="ignore"):
        assert next_greatest(np.zeros(1), np.array([-np.inf]), np.array([0.5])) == -np.inf


def test_next_greatest_is_that_of_independent_gumbels():
    """The second of three, given the first and which it was, against noise on each of the three.

    Kolmogorov and Smirnov's test of 4,000 each; a sound formula would fail one seed in 10,000.
    """
    random = np.random.default_rng(0)
    log_probs = np.log([0.6, 0.3, 0.1])
    noisy = log_probs - np.log(random.standard_exponential((4_000, 3)))
    seconds = np.sort(noisy, axis=1)[:, 1]
    first = -np.log(random.standard_exponential(4_000))
    which = random.choice(3, size=4_000, p=np.exp(log_probs))
    left = np.log1p(-np.exp(log_probs))[which]
    found = next_greatest(first, left, random.random(4_000))
    assert stats.ks_2samp(found, seconds).pvalue > 1e-4
    assert stats.ks_2samp(found + 0.2, seconds).pvalue < 1e-4


def recursive_stochastic(generator, width, numbers):
    """The definition, a beam at a time: [(word, log-probability, perturbed)], best first.

    Of the beams whose next child may be kept, `numbers` gives one to draw it with, and one for the
    time until the next; both at the beam's place.
    """
    beams = {0: ((START,), 0.0, 0.0)}
    for _ in range(MAX_LENGTH - 1):
        going = {}
        for place, (word, log_prob, perturbed) in beams.items():
            state = 0
            for token in word:
                state = GRAMMAR.next_state[state, token]
            shares = GRAMMAR.allowed[state] * 1.0
            if word[-1] != END:
                with torch.no_grad():
                    logits = generator(torch.tensor([word]))[0][0, -1].double().numpy()
                shares *= np.exp(logits)
            going[place] = word, log_prob, shares / shares.sum(), shares / shares.sum(), perturbed
        children = []
        while going:
            of_token, of_time = numbers.random((2, width))
            following = {}
            for place, (word, log_prob, shares, left, perturbed) in going.items():
                heights = np.cumsum(left)
                token = int((heights <= of_token[place] * SHRINK * heights[-1]).sum())
                child = word if word[-1] == END else (*word, token)
                children.append((place, child, log_prob + math.log(shares[token]), perturbed))
                left = np.where(np.arange(VOCAB_SIZE) == token, 0.0, left)
                if left.sum():
                    rate = math.exp(log_prob) * left.sum()
                    event = math.exp(-perturbed) - math.log1p(-of_time[place]) / rate
                    following[place] = word, log_prob, shares, left, -math.log(event)
            best = sorted((child[3] for child in children), reverse=True)
            least = best[width - 1] if len(best) >= width else -math.inf
            going = {place: beam for place, beam in following.items() if beam[4] > least}
        children.sort(key=lambda child: child[3], reverse=True)
        # The first child of a beam takes its place, the others the free ones in order; and so do
        # what stands in for missing children, as children of the best one's parent.
        parents = [child[0] for child in children[:width]]
        parents += [parents[0]] * (width - len(parents))
        free = iter(sorted(set(range(width)) - set(parents)))
        firsts = {parents.index(parent) for parent in parents}
        places = [parent if i in firsts else next(free) for i, parent in enumerate(parents)]
        beams = {place: child[1:] for place, child in zip(places, children)}
    return sorted(beams.values(), key=lambda beam: beam[2], reverse=True)


@pytest.mark.parametrize("width", [1, 3, 8])
def test_perturbed_log_probs_are_those_of_the_definition(generator, width):
    for group in range(4):
        beams = stochastic_beam_search(
            generator, GRAMMAR, width, seed=5, groups=[group], max_length=MAX_LENGTH,
            precision="float32",
        )  # fmt: skip
        expected = recursive_stochastic(generator, width, stream(5, group))
        assert words_of(beams)[0] == [word for word, *_ in expected]
        for values, column in ((beams.log_probs, 1), (beams.scores, 2)):
            np.testing.assert_allclose(values[0], [row[column] for row in expected], atol=1e-4)


def drawn_without_replacement(generator, width, num):
    """Numbers of the words of each group, in order: `(num, width)`."""
    number = {word: i for i, word in enumerate(WORDS)}
    found = []
    most = MAX_BEAMS // width
    for first in range(0, num, most):
        groups = range(first, min(first + most, num))
        beams = stochastic_beam_search(
            generator, GRAMMAR, width, seed=0, groups=groups, max_length=MAX_LENGTH,
            precision="float32",
        )  # fmt: skip
        found += [[number[word] for word in words] for words in words_of(beams)]
    return np.array(found)


def test_sets_are_drawn_without_replacement(generator):
    """Chi-square of the first and of the second word of 8,000 sets, and of the words of the sets.

    The second comes as q(b) = sum over a of p(a) p(b) / (1 - p(a)), a ≠ b. A sound search would
    fail for three seeds in ten thousand. What a beam of independent draws gives is refused.
    """
    probs = np.exp(list(distribution(generator).values()))
    drawn = drawn_without_replacement(generator, 2, 8_000)
    assert (drawn[:, 0] != drawn[:, 1]).all()
    pairs = probs[:, None] * probs / (1 - probs[:, None])
    np.fill_diagonal(pairs, 0)
    assert pairs.sum() == pytest.approx(1)

    def p_value(counts, expected):
        large = expected >= 5
        seen = np.append(counts[large], counts[~large].sum())
        hoped = np.append(expected[large], expected[~large].sum() + 1e-9)
        return stats.chisquare(seen, hoped * seen.sum() / hoped.sum()).pvalue

    first, second = (np.bincount(column, minlength=len(WORDS)) for column in drawn.T)
    both = np.zeros_like(pairs)
    np.add.at(both, tuple(drawn.T), 1)
    assert p_value(first, 8_000 * probs) > 1e-4
    assert p_value(second, 8_000 * pairs.sum(0)) > 1e-4
    assert p_value(both.ravel(), 8_000 * pairs.ravel()) > 1e-4
    assert p_value(second, 8_000 * probs) < 1e-8


def test_a_group_depends_on_its_own_number_alone(generator):
    options = {"max_length": MAX_LENGTH, "precision": "float32"}
    together = stochastic_beam_search(generator, GRAMMAR, 3, seed=1, groups=range(6), **options)
    assert len({tuple(words) for words in words_of(together)}) > 1
    for group in range(6):
        alone = stochastic_beam_search(generator, GRAMMAR, 3, seed=1, groups=[group], **options)
        assert words_of(alone)[0] == words_of(together)[group]
        torch.testing.assert_close(alone.scores[0], together.scores[group], atol=1e-4, rtol=0)


def test_sequences_may_be_trained_on(generator):
    beams = beam_search(generator, GRAMMAR, 3, max_length=MAX_LENGTH)
    generator(beams.tokens[0])[0].mean().backward()
    assert (beams.log_probs + 1).sum().isfinite()


@pytest.mark.parametrize(
    ("width", "options", "message"),
    [
        (0, {}, "beams must be 1 to 1024, got 1 x 0"),
        (1025, {}, "beams must be 1 to 1024, got 1 x 1025"),
        (2, {"length_penalty": -0.1}, "length_penalty must be at least 0, got -0.1"),
        (2, {"length_penalty": float("nan")}, "got nan"),
        (2, {"prefix": (START, END)}, "prefix must obey the grammar"),
        (2, {"max_length": 1}, "max_length must exceed the prefix's 1, got 1"),
    ],
)
def test_bad_arguments_are_named(generator, width, options, message):
    with pytest.raises(UserError, match=message):
        beam_search(generator, GRAMMAR, width, **{"max_length": MAX_LENGTH, **options})


def test_damaged_weights_are_reported():
    broken = new_generator(GeneratorConfig(embedding_size=6, hidden_size=8), VOCAB_SIZE)
    with torch.no_grad():
        broken.output.weight.fill_(torch.nan)
    with pytest.raises(UserError, match="not finite"):
        beam_search(broken, GRAMMAR, 2, max_length=MAX_LENGTH)
