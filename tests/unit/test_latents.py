"""Between two pieces, and from style to style."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rnngan.config import DataConfig, GeneratorConfig
from rnngan.data.prepare import prepare_pieces
from rnngan.data.reading import Source
from rnngan.errors import UserError
from rnngan.generate import check_attention, generate_tokens
from rnngan.generator.registry import generator_for, new_generator
from rnngan.generator.sampling import Decoding, sample, uniforms
from rnngan.generator.vae import latents_from_prior, slerp
from rnngan.latents import interpolate, means_of, network_of, read_piece, restyle, written
from rnngan.music.midi import write_midi
from rnngan.music.piece import Metre, Piece
from rnngan.music.tokenizers.parts import first_bars
from rnngan.training.checkpoint import Model

CONFIG = GeneratorConfig(
    kind="vae", embedding_size=8, hidden_size=12, attention=0, latent_size=4, latent_slots=2, bars=2
)


def tune(number, style):
    random = np.random.default_rng(number)
    size = 12 if style == "jig" else 24
    rows = [(size * i, size * i + size, int(random.integers(60, 72)), 80) for i in range(24)]
    metre = Metre(0, 6, 8) if style == "jig" else Metre(0, 4, 4)
    return Piece.from_rows(rows, metres=(metre,), tags={"style": style})


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    styles = ["jig", "reel"] * 8
    return prepare_pieces(
        [Source(f"{i:02}.mid", f"{i:064x}", tune(i, style)) for i, style in enumerate(styles)],
        DataConfig(corpus="tunes", tags=("style",), validation_rate=0.2, test_rate=0.2),
        tmp_path_factory.mktemp("styles") / "store",
        seed=0,
    )


@pytest.fixture(scope="module")
def model(store):
    torch.manual_seed(0)
    network = generator_for(CONFIG, store.tokenizer).eval()
    torch.nn.init.normal_(network.mean.weight)
    return Model(generator=network, tokenizer=store.tokenizer, metrics={})


@pytest.fixture
def read(tmp_path, model):
    def given(piece):
        write_midi(piece, tmp_path / "piece.mid")
        return read_piece(tmp_path / "piece.mid", model, None, aim="interpolate")

    return given


def test_a_piece_is_read_as_far_as_the_model_keeps_it(read, model):
    piece = read(tune(1, "reel"))
    assert piece.num_left_out == 4
    whole = model.tokenizer.encode(tune(1, "reel").tagged({}))
    np.testing.assert_array_equal(piece.tokens, first_bars(whole, model.tokenizer, 2))
    short = Piece.from_rows([(0, 96, 64)])
    assert read(short).num_left_out == 0


def test_means_are_those_of_each_piece_alone(model, store):
    rows = [store.piece_tokens(i) for i in range(len(store))]
    together = means_of(model.generator, rows)
    for row, mean in zip(rows, together):
        source = torch.from_numpy(row.astype(np.int64))[None]
        with torch.no_grad():
            alone, _ = model.generator.posterior(source, torch.tensor([len(row)]))
        torch.testing.assert_close(alone[0], mean)


def test_the_ends_are_the_pieces_written_again(read, model):
    one, other = read(tune(1, "reel")), read(tune(2, "jig"))
    steps = interpolate(model, one, other, steps=5, seed=3, temperature=0.7)
    assert len(steps) == 5
    how = {"seed": 3, "decoding": Decoding(temperature=0.7, min_bars=2, max_bars=2)}
    for piece, step in ((one, steps[0]), (other, steps[-1])):
        assert written(model, means_of(model.generator, [piece.tokens]), **how)[0] == step
    points = slerp(*means_of(model.generator, [one.tokens, other.tokens]), [0.5])
    assert written(model, points, **how)[0] == steps[2]
    assert all(step.notes["start"].max(initial=0) < 192 for step in steps)
    back = interpolate(model, other, one, steps=5, seed=3, temperature=0.7)
    assert back == steps[::-1]


def test_a_style_is_the_difference_of_means(read, model, store):
    piece = read(tune(1, "reel"))
    assert piece.style is None  # a MIDI file does not say
    found = restyle(model, piece, store, "jig", from_style="reel", num=2, seed=5)

    def mean_of(*styles):
        train = store.indices("train").tolist()
        chosen = [i for i in train if store.entry(i)["tags"]["style"] in styles]
        rows = [first_bars(store.piece_tokens(i), store.tokenizer, 2) for i in chosen]
        return means_of(model.generator, rows).mean(0)

    (latent,) = means_of(model.generator, [piece.tokens])
    decoding = Decoding(temperature=0.2, min_bars=2, max_bars=2)

    def moved(shift):
        return written(model, (latent + shift).expand(2, -1), seed=5, decoding=decoding)

    assert found == moved(mean_of("jig") - mean_of("reel"))
    of_all = restyle(model, piece, store, "jig", num=2, seed=5)
    assert of_all == moved(mean_of("jig") - mean_of("jig", "reel"))
    said = restyle(model, replace(piece, style="reel"), store, "jig", num=2, seed=5)
    assert said == found


def test_no_step_ends_before_the_shorter_of_both(read, model):
    short, whole = read(Piece.from_rows([(0, 24, 60)])), read(tune(1, "reel"))
    for pieces, least in (((short, whole), 1), ((whole, whole), 2)):
        how = {"seed": 3, "decoding": Decoding(temperature=0.2, min_bars=least, max_bars=2)}
        steps = interpolate(model, *pieces, steps=2, seed=3)
        ends = means_of(model.generator, [piece.tokens for piece in pieces])
        assert steps == written(model, ends, alike=True, **how)


def test_to_its_own_style_a_piece_does_not_move(read, model, store):
    piece = read(tune(1, "reel"))
    same = restyle(model, piece, store, "reel", from_style="reel", seed=2)
    mean = means_of(model.generator, [piece.tokens])
    assert same == written(
        model, mean, seed=2, decoding=Decoding(temperature=0.2, min_bars=2, max_bars=2)
    )


def test_a_style_told_by_its_tag(read, model, store):
    piece = read(tune(1, "reel"))
    for style in ("jig", "reel"):
        (found,) = restyle(model, piece, store, style, tag=True)
        assert found.tags["style"] == style
    with pytest.raises(UserError, match="no piece of the corpus had this style"):
        restyle(model, piece, store, "waltz", tag=True)


def test_what_cannot_be_is_refused(read, model, store, tmp_path):
    piece = read(tune(1, "reel"))
    with pytest.raises(UserError, match=r"has the style 'jigg'; did you mean .*jig.*there are jig"):
        restyle(model, piece, store, "jigg")
    with pytest.raises(UserError, match="--num must be at least 1, got 0"):
        restyle(model, piece, store, "jig", num=0)
    for steps in (1, 257):
        with pytest.raises(UserError, match=f"--steps must be 2 to 256, got {steps}"):
            interpolate(model, piece, piece, steps=steps)
    with pytest.raises(UserError, match="temperature must be above 0"):
        interpolate(model, piece, piece, steps=2, temperature=0)
    with pytest.raises(UserError, match=r"cannot interpolate .*x\.txt: its name ends in none"):
        read_piece(tmp_path / "x.txt", model, None, aim="interpolate")
    plain = new_generator(GeneratorConfig(embedding_size=8, hidden_size=12), 200)
    with pytest.raises(UserError, match=r"this model, lstm, has no space.*--generator vae"):
        network_of(replace(model, generator=plain), "interpolate")
    with pytest.raises(UserError, match="attention is drawn of generators alone"):
        check_attention(model)


def test_pieces_from_nothing_begin_anywhere_in_the_space(model):
    rows = generate_tokens(model, num=3, seed=4, max_tokens=60)
    start = model.generator.begin(latents_from_prior(4, range(3), 4))
    drawn = sample(model.generator, model.tokenizer.grammar, uniforms(4, range(3), 60), start=start)
    for row, tokens, length in zip(rows, drawn.tokens, drawn.lengths.tolist()):
        assert row.tolist() == tokens[:length].tolist()
    alone = generate_tokens(model, num=1, seed=4, max_tokens=60)
    assert alone[0].tolist() == rows[0].tolist()
