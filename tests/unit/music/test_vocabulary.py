import numpy as np
import pytest

from rnngan.errors import UserError
from rnngan.music.vocabulary import (
    CONTINUE,
    END,
    FRAME_TOKENS,
    MAX_TOKENS,
    PAD,
    START,
    Grammar,
    Vocabulary,
    build_grammar,
)


def vocabulary(*names):
    return Vocabulary((*FRAME_TOKENS, *names))


def moves(state):
    """Start, then letters a b and digits 1 2 in turn, then End and Pad; ids 4 5 and 6 7."""
    match state:
        case "begin":
            yield range(START, START + 1), "letter"
        case "letter":
            yield range(4, 6), "digit"
        case "digit":
            yield range(6, 8), "letter"
            yield range(END, END + 1), "end"
        case "end":
            yield range(PAD, PAD + 1), "end"


@pytest.fixture
def toy():
    return build_grammar("begin", moves, 8)


def test_the_frame_tokens_have_the_first_ids():
    names = vocabulary("Bar").index
    assert (names["Pad"], names["Start"], names["Continue"], names["End"]) == (
        PAD,
        START,
        CONTINUE,
        END,
    )


def test_kinds_ids_and_values():
    tokens = vocabulary("Bar", "Pitch_60", "Pitch_61", "Tag_style=slow_air")
    assert len(tokens) == 8
    assert tokens.ids("Bar") == range(4, 5)
    assert tokens.ids("Pitch") == range(5, 7)
    assert tokens.values("Pitch") == ("60", "61")
    assert tokens.values("Tag") == ("style=slow_air",)  # only the first underscore separates
    assert tokens.ids("Drum") == range(0) and tokens.values("Drum") == ()
    assert all(tokens.index[name] == i for i, name in enumerate(tokens.names))


@pytest.mark.parametrize(
    ("names", "rule"),
    [
        (("Start", "Pad", "Continue", "End"), "begins with"),
        (("Pad", "Start"), "begins with"),
        ((*FRAME_TOKENS, "Bar", "Bar"), "each token once"),
        ((*FRAME_TOKENS, "Pitch_1", "Bar", "Pitch_2"), "stand together"),
    ],
)
def test_impossible_vocabularies(names, rule):
    with pytest.raises(ValueError, match=rule):
        Vocabulary(names)


def test_ids_fit_into_16_bits():
    values = tuple(f"Tag_title={i}" for i in range(MAX_TOKENS - len(FRAME_TOKENS)))
    assert len(vocabulary(*values)) == MAX_TOKENS
    with pytest.raises(UserError, match=r"at most 65536 tokens.*fewer values"):
        vocabulary(*values, "Bar")


def test_a_toy_grammar_by_hand(toy):
    no = -1
    np.testing.assert_array_equal(
        toy.next_state,
        [  # Pad Start Continue End a b 1 2
            [no, 1, no, no, no, no, no, no],  # begin
            [no, no, no, no, 2, 2, no, no],  # letter
            [no, no, no, 3, no, no, 1, 1],  # digit
            [3, no, no, no, no, no, no, no],  # end
        ],
    )
    np.testing.assert_array_equal(toy.allowed, toy.next_state >= 0)


@pytest.mark.parametrize(
    ("tokens", "error"),
    [
        ([], None),
        ([START], None),
        ([START, 4, 6, 5, END, PAD, PAD], None),
        ([4], 0),
        ([START, 4, 5], 2),
        ([START, 4, 6, END], 3),  # a digit must not be the last
        ([START, 4, END, START], 3),
        ([START, 4, END, 4], 3),
    ],
)
def test_first_error(toy, tokens, error):
    assert toy.first_error(np.array(tokens, dtype=np.int64)) == error


def test_states_before_each_token(toy):
    tokens = np.array([[START, 4, 6, 5, END], [START, 5, END, 7, 7]])
    states = toy.states_before(tokens, np.array([5, 3]))
    # Behind its length a row may hold anything, and the state stays.
    np.testing.assert_array_equal(states, [[0, 1, 2, 1, 2], [0, 1, 2, 3, 3]])


def test_states_before_names_the_wrong_token(toy):
    tokens = np.array([[START, 4, 6], [START, 4, 5]])
    with pytest.raises(ValueError, match="token 5 may not stand at time 2 of row 1"):
        toy.states_before(tokens, np.array([3, 3]))
    assert toy.states_before(tokens, np.array([3, 2])).shape == (2, 3)
    assert toy.states_before(tokens[:0], np.array([], dtype=int)).shape == (0, 3)


def test_a_grammar_reaches_no_more_states_than_it_needs():
    def counter(state):
        yield range(4, 5), (state + 1) % 3

    grammar = build_grammar(0, counter, 5)
    assert isinstance(grammar, Grammar)
    assert grammar.next_state[:, 4].tolist() == [1, 2, 0]
