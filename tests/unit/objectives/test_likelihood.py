import itertools
import math

import numpy as np
import pytest
import torch

from rnngan.config import GeneratorConfig
from rnngan.data.batches import Batch, held_out_batches, padded
from rnngan.generator.registry import new_generator
from rnngan.music.vocabulary import END, PAD, START, build_grammar
from rnngan.objectives.likelihood import (
    autocast,
    held_out_likelihood,
    negative_log_likelihood,
    target_log_probs,
    targets_of,
)

A, B, VOCAB = 4, 5, 6
MOST = 3


def moves(state):
    """Up to three letters, A or B, and never two B in a row."""
    match state:
        case ("begin",):
            yield range(START, START + 1), ("letters", 0, False)
        case ("letters", count, after_b):
            yield range(END, END + 1), ("end",)
            if count < MOST:
                yield range(A, A + 1), ("letters", count + 1, False)
                if not after_b:
                    yield range(B, B + 1), ("letters", count + 1, True)
        case ("end",):
            yield range(PAD, PAD + 1), ("end",)


GRAMMAR = build_grammar(("begin",), moves, VOCAB)
WORDS = [
    [START, *letters, END]
    for count in range(MOST + 1)
    for letters in itertools.product((A, B), repeat=count)
    if (B, B) not in itertools.pairwise(letters)
]


def generator(**options):
    torch.manual_seed(0)
    config = GeneratorConfig(
        embedding_size=4,
        hidden_size=5,
        embedding_dropout=0.0,
        layer_dropout=0.0,
        output_dropout=0.0,
        **options,
    )
    network = new_generator(config, VOCAB)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.8)  # far from uniform
    return network


def rows(*words):
    return padded([np.array(word, dtype=np.uint16) for word in words])


def bits(network, *words):
    return held_out_likelihood(network, [rows(*words)], GRAMMAR, precision="float32")[0]


def test_the_toy_language_is_what_the_grammar_says():
    assert len(WORDS) == 1 + 2 + 3 + 5
    assert all(GRAMMAR.first_error(np.array(word)) is None for word in WORDS)


@pytest.mark.parametrize("tied", [False, True])
def test_the_probabilities_of_all_pieces_add_up_to_1(tied):
    network = generator(tied=tied)
    each = [bits(network, word) for word in WORDS]
    assert max(each) - min(each) > 1  # by no means all alike
    assert sum(2.0**-b for b in each) == pytest.approx(1, abs=1e-6)


def test_negative_log_likelihood_by_hand():
    network = generator()
    with torch.no_grad():
        network.output.weight.zero_()
        network.output.bias.copy_(torch.tensor([9.0, 9, 9, 0, math.log(2), math.log(5)]))
    # End, A and B weigh 1, 2 and 5; after B there is no B; after three letters only End.
    chances = [5 / 8, 2 / 3, 5 / 8, 1, 1 / 8]
    words = rows([START, B, A, B, END], [START, END])
    loss = negative_log_likelihood(network, targets_of(words, GRAMMAR))
    assert loss.item() == pytest.approx(-sum(map(math.log, chances)) / 5)
    total, count = held_out_likelihood(network, [words], GRAMMAR, precision="float32")
    assert (total, count) == (pytest.approx(-sum(map(math.log2, chances))), 5)


def test_targets_leave_start_and_padding_out():
    targets = targets_of(rows([START, A, B, END], [START, END]), GRAMMAR)
    assert targets.inputs.tolist() == [[START, A, B], [START, END, PAD]]
    assert targets.mask.tolist() == [[True] * 3, [True, False, False]]
    assert targets.tokens.tolist() == [A, B, END, END]
    may = [np.flatnonzero(row).tolist() for row in targets.allowed.numpy()]
    assert may == [[END, A, B], [END, A, B], [END, A], [END, A, B]]


def test_a_cut_piece_has_targets_up_to_the_cut():
    targets = targets_of(rows([START, A, B]), GRAMMAR)
    assert targets.tokens.tolist() == [A, B]


def test_what_breaks_the_grammar_is_refused():
    with pytest.raises(ValueError, match="may not stand at time 3 of row 1"):
        targets_of(rows([START, A, B, END], [START, B, A, START]), GRAMMAR)


def test_padding_and_company_change_nothing():
    network = generator()
    each = [bits(network, word) for word in WORDS]
    assert bits(network, *WORDS) == pytest.approx(sum(each))
    batch = rows(*WORDS)
    wider = Batch(
        tokens=np.pad(batch.tokens, ((0, 0), (0, 7)), constant_values=A), lengths=batch.lengths
    )
    total, count = held_out_likelihood(network, [wider], GRAMMAR, precision="float32")
    assert (total, count) == (pytest.approx(sum(each)), sum(len(word) - 1 for word in WORDS))
    loss = negative_log_likelihood(network, targets_of(wider, GRAMMAR))
    assert loss.item() == pytest.approx(total / count * math.log(2))


def test_the_gradient_does_not_depend_on_padding():
    gradients = []
    for width in (0, 6):
        network = generator()
        batch = rows([START, A, B, END], [START, END])
        tokens = np.pad(batch.tokens, ((0, 0), (0, width)), constant_values=PAD)
        targets = targets_of(Batch(tokens=tokens, lengths=batch.lengths), GRAMMAR)
        negative_log_likelihood(network, targets).backward()
        gradients.append([p.grad for p in network.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_log_probs_are_the_generators_own_under_the_grammar():
    network = generator()
    word = [START, B, A, END]
    log_probs = target_log_probs(network, targets_of(rows(word), GRAMMAR))
    logits, _ = network(torch.tensor([word[:-1]]))
    state = 0
    for time, token in enumerate(word[:-1]):
        state = GRAMMAR.next_state[state, token]
        allowed = torch.from_numpy(GRAMMAR.allowed[state])
        expected = logits[0, time][allowed].log_softmax(0)
        torch.testing.assert_close(log_probs[time][allowed], expected)
        assert (log_probs[time][~allowed] == -torch.inf).all()


def test_held_out_likelihood_is_without_dropout_and_leaves_the_mode_alone():
    network = new_generator(GeneratorConfig(embedding_size=4, hidden_size=5), VOCAB).train()
    first, second = bits(network, *WORDS), bits(network, *WORDS)
    assert first == second and network.training
    assert bits(network.eval(), *WORDS) == first and not network.training


def test_held_out_likelihood_of_a_store_is_the_sum_over_its_pieces(store):
    torch.manual_seed(0)
    grammar = store.tokenizer.grammar
    network = new_generator(
        GeneratorConfig(embedding_size=8, hidden_size=8), len(store.tokenizer.vocabulary)
    )

    def likelihood(batches):
        return held_out_likelihood(network, batches, grammar, precision="float32")

    pieces = [store.piece_tokens(int(i)) for i in store.indices("train")]
    single = [likelihood([padded([piece])]) for piece in pieces]
    expected = (pytest.approx(sum(b for b, _ in single)), sum(count for _, count in single))
    for max_tokens in (1, 200, 100_000):
        assert likelihood(held_out_batches(store, "train", max_tokens=max_tokens)) == expected
    assert expected[1] == sum(len(piece) - 1 for piece in pieces)


def test_precision_by_name():
    product = torch.ones(2, 2)
    with autocast("bfloat16"):
        assert (product @ product).dtype == torch.bfloat16
    with autocast("float32"):
        assert (product @ product).dtype == torch.float32


def test_bfloat16_is_near_float32():
    network = generator()
    low, _ = held_out_likelihood(network, [rows(*WORDS)], GRAMMAR, precision="bfloat16")
    assert low == pytest.approx(bits(network, *WORDS), rel=0.01)
