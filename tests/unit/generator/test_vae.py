"""The variational autoencoder: its equations by hand, and what it can keep of music."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from rnngan.config import GeneratorConfig
from rnngan.data.batches import Batch, division_of, padded
from rnngan.errors import UserError
from rnngan.generator.plain import PlainStepper, stepper_of
from rnngan.generator.registry import generator_for
from rnngan.generator.sampling import Decoding, sample, stream, uniforms
from rnngan.generator.vae import (
    annealed_weight,
    divergence_from_prior,
    ends_of_slots,
    latents_from_prior,
    slerp,
    with_free_bits,
)
from rnngan.music.piece import Metre, Piece
from rnngan.music.tokenizers.events import Events, EventsConfig
from rnngan.music.tokenizers.melody import Melody, MelodyConfig
from rnngan.music.vocabulary import END
from rnngan.objectives.likelihood import (
    encoded_source,
    held_out_likelihood,
    target_log_probs,
    targets_of,
    tensors_of,
)

EVENTS = Events(EventsConfig(metres=("4/4",), lowest=50, highest=75))
SMALL = {
    **{"embedding_size": 6, "hidden_size": 8, "attention": 12},
    **{"latent_size": 6, "latent_slots": 1},
}


def tune(number, num_bars=2):
    random = np.random.default_rng(number)
    return Piece.from_rows(
        [(24 * i, 24 * i + 24, int(random.integers(55, 72)), 80) for i in range(4 * num_bars)]
    )


def batch_of(*numbers, bars=0, **options) -> Batch:
    division = division_of(GeneratorConfig(kind="vae", bars=bars, latent_slots=1), EVENTS)
    return padded([EVENTS.encode(tune(n, **options)) for n in numbers], division)


@pytest.fixture(
    params=[
        {"kind": "vae"},
        {"kind": "vae", "attention": 0, "num_layers": 1},
        {"kind": "vae", "latent_slots": 3},
        {"kind": "vae", "hierarchical": True},
        {"kind": "autoencoder", "tied": True, "token_dropout": 0.5},
    ],
    ids=str,
)
def generator(request):
    torch.manual_seed(0)
    return generator_for(GeneratorConfig(**(SMALL | request.param)), EVENTS).eval()


# Equations


@pytest.mark.parametrize(("mean", "variance"), [(0.0, 1.0), (1.5, 0.25), (-0.3, 2.0)])
def test_the_divergence_is_the_integral(mean, variance):
    """∫ q ln(q / p), by quadrature."""
    q, p = stats.norm(mean, math.sqrt(variance)), stats.norm()
    expected, _ = integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), -15, 15)
    found = divergence_from_prior(
        torch.tensor(mean).double(), torch.tensor(variance).log().double()
    )
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_the_gradient_of_the_divergence_by_hand():
    """d/dμ = μ; d/d ln σ² = (σ² − 1) / 2."""
    mean = torch.tensor([0.7, -2.0], dtype=torch.float64, requires_grad=True)
    log_variance = torch.tensor([0.0, math.log(3)], dtype=torch.float64, requires_grad=True)
    divergence_from_prior(mean, log_variance).sum().backward()
    torch.testing.assert_close(mean.grad, mean.detach())
    torch.testing.assert_close(log_variance.grad, torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert torch.autograd.gradcheck(divergence_from_prior, (mean, log_variance))


def test_free_bits_by_hand():
    """Means 0.5, 2 and 0.25 nats: below one bit, 0.693 nats, a number pays one bit."""
    divergence = torch.tensor([[0.0, 3.0, 0.5], [1.0, 1.0, 0.0]], requires_grad=True)
    bit = math.log(2)
    assert with_free_bits(divergence, 1.0).item() == pytest.approx(2 + 2 * bit)
    assert with_free_bits(divergence, 0.0).item() == pytest.approx(2.75)
    with_free_bits(divergence, 1.0).backward()
    assert divergence.grad.tolist() == [[0.0, 0.5, 0.0], [0.0, 0.5, 0.0]]


def test_the_weight_rises_in_a_line():
    assert [annealed_weight(2.0, 4, step) for step in (0, 1, 2, 4, 9)] == [0, 0.5, 1, 2, 2]
    assert annealed_weight(0.5, 0, 0) == 0.0 and annealed_weight(0.5, 0, 1) == 0.5


def test_slerp_by_hand():
    """A right angle: a third of the way at 30 degrees."""
    one, other = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    points = slerp(one, other, [0, 1 / 3, 0.5, 1])
    root = math.sqrt(3)
    expected = torch.tensor([[2, 0], [root, 1], [math.sqrt(2), math.sqrt(2)], [0, 2]])
    torch.testing.assert_close(points, expected)


vectors = st.lists(st.floats(-3, 3, width=32), min_size=4, max_size=4)


@given(vectors, vectors)
@settings(max_examples=60)
def test_slerp_ends_where_it_should_and_is_the_same_from_the_other_side(one, other):
    one, other = torch.tensor(one), torch.tensor(other)
    shares = [0, 0.25, 0.75, 1]
    there, back = slerp(one, other, shares), slerp(other, one, shares)
    torch.testing.assert_close(there[[0, -1]], torch.stack([one, other]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(there, back.flip(0), atol=1e-3, rtol=1e-3)


def test_slerp_keeps_the_length_and_goes_straight_where_there_is_no_arc():
    random = torch.Generator().manual_seed(0)
    one = torch.nn.functional.normalize(torch.randn(6, generator=random), dim=0)
    other = torch.nn.functional.normalize(torch.randn(6, generator=random), dim=0)
    torch.testing.assert_close(slerp(one, other, [0.1, 0.6]).norm(dim=1), torch.ones(2))
    torch.testing.assert_close(slerp(one, 3 * one, [0.5])[0], 2 * one)
    torch.testing.assert_close(slerp(one, -one, [0.25])[0], 0.5 * one)
    assert not slerp(torch.zeros(3), torch.zeros(3), [0.5]).any()


def test_latents_follow_from_seed_and_index_and_are_normal():
    some = latents_from_prior(3, range(400), 8)
    torch.testing.assert_close(latents_from_prior(3, [7, 2], 8), some[[7, 2]])
    assert not torch.equal(latents_from_prior(4, [7], 8), some[[7]])
    of_tokens = stream(3, 7).standard_normal(8, dtype=np.float32)
    assert not np.isin(of_tokens, some[7].numpy()).any()
    # 3,200 numbers: beyond 4.5 standard errors in one of 150,000 runs.
    assert abs(some.mean().item()) < 4.5 / math.sqrt(3200)
    assert abs(some.var().item() - 1) < 4.5 * math.sqrt(2 / 3200)


# The network


def test_the_decoder_ignores_the_future_and_hears_the_latent(generator):
    tokens = tensors_of(batch_of(1, 2))[0]
    latent = torch.randn(2, 6)
    before, _ = generator(tokens, generator.begin(latent))
    changed = tokens.clone()
    changed[:, 9] = EVENTS.bar
    after, _ = generator(changed, generator.begin(latent))
    torch.testing.assert_close(before[:, :9], after[:, :9])
    assert not torch.allclose(before[:, 9], after[:, 9])
    other, _ = generator(tokens, generator.begin(latent + 1))
    assert ((other - before).abs().amax(-1) > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_step_by_step_is_one_pass(generator, dtype):
    generator.to(dtype)
    tokens = tensors_of(batch_of(1, 2, 3, num_bars=4))[0]
    begin = generator.begin(torch.randn(3, 6, dtype=dtype))
    whole, expected = generator(tokens, begin)
    state = begin
    for time in range(tokens.shape[1]):
        logits, state = generator.step(tokens[:, time], state)
        torch.testing.assert_close(logits, whole[:, time])
    torch.testing.assert_close(state, expected)


def test_padding_changes_neither_the_latent_nor_the_logits(generator):
    alone, other = batch_of(1, num_bars=1), EVENTS.encode(tune(2, num_bars=3))
    division = division_of(GeneratorConfig(kind="vae", bars=0, latent_slots=1), EVENTS)
    both = padded([EVENTS.encode(tune(1, num_bars=1)), other], division)
    source, lengths = tensors_of(both.source)
    source[0, lengths[0] :] = torch.randint(4, 9, source[0, lengths[0] :].shape)
    one = generator.posterior(*tensors_of(alone.source))
    two = generator.posterior(source, lengths)
    for a, b in zip(one, two):
        torch.testing.assert_close(a[0], b[0])
    logits, _ = generator(tensors_of(alone)[0], generator.begin(one[0]))
    again, _ = generator(tensors_of(both)[0], generator.begin(two[0]))
    torch.testing.assert_close(again[:1, : logits.shape[1]], logits)


def test_z_is_drawn_from_the_posterior():
    torch.manual_seed(0)
    generator = generator_for(GeneratorConfig(kind="vae", **SMALL), EVENTS).eval()
    source, lengths = tensors_of(batch_of(1).source)
    mean, log_variance = generator.posterior(source, lengths)
    many = source.expand(4000, -1), lengths.expand(4000)
    with torch.no_grad():
        encoded = generator.encode(*many, torch.Generator().manual_seed(1))
    latents, _ = encoded.state.source
    deviation = (log_variance / 2).exp()[0]
    # 12 figures within 5 standard errors: wrong once in 140,000 runs.
    assert ((latents.mean(0) - mean[0]).abs() < 5 * deviation / math.sqrt(4000)).all()
    assert ((latents.std(0) / deviation - 1).abs() < 5 / math.sqrt(8000)).all()
    torch.testing.assert_close(encoded.divergence[0], divergence_from_prior(mean, log_variance)[0])
    certain, _ = generator.encode(source, lengths).state.source
    torch.testing.assert_close(certain, mean)


def test_an_autoencoder_draws_nothing_and_pays_nothing():
    torch.manual_seed(0)
    generator = generator_for(GeneratorConfig(kind="autoencoder", **SMALL), EVENTS).eval()
    source = tensors_of(batch_of(1).source)
    encoded = generator.encode(*source, torch.Generator())
    assert encoded.divergence.shape == (1, 0)
    torch.testing.assert_close(encoded.state.source[0], generator.posterior(*source)[0])
    assert generator.log_variance is None


def test_the_plan_of_the_open_bar_stands_beside_its_tokens():
    torch.manual_seed(0)
    config = GeneratorConfig(kind="vae", hierarchical=True, **SMALL)
    generator = generator_for(config, EVENTS).eval()
    tokens = tensors_of(batch_of(1, num_bars=3))[0]
    plans, count = generator.begin(torch.randn(1, 6)).source
    told = generator._told(torch.zeros(1, tokens.shape[1], 6), tokens, (plans, count))[0, :, 6:]
    bar = -1
    for token, plan in zip(tokens[0].tolist(), told):
        bar += token == EVENTS.bar
        torch.testing.assert_close(plan, plans[0, max(bar, 0)])
    assert bar == 2 and not torch.allclose(plans[0, 0], plans[0, 1])


WALTZES = Events(EventsConfig(metres=("3/4", "4/4"), lowest=50, highest=75))


def test_slots_are_equal_shares_of_the_time():
    """Two bars of 3/4 in four slots: of 36 ticks each, the third from the second bar line on."""
    config = GeneratorConfig(
        kind="vae", **(SMALL | {"latent_size": 8, "latent_slots": 4, "bars": 2, "attention": 0})
    )
    generator = generator_for(config, WALTZES).eval()
    rows = [(0, 24, 60), (24, 48, 62), (48, 72, 64), (72, 108, 65), (108, 144, 67), (144, 168, 69)]
    tokens = torch.from_numpy(
        WALTZES.encode(Piece.from_rows(rows, metres=(Metre(0, 3, 4),))).astype(np.int64)
    )[None]
    slots, _ = generator._slots(tokens, generator.clock.start(1))
    names = [WALTZES.vocabulary.names[token] for token in tokens[0]]
    found = {name: slot for name, slot in zip(names, slots[0].tolist()) if "Pitch" in name}
    assert found == {
        "Pitch_60": 0, "Pitch_62": 0, "Pitch_64": 1, "Pitch_65": 2, "Pitch_67": 3, "Pitch_69": 3,
    }  # fmt: skip
    assert slots[0, 0] == 0 and (slots.diff() >= 0).all()
    latent = torch.arange(8.0)[None]
    told = generator._told(
        torch.zeros(1, tokens.shape[1], 6), tokens, generator.begin(latent).source
    )
    by_slot = {0: [0, 1, 2, 3], 1: [2, 3, 4, 5], 2: [4, 5, 6, 7], 3: [6, 7, 0, 0]}
    for slot, row in zip(slots[0].tolist(), told[0, :, 6:].tolist()):
        assert row == by_slot[slot]


def test_a_slot_is_read_forwards_to_its_end_and_backwards_to_its_beginning():
    """Six tokens in slots 0 0 2 2 2 3; nothing stands in slot 1, and the last row is cut short."""
    times = torch.arange(6.0).expand(2, -1)
    states = torch.stack([times, 10 + times], dim=2)
    slots = torch.tensor([[0, 0, 2, 2, 2, 3]]).expand(2, -1)
    ends = ends_of_slots(states, slots, torch.tensor([6, 4]), 4)
    assert ends[0].tolist() == [[1, 10], [1, 12], [4, 12], [5, 15]]
    assert ends[1].tolist() == [[1, 10], [1, 12], [3, 12], [3, 13]]


def test_one_slot_is_read_at_both_ends_of_the_piece():
    torch.manual_seed(0)
    generator = generator_for(GeneratorConfig(kind="vae", **SMALL), EVENTS).eval()
    source, lengths = tensors_of(batch_of(1, 2, 3).source)
    _, ends = generator.encoder(generator.embedding(source), lengths)
    torch.testing.assert_close(generator.posterior(source, lengths)[0], generator.mean(ends))


def test_slots_need_bars_and_share_the_numbers_evenly():
    with pytest.raises(UserError, match=r"latent_slots must be 1 where generator\.bars is 0"):
        GeneratorConfig(kind="vae", bars=0)
    with pytest.raises(UserError, match="latent_size must be a multiple of latent_slots, 3, got 8"):
        GeneratorConfig(kind="vae", latent_size=8, latent_slots=3)


def test_dropped_tokens_are_dropped_in_training_alone():
    torch.manual_seed(0)
    config = GeneratorConfig(
        kind="vae", token_dropout=0.5, embedding_dropout=0, layer_dropout=0, output_dropout=0,
        **SMALL,
    )  # fmt: skip
    generator = generator_for(config, EVENTS)
    inputs, source = torch.ones(4, 500, 6), generator.start(4).source
    kept = generator.train()._told(inputs, torch.ones(4, 500).long(), source)[..., :6]
    # 2,000 coins: a share beyond 0.44 to 0.56 in one of 10 million runs.
    assert 0.44 < kept.mean().item() < 0.56
    assert torch.equal(kept.amin(2), kept.amax(2))
    calm = generator.eval()._told(inputs, torch.ones(4, 500).long(), source)[..., :6]
    assert torch.equal(calm, inputs)


def test_the_bound_is_writing_again_and_divergence():
    torch.manual_seed(0)
    generator = generator_for(GeneratorConfig(kind="vae", **SMALL), EVENTS).eval()
    batch = batch_of(1, 2, num_bars=1)
    bits, count = held_out_likelihood(generator, [batch], EVENTS.grammar, precision="float32")
    targets = targets_of(batch, EVENTS.grammar)
    encoded = encoded_source(generator, targets, torch.Generator().manual_seed(0))
    log_probs = target_log_probs(generator, targets, encoded)
    nats = -log_probs.gather(1, targets.tokens[:, None]).sum() + encoded.divergence.sum()
    assert bits == pytest.approx(nats.item() / math.log(2), rel=1e-6)
    assert count == int((batch.lengths - 1).sum())
    again, _ = held_out_likelihood(generator, [batch], EVENTS.grammar, precision="float32")
    assert again == bits


def test_the_bound_bounds():
    """ln p(x) by importance sampling (Burda 2016) of 4,000 latents is above the mean bound."""
    torch.manual_seed(0)
    generator = generator_for(GeneratorConfig(kind="vae", **SMALL), EVENTS).eval()
    torch.nn.init.normal_(generator.mean.weight, std=3.0)
    targets = targets_of(batch_of(1, num_bars=1), EVENTS.grammar)
    source, lengths = targets.source
    with torch.no_grad():
        mean, log_variance = generator.posterior(source, lengths)
        deviation = (log_variance / 2).exp()
        z = mean + deviation * torch.randn(4000, 6)
        logits, _ = generator(targets.inputs.expand(4000, -1), generator.begin(z))
        allowed = targets.allowed.expand(4000, -1, -1)
        log_probs = logits.masked_fill(~allowed, -torch.inf).log_softmax(-1)
        written = log_probs.gather(2, targets.tokens.expand(4000, -1)[..., None]).sum((1, 2))
        prior = torch.distributions.Normal(0, 1).log_prob(z).sum(1)
        posterior = torch.distributions.Normal(mean, deviation).log_prob(z).sum(1)
        evidence = (written + prior - posterior).logsumexp(0) - math.log(4000)
        bound = written.mean() - divergence_from_prior(mean, log_variance).sum()
    assert evidence > bound


@pytest.mark.parametrize(
    "options",
    [{"kind": "vae"}, {"kind": "autoencoder"}, {"kind": "autoencoder", "hierarchical": True}],
)
def test_a_tiny_corpus_is_learnt_by_heart(options):
    """Four tunes that begin alike: which one it is stands in the latent alone."""
    torch.manual_seed(0)
    config = GeneratorConfig(
        embedding_size=16, hidden_size=48, attention=0, latent_size=8, latent_slots=8,
        embedding_dropout=0, layer_dropout=0, output_dropout=0, **options,
    )  # fmt: skip
    generator = generator_for(config, EVENTS)
    batch = batch_of(*range(4), num_bars=1)
    targets = targets_of(batch, EVENTS.grammar)
    optimizer = torch.optim.Adam(generator.parameters(), lr=0.02)
    for _ in range(500):
        encoded = encoded_source(generator, targets, torch.default_generator)
        log_probs = target_log_probs(generator, targets, encoded)
        loss = torch.nn.functional.nll_loss(log_probs, targets.tokens)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(generator.parameters(), 1.0)
        optimizer.step()
        if loss.item() < 0.03:
            break
    generator.eval()
    with torch.inference_mode():
        log_probs = target_log_probs(generator, targets)
        bits = -log_probs.gather(1, targets.tokens[:, None]).mean().item() / math.log(2)
        start = generator.encode(*targets.source).state
    assert bits < 0.1
    coldest = Decoding(temperature=1e-9)
    drawn = sample(generator, EVENTS.grammar, uniforms(0, range(4), 40), coldest, start=start)
    assert drawn.lengths.tolist() == batch.lengths.tolist()
    assert (drawn.tokens.numpy() == batch.tokens).mean() > 0.95


def test_steppers_and_pieces_cut_after_bars(generator):
    assert isinstance(stepper_of(generator, batch_size=1), PlainStepper)
    cut, whole = batch_of(1, num_bars=6, bars=2), batch_of(1, num_bars=6)
    length = int(cut.lengths[0])
    assert cut.tokens[0, length - 1] == END
    assert (cut.tokens[0, : length - 1] == whole.tokens[0, : length - 1]).all()
    assert whole.tokens[0, length - 1] == EVENTS.bar
    assert np.array_equal(cut.tokens, cut.source.tokens)
    short = batch_of(1, num_bars=2, bars=2)
    assert np.array_equal(short.tokens, batch_of(1, num_bars=2).tokens)


def test_other_tokens_are_refused():
    line = Melody(MelodyConfig(metres=("4/4",), lowest=48, highest=84))
    with pytest.raises(UserError, match="--generator vae needs"):
        generator_for(GeneratorConfig(kind="vae"), line)
