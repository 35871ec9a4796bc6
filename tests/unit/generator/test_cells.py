"""Every cell against its equations, in float64 and step by step."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnngan.generator.cells import GRU, LSTM, PEEPHOLE_LSTM, RNN

BATCH, TIME, INPUT, HIDDEN = 3, 6, 4, 5
CELLS = {"lstm": LSTM, "gru": GRU, "rnn": RNN, "peephole-lstm": PEEPHOLE_LSTM}


def weights_of(cell, seed=0):
    """Of two layers, all of them random."""
    torch.manual_seed(seed)
    stack = cell.stack(INPUT, HIDDEN, 2, batch_first=True).double()
    for weight in stack.parameters():
        torch.nn.init.normal_(weight)
    return stack.all_weights


def inputs_of(cell, seed=1, batch=BATCH, time=TIME):
    torch.manual_seed(seed)
    inputs = torch.randn(batch, time, INPUT, dtype=torch.double)
    return inputs, [torch.randn(batch, HIDDEN).double() for _ in range(cell.num_states)]


def lstm(x, state, w, u, b, b2, peepholes=None):
    h, c = state
    p_i, p_f, p_o = torch.zeros(3, HIDDEN) if peepholes is None else peepholes
    w_i, w_f, w_g, w_o = w.split(HIDDEN)
    u_i, u_f, u_g, u_o = u.split(HIDDEN)
    b_i, b_f, b_g, b_o = (b + b2).split(HIDDEN)
    i = torch.sigmoid(x @ w_i.T + h @ u_i.T + p_i * c + b_i)
    f = torch.sigmoid(x @ w_f.T + h @ u_f.T + p_f * c + b_f)
    new = f * c + i * torch.tanh(x @ w_g.T + h @ u_g.T + b_g)
    o = torch.sigmoid(x @ w_o.T + h @ u_o.T + p_o * new + b_o)
    return o * torch.tanh(new), new


def gru(x, state, w, u, b, b2):
    (h,) = state
    (w_r, w_z, w_n), (u_r, u_z, u_n) = w.split(HIDDEN), u.split(HIDDEN)
    (b_r, b_z, b_n), (d_r, d_z, d_n) = b.split(HIDDEN), b2.split(HIDDEN)
    r = torch.sigmoid(x @ w_r.T + b_r + h @ u_r.T + d_r)
    z = torch.sigmoid(x @ w_z.T + b_z + h @ u_z.T + d_z)
    n = torch.tanh(x @ w_n.T + b_n + r * (h @ u_n.T + d_n))
    return ((1 - z) * n + z * h,)


def rnn(x, state, w, u, b, b2):
    return (torch.tanh(x @ w.T + b + state[0] @ u.T + b2),)


EQUATIONS = {"lstm": lstm, "gru": gru, "rnn": rnn, "peephole-lstm": lstm}


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_obeys_its_equations(name):
    cell = CELLS[name]
    weights = weights_of(cell)[0]
    inputs, state = inputs_of(cell)
    hidden, *end = cell.scan(inputs, state, weights, True)
    assert hidden.shape == (BATCH, TIME, HIDDEN)
    for time in range(TIME):
        state = EQUATIONS[name](inputs[:, time], state, *weights)
        torch.testing.assert_close(hidden[:, time], state[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(tuple(end), tuple(state), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CELLS)
def test_weights_of_each_layer_fit_those_below(name):
    first, second = weights_of(CELLS[name])
    assert [w.shape for w in first[1:]] == [w.shape for w in second[1:]]
    assert (first[0].shape[1], second[0].shape[1]) == (INPUT, HIDDEN)


def test_the_gradient_of_the_peephole_lstm_is_that_of_its_outputs():
    inputs, state = inputs_of(PEEPHOLE_LSTM, batch=2, time=4)
    parts = [inputs, *state, *weights_of(PEEPHOLE_LSTM)[0]]
    parts = [part.detach().requires_grad_() for part in parts]

    def scan(inputs, hidden, cell, *weights):
        return PEEPHOLE_LSTM.scan(inputs, (hidden, cell), weights, True)

    assert torch.autograd.gradcheck(scan, parts)


def test_and_is_what_torch_finds_through_the_equations():
    inputs, state = inputs_of(PEEPHOLE_LSTM)
    weights = weights_of(PEEPHOLE_LSTM)[0]
    wanted = [inputs.requires_grad_(), *(part.requires_grad_() for part in state), *weights]

    def loss(hidden, cell):
        return (hidden * torch.arange(TIME)[:, None]).sin().sum() + cell.square().sum()

    hidden, _, cell = PEEPHOLE_LSTM.scan(inputs, state, weights, True)
    found = torch.autograd.grad(loss(hidden, cell), wanted)
    rows, now = [], state
    for time in range(TIME):
        now = lstm(inputs[:, time], now, *weights)
        rows.append(now[0])
    expected = torch.autograd.grad(loss(torch.stack(rows, 1), now[1]), wanted)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_without_peepholes_it_is_an_lstm():
    *weights, peepholes = weights_of(PEEPHOLE_LSTM)[0]
    inputs, state = inputs_of(LSTM)
    found = PEEPHOLE_LSTM.scan(inputs, state, [*weights, 0 * peepholes], True)
    torch.testing.assert_close(found, LSTM.scan(inputs, state, weights, True))


@settings(max_examples=20)
@given(name=st.sampled_from(list(CELLS)), cut=st.integers(1, TIME - 1), seed=st.integers(0, 99))
def test_in_two_parts_as_in_one(name, cut, seed):
    cell = CELLS[name]
    weights, (inputs, state) = weights_of(cell, seed)[0], inputs_of(cell, seed)
    whole, *end = cell.scan(inputs, state, weights, False)
    first, *between = cell.scan(inputs[:, :cut], state, weights, False)
    second, *after = cell.scan(inputs[:, cut:], between, weights, False)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(after, end)


@pytest.mark.parametrize("name", CELLS)
def test_bfloat16_is_near_float32(name):
    """Outputs and gradients of weights, with sequences as long as in training."""
    cell = CELLS[name]
    stack = cell.stack(INPUT, HIDDEN, 1, batch_first=True)
    inputs, state = (torch.randn(2, 100, INPUT), [torch.zeros(2, HIDDEN)] * cell.num_states)
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            hidden, *_ = cell.scan(inputs, state, stack.all_weights[0], True)
        stack.zero_grad()
        hidden.float().square().mean().backward()
        found.append((hidden.detach().float(), stack.get_parameter("weight_hh_l0").grad.clone()))
    (exact, slope), (near, near_slope) = found
    assert 0 < (near - exact).abs().max() < 0.05
    assert (near_slope - slope).norm() < 0.1 * slope.norm()
