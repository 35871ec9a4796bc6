"""The encoder-decoder: what it may see, what it may not, and what it can learn."""

import math

import numpy as np
import pytest
import torch

from rnngan.config import GeneratorConfig
from rnngan.data.batches import Batch, division_of, padded
from rnngan.errors import UserError
from rnngan.generator.encoder import Encoder
from rnngan.generator.plain import PlainStepper, stepper_of
from rnngan.generator.registry import generator_for
from rnngan.generator.sampling import sample, uniforms
from rnngan.generator.seq2seq import Seq2Seq, SourceAttention
from rnngan.music.piece import Piece
from rnngan.music.tokenizers.events import Events, EventsConfig
from rnngan.music.tokenizers.melody import Melody, MelodyConfig
from rnngan.objectives.likelihood import held_out_likelihood, negative_log_likelihood, targets_of

EVENTS = Events(EventsConfig(metres=("4/4",), lowest=40, highest=80, voices=2))
DIVISION = division_of(GeneratorConfig(kind="seq2seq"), EVENTS)


def piece(number, num_bars=2):
    """A melody in quarters, and under each of its notes one that is a sixth or so below."""
    random = np.random.default_rng(number)
    rows = []
    for i in range(4 * num_bars):
        pitch = int(random.integers(60, 72))
        below = pitch - (8 if pitch % 2 else 9)
        rows += [(24 * i, 24 * i + 24, pitch, 80, 0, 0), (24 * i, 24 * i + 24, below, 80, 0, 1)]
    return Piece.from_rows(rows)


def pair(*numbers, **options) -> Batch:
    return padded([EVENTS.encode(piece(n, **options)) for n in numbers], DIVISION)


@pytest.fixture(params=[{}, {"num_layers": 1}, {"attention": 0}, {"tied": True, "num_layers": 3}])
def generator(request):
    torch.manual_seed(0)
    settings = {"embedding_size": 6, "hidden_size": 8, "attention": 12, **request.param}
    return generator_for(GeneratorConfig(kind="seq2seq", **settings), EVENTS).eval()


def tensors(batch):
    return torch.from_numpy(batch.tokens), torch.from_numpy(batch.lengths)


def test_the_decoder_ignores_the_future_and_hears_all_of_the_source(generator):
    batch = pair(1, 2)
    tokens, _ = tensors(batch)
    state = generator.encode(*tensors(batch.source)).state
    before, _ = generator(tokens, state)
    changed = tokens.clone()
    changed[:, 9] += 1
    after, _ = generator(changed, state)
    torch.testing.assert_close(before[:, :9], after[:, :9])
    assert not torch.allclose(before[:, 9], after[:, 9])
    source, lengths = tensors(batch.source)
    for place in (4, int(lengths.min()) - 2):
        other = source.clone()
        other[:, place] += 1
        heard, _ = generator(tokens, generator.encode(other, lengths).state)
        assert ((heard - before).abs().amax(-1) > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_step_by_step_is_one_pass(generator, dtype):
    generator.to(dtype)
    batch = pair(1, 2, 3)
    tokens, _ = tensors(batch)
    begin = generator.encode(*tensors(batch.source)).state
    whole, expected = generator(tokens, begin)
    state = begin
    for time in range(tokens.shape[1]):
        logits, state = generator.step(tokens[:, time], state)
        torch.testing.assert_close(logits, whole[:, time])
    torch.testing.assert_close(state, expected)


def test_padding_of_source_and_target_changes_nothing(generator):
    alone, together = pair(1, num_bars=1), padded(
        [EVENTS.encode(piece(1, num_bars=1)), EVENTS.encode(piece(2, num_bars=3))], DIVISION
    )  # fmt: skip
    logits, _ = generator(tensors(alone)[0], generator.encode(*tensors(alone.source)).state)
    both, _ = generator(tensors(together)[0], generator.encode(*tensors(together.source)).state)
    torch.testing.assert_close(both[:1, : logits.shape[1]], logits)
    source, lengths = tensors(together.source)
    source[0, lengths[0] :] = torch.randint(4, 9, source[0, lengths[0] :].shape)
    again, _ = generator(tensors(together)[0], generator.encode(source, lengths).state)
    torch.testing.assert_close(again, both)


def test_without_a_source_it_is_as_if_start_alone_was_read(generator):
    tokens = tensors(pair(1))[0]
    told = generator.encode(torch.tensor([[1]]), torch.tensor([1])).state
    torch.testing.assert_close(generator(tokens)[0], generator(tokens, told)[0])


def test_the_encoder_reads_both_ways():
    """Against torch's own bidirectional layer with the same weights, row by row."""
    torch.manual_seed(0)
    encoder, rnn = Encoder(3, 4), torch.nn.LSTM(3, 4, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for name, weight in encoder.forwards.named_parameters():
            getattr(rnn, name).copy_(weight)
        for name, weight in encoder.backwards.named_parameters():
            getattr(rnn, f"{name}_reverse").copy_(weight)
    inputs, lengths = torch.randn(3, 6, 3), torch.tensor([6, 1, 4])
    states, ends = encoder(inputs, lengths)
    for row, length in enumerate(lengths.tolist()):
        expected, (last, _) = rnn(inputs[row : row + 1, :length])
        torch.testing.assert_close(states[row : row + 1, :length], expected)
        torch.testing.assert_close(ends[row], last[:, 0].flatten())


def test_attention_is_the_mean_of_values_by_its_weights():
    torch.manual_seed(0)
    attention = SourceAttention(5, 7, 2).double()
    states, source = torch.randn(2, 4, 5).double(), torch.randn(2, 6, 7).double()
    waves, source_waves = torch.randn(2, 4, 32).double(), torch.randn(2, 6, 32).double()
    mask = torch.arange(6) < torch.tensor([[6], [3]])
    keys, values = attention.remember(source, source_waves)
    found = attention(states, waves, keys, values, mask)
    # The equations of the docstring, one head and one time after the other.
    query = attention.of_states(states) + waves @ attention.query_times.weight.T
    all_keys = (source @ attention.of_source.weight.T + attention.of_source.bias)[..., :64]
    all_keys = all_keys + source_waves @ attention.key_times.weight.T
    all_values = (source @ attention.of_source.weight.T + attention.of_source.bias)[..., 64:]
    for row in range(2):
        for head in range(2):
            part = slice(32 * head, 32 * head + 32)
            for time in range(4):
                scores = all_keys[row, mask[row], part] @ query[row, time, part] / math.sqrt(32)
                context = scores.softmax(0) @ all_values[row, mask[row], part]
                torch.testing.assert_close(found[row, time, part], context)


@torch.no_grad()
def test_before_anything_is_learnt_each_time_finds_what_sounds_then():
    torch.manual_seed(1)
    config = GeneratorConfig(kind="seq2seq", embedding_size=16, hidden_size=16, attention=0)
    generator = generator_for(config, EVENTS).eval()
    batch = pair(5, num_bars=4)
    tokens, (source, lengths) = tensors(batch)[0], tensors(batch.source)
    keys, values, mask, clock = generator.encode(source, lengths).state.source
    zeros = torch.zeros(1, tokens.shape[1], 16)
    told, _ = generator.clock(source, clock)
    ticks, _ = generator.clock(tokens, clock)
    attention = generator.source_attention
    query = attention.query_times(generator.clock.waves(ticks)) + attention.of_states(zeros)
    scores = torch.einsum("bthd,bhjd->bhtj", query.view(1, -1, 4, 32), keys) / math.sqrt(32)
    weights = scores.softmax(-1).mean(1)[0]
    same_time = (ticks[0][:, None] == told[0][None]).float()
    assert (weights * same_time).sum(-1).mean().item() > 0.5
    assert values.shape == keys.shape and mask.all()


def test_a_tiny_corpus_is_learnt_by_heart_through_the_source():
    """Accompaniments that follow from their melodies: in the end no bit is left."""
    torch.manual_seed(0)
    config = GeneratorConfig(
        kind="seq2seq", embedding_size=16, hidden_size=32, attention=0, num_layers=2,
        embedding_dropout=0, layer_dropout=0, output_dropout=0,
    )  # fmt: skip
    generator = generator_for(config, EVENTS)
    batch = pair(*range(6))
    targets = targets_of(batch, EVENTS.grammar)
    optimizer = torch.optim.Adam(generator.parameters(), lr=0.01)
    for _ in range(150):
        loss = negative_log_likelihood(generator, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    bits, count = held_out_likelihood(generator, [batch], EVENTS.grammar, precision="float32")
    assert bits / count < 0.1
    assert count == int(batch.lengths.sum()) - 6  # all but Start
    # With another's melody its own accompaniment is unlikely.
    order = [1, 2, 3, 4, 5, 0]
    crossed = Batch(
        tokens=batch.tokens, lengths=batch.lengths,
        source=Batch(tokens=batch.source.tokens[order], lengths=batch.source.lengths[order]),
    )  # fmt: skip
    wrong, _ = held_out_likelihood(generator, [crossed], EVENTS.grammar, precision="float32")
    assert wrong / count > 1


def test_pieces_are_drawn_from_their_own_sources(generator):
    batch = pair(1, 2, 3)
    with torch.inference_mode():
        start = generator.encode(*tensors(batch.source)).state
    draws = uniforms(0, range(3), 60)
    together = sample(generator, EVENTS.grammar, draws, start=start)
    for row in range(3):
        one = start.map(lambda part, row=row: part[row : row + 1])
        alone = sample(generator, EVENTS.grammar, draws[row : row + 1], start=one)
        length = int(alone.lengths[0])
        assert together.tokens[row, :length].tolist() == alone.tokens[0, :length].tolist()
    prefix = together.tokens[0, :3].tolist()
    on = sample(generator, EVENTS.grammar, draws, start=start, prefix=prefix)
    assert on.tokens[0].tolist()[: int(on.lengths[0])] == (
        together.tokens[0, : int(on.lengths[0])].tolist()
    )


def test_a_stepper_goes_on_where_it_is_put(generator):
    stepper = stepper_of(generator, batch_size=2)
    assert isinstance(stepper, PlainStepper)
    with torch.inference_mode():
        stepper.step(torch.tensor([1, 1]))
        state = stepper.state()
        first = stepper.step(torch.tensor([4, 4]))
        stepper.set_state(state)
        stepper.select(torch.tensor([1, 0, 1]))
        torch.testing.assert_close(stepper.step(torch.tensor([4, 4, 4])), first[[1, 0, 1]])
        with pytest.raises(ValueError, match="need 3 tokens, got 2"):
            stepper.step(torch.tensor([4, 4]))


def test_it_steps_without_dropout_in_whatever_mode(generator):
    with torch.inference_mode():
        calm = stepper_of(generator, batch_size=1).step(torch.tensor([1]))
        generator.train()
        torch.testing.assert_close(
            stepper_of(generator, batch_size=1).step(torch.tensor([1])), calm
        )
    assert generator.training


def test_other_tokens_are_refused():
    line = Melody(MelodyConfig(metres=("4/4",), lowest=48, highest=84))
    with pytest.raises(UserError, match=r"--generator seq2seq needs .* --tokenizer events"):
        generator_for(GeneratorConfig(kind="seq2seq"), line)
    assert isinstance(generator_for(GeneratorConfig(kind="seq2seq"), EVENTS), Seq2Seq)
