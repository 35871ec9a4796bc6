import pytest
import torch

from rnngan.config import DiscriminatorConfig
from rnngan.discriminator.gru import GRUDiscriminator, reversed_within

VOCAB = 7


def network(stride, num_layers=1, dropout=0.0):
    torch.manual_seed(stride)
    config = DiscriminatorConfig(
        embedding_size=5, hidden_size=6, num_layers=num_layers, stride=stride, dropout=dropout
    )
    return GRUDiscriminator(config, VOCAB).eval()


def pieces(*lengths):
    torch.manual_seed(1)
    return [torch.randint(1, VOCAB, (length,)) for length in lengths]


def logits(network, rows, time=None, filling=0):
    lengths = torch.tensor([len(row) for row in rows])
    tokens = torch.full((len(rows), time or int(lengths.max())), filling)
    for line, row in zip(tokens, rows):
        line[: len(row)] = row
    return network(tokens, lengths)


def test_reversed_within_by_hand():
    steps = torch.tensor([[1, 2, 3, 9], [4, 5, 8, 9], [6, 7, 8, 9]])[..., None]
    backwards = reversed_within(steps, torch.tensor([3, 2, 4]))
    assert backwards[..., 0].tolist() == [[3, 2, 1, 9], [5, 4, 8, 9], [9, 8, 7, 6]]


def test_reversed_within_twice_is_nothing():
    steps, lengths = torch.randn(4, 6, 3), torch.tensor([1, 6, 4, 2])
    assert torch.equal(reversed_within(reversed_within(steps, lengths), lengths), steps)


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_padding_and_company_change_nothing(stride, num_layers):
    net = network(stride, num_layers)
    rows = pieces(1, 2, 3, 4, 5, 6, 7, 8, 13)
    together = logits(net, rows)
    for extra in (1, 2, 3, 20):
        torch.testing.assert_close(logits(net, rows, time=13 + extra), together)
    torch.testing.assert_close(logits(net, rows, time=20, filling=3), together)
    alone = torch.cat([logits(net, [row]) for row in rows])
    torch.testing.assert_close(alone, together)
    torch.testing.assert_close(logits(net, rows[::-1]).flip(0), together)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 6, 7, 10])
def test_every_token_counts(stride, length):
    net = network(stride)
    (row,) = pieces(length)
    whole = logits(net, [row])
    for time in range(length):
        other = row.clone()
        other[time] = other[time] % (VOCAB - 1) + 1
        assert (logits(net, [other]) - whole).abs() > 1e-6, time


def test_order_counts():
    net = network(stride=1)
    (row,) = pieces(9)
    assert (logits(net, [row.flip(0)]) - logits(net, [row])).abs() > 1e-6


def test_each_direction_is_what_a_bidirectional_gru_computes():
    net = network(stride=1)
    (row,) = pieces(8)
    reference = torch.nn.GRU(6, 6, batch_first=True, bidirectional=True)
    state = dict(net.forwards[0].state_dict())
    state |= {f"{name}_reverse": value for name, value in net.backwards[0].state_dict().items()}
    reference.load_state_dict(state)
    steps = torch.relu(net.join(net.embedding(row).T[None])).transpose(1, 2)
    hidden, _ = reference(steps)
    pooled = net.pool(hidden, torch.ones(1, 8, dtype=torch.bool))
    torch.testing.assert_close(net.output(pooled)[:, 0], logits(net, [row]))


@pytest.mark.parametrize("stride", [1, 3])
def test_a_step_joins_stride_tokens(stride):
    net = network(stride)
    seen = []
    net.forwards[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    for length in range(1, 9):
        logits(net, pieces(length))
    assert seen == [-(-length // stride) for length in range(1, 9)]


@pytest.mark.parametrize("stride", [1, 3])
def test_the_gradient_reaches_everything_but_padding(stride):
    net = network(stride)
    rows = pieces(4, 9)
    logits(net, rows, time=12).sum().backward()
    used = torch.unique(torch.cat(rows))
    assert (net.embedding.weight.grad[used].abs().sum(1) > 0).all()
    assert (net.embedding.weight.grad[0] == 0).all()  # padding
    for name, parameter in net.named_parameters():
        if name != "pool.score.2.bias":  # the same for all steps, so that the softmax drops it
            assert parameter.grad.abs().sum() > 0, name


def test_dropout_acts_in_training_alone():
    net = network(stride=1, dropout=0.5)
    rows = pieces(9)
    assert torch.equal(logits(net, rows), logits(net, rows))
    net.train()
    assert not torch.equal(logits(net, rows), logits(net, rows))


def test_logits_are_float32_under_autocast():
    net = network(stride=3)
    rows = pieces(5, 9)
    with torch.autocast("cpu", torch.bfloat16):
        low = logits(net, rows)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, logits(net, rows), atol=0.02, rtol=0.05)
