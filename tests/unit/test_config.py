import tomllib
from dataclasses import fields, is_dataclass
from typing import get_args, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnngan.config import (
    PRESETS,
    DataConfig,
    GeneratorConfig,
    GuardConfig,
    OutputConfig,
    RefineConfig,
    RunConfig,
    changed,
    from_dict,
    nearest_name,
    preset,
    read_toml,
    to_dict,
    to_toml,
)
from rnngan.errors import UserError

NAMES = st.text(min_size=1).filter(lambda text: "=" not in text)
NARROWER = {
    (DataConfig, "corpus"): st.text(min_size=1),
    (DataConfig, "tags"): st.lists(NAMES, max_size=3).map(tuple),
    (DataConfig, "transpose"): st.integers(0, 127),
    (DataConfig, "velocity_bins"): st.integers(1, 127),
    (DataConfig, "velocity_jitter"): st.integers(0, 127),
    (DataConfig, "ticks_per_step"): st.sampled_from([1, 3, 6, 12, 96]),
    (DataConfig, "tempo_factor"): st.floats(1, 4),
    (DataConfig, "duration_factor"): st.floats(1, 4),
    (RefineConfig, "batch_size"): st.integers(4, 1000).map(lambda quarter: 4 * quarter),
    (RefineConfig, "minibatches"): st.sampled_from([1, 2, 4]),
    (GeneratorConfig, "attention"): st.integers(0, 64).map(lambda quarter: 4 * quarter),
    (GeneratorConfig, "attention_heads"): st.sampled_from([1, 2, 4]),
    (GeneratorConfig, "latent_size"): st.integers(1, 64).map(lambda quarter: 4 * quarter),
    (GeneratorConfig, "latent_slots"): st.sampled_from([1, 2, 4]),
    (GuardConfig, "auc"): st.floats(0.51, 1),
    (OutputConfig, "guide_candidates"): st.integers(2, 256),
}


def values(kind, name, hint):
    """Values of a setting that are in range."""
    if (kind, name) in NARROWER:
        return NARROWER[kind, name]
    if is_dataclass(hint):
        return configs(hint)
    if get_args(hint):
        return st.sampled_from(get_args(hint))
    return {
        bool: st.booleans(),
        int: st.integers(16, 2**70),
        float: st.floats(min_value=1e-300, max_value=0.49),
        str: st.text(),
    }[hint]


def configs(kind=RunConfig):
    hints = get_type_hints(kind)
    return st.builds(kind, **{f.name: values(kind, f.name, hints[f.name]) for f in fields(kind)})


# Round trips


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_a_file(tmp_path, name):
    path = tmp_path / "config.toml"
    path.write_text(to_toml(preset(name)), encoding="utf-8")
    assert read_toml(path) == preset(name)


@given(configs())
@settings(max_examples=60, deadline=None)
def test_all_settings_survive_toml(config):
    assert from_dict(RunConfig, tomllib.loads(to_toml(config))) == config
    assert from_dict(RunConfig, to_dict(config)) == config


@pytest.mark.parametrize(
    "corpus",
    [
        r"C:\Users\new\tunes",
        'a "quoted" folder',
        "two\nlines\r\nand\ttabs",
        "".join(map(chr, range(1, 33))) + "\x7f\x80\x85\u2028",
        "Dvořák/Ó Riada/𝄞",
        "# no comment",
    ],
)
def test_names_of_folders_survive_toml(corpus):
    config = RunConfig(data=DataConfig(corpus=corpus, tags=(corpus, "style")))
    assert from_dict(RunConfig, tomllib.loads(to_toml(config))) == config


def test_what_a_file_does_not_say_keeps_its_default(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text('[data]\ncorpus = "airds"\n[pretrain]\nlearning_rate = 1\n')
    expected = changed(RunConfig(), data={"corpus": "airds"}, pretrain={"learning_rate": 1.0})
    config = read_toml(path)
    assert config == expected
    assert type(config.pretrain.learning_rate) is float
    path.write_text("")
    assert read_toml(path) == RunConfig()


def test_changed_leaves_the_original_alone():
    config = RunConfig()
    other = changed(config, pretrain={"steps": 7}, data={"transpose": 0})
    assert (other.pretrain.steps, other.data.transpose) == (7, 0)
    assert config == RunConfig() and other.refine == config.refine


# Errors


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"sed": 1}, "unknown configuration key sed; did you mean 'seed'?"),
        ({"pretrian": {}}, "unknown configuration key pretrian; did you mean 'pretrain'?"),
        ({"pretrain": {"step": 1}}, "unknown configuration key pretrain.step; did you mean 'steps"),
        ({"pretrain": {"zzz": 1}}, "unknown configuration key pretrain.zzz"),
        ({"pretrain": 3}, "pretrain must be a table, got 3"),
        ({"seed": "0"}, "seed must be of type int, got '0'"),
        ({"seed": 1.0}, "seed must be of type int, got 1.0"),
        ({"seed": True}, "seed must be of type int, got True"),
        ({"seed": {}}, "seed must be of type int"),
        ({"data": {"corpus": 3}}, "data.corpus must be of type str, got 3"),
        ({"data": {"tags": "style"}}, "data.tags must be a list of strings, got 'style'"),
        ({"data": {"tags": ["style", 3]}}, "data.tags must be a list of strings"),
        ({"data": {"expand_repeats": 1}}, "data.expand_repeats must be of type bool, got 1"),
        ({"pretrain": {"learning_rate": True}}, "pretrain.learning_rate must be of type float"),
        (
            {"pretrain": {"schedule": "cosin"}},
            "pretrain.schedule must be one of cosine, plateau, got 'cosin'; did you mean 'cosine'?",
        ),
        ({"pretrain": {"schedule": 1}}, "pretrain.schedule must be one of"),
    ],
)
def test_what_does_not_exist_or_has_another_type(data, message):
    with pytest.raises(UserError) as error:
        from_dict(RunConfig, data)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("data", {"max_length": 15}, "data.max_length must be at least 16, got 15"),
        ("data", {"transpose": 128}, "data.transpose must be 0 to 127, got 128"),
        ("data", {"transpose": -1}, "data.transpose must be 0 to 127"),
        ("data", {"tempo_factor": 0.9}, "data.tempo_factor must be 1 to 4, got 0.9"),
        ("data", {"duration_factor": 5.0}, "data.duration_factor must be 1 to 4"),
        ("data", {"velocity_jitter": -1}, "data.velocity_jitter must be 0 to 127"),
        ("data", {"velocity_bins": 0}, "data.velocity_bins must be 1 to 127"),
        ("data", {"ticks_per_step": 0}, "data.ticks_per_step must be a divisor of 96"),
        ("data", {"ticks_per_step": 7}, "data.ticks_per_step must be a divisor of 96, got 7"),
        ("data", {"max_reject_rate": 1.5}, "data.max_reject_rate must be 0 to 1"),
        ("data", {"test_rate": 0.0}, "data.test_rate must be above 0 and below 1"),
        ("data", {"validation_rate": 1.0}, "data.validation_rate must be above 0 and below 1"),
        ("data", {"validation_rate": 0.5, "test_rate": 0.5}, "data.test_rate must be below 0.5"),
        ("data", {"corpus": ""}, "data.corpus must be the name of a corpus, a folder, or a"),
        ("data", {"tags": ("a=b",)}, "data.tags must be names without an equals sign"),
        ("data", {"tags": ("",)}, "data.tags must be names"),
        ("generator", {"hidden_size": 0}, "generator.hidden_size must be above 0, got 0"),
        ("generator", {"layer_dropout": 1.0}, "generator.layer_dropout must be at least 0 and bel"),
        ("generator", {"latent_size": 6, "latent_slots": 4}, "a multiple of latent_slots, 4"),
        ("generator", {"kind": "vae", "bars": 0}, "generator.latent_slots must be 1 where"),
        ("discriminator", {"stride": -1}, "discriminator.stride must be at least 0"),
        ("discriminator", {"dropout": -0.1}, "discriminator.dropout must be at least 0"),
        ("pretrain", {"steps": 0}, "pretrain.steps must be above 0, got 0"),
        ("pretrain", {"learning_rate": float("nan")}, "pretrain.learning_rate must be above 0"),
        ("pretrain", {"learning_rate": float("inf")}, "pretrain.learning_rate must be above 0"),
        ("pretrain", {"warmup_steps": -1}, "pretrain.warmup_steps must be at least 0, got -1"),
        ("refine", {"batch_size": 1, "minibatches": 1}, "refine.batch_size must be at least 2"),
        ("refine", {"minibatches": 3}, "refine.minibatches must be a divisor of batch_size, 64"),
        ("refine", {"minibatches": 0}, "refine.minibatches must be above 0"),
        ("refine", {"kl_weight": -1.0}, "refine.kl_weight must be at least 0"),
        ("refine", {"discriminator_gate": 1.1}, "refine.discriminator_gate must be 0 to 1"),
        ("refine", {"label_smoothing": 1.0}, "refine.label_smoothing must be at least 0 and below"),
        ("output", {"temperature": 0.0}, "output.temperature must be above 0"),
        ("output", {"num_evaluated": 1}, "output.num_evaluated must be at least 2"),
    ],
)
def test_values_out_of_range_name_their_key(part, values, message):
    with pytest.raises(UserError) as error:
        from_dict(RunConfig, {part: values})
    assert message in str(error.value)


def test_a_negative_seed():
    with pytest.raises(UserError, match="seed must be at least 0, got -1"):
        RunConfig(seed=-1)


@pytest.mark.parametrize(
    "content", [None, b"seed = ", b"seed = 1\nseed = 2", b'data = "\xff"'], ids=lambda c: repr(c)
)
def test_files_that_hold_no_toml(tmp_path, content):
    path = tmp_path / "config.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read configuration .*config\.toml"):
        read_toml(path)


def test_unknown_presets_and_names():
    with pytest.raises(UserError, match=r"'tinny'; did you mean 'tiny'\?; there are base"):
        preset("tinny")
    assert nearest_name("reels", ["jigs", "reel"]) == "; did you mean 'reel'?"
    assert nearest_name("xyz", ["jigs", "reel"]) == ""


def test_the_tiny_preset_is_small():
    config = preset("tiny")
    assert config.generator.hidden_size < GeneratorConfig().hidden_size
    assert config.pretrain.steps < 20 and config.refine.steps < 5
