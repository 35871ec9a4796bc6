"""Every objective, discriminator and control through a whole, if tiny, refinement."""

import math
import shutil

import pytest
import torch

from rnngan.cli import main
from rnngan.config import changed, preset
from rnngan.data.batches import TrainingBatches, held_out_batches
from rnngan.discriminator.registry import DISCRIMINATORS
from rnngan.generate import generate
from rnngan.objectives.base import piece_logits
from rnngan.objectives.registry import OBJECTIVES
from rnngan.training import adversarial as module
from rnngan.training.adversarial import new_players, refine
from rnngan.training.checkpoint import Checkpoints, model_bytes
from rnngan.training.critic import Critic

TINY = preset("tiny")
NEEDS = {"gumbel": {"views": "tokens"}}
"""Settings of the discriminator that an objective cannot do without."""
ALL = [
    (name, {"rollouts": 2} if name == "rollout" else {})
    for name, kind in OBJECTIVES.items()
    if kind.moves
]
OFFLINE = ("importance", {"offline": True})


@pytest.fixture(scope="module")
def pretrained_folder(pretrained_once):
    return pretrained_once(TINY)


@pytest.fixture
def pretrained(pretrained_folder, new_run, unwatched):
    """Makes runs that have been pretrained, all with the same result."""

    def make(name="run", objective="leave-one-out", discriminator=None, **refinement):
        judge = NEEDS.get(objective, {}) | (discriminator or {})
        config = changed(TINY, refine={"objective": objective} | refinement, discriminator=judge)
        run = new_run(name, config)
        shutil.copytree(pretrained_folder / "checkpoints", run.checkpoints)
        return run

    return make


@pytest.fixture
def players(monkeypatch):
    """Those of each refinement that is begun, for a look from outside."""
    made = []

    def remember(*arguments):
        made.append(new_players(*arguments))
        return made[-1]

    monkeypatch.setattr(module, "new_players", remember)
    return made


def checkpoints_of(run, stage="refine"):
    return Checkpoints(run.checkpoints, stage, keep=9, say=print)


def weights(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same_weights(one, two):
    return all(torch.equal(one[name], two[name]) for name in one)


def logged(log, name):
    return [line[f"adversarial/{name}"] for line in log if f"adversarial/{name}" in line]


# Every objective


@pytest.mark.parametrize(("name", "more"), [*ALL, OFFLINE])
def test_every_objective_refines(pretrained, store, progress_of, read_log, players, name, more):
    run = pretrained(objective=name, **more)
    before = weights(checkpoints_of(run, "pretrain").read_best().generator)
    model = refine(run, store, progress=progress_of())
    ((player,), kind) = players, OBJECTIVES[name]
    assert same_weights(before, weights(player.reference))
    assert not same_weights(before, weights(model.generator))
    assert same_weights(weights(model.generator), weights(player.generator))
    assert (model.discriminator is not None) == kind.plays
    assert model_bytes(model) == model_bytes(checkpoints_of(run).read_best())
    assert all(tensor.isfinite().all() for tensor in weights(model.generator).values())
    assert len(generate(model, num=2, seed=0, max_tokens=64)) == 2

    log = read_log(run, "refine")
    assert [line["step"] for line in log if "adversarial/generator_gradient_norm" in line] == [1, 2]
    assert [line["step"] for line in log if "adversarial/val_bits_per_token" in line] == [0, 1, 2]
    assert all(math.isfinite(value) for line in log for value in line.values())
    assert all(norm > 0 for norm in logged(log, "generator_gradient_norm"))
    assert bool(logged(log, "discriminator_auc")) == kind.plays
    if kind.plays:  # before the game, at each step, and at each look
        assert logged(log, "discriminator_auc")[0] > 0 and logged(log, "discriminator_loss")
    assert not (run.folder / "guard.json").exists()


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("leave-one-out", {"replay_rate": 0.5}),
        ("dense", {}),
        OFFLINE,
        ("cooperative", {}),
        pytest.param("gumbel", {}, marks=pytest.mark.slow),
        pytest.param("likelihood", {}, marks=pytest.mark.slow),
        pytest.param("rollout", {}, marks=pytest.mark.slow),
    ],
)
def test_each_ends_bit_by_bit_as_if_it_had_not_been_interrupted(
    pretrained, store, progress_of, name, more
):
    whole, broken = (pretrained(run, name, steps=3, **more) for run in ("whole", "broken"))
    expected = model_bytes(refine(whole, store, progress=progress_of()))
    with pytest.raises(KeyboardInterrupt):
        refine(broken, store, progress=progress_of(interrupt_at=2))
    assert checkpoints_of(broken).steps() == [0, 1]
    assert model_bytes(refine(broken, store, progress=progress_of(), resume=True)) == expected
    assert checkpoints_of(broken).steps() == [1, 2, 3]  # as many as are kept


@pytest.mark.parametrize("name", ["gumbel", "cooperative", "leave-one-out", "likelihood"])
def test_whoever_wants_openings_gets_some_that_the_discriminator_does_not(
    pretrained, store, progress_of, monkeypatch, name
):
    batches, rounds, kind = [], [], OBJECTIVES[name]
    batch, update = TrainingBatches.batch, kind.update

    def drawing(self, step):
        batches.append((self.seed, step))
        return batch(self, step)

    def updating(self, game):
        rounds.append(game)
        return update(self, game)

    monkeypatch.setattr(TrainingBatches, "batch", drawing)
    monkeypatch.setattr(kind, "update", updating)
    run = pretrained(objective=name, discriminator_gate=1.0)
    refine(run, store, progress=progress_of())
    config, wanted = run.config.refine, name in ("gumbel", "cooperative")
    per_step = config.epochs * config.minibatches
    for game in rounds:
        assert len(game.openings.lengths) == config.batch_size * wanted
        assert len(game.logits) == config.batch_size * kind.plays
        assert len(game.real) == per_step
    learnt = config.discriminator_pretrain_steps + config.steps * config.discriminator_updates
    assert len(rounds) == config.steps
    assert len(batches) == config.steps * (per_step + wanted) + learnt * kind.plays
    assert len(set(batches)) == len(batches)


def test_older_samples_are_mixed_into_what_the_discriminator_learns_from(
    pretrained, store, progress_of, monkeypatch
):
    drawn, learnt = [], []
    draw, learn = module.draw, Critic.learn

    def drawing(*arguments, **options):
        drawn.append(draw(*arguments, **options))
        return drawn[-1]

    def learning(self, real, fakes, update):
        learnt.append((update, fakes))
        return learn(self, real, fakes, update)

    monkeypatch.setattr(module, "draw", drawing)
    monkeypatch.setattr(Critic, "learn", learning)
    run = pretrained(replay_rate=0.5, steps=3, validate_every=99, discriminator_gate=1.0)
    refine(run, store, progress=progress_of())

    def rows(batch):
        return [tuple(row[:length]) for row, length in zip(batch.tokens, batch.lengths)]

    first = run.config.refine.discriminator_pretrain_steps
    assert [update for update, _ in learnt] == list(range(first + 6))
    mixed = [rows(fakes) for _, fakes in learnt[first:]]
    assert mixed[::2] == mixed[1::2]  # both updates of a step learn from the same
    # Of a validation before, the samples of updates, two to judge by, another validation: the game.
    game = [rows(batch) for batch in drawn[1 + first + 2 + 1 :]]
    for step in range(3):
        fresh = sum(row in game[step] for row in mixed[2 * step])
        assert fresh == (4 if step == 0 else 2)


# Every discriminator


@pytest.mark.parametrize("option", [{"spectral_norm": True}, {"minibatch_features": 2}])
@pytest.mark.parametrize("kind", DISCRIMINATORS)
def test_every_discriminator_plays_and_is_read_back_as_it_was(
    pretrained, store, progress_of, read_log, players, kind, option
):
    run = pretrained(discriminator={"kind": kind} | option, steps=1, gradient_penalty="r1")
    model = refine(run, store, progress=progress_of())
    ((player,), judge) = players, model.discriminator
    assert judge.config.kind == kind
    (batch,) = held_out_batches(store, "validation")
    with torch.no_grad():
        found, live = (
            piece_logits(network.eval(), batch, "float32")
            for network in (judge, player.discriminator)
        )
        assert torch.equal(found, live)
        assert torch.equal(judge.log_ratio(found), player.discriminator.log_ratio(live))
    log = read_log(run, "refine")
    assert all(math.isfinite(value) for line in log for value in line.values())


def test_without_steps_the_discriminator_alone_is_trained(pretrained, store, progress_of, read_log):
    run = pretrained(steps=0)
    before = checkpoints_of(run, "pretrain").read_best()
    model = refine(run, store, progress=progress_of())
    assert same_weights(weights(before.generator), weights(model.generator))
    assert model.discriminator.calibration_scale != 1
    assert checkpoints_of(run).steps() == [0]
    (line,) = read_log(run, "refine")
    assert line["step"] == 0 and 0 <= line["adversarial/discriminator_auc"] <= 1
    assert line["adversarial/kl"] == pytest.approx(0, abs=1e-6)


def test_and_steps_may_follow_later(pretrained, new_run, store, progress_of):
    expected = model_bytes(refine(pretrained("whole"), store, progress=progress_of()))
    run = pretrained("run", steps=0)
    refine(run, store, progress=progress_of())
    longer = new_run("run", TINY, resume=True)
    assert model_bytes(refine(longer, store, progress=progress_of(), resume=True)) == expected


# What does not go together


@pytest.fixture
def only_pretrained(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("refine-*", "report"))
    return folder


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--refine.objective", "gumbel"], "discriminator.views must be tokens, got both"),
        (
            ["--objective", "dense", "--discriminator.no-causal-head"],
            "objective dense needs a discriminator that judges beginnings: "
            "discriminator.causal_head must be true, got false",
        ),
        (
            ["--objective", "cooperative", "--refine.minibatches", "4"],
            "objective cooperative compares samples: refine.batch_size must be at least twice "
            "refine.minibatches, 4, got 4",
        ),
    ],
)
def test_an_objective_that_does_not_suit_the_networks_is_one_clear_line(
    only_pretrained, capsys, words, message
):
    capsys.readouterr()
    assert main(["refine", "--run", str(only_pretrained), "--threads", "1", *words]) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert out == "" and line.startswith("rnngan: error: ") and message in line
    assert not list((only_pretrained / "checkpoints").glob("refine-*"))


def test_after_which_the_run_may_be_refined_with_another(only_pretrained, trained):
    words = ["refine", "--run", str(only_pretrained), "--threads", "1", "--objective"]
    assert main([*words, "gumbel"]) == 2
    assert main([*words, "leave-one-out"]) == 0
    name = "checkpoints/refine-best.safetensors"
    assert (only_pretrained / name).read_bytes() == (trained / name).read_bytes()
