import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
import torch

from rnngan.config import GuardConfig, changed, preset
from rnngan.data.batches import Batch, TrainingBatches, padded
from rnngan.errors import UserError
from rnngan.objectives import base
from rnngan.objectives import policy_gradient as policy_module
from rnngan.objectives.base import Diverged, Round
from rnngan.objectives.leave_one_out import LeaveOneOut
from rnngan.objectives.likelihood import negative_log_likelihood, target_log_probs, targets_of
from rnngan.objectives.policy_gradient import PolicyGradient, chosen
from rnngan.objectives.registry import OBJECTIVES
from rnngan.training import adversarial as module
from rnngan.training.adversarial import Refinement, new_players, refine
from rnngan.training.checkpoint import Checkpoints, model_bytes
from rnngan.training.critic import Critic
from rnngan.training.pretrain import pretrain

TINY = changed(preset("tiny"), pretrain={"steps": 9}, refine={"steps": 5, "validate_every": 2})

pytestmark = pytest.mark.usefixtures("unwatched")


@pytest.fixture(scope="module")
def pretrained_folder(pretrained_once):
    return pretrained_once(TINY)


@pytest.fixture
def pretrained(pretrained_folder, new_run):
    """Makes runs that have been pretrained, all with the same result."""

    def make(name="run", guard=None, **refinement):
        run = new_run(name, changed(TINY, refine=refinement, guard=guard or {}))
        shutil.copytree(pretrained_folder / "checkpoints", run.checkpoints)
        return run

    return make


@pytest.fixture
def players(pretrained, store):
    run = pretrained()
    return new_players(run, store, checkpoints_of(run, "pretrain").read_best())


def checkpoints_of(run, stage="refine"):
    return Checkpoints(run.checkpoints, stage, keep=9, say=print)


def draw(players, store, num=6, seed=0):
    grammar = store.tokenizer.grammar
    return base.draw(players.generator, grammar, num=num, max_length=60, seed=seed)


def weights(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same_weights(one, two):
    return all(torch.equal(one[name], two[name]) for name in one)


def figures(log, name):
    return [line[f"adversarial/{name}"] for line in log if f"adversarial/{name}" in line]


# Players


def test_the_game_begins_with_the_pretrained_generator_on_both_sides(players, pretrained_folder):
    best = Checkpoints(pretrained_folder / "checkpoints", "pretrain", keep=1, say=print)
    expected = weights(best.read_best().generator)
    assert same_weights(expected, weights(players.generator))
    assert same_weights(expected, weights(players.reference))
    assert not any(p.requires_grad for p in players.reference.parameters())
    assert all(p.requires_grad for p in players.generator.parameters())
    shared = {p.data_ptr() for p in players.generator.parameters()}
    assert not shared & {p.data_ptr() for p in players.reference.parameters()}


def test_only_a_pretrained_run_can_be_refined(new_run, store, progress_of):
    with pytest.raises(UserError, match=r"no pretrain model in .*; run that stage first"):
        refine(new_run(), store, progress=progress_of())


# The discriminator's side


@pytest.mark.parametrize("steps", [0, 1, 3, 30])
def test_the_discriminator_enters_the_game_at_its_last_rate(pretrained, store, progress_of, steps):
    run = pretrained(discriminator_pretrain_steps=steps, steps=1)
    refine(run, store, progress=progress_of())
    optimizer = checkpoints_of(run).latest().state["critic"]["optimizer"]
    rates = [group["lr"] for group in optimizer["param_groups"]]
    fallen = 0.55 + 0.45 * math.cos(math.pi * (steps - 1) / steps) if steps else 1
    assert rates == pytest.approx([run.config.refine.discriminator_learning_rate * fallen] * 2)


# The generator's side


class Given(PolicyGradient):
    """Advantages from outside."""

    def __init__(self, players, advantages):
        super().__init__(players)
        self.given = advantages

    def advantages(self, game):
        return self.given


def parts_of(players, fakes, advantages, **settings):
    players.config = changed(TINY, refine={"batch_size": 6} | settings).refine
    return Given(players, advantages)._parts(fakes, advantages)


def test_each_token_carries_the_advantage_of_its_piece(players, store):
    fakes = draw(players, store)
    assert len(set(fakes.lengths.tolist())) > 1
    parts = parts_of(players, fakes, torch.arange(6.0), minibatches=3)
    assert len(parts) == 3
    tokens = np.concatenate([row[1:n] for row, n in zip(fakes.tokens, fakes.lengths)])
    owners = np.repeat(np.arange(6), fakes.lengths - 1)
    assert torch.cat([part.targets.tokens for part in parts]).tolist() == tokens.tolist()
    assert torch.cat([part.advantages for part in parts]).tolist() == owners.tolist()


def test_or_an_advantage_of_its_own(players, store):
    fakes = draw(players, store)
    time = np.arange(fakes.tokens.shape[1])
    advantages = torch.from_numpy(100 * np.arange(6)[:, None] + time).float()
    parts = parts_of(players, fakes, advantages, minibatches=2)
    expected = [100 * row + t for row, n in enumerate(fakes.lengths.tolist()) for t in range(1, n)]
    assert torch.cat([part.advantages for part in parts]).tolist() == expected


def test_before_any_update_policy_and_reference_agree(players, store):
    fakes = draw(players, store)
    players.precision = "float32"
    (part,) = parts_of(players, fakes, torch.zeros(6), minibatches=1)
    found = chosen(part.reference_log_probs, part.targets)
    assert torch.equal(found, part.old_log_probs)
    assert torch.isfinite(found).all()
    loss = negative_log_likelihood(players.generator, targets_of(fakes, store.tokenizer.grammar))
    assert -part.old_log_probs.mean().item() == pytest.approx(loss.item(), rel=1e-5)


def one_update(players, store, advantages, **settings):
    """`epochs` passes over six samples with given advantages; figures, and old log-probs."""
    config = changed(
        TINY, refine={"minibatches": 1, "batch_size": 6, "likelihood_weight": 0.0} | settings
    ).refine
    players.config, players.precision = config, "float32"
    players.generator.eval()
    fakes = draw(players, store)
    excerpt = targets_of(padded([store.piece_tokens(0)]), store.tokenizer.grammar)
    objective = Given(players, advantages)
    (part,) = objective._parts(fakes, advantages)
    log = objective.update(
        Round(step=0, seed=0, fakes=fakes, logits=advantages, real=[excerpt] * config.epochs)
    )
    return log, part


def test_what_is_rewarded_becomes_likelier_and_what_is_punished_less_likely(players, store):
    advantages = torch.tensor([1.0, 1, 1, -1, -1, -1])
    _, part = one_update(players, store, advantages, kl_weight=0.0)
    with torch.no_grad():
        new = target_log_probs(players.generator, part.targets)
    change = chosen(new, part.targets) - part.old_log_probs
    assert (change * part.advantages).mean() > 0.001


def test_the_likelihood_of_real_music_is_mixed_in(players, store):
    grammar = store.tokenizer.grammar
    real = targets_of(padded([store.piece_tokens(0)]), grammar)
    before = negative_log_likelihood(players.generator, real).item()
    one_update(players, store, torch.zeros(6), likelihood_weight=1.0, kl_weight=0.0, epochs=4)
    assert negative_log_likelihood(players.generator, real).item() < before


def test_a_heavy_kl_weight_pulls_back_to_the_reference(players, store):
    with torch.no_grad():
        for parameter in players.generator.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    first, _ = one_update(players, store, torch.zeros(6), kl_weight=10.0, epochs=1)
    for _ in range(10):
        last, _ = one_update(players, store, torch.zeros(6), kl_weight=10.0, epochs=1)
    assert 0 < last["kl_to_reference"] < first["kl_to_reference"]


def test_the_kl_weight_adapts_after_the_step(players, store):
    log, _ = one_update(players, store, torch.zeros(6), kl_weight=0.1)
    assert log["kl_to_reference"] < 0.01 / 1.5 and log["kl_weight"] == pytest.approx(0.05)


def test_no_update_of_numbers_that_are_none(players, store):
    before = weights(players.generator)
    with pytest.raises(Diverged, match="generator_loss became nan"):
        one_update(players, store, torch.full((6,), math.nan))
    assert same_weights(before, weights(players.generator))


def game_of(players, store, logits, seed=0):
    excerpt = targets_of(padded([store.piece_tokens(0)]), store.tokenizer.grammar)
    fakes = draw(players, store, num=len(logits))
    return Round(step=0, seed=seed, fakes=fakes, logits=logits, real=[excerpt] * 8)


@pytest.mark.parametrize("name", ["leave-one-out", "placebo-constant"])
def test_a_constant_reward_leaves_the_generator_bit_for_bit(players, store, name):
    players.config = changed(
        TINY, refine={"kl_weight": 0.0, "likelihood_weight": 0.0, "batch_size": 6}
    ).refine
    before = weights(players.generator)
    objective = OBJECTIVES[name](players)
    log = objective.update(game_of(players, store, torch.full((6,), 3.7)))
    assert log["generator_gradient_norm"] == 0
    assert same_weights(before, weights(players.generator))


def test_placebo_rewards_know_nothing_of_the_sample(players, store):
    logits = torch.arange(6.0)
    game = game_of(players, store, logits, seed=3)
    shuffled = OBJECTIVES["placebo-shuffled"](players).rewards(game)
    assert sorted(shuffled.tolist()) == logits.tolist()
    assert not (shuffled == logits).any()
    random = [
        OBJECTIVES["placebo-random"](players).rewards(game_of(players, store, x, seed=3))
        for x in (logits, -logits)
    ]
    assert torch.equal(*random) and len(random[0].unique()) == 6


def test_further_likelihood_is_likelihood(players, store):
    """The control learns the excerpts, as often as the others do, and plays no game."""
    control = OBJECTIVES["likelihood"](players)
    assert not control.plays
    real = targets_of(padded([store.piece_tokens(0)]), store.tokenizer.grammar)
    before = negative_log_likelihood(players.generator, real).item()
    empty = Batch.empty()
    game = Round(step=0, seed=0, fakes=empty, logits=torch.empty(0), real=[real] * 5)
    control.update(game)
    assert negative_log_likelihood(players.generator, real).item() < before
    assert not players.generator.training
    steps = {int(state["step"]) for state in players.optimizer.state.values()}
    assert steps == {5}


# The stage


def test_a_refinement_leaves_a_model_of_both_networks_and_curves(
    pretrained, store, progress_of, read_log
):
    run = pretrained()
    model = refine(run, store, progress=progress_of())
    checkpoints = checkpoints_of(run)
    assert checkpoints.steps() == [2, 4, 5]
    assert model_bytes(checkpoints.read_best()) == model_bytes(model)
    assert model.discriminator is not None
    log = read_log(run, "refine")
    assert [line["step"] for line in log if "adversarial/kl_to_reference" in line] == [
        1,
        2,
        3,
        4,
        5,
    ]
    assert [line["step"] for line in log if "adversarial/val_bits_per_token" in line] == [
        0,
        2,
        4,
        5,
    ]
    for name in ("discriminator_auc", "entropy", "clipped_rate", "generator_gradient_norm"):
        assert len(figures(log, name)) >= 5
    assert all(math.isfinite(v) for line in log for v in line.values())


@pytest.mark.parametrize("interrupts", [(1,), (3, 4), (5,)])
def test_an_interrupted_run_ends_bit_by_bit_as_one_that_was_not(
    new_run, pretrained, store, progress_of, read_log, interrupts
):
    whole = pretrained("whole")
    refine(whole, store, progress=progress_of())

    broken = new_run("broken", TINY)  # interrupted in both stages
    with pytest.raises(KeyboardInterrupt):
        pretrain(broken, store, progress=progress_of(interrupt_at=6))
    pretrain(broken, store, progress=progress_of(), resume=True)
    for i, step in enumerate(interrupts):
        with pytest.raises(KeyboardInterrupt):
            refine(broken, store, progress=progress_of(interrupt_at=step), resume=i > 0)
    refine(broken, store, progress=progress_of(), resume=True)

    one, two = checkpoints_of(whole), checkpoints_of(broken)
    assert one.best.read_bytes() == two.best.read_bytes()
    assert one.steps() == two.steps()
    for step in one.steps():
        models = [c._paths(step)[0].read_bytes() for c in (one, two)]
        assert models[0] == models[1]
    logs = [read_log(run, "refine") for run in (whole, broken)]
    for line in logs[0] + logs[1]:
        for name in ("sampling", "generator", "discriminator"):
            line.pop(f"adversarial/seconds_{name}", None)
            line.pop(f"adversarial/share_{name}", None)
    assert logs[0] == logs[1]


def test_more_steps_later_end_where_as_many_at_once_do(pretrained, new_run, store, progress_of):
    expected = model_bytes(refine(pretrained("whole", steps=4), store, progress=progress_of()))
    run = pretrained("run", steps=2)
    refine(run, store, progress=progress_of())
    longer = new_run("run", changed(TINY, refine={"steps": 4}), resume=True)
    assert model_bytes(refine(longer, store, progress=progress_of(), resume=True)) == expected


def test_a_crash_before_the_first_checkpoint_doubles_no_point(
    pretrained, store, progress_of, read_log, monkeypatch
):
    def crash(*_, **__):
        raise KeyboardInterrupt

    run = pretrained()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "watch", crash)
        refine(run, store, progress=progress_of())
    assert [line["step"] for line in read_log(run, "refine")] == [0]
    refine(run, store, progress=progress_of(), resume=True)
    assert [line["step"] for line in read_log(run, "refine")].count(0) == 1


def test_no_random_numbers_and_no_batch_come_twice(pretrained, store, progress_of, monkeypatch):
    seeds, batches = [], []
    draw_samples, batch = module.draw, TrainingBatches.batch

    def samples_watched(*arguments, seed, **options):
        seeds.append(seed)
        return draw_samples(*arguments, seed=seed, **options)

    def batch_watched(self, step):
        batches.append((self.seed, step))
        return batch(self, step)

    monkeypatch.setattr(module, "draw", samples_watched)
    monkeypatch.setattr(TrainingBatches, "batch", batch_watched)
    refine(pretrained(discriminator_gate=1.0), store, progress=progress_of())
    config = TINY.refine
    steps, before = config.steps, config.discriminator_pretrain_steps
    guarded = [seed for seed in seeds if seeds.count(seed) > 1]
    assert len(set(guarded)) == 1  # the same samples are watched at every validation
    looks = 3
    assert len(seeds) - len(guarded) == before + 2 + steps + 2 * looks
    per_step = config.discriminator_updates + config.epochs * config.minibatches
    assert len(batches) == before + steps * per_step == len(set(batches))


def watch_players(monkeypatch):
    """The players of the next refinement, for a look from outside."""
    made = []

    def remember(*arguments):
        made.append(new_players(*arguments))
        return made[-1]

    monkeypatch.setattr(module, "new_players", remember)
    return made


def test_the_reference_stays_and_the_generator_moves(pretrained, store, progress_of, monkeypatch):
    made = watch_players(monkeypatch)
    run = pretrained()
    before = weights(checkpoints_of(run, "pretrain").read_best().generator)
    refine(run, store, progress=progress_of())
    assert same_weights(before, weights(made[0].reference))
    assert not same_weights(before, weights(made[0].generator))


@pytest.mark.parametrize(("gate", "moves"), [(0.0, False), (1.0, True)])
def test_beyond_the_gate_the_discriminator_waits(
    pretrained, store, progress_of, read_log, gate, moves
):
    run = pretrained(discriminator_gate=gate, validate_every=1)
    refine(run, store, progress=progress_of())
    checkpoints = checkpoints_of(run)
    first, last = (checkpoints._read(step).model for step in (checkpoints.steps()[0], 5))
    learnt = [dict(model.discriminator.named_parameters()) for model in (first, last)]
    assert same_weights(*learnt) != moves
    assert not same_weights(weights(first.generator), weights(last.generator))
    log = read_log(run, "refine")
    assert figures(log, "discriminator_waits") == [float(not moves)] * 5


def test_the_generator_learns_without_dropout_what_it_drew_without_dropout(
    pretrained, store, progress_of, monkeypatch
):
    modes = []

    def watched(generator, targets):
        modes.append(generator.training)
        return target_log_probs(generator, targets)

    monkeypatch.setattr(policy_module, "target_log_probs", watched)
    refine(pretrained(), store, progress=progress_of())
    assert len(modes) > 10 and not any(modes)


def test_the_stage_raises_its_reward(pretrained, store, progress_of, monkeypatch):
    """With pitch as the reward in place of a verdict, the music rises."""
    ids = store.tokenizer.vocabulary.ids("Pitch")
    means = []

    def by_pitch(_, game):
        pitched = (game.fakes.tokens >= ids.start) & (game.fakes.tokens < ids.stop)
        rewards = torch.tensor(
            [row[p].mean() if p.any() else ids.start for row, p in zip(game.fakes.tokens, pitched)]
        )
        means.append(rewards.mean().item())
        return rewards.float()

    monkeypatch.setattr(LeaveOneOut, "rewards", by_pitch)
    run = pretrained(
        steps=25,
        batch_size=16,
        learning_rate=5e-3,
        likelihood_weight=0.0,
        kl_weight=0.0,
        kl_target=100.0,
        validate_every=25,
        discriminator_pretrain_steps=1,
        discriminator_gate=0.0,
    )
    refine(run, store, progress=progress_of())
    assert np.mean(means[-5:]) > np.mean(means[:5]) + 1  # semitone


# The guard

LIMITS = dataclasses.asdict(GuardConfig(auc=1))  # which a few pieces often have
FINE = {
    "val_bits_per_token": 2.0, "val_bits_per_note": 6.0, "entropy": 1.0, "kl": 0.0,
    "self_bleu": 0.5, "copied_rate": 0.1,
}  # fmt: skip


def scripted(monkeypatch, *validations):
    """What one validation after the other finds, beside what is fine; the last for ever."""
    found = list(validations)

    def validate(_):
        return FINE | (found.pop(0) if len(found) > 1 else found[0])

    monkeypatch.setattr(Refinement, "validate", validate)


@pytest.mark.parametrize(
    ("figure", "value"),
    [
        ("val_bits_per_token", 2.061), ("entropy", 0.49), ("kl", 0.51), ("self_bleu", 0.61),
        ("copied_rate", 0.21), ("kl", math.nan), ("val_bits_per_token", math.inf),
    ],
)  # fmt: skip
def test_a_breach_leads_back_to_the_last_good_checkpoint_with_half_the_step(
    pretrained, store, progress_of, monkeypatch, read_log, figure, value
):
    run = pretrained(validate_every=1, steps=3, guard=LIMITS)
    scripted(monkeypatch, {}, {}, {}, {figure: value}, {})  # before, at 0, 1, 2, then on
    progress = progress_of()
    refine(run, store, progress=progress)
    (told,) = [line for line in progress.said if "guard" in line]
    assert f"the guard: {figure}" in told and "at step 2" in told
    assert "back to the checkpoint of step 1" in told
    rates = figures(read_log(run, "refine"), "generator_learning_rate")
    rate = run.config.refine.learning_rate
    assert rates == [rate, rate, rate / 2]
    one, two, last = (checkpoints_of(run)._read(step) for step in (1, 2, 3))
    assert same_weights(weights(one.model.generator), weights(two.model.generator))
    assert not same_weights(weights(two.model.generator), weights(last.model.generator))
    (breach,) = json.loads((run.folder / "guard.json").read_text())
    assert (breach["step"], breach["figure"]) == (2, figure)


def test_after_the_last_retry_it_stops_for_good(pretrained, store, progress_of, monkeypatch):
    run = pretrained(validate_every=1, steps=9, guard=LIMITS)
    scripted(monkeypatch, {}, {}, {"kl": 9.0})
    progress = progress_of()
    model = refine(run, store, progress=progress)
    retries = run.config.guard.retries
    assert sum("guard" in line for line in progress.said) == retries + 1
    assert "refinement stops: it went back 3 times before" in progress.said[-1]
    before = checkpoints_of(run, "pretrain").read_best()
    assert same_weights(weights(before.generator), weights(model.generator))
    steps = checkpoints_of(run).steps()
    assert steps[-1] == retries + 1
    again = refine(run, store, progress=progress_of(), resume=True)
    assert checkpoints_of(run).steps() == steps
    assert model_bytes(again) == model_bytes(model)


def test_a_discriminator_that_wins_twice_in_a_row_is_a_breach(
    pretrained, store, progress_of, monkeypatch
):
    aucs = iter([0.7, 1.0, 0.7, 1.0, 1.0])
    watched = Critic.judge

    def judge(self, fakes, held_out):
        logits, log = watched(self, fakes, held_out)
        return logits, log | {"discriminator_auc": next(aucs)}

    run = pretrained(validate_every=1, steps=4, guard=LIMITS | {"auc": 0.999})
    scripted(monkeypatch, {})
    refinement = Refinement(
        run, store, checkpoints_of(run, "pretrain").read_best(), checkpoints_of(run),
        progress=progress_of(),
    )  # fmt: skip
    monkeypatch.setattr(Critic, "judge", judge)
    refinement.save(FINE)
    refinement.last_auc = next(aucs)
    said = []
    monkeypatch.setattr(refinement, "go_back", lambda _, breach: said.append(str(breach)))
    monkeypatch.setattr(refinement, "show", lambda *_: None)
    for _ in range(4):
        refinement.step += 1
        refinement.look(None)
    assert len(said) == 1 and "lower_auc was 1 at step 4" in said[0]


@pytest.mark.parametrize("who", ["generator", "discriminator"])
def test_numbers_that_are_none_lead_back_too(pretrained, store, progress_of, monkeypatch, who):
    calls = []
    target = LeaveOneOut if who == "generator" else Critic
    name = "update" if who == "generator" else "learn"
    original = getattr(target, name)

    def diverging(self, *arguments):
        calls.append(0)
        if len(calls) == (4 if who == "generator" else 9):
            raise Diverged(f"{who}_loss", math.inf)
        return original(self, *arguments)

    monkeypatch.setattr(target, name, diverging)
    run = pretrained(discriminator_gate=1.0)
    progress = progress_of()
    refine(run, store, progress=progress)
    (told,) = [line for line in progress.said if "guard" in line]
    assert f"{who}_loss became inf" in told and "back to the checkpoint of step 2" in told
    assert checkpoints_of(run).steps()[-1] == run.config.refine.steps


def test_a_discriminator_that_diverges_before_the_game_is_a_plain_error(
    pretrained, store, progress_of, monkeypatch
):
    def diverging(*_):
        raise Diverged("discriminator_loss", math.nan)

    monkeypatch.setattr(Critic, "learn", diverging)
    with pytest.raises(UserError, match="before its first step: discriminator_loss became nan"):
        refine(pretrained(), store, progress=progress_of())


def test_samples_are_whole_and_obey_the_grammar(players, store):
    batch = draw(players, store, num=20)
    assert batch.tokens.dtype == np.int64
    targets = targets_of(Batch(tokens=batch.tokens, lengths=batch.lengths), store.tokenizer.grammar)
    assert len(targets.tokens) == (batch.lengths - 1).sum()
    assert (batch.lengths <= 60).all()


# The residual


class TestResidual:
    @pytest.fixture(autouse=True)
    def _short_pieces(self, monkeypatch):
        monkeypatch.setattr(module, "MAX_TOKENS", 60)

    @pytest.fixture
    def run(self, pretrained):
        def make(name="run", **refinement):
            return pretrained(name, **(SOME_RESIDUAL | {"steps": 1} | refinement))

        return make

    def test_it_is_fitted_to_the_best_model_at_the_end(self, run, store, progress_of, read_log):
        one = run()
        model = refine(one, store, progress=progress_of())
        assert len(model.residual.committees) == 2
        best, latest = checkpoints_of(one).read_best(), checkpoints_of(one).latest().model
        assert latest.residual is None
        without = dataclasses.replace(best, residual=None)
        assert model_bytes(without) == model_bytes(latest)
        log = read_log(one, "refine")
        for name in ("auc", "moved"):
            found = [line[f"residual/{name}"] for line in log if f"residual/{name}" in line]
            assert len(found) == 2 and all(0 <= value <= 1 for value in found)

    def test_as_an_objective_it_leaves_the_generator_alone(
        self, run, store, progress_of, read_log, pretrained_folder
    ):
        one = run(objective="residual", steps=5)
        model = refine(one, store, progress=progress_of())
        best = Checkpoints(pretrained_folder / "checkpoints", "pretrain", keep=1, say=print)
        assert same_weights(weights(best.read_best().generator), weights(model.generator))
        assert len(model.residual.committees) == 2
        assert model.discriminator is not None
        assert not figures(read_log(one, "refine"), "generator_loss")
        assert checkpoints_of(one).steps() == [0]

    def test_broken_off_it_begins_anew_and_comes_to_the_same(
        self, run, store, progress_of, monkeypatch
    ):
        expected = model_bytes(refine(run("whole"), store, progress=progress_of()))
        broken = run("broken")
        with monkeypatch.context() as patch:
            patch.setattr(module, "fit_residual", broken_off)
            with pytest.raises(KeyboardInterrupt):
                refine(broken, store, progress=progress_of())
        resumed = refine(broken, store, progress=progress_of(), resume=True)
        assert model_bytes(resumed) == expected
        with monkeypatch.context() as patch:  # what is there is not fitted again
            patch.setattr(module, "fit_residual", broken_off)
            again = refine(broken, store, progress=progress_of(), resume=True)
        assert model_bytes(again) == expected

    def test_more_steps_later_fit_it_to_the_newer_model(self, run, store, progress_of, new_run):
        once = refine(run("once", steps=2), store, progress=progress_of())
        refine(run("later"), store, progress=progress_of())
        more = new_run("later", changed(TINY, refine=SOME_RESIDUAL | {"steps": 2}), resume=True)
        later = refine(more, store, progress=progress_of(), resume=True)
        for part in ("generator", "discriminator", "residual"):
            assert same_weights(weights(getattr(later, part)), weights(getattr(once, part)))

    @pytest.mark.parametrize("changes", [{"residual_rounds": 0}, {"objective": "likelihood"}])
    def test_without_rounds_or_a_discriminator_there_is_none(
        self, run, store, progress_of, changes
    ):
        assert refine(run(**changes), store, progress=progress_of()).residual is None


SOME_RESIDUAL = {"residual_rounds": 2, "residual_chains": 8, "residual_steps": 3}


def broken_off(*_, **__):
    raise KeyboardInterrupt
