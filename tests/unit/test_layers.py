import math

import pytest
import torch

from rnngan.layers import (
    GRU,
    AttentionPooling,
    LockedDropout,
    bound_singular_values,
    grammar_log_softmax,
    length_mask,
    reset_recurrent,
)


def test_length_mask():
    assert length_mask(torch.tensor([2, 0, 3]), 3).tolist() == [
        [True, True, False],
        [False, False, False],
        [True, True, True],
    ]


def test_grammar_log_softmax_shares_the_probability_among_what_may_come():
    logits = torch.tensor([[0.0, 5.0, math.log(3)]])
    probs = grammar_log_softmax(logits, torch.tensor([[True, False, True]])).exp()
    assert probs[0].tolist() == pytest.approx([0.25, 0.0, 0.75])


def test_grammar_log_softmax_sends_no_gradient_into_what_may_not_come():
    logits = torch.randn(4, 5, requires_grad=True)
    allowed = torch.rand(4, 5) < 0.5
    allowed[:, 0] = True
    log_probs = grammar_log_softmax(logits, allowed)
    log_probs[:, 0].sum().backward()
    assert (logits.grad[~allowed] == 0).all()
    expected = allowed.float() * -log_probs.detach().exp()
    expected[:, 0] += 1
    torch.testing.assert_close(logits.grad, expected)


def test_grammar_log_softmax_computes_in_float32():
    logits = torch.randn(2, 3).bfloat16()
    assert grammar_log_softmax(logits, torch.ones(2, 3, dtype=torch.bool)).dtype == torch.float32


@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU])
def test_recurrent_weights_begin_at_full_strength(kind):
    torch.manual_seed(0)
    rnn = kind(24, 20, num_layers=2)
    reset_recurrent(rnn)
    for name, weight in rnn.named_parameters():
        if name.startswith("weight_hh"):
            for gate in weight.detach().split(20):
                torch.testing.assert_close(gate @ gate.T, torch.eye(20))
        elif name.startswith("bias"):
            expected = torch.zeros_like(weight)
            if kind is torch.nn.LSTM and name.startswith("bias_ih"):
                expected[20:40] = 1  # input, forget, cell, output
            assert torch.equal(weight, expected)
        else:
            for gate in weight.detach().split(20):
                std = (2 / sum(gate.shape)) ** 0.5
                assert gate.std() == pytest.approx(std, rel=0.15)  # a deviation is 4 in 100


def test_locked_dropout_drops_a_unit_for_the_whole_piece():
    torch.manual_seed(0)
    dropout = LockedDropout(0.25)
    dropped = dropout(torch.ones(200, 7, 50))
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)  # 10,000 draws: 0.006 a deviation
    assert not torch.equal(dropped[0], dropped[1])


def test_locked_dropout_is_off_in_evaluation_and_at_rate_0():
    hidden = torch.randn(2, 3, 4)
    assert LockedDropout(0.5).eval()(hidden) is hidden
    assert LockedDropout(0.0)(hidden) is hidden


def pooling(hidden_size):
    torch.manual_seed(0)
    return AttentionPooling(hidden_size)


def test_attention_pooling_by_hand():
    pool = pooling(2)
    with torch.no_grad():
        pool.score[0].weight.copy_(torch.eye(2))
        pool.score[0].bias.zero_()
        pool.score[2].weight.copy_(torch.tensor([[2.0, 0.0]]))
    hidden = torch.tensor([[[1.0, 4.0], [0.0, 8.0], [-3.0, 100.0]]])
    with torch.no_grad():
        pooled = pool(hidden, torch.tensor([[True, True, False]]))
    first = 1 / (1 + math.exp(-2 * math.tanh(1)))  # the second scores 0
    assert pooled[0].tolist() == pytest.approx([first, 4 * first + 8 * (1 - first)])


def test_attention_pooling_weighs_only_what_the_mask_lets_through():
    pool = pooling(3)
    hidden, mask = torch.randn(2, 4, 3), torch.tensor([[True] * 4, [True, True, False, False]])
    other = torch.where(mask[..., None], hidden, 1e9)
    torch.testing.assert_close(pool(hidden, mask), pool(other, mask))
    torch.testing.assert_close(pool(hidden, mask)[1:], pool(hidden[1:, :2], mask[1:, :2]))


def test_attention_pooling_of_one_step_is_that_step():
    pool = pooling(3)
    hidden = torch.randn(2, 4, 3)
    mask = torch.zeros(2, 4, dtype=torch.bool)
    mask[0, 1] = mask[1, 3] = True
    torch.testing.assert_close(pool(hidden, mask), torch.stack([hidden[0, 1], hidden[1, 3]]))


def test_attention_pooling_lies_between_the_steps_and_does_not_know_their_order():
    pool = pooling(3)
    hidden, mask = torch.randn(5, 7, 3), torch.ones(5, 7, dtype=torch.bool)
    pooled = pool(hidden, mask)
    assert (pooled <= hidden.amax(1)).all() and (pooled >= hidden.amin(1)).all()
    torch.testing.assert_close(pool(hidden.flip(1), mask), pooled)


def test_gru_is_torchs():
    torch.manual_seed(0)
    ours = GRU(4, 3)
    reference = torch.nn.GRU(4, 3, batch_first=True)
    reference.load_state_dict(ours.state_dict())
    steps = torch.randn(2, 5, 4)
    torch.testing.assert_close(ours(steps), reference(steps)[0])


def test_bound_singular_values_is_what_the_gru_computes_with():
    torch.manual_seed(0)
    rnn = GRU(4, 3)
    steps = torch.randn(2, 5, 4)
    before = rnn(steps)
    bound_singular_values(rnn)
    rnn.eval()
    after = rnn(steps)
    assert not torch.allclose(after, before)
    reference = torch.nn.GRU(4, 3, batch_first=True)
    with torch.no_grad():
        for name in ("weight_ih_l0", "weight_hh_l0"):
            weight = getattr(rnn, name)
            assert torch.linalg.svdvals(weight)[0].item() == pytest.approx(1, abs=1e-3)
            getattr(reference, name).copy_(weight)
        reference.bias_ih_l0.zero_()
        reference.bias_hh_l0.zero_()
    torch.testing.assert_close(after, reference(steps)[0])


def test_bound_singular_values_divides_by_the_largest():
    layer = torch.nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 8.0], [2.0, 0.0]]))
    torch.manual_seed(0)
    bound_singular_values(layer)
    layer.eval()
    torch.testing.assert_close(layer.weight, torch.tensor([[0.0, 1.0], [0.25, 0.0]]))
