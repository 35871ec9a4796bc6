import torch

from rnngan.discriminator.gru import BidirectionalGRU, reversed_within


def test_reversed_within_by_hand():
    steps = torch.tensor([[1, 2, 3, 9], [4, 5, 8, 9], [6, 7, 8, 9]])[..., None]
    backwards = reversed_within(steps, torch.tensor([3, 2, 4]))
    assert backwards[..., 0].tolist() == [[3, 2, 1, 9], [5, 4, 8, 9], [9, 8, 7, 6]]


def test_reversed_within_twice_is_nothing():
    steps, lengths = torch.randn(4, 6, 3), torch.tensor([1, 6, 4, 2])
    assert torch.equal(reversed_within(reversed_within(steps, lengths), lengths), steps)


def test_each_direction_is_what_a_bidirectional_gru_computes():
    torch.manual_seed(0)
    net = BidirectionalGRU(hidden=6, num_layers=1)
    reference = torch.nn.GRU(6, 6, batch_first=True, bidirectional=True)
    state = dict(net.forwards[0].state_dict())
    state |= {f"{name}_reverse": value for name, value in net.backwards[0].state_dict().items()}
    reference.load_state_dict(state)
    steps = torch.randn(1, 8, 6)
    hidden, _ = reference(steps)
    pooled = net.pool(hidden, torch.ones(1, 8, dtype=torch.bool))
    torch.testing.assert_close(net(steps, torch.tensor([8])), pooled)
