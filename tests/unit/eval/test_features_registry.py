import numpy as np
import pytest

from eval.features import FEATURES, features_of, select
from eval.features.registry import register
from rnngan.errors import UserError
from rnngan.music.piece import DRUMS, Piece

SCALE = Piece.from_rows([(24 * i, 24 * i + 24, p) for i, p in enumerate((60, 62, 64, 65, 67))])
DRUMS_ALONE = Piece.from_rows([(0, 12, 36, 100, DRUMS), (24, 36, 38, 100, DRUMS)])
SILENCE = Piece.from_rows([])

COUNTS = {"note_count", "pitch_count", "pitch_class_count", "repetition"}


@pytest.mark.parametrize("name", FEATURES)
def test_feature_is_described_in_full(name):
    feature = FEATURES[name]
    assert feature.name == name
    assert feature.unit
    assert feature.range[0] < feature.range[1]
    assert feature.direction
    assert feature.direction != "none" or feature.bins
    assert feature.key == f"{name}@{feature.version}"
    assert feature.reference
    assert len(set(feature.bins)) == len(feature.bins)
    assert bool(feature.bins) == (feature.kind != "scalar")
    if feature.kind == "ordered":
        assert len(feature.positions) == len(feature.bins)
        assert np.all(np.diff(feature.positions) > 0)
    else:
        assert feature.positions == ()


@pytest.mark.parametrize("name", FEATURES)
def test_value_has_the_described_form(name):
    feature = FEATURES[name]
    value = feature.compute(SCALE)
    if feature.kind == "scalar":
        assert type(value) is float
    else:
        assert value.shape == (len(feature.bins),)
        assert value.dtype == np.float64
        assert value.sum() == pytest.approx(1) or np.isnan(value).all()


@pytest.mark.parametrize("name", FEATURES)
def test_nothing_to_measure_is_nan_and_a_count_is_zero(name):
    feature = FEATURES[name]
    value = feature.compute(SILENCE)
    if feature.base_name in COUNTS and name != "pitch_class_count[bar]":
        assert value == 0
    else:
        assert np.isnan(value).all()


@pytest.mark.parametrize("name", FEATURES)
def test_drums_alone_are_no_music_with_pitches(name):
    feature = FEATURES[name]
    value = feature.compute(DRUMS_ALONE)
    about_time = {"note_density", "pitch_class_count"}  # 0 notes in bars that do exist
    if feature.base_name in COUNTS | about_time:
        assert value == 0
    elif feature.base_name in ("empty_bar_rate", "empty_beat_rate", "drum_pattern_rate"):
        assert value == 1
    else:
        assert np.isnan(value).all()


@pytest.mark.parametrize("name", FEATURES)
def test_added_drums_change_nothing_but_the_drums(name):
    beat = [(24 * i, 24 * i + 6, 36, 100, DRUMS, 9) for i in range(5)]
    both = Piece.from_rows([tuple(n) for n in SCALE.notes.tolist()] + beat)
    if FEATURES[name].base_name == "drum_pattern_rate":
        assert FEATURES[name].compute(both) == 1
    else:
        np.testing.assert_array_equal(FEATURES[name].compute(both), FEATURES[name].compute(SCALE))


def test_features_of_computes_what_is_asked_for():
    assert list(features_of(SCALE)) == list(FEATURES)
    assert features_of(SCALE, ["note_count", "pitch_range"]) == {"note_count": 5, "pitch_range": 7}


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        ("pitch_range", ["pitch_range"]),
        ("groove", ["groove[q=64,pairs=all]", "groove[q=64,pairs=adjacent]"]),
        ("groove[q=64,pairs=adjacent]", ["groove[q=64,pairs=adjacent]"]),
        ("note_count, pitch_range,pitch_range", ["pitch_range", "note_count"]),
        (
            "pitch_class_entropy[4],groove[q=64,pairs=all]",
            ["pitch_class_entropy[4]", "groove[q=64,pairs=all]"],
        ),
    ],
)
def test_select(patterns, names):
    assert select(patterns) == names


def test_select_takes_groups():
    chosen = select("texture,pitch")
    assert {FEATURES[name].group for name in chosen} == {"pitch", "texture"}
    assert len(chosen) == sum(f.group in ("pitch", "texture") for f in FEATURES.values())
    assert select("pitch,rhythm,harmony,texture,structure") == list(FEATURES)


@pytest.mark.parametrize(
    ("pattern", "suggestion"),
    [
        ("pich_range", "'pitch_range'"),
        ("rythm", "'rhythm'"),
        ("groove[q=64,pairs=al]", "'groove[q=64,pairs=all]'"),
    ],
)
def test_select_suggests_the_nearest_name(pattern, suggestion):
    with pytest.raises(UserError) as error:
        select(f"pitch_count,{pattern}")
    assert repr(pattern) in str(error.value)
    assert suggestion in str(error.value)


@pytest.mark.parametrize("patterns", ["", "pitch,", "Ω"])
def test_select_refuses_what_names_nothing(patterns):
    with pytest.raises(UserError, match="did you mean"):
        select(patterns)


def test_a_new_definition_has_a_new_key():
    try:
        for version in (1, 2):
            register("new", group="pitch", unit="-", reference="-", version=version)(lambda _: 0.0)
            assert FEATURES.pop("new").key == f"new@{version}"
    finally:
        FEATURES.pop("new", None)


def test_a_name_is_given_once():
    with pytest.raises(ValueError, match="twice"):
        register("note_count", group="rhythm", unit="notes", reference="-")(lambda piece: 0.0)
