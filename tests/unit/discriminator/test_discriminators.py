import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rnngan.config import DiscriminatorConfig
from rnngan.data.augment import Augmentation, augmented
from rnngan.discriminator.base import Calibration, MinibatchFeatures
from rnngan.discriminator.registry import DISCRIMINATORS, new_discriminator
from rnngan.errors import UserError
from rnngan.music.tokenizers.events import Events, EventsConfig
from rnngan.music.tokenizers.tuples import Tuples, TuplesConfig

TUNES = Events(EventsConfig(metres=("4/4",), lowest=60, highest=70))
VOCAB = len(TUNES.vocabulary)
KINDS = list(DISCRIMINATORS)
VIEWS = ["tokens", "relative", "both"]


def network(kind="gru", *, stride=2, seed=0, **options):
    torch.manual_seed(seed)
    small = {"embedding_size": 5, "hidden_size": 6, "dropout": 0.0, "views": "tokens"}
    config = DiscriminatorConfig(kind=kind, stride=stride, **{**small, **options})
    return new_discriminator(config, TUNES).eval()


def pieces(*lengths, seed=1):
    torch.manual_seed(seed)
    return [torch.randint(1, VOCAB, (length,)) for length in lengths]


def batch(rows, time=None, filling=0):
    lengths = torch.tensor([len(row) for row in rows])
    tokens = torch.full((len(rows), time or int(lengths.max())), filling)
    for line, row in zip(tokens, rows):
        line[: len(row)] = row
    return tokens, lengths


def logits(net, rows, **options):
    return net(*batch(rows, **options))


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_and_company_change_nothing(kind, stride, views):
    net = network(kind, stride=stride, views=views, num_layers=2, causal_head=True)
    rows = pieces(1, 2, 3, 4, 5, 6, 7, 8, 13)
    for ask in (net, net.features):
        together = ask(*batch(rows))
        for extra in (1, 2, 3, 20):
            torch.testing.assert_close(ask(*batch(rows, time=13 + extra)), together)
        torch.testing.assert_close(ask(*batch(rows, time=20, filling=3)), together)
        alone = torch.cat([ask(*batch([row])) for row in rows])
        torch.testing.assert_close(alone, together)
        torch.testing.assert_close(ask(*batch(rows[::-1])).flip(0), together)
    potentials = net.potentials(*batch(rows, time=20, filling=3))
    for row, line in zip(rows, potentials):
        (alone,) = net.potentials(*batch([row]))
        torch.testing.assert_close(alone, line[: len(row)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 2, 3, 7, 10])
def test_every_token_counts(kind, stride, length):
    net = network(kind, stride=stride)
    (row,) = pieces(length)
    whole = logits(net, [row])
    for time in range(length):
        other = row.clone()
        other[time] = other[time] % (VOCAB - 1) + 1
        assert (logits(net, [other]) - whole).abs() > 1e-7, time


@pytest.mark.parametrize("kind", KINDS)
def test_order_counts(kind):
    net = network(kind)
    (row,) = pieces(9)
    assert (logits(net, [row.flip(0)]) - logits(net, [row])).abs() > 1e-6


@pytest.mark.parametrize(
    ("kind", "stride", "num"), [("gru", 1, 1), ("gru", 3, 3), ("conv-gru", 3, 6)]
)
def test_a_step_joins_tokens(kind, stride, num):
    net = network(kind, stride=stride)
    seen = []
    net.rnn.forwards[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    for length in range(1, 15):
        logits(net, pieces(length))
    assert seen == [-(-length // num) for length in range(1, 15)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("spectral_norm", [False, True])
def test_the_gradient_reaches_everything_but_padding(kind, views, spectral_norm):
    net = network(
        kind, views=views, causal_head=True, minibatch_features=2, spectral_norm=spectral_norm
    )
    rows = pieces(4, 9)
    tokens, lengths = batch(rows, time=12)
    potentials = net.potentials(tokens, lengths)
    (net(tokens, lengths).sum() + potentials[0, :4].sum() + potentials[1, :9].sum()).backward()
    if views != "relative":
        used = torch.unique(torch.cat(rows))
        assert (net.embedding.tokens.weight.grad[used].abs().sum(1) > 0).all()
        assert (net.embedding.tokens.weight.grad[0] == 0).all()  # padding
    for name, parameter in net.named_parameters():
        # The same for all steps, so that the softmax drops it.
        if name != "rnn.pool.score.2.bias":
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_acts_in_training_alone(kind):
    net = network(kind, dropout=0.5)
    rows = pieces(9)
    assert torch.equal(logits(net, rows), logits(net, rows))
    net.train()
    assert not torch.equal(logits(net, rows), logits(net, rows))


@pytest.mark.parametrize("kind", KINDS)
def test_results_are_float32_under_autocast(kind):
    net = network(kind, stride=3, views="both", causal_head=True, spectral_norm=True)
    args = batch(pieces(5, 9))
    for ask in (net, net.features, net.potentials):
        with torch.autocast("cpu", torch.bfloat16):
            low = ask(*args)
        assert low.dtype == torch.float32
        torch.testing.assert_close(low, ask(*args), atol=0.03, rtol=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_what_the_output_layer_sees(kind):
    net = network(kind)
    args = batch(pieces(5, 9))
    torch.testing.assert_close(net.output(net.features(*args)).squeeze(-1), net(*args))


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_relative_view_does_not_hear_transposition(kind, views):
    net = network(kind, views=views)
    ids = TUNES.vocabulary.index
    names = ["Start", "Metre_4/4", "Bar", "Position_0", "Pitch_62", "Duration_24"]
    names += ["Position_24", "Pitch_65", "Duration_24", "End"]
    row = np.array([ids[name] for name in names], dtype=np.uint16)
    moved = [
        augmented(row, TUNES, Augmentation(transpose=9), np.random.default_rng(i)) for i in range(9)
    ]
    rows = [torch.from_numpy(r.astype(np.int64)) for r in (row, *moved)]
    assert (logits(net, rows).std() < 1e-6) == (views == "relative")


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("views", VIEWS)
def test_potentials_know_the_past_up_to_the_token_and_nothing_else(stride, views):
    net = network(stride=stride, views=views, causal_head=True, hidden_size=24)
    (row,) = pieces(11)
    (whole,) = net.potentials(*batch([row]))
    for time in range(11):
        other = row.clone()
        other[time] = other[time] % (VOCAB - 1) + 1
        (found,) = net.potentials(*batch([other]))
        assert torch.equal(found[:time], whole[:time])
        assert found[time] != whole[time]
        assert views == "relative" or found[-1] != whole[-1]
        (cut,) = net.potentials(*batch([row[: time + 1]]))
        torch.testing.assert_close(cut, whole[: time + 1])


def test_potentials_need_a_causal_head():
    with pytest.raises(UserError, match="causal_head"):
        network(causal_head=False).potentials(*batch(pieces(3)))


@pytest.mark.parametrize("kind", KINDS)
def test_soft_tokens_are_tokens_where_they_are_hard(kind):
    net = network(kind)
    tokens, lengths = batch(pieces(5, 9, 1), time=12)
    probs = F.one_hot(tokens, VOCAB).float().requires_grad_()
    soft = net.soft(probs, lengths)
    torch.testing.assert_close(soft, net(tokens, lengths))
    soft.sum().backward()
    behind = torch.arange(12) >= lengths[:, None]
    assert (probs.grad[behind] == 0).all()
    assert (probs.grad[~behind].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("views", ["relative", "both"])
def test_soft_tokens_have_no_relative_view(views):
    with pytest.raises(UserError, match="views = 'tokens' here, got"):
        network(views=views).soft(torch.ones(1, 2, VOCAB), torch.tensor([2]))


def test_the_stride_must_be_said():
    with pytest.raises(UserError, match="stride must be at least 1, got 0"):
        new_discriminator(DiscriminatorConfig(), TUNES)


@pytest.mark.parametrize("kind", KINDS)
def test_spectral_norm_bounds_every_matrix(kind):
    net = network(kind, hidden_size=12, spectral_norm=True, causal_head=True, minibatch_features=2)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("original"):
                parameter.mul_(7)
    net.train()
    args = batch(pieces(5, 9))
    for _ in range(30):  # a power iteration each
        net(*args)
        net.potentials(*args)
    net.eval()
    names = [n.removesuffix(".original") for n, _ in net.named_parameters() if "original" in n]
    for name in names:
        owner, _, weight = name.replace("parametrizations.", "").rpartition(".")
        matrix = getattr(net.get_submodule(owner), weight).flatten(1)
        assert torch.linalg.svdvals(matrix)[0].item() == pytest.approx(1, abs=0.03), name
    matrices = [n for n, p in net.named_parameters() if p.dim() > 1 and "embedding" not in n]
    assert len(names) == len(matrices)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spectral_norm", [False, True])
def test_a_copy_with_the_same_state_says_the_same(kind, spectral_norm):
    options = {"spectral_norm": spectral_norm, "views": "both", "causal_head": True}
    net = network(kind, **options)
    net.train()
    args = batch(pieces(5, 9))
    net(*args)
    net.eval().set_calibration(Calibration(scale=2.0, bias=-1.0))
    other = network(kind, seed=5, **options)
    other.load_state_dict(copy.deepcopy(net.state_dict()))
    assert torch.equal(other(*args), net(*args))
    assert torch.equal(other.log_ratio(torch.ones(1)), torch.ones(1))
    assert torch.equal(copy.deepcopy(net)(*args), net(*args))


def test_log_ratios_are_logits_until_calibrated():
    net, some = network(), torch.tensor([0.5, -2.0])
    assert torch.equal(net.log_ratio(some), some)
    calibration = Calibration(scale=0.5, bias=1.0)
    net.set_calibration(calibration)
    assert net.log_ratio(some).tolist() == calibration.calibrated(some).tolist() == [1.25, 0.0]


def test_minibatch_features_by_hand():
    features = MinibatchFeatures(width=1, num=1)
    with torch.no_grad():
        features.project.weight.copy_(torch.tensor([[1.0]] + 7 * [[0.0]]))
    near, far = np.exp(-1), np.exp(-3)
    found = features(torch.tensor([[0.0], [1.0], [3.0]])).squeeze(1)
    expected = [(near + far) / 2, (near + np.exp(-2)) / 2, (far + np.exp(-2)) / 2]
    assert found.tolist() == pytest.approx(expected)
    assert features(torch.tensor([[5.0]])).item() == 0
    assert features(torch.ones(4, 1)).squeeze(1).tolist() == pytest.approx([1] * 4)


def test_minibatch_features_see_the_batch():
    net = network(minibatch_features=4)
    rows = pieces(5, 9)
    assert not torch.allclose(logits(net, rows)[:1], logits(net, rows[:1]))
    copies = logits(net, [rows[0]] * 3)
    assert copies.std() < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_to_tell_a_motif(kind):
    """Real rows hold a token that the others lack: an easy task, learnt in a few steps."""
    net = network(kind, hidden_size=8).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    torch.manual_seed(0)
    for _ in range(60):
        rows = torch.randint(5, VOCAB, (32, 12))
        rows[:16][torch.arange(16), torch.randint(12, (16,))] = 4
        found = net(rows, torch.full((32,), 12))
        target = (torch.arange(32) < 16).float()
        loss = F.binary_cross_entropy_with_logits(found, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3


def test_config_is_kept_as_given():
    config = replace(DiscriminatorConfig(), stride=4, hidden_size=8)
    assert new_discriminator(config, TUNES).config == config


# Rows of real numbers


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_real_numbers_are_judged_whatever_the_views(kind, views):
    torch.manual_seed(0)
    config = DiscriminatorConfig(
        kind=kind, views=views, stride=1, embedding_size=5, hidden_size=6, dropout=0.0
    )
    tuples = Tuples(TuplesConfig(mean=(0, 0, 0, 0), std=(1, 1, 1, 1), lowest=0, highest=127))
    net = new_discriminator(config, tuples).eval().requires_grad_(False)
    rows, lengths = torch.randn(3, 9, 4), torch.tensor([9, 4, 1])
    expected = net(rows, lengths)
    changed = rows.clone()
    changed[1, 4:] = 9.0
    torch.testing.assert_close(net(changed, lengths), expected)
    torch.testing.assert_close(net(rows[1:2, :4], lengths[1:2]), expected[1:2])
    rows.requires_grad_()
    net(rows, lengths).sum().backward()
    inside = torch.arange(9) < lengths[:, None]
    assert torch.equal(rows.grad.abs().sum(2) > 0, inside)
