import math

import pytest
import torch

from rnngan.config import GeneratorConfig
from rnngan.generator.lstm import LSTMGenerator

VOCAB = 11


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def generator(request):
    torch.manual_seed(0)
    config = GeneratorConfig(embedding_size=6, hidden_size=8, num_layers=2, tied=request.param)
    return LSTMGenerator(config, VOCAB).eval()


def test_logits_ignore_the_future(generator):
    tokens = torch.randint(VOCAB, (2, 9))
    changed = tokens.clone()
    changed[:, 5] = (changed[:, 5] + 1) % VOCAB
    before, _ = generator(tokens)
    after, _ = generator(changed)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5], after[:, 5])


def test_step_by_step_is_one_pass(generator):
    tokens = torch.randint(VOCAB, (3, 7))
    whole, (hidden, cell) = generator(tokens)
    state = None
    for time in range(tokens.shape[1]):
        logits, state = generator.step(tokens[:, time], state)
        torch.testing.assert_close(logits, whole[:, time])
    torch.testing.assert_close(state[0], hidden)
    torch.testing.assert_close(state[1], cell)


def test_padding_behind_changes_nothing(generator):
    tokens = torch.randint(1, VOCAB, (2, 8))
    padded = tokens.clone()
    padded[0, 5:] = 0
    alone, _ = generator(tokens[:1, :5])
    together, _ = generator(padded)
    torch.testing.assert_close(together[:1, :5], alone)


def test_tied_output_is_the_embedding():
    config = {"embedding_size": 6, "hidden_size": 8}
    tied = LSTMGenerator(GeneratorConfig(**config, tied=True), VOCAB)
    assert tied.output.weight is tied.embedding.weight
    assert sum(p.shape == (VOCAB, 6) for p in tied.parameters()) == 1
    untied = LSTMGenerator(GeneratorConfig(**config, tied=False), VOCAB)
    assert untied.output.weight is not untied.embedding.weight
    assert isinstance(untied.projection, torch.nn.Identity)


def test_forget_gates_begin_open():
    """Their bias is 1 above the others, which lie within 1 / sqrt(hidden) of 0."""
    size = 64
    torch.manual_seed(0)
    config = GeneratorConfig(embedding_size=4, hidden_size=size, num_layers=2)
    rnn = LSTMGenerator(config, VOCAB).rnn
    for layer in range(2):
        for name, shift in ((f"bias_ih_l{layer}", 1.0), (f"bias_hh_l{layer}", 0.0)):
            bias = getattr(rnn, name).detach().view(4, size)  # input, forget, cell, output
            expected = torch.tensor([0.0, shift, 0.0, 0.0])[:, None]
            assert (bias - expected).abs().max() <= 1 / math.sqrt(size)


def test_dropout_only_in_training(generator):
    tokens = torch.randint(VOCAB, (2, 5))
    assert torch.equal(generator(tokens)[0], generator(tokens)[0])
    generator.train()
    assert not torch.equal(generator(tokens)[0], generator(tokens)[0])
