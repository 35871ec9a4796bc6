import math

import pytest
import torch

from rnngan.config import GeneratorConfig
from rnngan.generator.registry import CELLS, new_generator

VOCAB = 11
KINDS = list(CELLS)


@pytest.fixture(
    params=[
        {},
        {"tied": True},
        {"num_layers": 1},
        {"num_layers": 3, "tied": True},
        {"attention": 0},
        {"attention": 0, "tied": True},
        *({"kind": kind} for kind in KINDS[1:]),
        *({"kind": kind, "attention": 0, "num_layers": 3} for kind in KINDS[1:]),
        {"kind": "conv-lstm", "convolutions": 1, "kernel_size": 1, "pool_size": 1},
        {"kind": "conv-lstm", "convolutions": 3, "kernel_size": 2, "pool_size": 3, "tied": True},
    ],
    ids=str,
)
def generator(request):
    torch.manual_seed(0)
    settings = {"embedding_size": 6, "hidden_size": 8, "attention": 12, **request.param}
    generator = new_generator(GeneratorConfig(**settings), VOCAB).eval()
    for name, weight in generator.named_parameters():
        if "weight_ch" in name:  # peepholes begin at zero
            torch.nn.init.normal_(weight)
    return generator


def test_logits_ignore_the_future(generator):
    tokens = torch.randint(VOCAB, (2, 9))
    changed = tokens.clone()
    changed[:, 5] = (changed[:, 5] + 1) % VOCAB
    before, _ = generator(tokens)
    after, _ = generator(changed)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5], after[:, 5])


def test_no_gradient_from_the_future(generator):
    """From the logits of a time to the embedding of a token that comes nowhere else."""
    tokens = torch.arange(VOCAB)[None]
    logits, _ = generator(tokens)
    if generator.config.tied:
        logits = generator.hidden(tokens)[0]  # a tied output layer is the embedding, too
    for time in range(VOCAB):
        seen = torch.autograd.grad(
            logits[0, time].square().sum(), generator.embedding.weight, retain_graph=True
        )[0].any(1)
        assert seen.tolist() == [token <= time for token in range(VOCAB)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_step_by_step_is_one_pass(generator, dtype):
    generator.to(dtype)
    tokens = torch.randint(VOCAB, (3, 7))
    whole, expected = generator(tokens)
    state = None
    for time in range(tokens.shape[1]):
        logits, state = generator.step(tokens[:, time], state)
        torch.testing.assert_close(logits, whole[:, time])
    torch.testing.assert_close(state, expected)


@pytest.mark.parametrize("cut", [1, 4, 8])
def test_going_on_from_a_state_is_one_pass(generator, cut):
    tokens = torch.randint(VOCAB, (3, 9))
    whole, expected = generator(tokens)
    first, state = generator(tokens[:, :cut])
    second, state = generator(tokens[:, cut:], state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    torch.testing.assert_close(state, expected)


def test_pieces_are_picked_from_a_state_by_its_first_axis(generator):
    tokens, rows = torch.randint(VOCAB, (3, 9)), torch.tensor([2, 0, 2, 1])
    whole, _ = generator(tokens)
    _, state = generator(tokens[:, :5])
    assert state.batch_size == 3
    picked = state.map(lambda part: part[rows])
    assert picked.batch_size == 4
    after, _ = generator(tokens[rows, 5:], picked)
    torch.testing.assert_close(after, whole[rows, 5:])


def test_padding_behind_changes_nothing(generator):
    tokens = torch.randint(1, VOCAB, (2, 8))
    padded = tokens.clone()
    padded[0, 5:] = 0
    alone, _ = generator(tokens[:1, :5])
    together, _ = generator(padded)
    torch.testing.assert_close(together[:1, :5], alone)


def test_tied_output_is_the_embedding():
    config = {"embedding_size": 6, "hidden_size": 8}
    tied = new_generator(GeneratorConfig(**config, tied=True), VOCAB)
    assert tied.output.weight is tied.embedding.weight
    assert sum(p.shape == (VOCAB, 6) for p in tied.parameters()) == 1
    untied = new_generator(GeneratorConfig(**config, tied=False), VOCAB)
    assert untied.output.weight is not untied.embedding.weight
    assert isinstance(untied.projection, torch.nn.Identity)


@pytest.mark.parametrize("kind", ["lstm", "peephole-lstm", "conv-lstm"])
@pytest.mark.parametrize("attention", [0, 8])
def test_forget_gates_begin_open(kind, attention):
    """Their bias is 1 above the others, which lie within 1 / sqrt(hidden) of 0."""
    size = 64
    torch.manual_seed(0)
    config = GeneratorConfig(
        kind=kind, embedding_size=4, hidden_size=size, num_layers=2, attention=attention
    )
    layers = new_generator(config, VOCAB).layers()
    assert len(layers) == 2
    for layer in layers:
        for bias, shift in zip(layer[2:4], (1.0, 0.0)):
            # input, forget, cell, output
            expected = torch.tensor([0.0, shift, 0.0, 0.0])[:, None]
            assert (bias.detach().view(4, size) - expected).abs().max() <= 1 / math.sqrt(size)


@pytest.mark.parametrize("kind", KINDS)
def test_attention_weights_are_those_of_the_forward_pass(kind):
    """Moving a value moves the contexts by its weight, so the gradient is the weight."""
    torch.manual_seed(0)
    config = GeneratorConfig(
        kind=kind, embedding_size=6, hidden_size=8, attention=6, attention_heads=3
    )
    generator = new_generator(config, VOCAB).eval()
    tokens = torch.randint(VOCAB, (2, 7))
    weights = generator.attention_weights(tokens)
    assert weights.shape == (2, 3, 7, 7)
    _, state = generator(tokens[:, :-1])
    values = state.memory.values.detach().requires_grad_()
    hidden, _ = generator.hidden(
        tokens[:, -1:], state._replace(memory=state.memory._replace(values=values))
    )
    contexts = hidden[:, 0, config.hidden_size :].view(2, 3, 2)
    gradient = torch.autograd.grad(contexts.sum(), values)[0]
    torch.testing.assert_close(gradient, weights[:, :, 6, :6, None].expand(-1, -1, -1, 2))


def test_without_attention_there_are_no_weights_to_show():
    generator = new_generator(GeneratorConfig(attention=0), VOCAB)
    with pytest.raises(ValueError, match="no attention"):
        generator.attention_weights(torch.zeros(1, 3, dtype=torch.long))


def test_a_generator_without_attention_is_called_as_ever():
    """Names and shapes of its weights, which files of models hold."""
    config = GeneratorConfig(embedding_size=6, hidden_size=8, num_layers=2, attention=0)
    shapes = {k: tuple(v.shape) for k, v in new_generator(config, VOCAB).state_dict().items()}
    assert shapes == {
        "embedding.weight": (VOCAB, 6),
        "rnn.weight_ih_l0": (32, 6),
        "rnn.weight_hh_l0": (32, 8),
        "rnn.bias_ih_l0": (32,),
        "rnn.bias_hh_l0": (32,),
        "rnn.weight_ih_l1": (32, 8),
        "rnn.weight_hh_l1": (32, 8),
        "rnn.bias_ih_l1": (32,),
        "rnn.bias_hh_l1": (32,),
        "output.weight": (VOCAB, 8),
        "output.bias": (VOCAB,),
    }


def test_what_convolutions_find_stands_behind_the_embedding():
    """Worked by hand: one layer of one channel that adds 2 tokens, then the larger of 2 times."""
    config = GeneratorConfig(
        kind="conv-lstm", embedding_size=1, attention=0, convolutions=1, kernel_size=2, pool_size=2
    )
    front = new_generator(config, VOCAB).front
    with torch.no_grad():
        (layer,) = front.layers
        layer.weight.fill_(1)
        layer.bias.fill_(-1)
    inputs = torch.tensor([1.0, 3, -4, -2, 5])[None, :, None]
    found, (last_inputs, last_outputs) = front(inputs, front.start(1))
    # sums 1 4 -1 -6 3, less 1 and rectified 0 3 0 0 2
    assert found[0].tolist() == [[1, 0], [3, 3], [-4, 3], [-2, 0], [5, 2]]
    assert (last_inputs.tolist(), last_outputs.tolist()) == ([[[5]]], [[[2]]])


def test_no_convolution_without_its_kind():
    assert new_generator(GeneratorConfig(), VOCAB).front is None


def test_dropout_only_in_training(generator):
    tokens = torch.randint(VOCAB, (2, 5))
    assert torch.equal(generator(tokens)[0], generator(tokens)[0])
    generator.train()
    assert not torch.equal(generator(tokens)[0], generator(tokens)[0])
