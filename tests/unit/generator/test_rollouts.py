import numpy as np
import pytest
import torch

from rnngan.config import GeneratorConfig
from rnngan.generator import rollouts
from rnngan.generator.registry import new_generator
from rnngan.generator.rollouts import completions
from rnngan.generator.sampling import sample, uniforms
from rnngan.music.tokenizers.events import Events, EventsConfig
from rnngan.music.vocabulary import END, PAD, START

TUNES = Events(EventsConfig(metres=("4/4", "3/4"), lowest=55, highest=70))
BATCH, NUM, LENGTH = 5, 4, 24


def decided(seed=0, **config):
    """Random weights with clear preferences, so that completions often meet their sample."""
    torch.manual_seed(seed)
    settings = {"embedding_size": 8, "hidden_size": 12, "attention": 0, **config}
    generator = new_generator(GeneratorConfig(**settings), len(TUNES.vocabulary))
    with torch.no_grad():
        generator.output.weight *= 8
        generator.output.bias[[END, TUNES.bar]] += 3
    return generator.eval()


def all_completions(generator, samples, draws):
    """As rows of tokens by (piece, time, number), those that meet their sample filled in."""
    found = {}
    for some in completions(
        generator, TUNES.grammar, samples.tokens, samples.lengths, draws, precision="float32"
    ):
        for piece, number, row, length in zip(
            some.pieces.tolist(), some.numbers.tolist(), some.tokens, some.lengths.tolist()
        ):
            assert (row[length:] == PAD).all()
            assert (piece, some.time, number) not in found
            found[piece, some.time, number] = row[:length].tolist()
    drawn = len(found)
    for piece, (row, length) in enumerate(zip(samples.tokens.tolist(), samples.lengths.tolist())):
        for number in range(NUM):
            found[piece, length - 1, number] = row[:length]
            for time in reversed(range(1, length - 1)):
                found.setdefault((piece, time, number), found[piece, time + 1, number])
    return found, drawn


def samples_of(generator, seed=1, num=BATCH, length=LENGTH):
    draws = uniforms(seed, range(num), length)
    return sample(generator, TUNES.grammar, draws, precision="float32")


def draws_of(seed=2, batch=BATCH, length=LENGTH):
    return uniforms(seed, range(batch * NUM), length).reshape(batch, NUM, length)


@pytest.mark.parametrize("attention", [0, 8])
@pytest.mark.parametrize("seed", range(4))
def test_from_saved_states_as_from_scratch(seed, attention):
    """Token for token, under the same random numbers; ended, cut and full pieces among them."""
    generator = decided(seed, attention=attention)
    samples, draws = samples_of(generator), draws_of()
    found, drawn = all_completions(generator, samples, draws)
    expected = {}
    for piece, length in enumerate(samples.lengths.tolist()):
        for time in range(1, length - 1):
            prefix = samples.tokens[piece, : time + 1].tolist()
            again = sample(
                generator, TUNES.grammar, draws[piece], prefix=prefix, precision="float32"
            )
            for number in range(NUM):
                row = again.tokens[number, : again.lengths[number]]
                expected[piece, time, number] = row.tolist()
    assert {key: found[key] for key in expected} == expected
    assert len(found) == len(expected) + BATCH * NUM
    assert 0 < drawn < len(expected)  # some met their sample


def test_both_ways_to_end_are_among_them():
    generator = decided()
    found, _ = all_completions(generator, samples_of(generator), draws_of())
    ended = [row[-1] == END for row in found.values()]
    assert 0.1 < np.mean(ended) < 0.9
    assert all(len(row) == LENGTH for row, end in zip(found.values(), ended) if not end)
    for row in found.values():
        assert TUNES.grammar.first_error(np.array(row)) is None


def test_rows_side_by_side_do_not_matter(monkeypatch):
    generator = decided(attention=8)
    samples, draws = samples_of(generator), draws_of()
    together = all_completions(generator, samples, draws)
    monkeypatch.setattr(rollouts, "_ROWS", 3)
    assert all_completions(generator, samples, draws) == together


def test_more_completions_change_none_of_the_first():
    generator = decided()
    samples, draws = samples_of(generator), draws_of()
    more = np.concatenate([draws, draws_of(seed=3)], axis=1)

    def rows(draws):
        return {
            (int(piece), some.time, int(number)): row.tolist()
            for some in completions(
                generator, TUNES.grammar, samples.tokens, samples.lengths, draws,
                precision="float32",
            )
            for piece, number, row in zip(some.pieces, some.numbers, some.tokens)
        }  # fmt: skip

    assert rows(draws).items() < rows(more).items()


def test_a_completion_is_distributed_as_the_generator_says():
    """The token behind a beginning, over many completions, against the generator's softmax."""
    generator, num = decided(), 20_000
    prefix = samples_of(generator, num=1, length=6).tokens
    lengths = torch.tensor([6])
    draws = uniforms(4, range(num), 6).reshape(1, num, 6)
    counts = torch.zeros(len(TUNES.vocabulary))
    counts[prefix[0, 5]] = num
    for some in completions(generator, TUNES.grammar, prefix, lengths, draws):
        if some.time == 4:
            counts[prefix[0, 5]] -= len(some.tokens)
            counts += torch.bincount(some.tokens[:, 5], minlength=len(counts))
    state = TUNES.grammar.states_before(prefix.numpy(), lengths.numpy())[0, 5]
    logits, _ = generator(prefix[:, :5])
    allowed = torch.from_numpy(TUNES.grammar.allowed[state])
    probs = logits[0, -1].masked_fill(~allowed, -torch.inf).softmax(0)
    # Beyond 5 standard deviations and bfloat16's margin: less than once in 10^4 seeds.
    margin = 5 * (probs * (1 - probs) / num).sqrt() + 5e-3
    assert ((counts / num - probs).abs() <= margin).all()


def test_a_piece_of_start_and_end_has_nothing_to_complete():
    tokens = torch.tensor([[START, *samples_of(decided()).tokens[0, 1:2].tolist()]])
    found = completions(decided(), TUNES.grammar, tokens, torch.tensor([2]), draws_of(batch=1))
    assert list(found) == []


def test_samples_longer_than_the_numbers_are_refused():
    generator = decided()
    samples = samples_of(generator)
    with pytest.raises(ValueError, match=r"\d+ tokens, the numbers are for 10"):
        next(
            completions(
                generator, TUNES.grammar, samples.tokens, samples.lengths, draws_of(length=10)
            )
        )
