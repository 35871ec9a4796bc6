import copy
import math
import shutil

import numpy as np
import pytest
import torch

from rnngan.config import changed, preset
from rnngan.data.batches import Batch, TrainingBatches, padded
from rnngan.errors import UserError
from rnngan.objectives.classification import auc
from rnngan.objectives.likelihood import negative_log_likelihood, targets_of
from rnngan.objectives.registry import OBJECTIVES
from rnngan.progress import Progress
from rnngan.training import adversarial as module
from rnngan.training.adversarial import (
    judge,
    new_players,
    part_samples,
    piece_logits,
    refine,
    update_discriminator,
    update_generator,
)
from rnngan.training.checkpoint import Checkpoints, model_bytes
from rnngan.training.pretrain import pretrain
from rnngan.training.run import Run
from rnngan.training.samples import sample_batch

TINY = changed(preset("tiny"), pretrain={"steps": 9}, refine={"steps": 5, "validate_every": 2})

pytestmark = pytest.mark.usefixtures("unwatched")


@pytest.fixture(scope="module")
def pretrained_folder(store, tmp_path_factory):
    """Of a run that has been pretrained; read only."""
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    run = Run.begin(folder, TINY, stages=(), store=store.folder, resume=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rnngan.training.pretrain.watch", lambda *_, **__: None)
        pretrain(run, store, progress=Progress("test", 1, every_seconds=math.inf))
    return run.folder


@pytest.fixture
def pretrained(pretrained_folder, new_run):
    """Makes runs that have been pretrained, all with the same result."""

    def make(name="run", **refinement):
        run = new_run(name, changed(TINY, refine=refinement))
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
    return sample_batch(players.generator, store.tokenizer, num=num, max_length=60, seed=seed)


def weights(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same_weights(one, two):
    return all(torch.equal(one[name], two[name]) for name in one)


def figures(log, name):
    return [line[f"adversarial/{name}"] for line in log if f"adversarial/{name}" in line]


def scripted(monkeypatch, values):
    """Held-out bits per token of one validation after the other."""
    numbers = iter(values)
    monkeypatch.setattr(module, "held_out_likelihood", lambda *_, **__: (next(numbers) * 10, 10))


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


def test_judge_reports_what_the_discriminator_says(players, store):
    fakes, real = draw(players, store), padded([store.piece_tokens(i) for i in range(4)])
    players.discriminator.train()
    rewards, log = judge(players.discriminator, fakes, real, "float32")
    assert not rewards.requires_grad and not players.discriminator.training
    with torch.no_grad():
        on_real = piece_logits(players.discriminator, real, "float32")
        torch.testing.assert_close(rewards, piece_logits(players.discriminator, fakes, "float32"))
    assert log["discriminator_auc"] == auc(on_real, rewards)
    assert log["logit_fake"] == pytest.approx(rewards.mean().item())
    assert log["logit_real"] == pytest.approx(on_real.mean().item())


def test_the_discriminator_learns_to_tell_real_from_generated(players, store):
    fakes = draw(players, store, num=8)
    real = padded([store.piece_tokens(i)[:60] for i in range(8)])
    config = changed(TINY, refine={"batch_size": 8}).refine
    players.discriminator_optimizer.param_groups[0]["lr"] = 0.01
    before = weights(players.generator)
    for _ in range(40):
        log = update_discriminator(players, real, fakes, config, precision="float32", step=0)
    _, verdict = judge(players.discriminator, fakes, real, "float32")
    assert verdict["discriminator_auc"] == 1 and verdict["discriminator_accuracy"] == 1
    assert verdict["logit_real"] > 0 > verdict["logit_fake"]
    assert log["discriminator_loss"] < 0.5
    assert same_weights(before, weights(players.generator))


@pytest.mark.parametrize("steps", [0, 1, 3, 30])
def test_the_discriminator_enters_the_game_at_its_full_rate(
    pretrained, store, progress_of, read_log, steps
):
    run = pretrained(discriminator_pretrain_steps=steps, steps=1)
    refine(run, store, progress=progress_of())
    optimizer = checkpoints_of(run).latest().state["discriminator_optimizer"]
    rates = [group["lr"] for group in optimizer["param_groups"]]
    (logged,) = figures(read_log(run, "refine"), "discriminator_learning_rate")
    assert rates == [logged] * len(rates) == [run.config.refine.discriminator_learning_rate] * 2


# The generator's side


def test_each_token_carries_the_advantage_of_its_piece(players, store):
    fakes = draw(players, store)
    assert len(set(fakes.lengths.tolist())) > 1
    advantages = torch.arange(6.0)
    grammar = store.tokenizer.grammar
    parts = part_samples(players, fakes, advantages, grammar, num_parts=3, precision="float32")
    assert len(parts) == 3
    tokens = np.concatenate([row[1:n] for row, n in zip(fakes.tokens, fakes.lengths)])
    owners = np.repeat(np.arange(6), fakes.lengths - 1)
    assert torch.cat([part.targets.tokens for part in parts]).tolist() == tokens.tolist()
    assert torch.cat([part.advantages for part in parts]).tolist() == owners.tolist()


def test_before_any_update_policy_and_reference_agree(players, store):
    fakes = draw(players, store)
    (part,) = part_samples(
        players, fakes, torch.zeros(6), store.tokenizer.grammar, num_parts=1, precision="float32"
    )
    chosen = part.reference_log_probs.gather(1, part.targets.tokens[:, None]).squeeze(1)
    assert torch.equal(chosen, part.old_log_probs)
    assert torch.isfinite(chosen).all()
    loss = negative_log_likelihood(players.generator, targets_of(fakes, store.tokenizer.grammar))
    assert -part.old_log_probs.mean().item() == pytest.approx(loss.item(), rel=1e-5)


def one_update(players, store, advantages, **settings):
    """`epochs` passes over six samples with given advantages; figures, and old log-probs."""
    grammar = store.tokenizer.grammar
    config = changed(
        TINY, refine={"minibatches": 1, "batch_size": 6, "likelihood_weight": 0.0} | settings
    ).refine
    fakes = draw(players, store)
    players.generator.eval()
    players.kl_weight = config.kl_weight
    (part,) = part_samples(players, fakes, advantages, grammar, num_parts=1, precision="float32")
    excerpt = targets_of(padded([store.piece_tokens(0)]), grammar)
    log = update_generator(
        players, [part], [excerpt] * config.epochs, config, precision="float32", step=0
    )
    return log, part


def test_what_is_rewarded_becomes_likelier_and_what_is_punished_less_likely(players, store):
    advantages = torch.tensor([1.0, 1, 1, -1, -1, -1])
    _, part = one_update(players, store, advantages, kl_weight=0.0)
    with torch.no_grad():
        new = module.target_log_probs(players.generator, part.targets)
    change = new.gather(1, part.targets.tokens[:, None]).squeeze(1) - part.old_log_probs
    assert (change * part.advantages).mean() > 0.001


def test_placebo_a_constant_reward_leaves_the_generator_bit_for_bit(players, store):
    before = weights(players.generator)
    advantages = OBJECTIVES["leave-one-out"](torch.full((6,), 3.7))
    log, _ = one_update(players, store, advantages, kl_weight=0.0, epochs=3)
    assert log["generator_gradient_norm"] == 0
    assert same_weights(before, weights(players.generator))


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
    with pytest.raises(UserError, match="refine stopped at step 0: generator_loss became nan"):
        one_update(players, store, torch.full((6,), math.nan))
    assert same_weights(before, weights(players.generator))


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
    draw_samples, batch = module.sample_batch, TrainingBatches.batch

    def samples_watched(*arguments, seed, **options):
        seeds.append(seed)
        return draw_samples(*arguments, seed=seed, **options)

    def batch_watched(self, step):
        batches.append((self.seed, step))
        return batch(self, step)

    monkeypatch.setattr(module, "sample_batch", samples_watched)
    monkeypatch.setattr(TrainingBatches, "batch", batch_watched)
    refine(pretrained(discriminator_gate=1.0), store, progress=progress_of())
    config = TINY.refine
    steps, before = config.steps, config.discriminator_pretrain_steps
    assert len(seeds) == before + 1 + steps == len(set(seeds))
    per_step = config.discriminator_updates + config.epochs * config.minibatches
    assert len(batches) == before + steps * per_step == len(set(batches))


def test_restored_players_are_where_they_were(pretrained, store):
    run = pretrained()
    best = checkpoints_of(run, "pretrain").read_best()
    players = new_players(run, store, best)
    one_update(players, store, torch.arange(6.0))
    players.kl_weight, players.smoothed_auc = 0.7, 0.9
    state = copy.deepcopy(module._state(players, stopped=False))
    again = new_players(run, store, checkpoints_of(run, "pretrain").read_best())
    module.restore(again, module._model(players, store, {}), state)
    assert (again.kl_weight, again.smoothed_auc) == (0.7, 0.9)
    assert same_weights(weights(players.generator), weights(again.generator))
    one_update(players, store, torch.arange(6.0))
    one_update(again, store, torch.arange(6.0))
    assert same_weights(weights(players.generator), weights(again.generator))


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
    assert same_weights(weights(first.discriminator), weights(last.discriminator)) != moves
    assert not same_weights(weights(first.generator), weights(last.generator))
    log = read_log(run, "refine")
    assert figures(log, "discriminator_waits") == [float(not moves)] * 5


def test_the_generator_learns_without_dropout_what_it_drew_without_dropout(
    pretrained, store, progress_of, monkeypatch
):
    modes = []
    log_probs = module.target_log_probs

    def watched(generator, targets):
        modes.append(generator.training)
        return log_probs(generator, targets)

    monkeypatch.setattr(module, "target_log_probs", watched)
    refine(pretrained(), store, progress=progress_of())
    assert len(modes) > 10 and not any(modes)


def test_a_discriminator_that_hears_nothing_moves_the_generator_nowhere(
    pretrained, store, progress_of, monkeypatch
):
    """The placebo arm, through the whole stage: a constant verdict is no verdict."""
    verdict = judge

    def deaf(*arguments):
        rewards, log = verdict(*arguments)
        return torch.full_like(rewards, 0.1), log

    monkeypatch.setattr(module, "judge", deaf)
    monkeypatch.setattr(module, "adapted_kl_weight", lambda weight, *_: weight)
    run = pretrained(likelihood_weight=0.0, kl_weight=0.0)
    before = weights(checkpoints_of(run, "pretrain").read_best().generator)
    model = refine(run, store, progress=progress_of())
    assert same_weights(before, weights(model.generator))


def test_the_stage_raises_its_reward(pretrained, store, progress_of, monkeypatch):
    """With pitch as the reward in place of a verdict, the music rises."""
    ids = store.tokenizer.vocabulary.ids("Pitch")
    means = []

    def by_pitch(discriminator, fakes, held_out, precision):
        pitched = (fakes.tokens >= ids.start) & (fakes.tokens < ids.stop)
        rewards = torch.tensor(
            [row[p].mean() if p.any() else ids.start for row, p in zip(fakes.tokens, pitched)]
        )
        means.append(rewards.mean().item())
        return rewards.float(), judge(discriminator, fakes, held_out, precision)[1]

    monkeypatch.setattr(module, "judge", by_pitch)
    run = pretrained(
        steps=25,
        batch_size=16,
        learning_rate=5e-3,
        likelihood_weight=0.0,
        kl_weight=0.0,
        kl_target=100.0,
        likelihood_rise=100.0,
        validate_every=25,
        discriminator_pretrain_steps=1,
        discriminator_gate=0.0,
    )
    refine(run, store, progress=progress_of())
    assert np.mean(means[-5:]) > np.mean(means[:5]) + 1  # semitone


def test_it_stops_when_the_likelihood_suffers_and_does_not_go_on_from_there(
    pretrained, store, progress_of, monkeypatch
):
    run = pretrained(validate_every=1, likelihood_rise=0.03)
    scripted(monkeypatch, [2.0, 2.0, 2.059, 1.9, 2.061, 1.0])  # before, at 0, 1, 2, 3, 4
    progress = progress_of()
    model = refine(run, store, progress=progress)
    assert model.metrics["val_bits_per_token"] == 1.9
    assert "refinement stopped at step 3: held-out likelihood 3.0% worse" in progress.said[-1]
    best = checkpoints_of(run).best.read_bytes()
    assert checkpoints_of(run).steps()[-1] == 3

    scripted(monkeypatch, [2.0, 1.0])
    again = refine(run, store, progress=progress_of(), resume=True)
    assert checkpoints_of(run).best.read_bytes() == best == model_bytes(again)
    assert checkpoints_of(run).steps()[-1] == 3


def test_a_diverging_discriminator_stops_the_stage_and_the_last_checkpoint_is_sound(
    pretrained, store, progress_of, monkeypatch
):
    calls = []
    loss = module.logistic_loss

    def diverging(*logits, label_smoothing):
        calls.append(label_smoothing)
        # Two before the game, then two and a judgement per step.
        return loss(*logits, label_smoothing=label_smoothing) * (math.inf if len(calls) > 13 else 1)

    monkeypatch.setattr(module, "logistic_loss", diverging)
    run = pretrained(discriminator_gate=1.0)
    with pytest.raises(
        UserError, match=r"refine stopped at step \d: discriminator_loss became inf"
    ):
        refine(run, store, progress=progress_of())
    resumed = checkpoints_of(run).latest()
    assert resumed.step == 2
    for network in (resumed.model.generator, resumed.model.discriminator):
        assert all(torch.isfinite(p).all() for p in network.parameters())


def test_samples_are_whole_and_obey_the_grammar(players, store):
    batch = draw(players, store, num=20)
    assert batch.tokens.dtype == np.int64
    targets = targets_of(Batch(tokens=batch.tokens, lengths=batch.lengths), store.tokenizer.grammar)
    assert len(targets.tokens) == (batch.lengths - 1).sum()
    assert (batch.lengths <= 60).all()
