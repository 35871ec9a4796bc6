from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from rnngan.generator.attention import CausalAttention


def attention(hidden=5, embedding=3, width=8, num_heads=2):
    torch.manual_seed(0)
    network = CausalAttention(hidden, embedding, width, num_heads).double()
    for weight in (network.first_key, network.of_states.weight, network.of_states.bias):
        torch.nn.init.normal_(weight, std=0.5)
    return network


def inputs(batch, time, hidden=5, embedding=3):
    return (
        torch.randn(batch, time, hidden, dtype=torch.double),
        torch.randn(batch, time, embedding, dtype=torch.double),
    )


def followers(size, sharpness=100.0):
    """Finds the same token before, and returns the token that came after it there."""
    network = CausalAttention(size, size, size, 1).double()
    with torch.no_grad():
        of_queries, of_keys, of_values = network.of_states.weight.chunk(3)
        of_queries.copy_(sharpness * torch.eye(size))
        of_keys.copy_(torch.eye(size))
        of_values.zero_()
        network.of_states.bias.zero_()
        network.of_tokens.weight.copy_(torch.eye(size))
        network.first_key.fill_(0.5)  # better than no match, worse than one
    return network


def test_what_followed_before_is_found():
    """States and embeddings name the token. After the second 1 came 4, after both 2s 3 and 0."""
    tokens = torch.tensor([[5, 1, 4, 2, 3, 1, 2, 0, 2]])
    one_hot = F.one_hot(tokens, 6).double()
    network = followers(6)
    context, _ = network(one_hot, one_hot, network.start(1))
    # Of 5, 1, 4, 2, 3 and 0 nothing is known when they come first: the place of the first token.
    expected = F.one_hot(torch.tensor([5, 5, 5, 5, 5, 4, 3, 5, 0]), 6).double()
    expected[8] = torch.tensor([0.5, 0, 0, 0.5, 0, 0])
    torch.testing.assert_close(context[0], expected)
    looked_at = network.weights(one_hot, one_hot)[0, 0]
    places = torch.zeros(9, 9, dtype=torch.double)
    places[[0, 1, 2, 3, 4, 5, 6, 7], [0, 0, 0, 0, 0, 2, 4, 0]] = 1
    places[8, [4, 7]] = 0.5
    torch.testing.assert_close(looked_at, places)


def test_like_states_find_each_other_before_anything_is_learned():
    """32 states, and once more: each gets what followed it then, ten times as much as by chance."""
    torch.manual_seed(0)
    network = CausalAttention(64, 3, 32, 2)
    states = 0.2 * torch.randn(1, 32, 64).repeat(1, 2, 1)  # as small as an LSTM's begin
    looked_at = network.weights(states, torch.randn(1, 64, 3))
    found = looked_at[0, :, 32:].diagonal(1, 1, 2)
    assert found.shape == (2, 32)
    assert found.mean() > 10 / 48


@settings(max_examples=20)
@given(
    batch=st.integers(1, 4),
    num_heads=st.integers(1, 3),
    size=st.integers(1, 5),
    time=st.integers(1, 9),
    cuts=st.lists(st.integers(0, 9), max_size=3),
)
def test_contexts_are_the_weighted_values_in_any_number_of_pieces(
    batch, num_heads, size, time, cuts
):
    network = attention(width=num_heads * size, num_heads=num_heads)
    states, embedded = inputs(batch, time)
    memory, parts = network.start(batch), []
    bounds = sorted({0, time, *(cut for cut in cuts if cut < time)})
    for first, last in pairwise(bounds):
        part, memory = network(states[:, first:last], embedded[:, first:last], memory)
        parts.append(part)
    weights = network.weights(states, embedded)
    assert weights.shape == (batch, num_heads, time, time)
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    assert not weights.triu(1).any()
    contexts = (weights @ memory.values).transpose(1, 2).flatten(2)
    torch.testing.assert_close(torch.cat(parts, dim=1), contexts)
    assert memory.keys.shape == (batch, num_heads, time + 1, size)


def test_gradients():
    network = attention()
    states, embedded = (part.requires_grad_() for part in inputs(2, 4))
    weights = tuple(network.parameters())

    def contexts(states, embedded, *_):
        first, memory = network(states[:, :3], embedded[:, :3], network.start(2))
        second, _ = network(states[:, 3:], embedded[:, 3:], memory)
        return first, second

    assert torch.autograd.gradcheck(contexts, (states, embedded, *weights))


def test_no_gradient_from_the_future():
    network = attention()
    states, embedded = (part.requires_grad_() for part in inputs(1, 6))
    contexts, _ = network(states, embedded, network.start(1))
    for time in range(6):
        gradients = torch.autograd.grad(
            contexts[0, time].square().sum(), (states, embedded), retain_graph=True
        )
        for gradient in gradients:
            assert not gradient[0, time + 1 :].any()
            assert gradient[0, time].any()


@pytest.mark.parametrize("time", [2, 300])
def test_bfloat16_is_near_float32(time):
    network = attention().float()
    states, embedded = (part.float() for part in inputs(2, time))
    exact, _ = network(states, embedded, network.start(2))
    with torch.autocast("cpu", torch.bfloat16):
        near, memory = network(states, embedded, network.start(2))
    assert memory.keys.dtype == torch.bfloat16
    torch.testing.assert_close(near.float(), exact, rtol=0, atol=0.05)
