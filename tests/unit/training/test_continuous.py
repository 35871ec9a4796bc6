import math

import numpy as np
import pytest
import torch

from rnngan.config import DataConfig, changed, preset
from rnngan.data.prepare import prepare_pieces
from rnngan.data.reading import Source
from rnngan.errors import UserError
from rnngan.generator.tuples import TuplesGenerator
from rnngan.music.tokenizers.tuples import COLUMNS
from rnngan.objectives.feature_matching import FeatureMatching
from rnngan.training import adversarial, continuous
from rnngan.training.checkpoint import Checkpoints, TuplesModel, model_bytes, of_tokens, parse_model
from rnngan.training.continuous import SquaredErrorLesson, TuplesRefinement, pretrain, refine
from rnngan.training.critic import Critic
from rnngan.training.run import Run

TINY = changed(
    preset("tiny"),
    data={"tokenizer": "tuples"},
    generator={"kind": "tuples"},
    pretrain={"schedule": "plateau", "transpose_rate": 0.0},
    refine={"objective": "feature-matching", "max_length": 24, "epochs": 1},
)


@pytest.fixture(scope="module")
def store(tunes, tmp_path_factory):
    """Twelve tunes as tuples; read only."""
    return prepare_pieces(
        [Source(f"{i:02}.mid", f"{i:064x}", tune) for i, tune in enumerate(tunes)],
        DataConfig(corpus="tunes", tokenizer="tuples", validation_rate=0.2, test_rate=0.2),
        tmp_path_factory.mktemp("corpus") / "store",
        seed=0,
    )


@pytest.fixture(autouse=True)
def _unwatched(monkeypatch):
    monkeypatch.setattr(continuous, "show", lambda *_, **__: None)


@pytest.fixture
def run_of(store, tmp_path):
    def make(name="run", resume=False, **parts):
        return Run.begin(
            tmp_path / name,
            changed(TINY, **parts),
            stages=("pretrain", "refine"),
            store=store.folder,
            resume=resume,
        )

    return make


@pytest.fixture
def pretrained(run_of, store, progress_of):
    """Makes runs that have been pretrained, all with the same result."""

    def make(name="run", **parts):
        run = run_of(name, **parts)
        pretrain(run, store, progress=progress_of())
        return run

    return make


def checkpoints_of(run, stage):
    return Checkpoints(run.checkpoints, stage, keep=3, say=print)


# Pretraining


def test_the_error_falls_below_that_of_the_average_note(run_of, store, progress_of, read_log):
    run = run_of(
        pretrain={"steps": 60, "validate_every": 20, "learning_rate": 0.02, "batch_size": 8},
        data={"transpose": 0},
    )
    model = pretrain(run, store, progress=progress_of())
    log = read_log(run, "pretrain")
    train = [x["pretrain/train_squared_error"] for x in log if "pretrain/train_squared_error" in x]
    held_out = [x for x in log if "pretrain/val_squared_error" in x]
    assert len(train) == 60 and [x["step"] for x in held_out] == [20, 40, 60]
    assert np.mean(train[-5:]) < 0.7 * np.mean(train[:5])
    assert model.metrics["val_squared_error"] < 0.75
    for line in held_out:
        columns = [line[f"pretrain/val_squared_error_{name}"] for name in COLUMNS]
        assert line["pretrain/val_squared_error"] == pytest.approx(np.mean(columns))


def test_it_learns_how_long_pieces_are(run_of, store):
    lengths = np.diff(store.offsets)[store.indices("train")]
    generator = SquaredErrorLesson(run_of(), store).generator
    assert set(generator.lengths.tolist()) == set(lengths.tolist())


def test_a_model_comes_back_from_its_file(pretrained, tmp_path):
    model = checkpoints_of(pretrained(), "pretrain").read_best()
    assert isinstance(model, TuplesModel)
    data = model_bytes(model)
    assert model_bytes(parse_model(data, tmp_path)) == data
    assert model.tokenizer.name == "tuples" and not model.generator.training


@pytest.mark.parametrize("interrupts", [(2,), (5, 7)])
def test_an_interrupted_pretraining_ends_bit_by_bit_as_one_that_was_not(
    run_of, store, progress_of, interrupts
):
    expected = model_bytes(pretrain(run_of("whole"), store, progress=progress_of()))
    for i, step in enumerate(interrupts):
        run = run_of("parts", resume=i > 0)
        with pytest.raises(KeyboardInterrupt):
            pretrain(run, store, progress=progress_of(interrupt_at=step), resume=i > 0)
    run = run_of("parts", resume=True)
    assert model_bytes(pretrain(run, store, progress=progress_of(), resume=True)) == expected


# Refinement


def test_refinement_moves_the_generator_and_logs_what_matters(
    pretrained, store, progress_of, read_log
):
    run = pretrained(refine={"freeze_below": 0.0})
    before = checkpoints_of(run, "pretrain").read_best()
    model = refine(run, store, progress=progress_of())
    assert model.discriminator is not None
    assert not torch.equal(before.generator.output.weight, model.generator.output.weight)
    assert torch.equal(before.generator.lengths, model.generator.lengths)
    log = read_log(run, "refine")
    assert all(math.isfinite(value) for line in log for value in line.values())
    steps = [line for line in log if "adversarial/generator_loss" in line]
    looks = [line for line in log if "adversarial/val_squared_error" in line]
    assert [x["step"] for x in steps] == [1, 2] and [x["step"] for x in looks] == [0, 1, 2]
    assert {f"adversarial/deviation_{name}" for name in COLUMNS} <= set(looks[0])
    assert "adversarial/lower_auc" not in looks[0]  # who freezes has no such limit


@pytest.mark.parametrize("replay_rate", [0.0, 0.5])
def test_an_interrupted_refinement_ends_bit_by_bit_as_one_that_was_not(
    pretrained, run_of, store, progress_of, replay_rate
):
    more = {"refine": {"steps": 4, "replay_rate": replay_rate}}
    expected = model_bytes(refine(pretrained("whole", **more), store, progress=progress_of()))
    run = pretrained("parts", **more)
    with pytest.raises(KeyboardInterrupt):
        refine(run, store, progress=progress_of(interrupt_at=3))
    assert checkpoints_of(run, "refine").steps() == [0, 1, 2]
    run = run_of("parts", resume=True, **more)
    assert model_bytes(refine(run, store, progress=progress_of(), resume=True)) == expected


@pytest.mark.parametrize("waits", [True, False])
def test_a_discriminator_that_waits_learns_nothing_whatever_its_auc(
    pretrained, store, progress_of, monkeypatch, waits, read_log
):
    learnt, learn, update = [], Critic.learn, FeatureMatching.update

    def learning(self, real, fakes, number):
        learnt.append(number)
        return learn(self, real, fakes, number)

    def updating(self, game):
        log = update(self, game)
        self.discriminator_waits = waits
        return log

    monkeypatch.setattr(Critic, "learn", learning)
    monkeypatch.setattr(FeatureMatching, "update", updating)
    run = pretrained(refine={"discriminator_gate": 0.0, "discriminator_pretrain_steps": 1})
    refine(run, store, progress=progress_of())
    assert learnt == ([0] if waits else [0, 1, 2, 3, 4])
    log = [line["adversarial/discriminator_waits"] for line in read_log(run, "refine")
           if "adversarial/discriminator_waits" in line]  # fmt: skip
    assert log == [float(waits)] * 2


def test_numbers_that_are_none_bring_it_back_to_the_last_good_state(
    pretrained, store, progress_of, monkeypatch
):
    write = TuplesGenerator.write

    def broken(self, noise, **how):
        return write(self, noise, **how) * (math.nan if "chunk" in how else 1)

    run = pretrained(guard={"retries": 1})
    before = checkpoints_of(run, "pretrain").read_best()
    monkeypatch.setattr(TuplesGenerator, "write", broken)
    progress = progress_of()
    model = refine(run, store, progress=progress)
    assert torch.equal(before.generator.output.weight, model.generator.output.weight)
    assert (run.folder / "guard.json").exists()
    assert any("the guard: generator_loss became nan" in line for line in progress.said)


def test_the_guard_knows_copying_and_sameness_and_no_likelihood(pretrained, store, progress_of):
    run = pretrained()
    refinement = TuplesRefinement(
        run,
        store,
        checkpoints_of(run, "pretrain").read_best(),
        checkpoints_of(run, "refine"),
        progress=progress_of(),
    )
    guard, figures = refinement.guard, refinement.validate()
    assert guard.check(1, figures) is None
    assert guard.check(1, figures | {"val_squared_error": math.inf}).figure == "val_squared_error"
    low = {"self_bleu": 0.0, "copied_rate": 0.0}
    guard = type(guard)(guard.config, figures | low)
    assert guard.check(1, figures | low | {"copied_rate": 1.5}).figure == "copied_rate"
    assert guard.check(1, figures | low | {"self_bleu": 1.5}).figure == "self_bleu"
    assert guard.check(1, figures | low | {"val_squared_error": 99.0}) is None


def test_the_deviation_of_samples(pretrained, store, progress_of, monkeypatch):
    from rnngan.data.batches import padded

    run = pretrained()
    refinement = TuplesRefinement(
        run,
        store,
        checkpoints_of(run, "pretrain").read_best(),
        checkpoints_of(run, "refine"),
        progress=progress_of(),
    )
    rows = np.array([[-1, 0, 2, 5], [1, 0, 4, 5], [-1, 0, 2, 5], [1, 0, 4, 5]], dtype=np.float32)
    monkeypatch.setattr(continuous, "draw", lambda *_, **__: padded([rows[:3], rows[3:]]))
    figures = refinement.validate()
    assert [figures[f"deviation_{name}"] for name in COLUMNS] == [1, 0, 1, 0]


# What does not go together


@pytest.fixture
def token_store(tunes, tmp_path):
    return prepare_pieces(
        [Source(f"{i:02}.mid", f"{i:064x}", tune) for i, tune in enumerate(tunes)],
        DataConfig(corpus="tunes", validation_rate=0.2, test_rate=0.2),
        tmp_path / "tokens",
        seed=0,
    )


def test_tokens_where_tuples_are_wanted_and_the_reverse(
    run_of, pretrained, token_store, progress_of
):
    with pytest.raises(UserError, match=r"holds events, tokens, which the generator tuples cannot"):
        pretrain(run_of(), token_store, progress=progress_of())
    run = pretrained("tuples")
    with pytest.raises(UserError, match="this model writes tuples, real numbers"):
        of_tokens(checkpoints_of(run, "pretrain").read_best())
    with pytest.raises(UserError, match="this model writes tuples, real numbers"):
        adversarial.refine(run, token_store, progress=progress_of())
