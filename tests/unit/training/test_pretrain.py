import math

import pytest
import torch

from rnngan.config import changed, preset
from rnngan.data.batches import TrainingBatches
from rnngan.errors import UserError
from rnngan.training import pretrain as module
from rnngan.training.checkpoint import Checkpoints, model_bytes
from rnngan.training.monitor import Monitor
from rnngan.training.pretrain import (
    learning_rate_at,
    new_generator,
    optimizer_of,
    pretrain,
    stop_unless_finite,
)

TINY = changed(preset("tiny"), pretrain={"steps": 9, "validate_every": 2})

pytestmark = pytest.mark.usefixtures("unwatched")


def checkpoints_of(run):
    return Checkpoints(run.checkpoints, "pretrain", keep=3, say=print)


def same_tensors(one, two):
    """Whether two nests of tensors and plain values are equal bit by bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same_tensors(one[k], two[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same_tensors, one, two))
    return one == two


def scripted(monkeypatch, values):
    """Held-out bits per token of one validation after the other."""
    numbers = iter(values)
    monkeypatch.setattr(module, "held_out_likelihood", lambda *_, **__: (next(numbers) * 10, 10))


# Parts


def test_the_rate_warms_up_and_falls_as_a_cosine_to_a_hundredth():
    config = changed(
        TINY, pretrain={"steps": 110, "warmup_steps": 10, "learning_rate": 0.1}
    ).pretrain
    rates = [learning_rate_at(config, step, 0) for step in range(111)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[4] == pytest.approx(0.05)
    assert rates[10] == pytest.approx(0.1) == max(rates)
    assert rates[60] == pytest.approx(0.1 * (0.01 + 0.99 / 2))
    assert rates[110] == pytest.approx(0.001)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_on_a_plateau_the_rate_is_halved():
    config = changed(
        TINY, pretrain={"schedule": "plateau", "warmup_steps": 10, "learning_rate": 0.1}
    ).pretrain
    assert learning_rate_at(config, 4, 0) == pytest.approx(0.05)
    assert [learning_rate_at(config, 50, h) for h in range(3)] == [0.1, 0.05, 0.025]


def test_only_matrices_decay(new_run, store):
    generator = new_generator(new_run(), store)
    optimizer = optimizer_of(generator, learning_rate=0.1, weight_decay=0.5)
    decayed, plain = optimizer.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.5, 0.0)
    assert all(p.ndim > 1 for p in decayed["params"]) and all(p.ndim == 1 for p in plain["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(list(generator.parameters()))


def test_a_new_generator_follows_from_the_seed(new_run, store):
    import dataclasses

    run, other = new_run(), new_run("other", dataclasses.replace(TINY, seed=1))
    first = new_generator(run, store).state_dict()
    torch.rand(1)
    assert same_tensors(first, new_generator(run, store).state_dict())
    assert not same_tensors(first, new_generator(other, store).state_dict())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_stop_the_stage(value):
    stop_unless_finite("pretrain", 3, loss=1.0, norm=0.0)
    with pytest.raises(UserError, match=r"pretrain stopped at step 3: norm became (nan|inf|-inf)"):
        stop_unless_finite("pretrain", 3, loss=1.0, norm=value)


# The stage


def test_the_loss_falls_and_the_best_is_returned(new_run, store, progress_of, read_log):
    config = changed(
        TINY, pretrain={"steps": 60, "validate_every": 10, "learning_rate": 0.005, "batch_size": 8}
    )
    run = new_run(config=config)
    model = pretrain(run, store, progress=progress_of())
    log = read_log(run, "pretrain")
    train = [line["pretrain/train_bits_per_token"] for line in log if len(line) > 3]
    held_out = {line["step"]: line["pretrain/val_bits_per_token"] for line in log if len(line) == 3}
    assert len(train) == 60 and list(held_out) == [10, 20, 30, 40, 50, 60]
    assert sum(train[-5:]) < 0.6 * sum(train[:5])
    assert model.metrics["val_bits_per_token"] == min(held_out.values()) < held_out[10]


def test_a_pretraining_leaves_checkpoints_and_curves(new_run, store, progress_of, read_log):
    run = new_run(config=TINY)
    model = pretrain(run, store, progress=progress_of())
    checkpoints = checkpoints_of(run)
    assert checkpoints.steps() == [6, 8, 9]
    assert model_bytes(checkpoints.read_best()) == model_bytes(model)
    assert [line["step"] for line in read_log(run, "pretrain") if len(line) > 3] == [*range(1, 10)]
    assert len(list((run.tensorboard / "pretrain").glob("events.*"))) == 1


def test_dropout_is_on_while_it_learns(new_run, store, progress_of, monkeypatch):
    modes = []
    likelihood = module.negative_log_likelihood

    def watched(generator, targets):
        modes.append(generator.training)
        return likelihood(generator, targets)

    monkeypatch.setattr(module, "negative_log_likelihood", watched)
    model = pretrain(new_run(config=TINY), store, progress=progress_of())
    assert modes == [True] * 9 and not model.generator.training


def test_the_seed_alone_decides(new_run, store, progress_of):
    models = [
        pretrain(new_run(name, TINY), store, progress=progress_of()) for name in ("one", "two")
    ]
    assert model_bytes(models[0]) == model_bytes(models[1])


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
@pytest.mark.parametrize("interrupts", [(1,), (3, 4), (5, 5, 9)])
def test_an_interrupted_run_ends_bit_by_bit_as_one_that_was_not(
    new_run, store, progress_of, read_log, schedule, interrupts
):
    config = changed(TINY, pretrain={"schedule": schedule})
    whole = new_run("whole", config)
    pretrain(whole, store, progress=progress_of())

    broken = new_run("broken", config)
    for i, step in enumerate(interrupts):
        with pytest.raises(KeyboardInterrupt):
            pretrain(broken, store, progress=progress_of(interrupt_at=step), resume=i > 0)
    pretrain(new_run("broken", config, resume=True), store, progress=progress_of(), resume=True)

    one, two = checkpoints_of(whole), checkpoints_of(broken)
    assert one.best.read_bytes() == two.best.read_bytes()
    assert one.steps() == two.steps()
    for step in one.steps():
        assert one._paths(step)[0].read_bytes() == two._paths(step)[0].read_bytes()
        assert same_tensors(one._read(step).state, two._read(step).state)
    logs = [read_log(run, "pretrain") for run in (whole, broken)]
    for line in logs[0] + logs[1]:
        line.pop("pretrain/tokens_per_second", None)
    assert logs[0] == logs[1]


def test_a_finished_run_may_be_resumed_and_does_nothing(new_run, store, progress_of):
    run = new_run(config=TINY)
    first = pretrain(run, store, progress=progress_of())
    before = {path: path.stat().st_mtime_ns for path in run.checkpoints.iterdir()}
    again = pretrain(run, store, progress=progress_of(), resume=True)
    assert model_bytes(first) == model_bytes(again)
    assert {path: path.stat().st_mtime_ns for path in run.checkpoints.iterdir()} == before


def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(
    new_run, store, progress_of
):
    run = new_run(config=TINY)
    expected = model_bytes(pretrain(run, store, progress=progress_of()))
    checkpoints = checkpoints_of(run)
    checkpoints._paths(9)[1].write_bytes(b"")
    checkpoints._paths(8)[0].write_bytes(b"")
    progress = progress_of()
    assert model_bytes(pretrain(run, store, progress=progress, resume=True)) == expected
    assert [line.endswith("going back to the checkpoint before") for line in progress.said] == [
        True,
        True,
        False,
    ]
    assert progress.said[2] == "going on after 6 steps of pretraining"


def test_it_stops_when_validation_gets_no_better(new_run, store, progress_of, monkeypatch):
    config = changed(TINY, pretrain={"steps": 100, "validate_every": 1, "patience": 3})
    run = new_run(config=config)
    scripted(monkeypatch, [5.0, 4.0, 4.5, 4.2, 4.0, 1.0])
    progress = progress_of()
    model = pretrain(run, store, progress=progress)
    assert model.metrics["val_bits_per_token"] == 4.0
    assert checkpoints_of(run).steps()[-1] == 5
    assert progress.said[-1] == ("pretraining stopped at step 5: no better validation in 3 trials")
    best = checkpoints_of(run).best.read_bytes()
    scripted(monkeypatch, [])
    pretrain(run, store, progress=progress_of(), resume=True)
    assert checkpoints_of(run).best.read_bytes() == best


def test_the_plateau_halves_the_rate_after_two_trials_in_vain(
    new_run, store, progress_of, monkeypatch, read_log
):
    config = changed(
        TINY,
        pretrain={
            "steps": 8,
            "validate_every": 1,
            "schedule": "plateau",
            "warmup_steps": 1,
            "learning_rate": 0.01,
        },
    )
    run = new_run(config=config)
    scripted(monkeypatch, [5.0, 5.1, 5.2, 4.0, 4.1, 4.1, 4.1, 4.1])
    pretrain(run, store, progress=progress_of())
    rates = [
        line["pretrain/learning_rate"]
        for line in read_log(run, "pretrain")
        if "pretrain/learning_rate" in line
    ]
    assert rates == pytest.approx([0.01] * 3 + [0.005] * 3 + [0.0025] * 2)


def test_a_resumed_run_remembers_the_best_and_the_rate(
    new_run, store, progress_of, monkeypatch, read_log
):
    config = changed(
        TINY,
        pretrain={
            "steps": 6,
            "validate_every": 1,
            "schedule": "plateau",
            "warmup_steps": 1,
            "learning_rate": 0.01,
        },
    )
    run = new_run(config=config)
    scripted(monkeypatch, [4.0, 5.0, 5.0])
    with pytest.raises(KeyboardInterrupt):
        pretrain(run, store, progress=progress_of(interrupt_at=4))
    scripted(monkeypatch, [4.5, 4.5, 4.5])
    model = pretrain(run, store, progress=progress_of(), resume=True)
    assert model.metrics["val_bits_per_token"] == 4.0
    rates = [
        line["pretrain/learning_rate"]
        for line in read_log(run, "pretrain")
        if "pretrain/learning_rate" in line
    ]
    assert rates == pytest.approx([0.01] * 3 + [0.005] * 2 + [0.0025])


def test_every_step_gets_its_own_batch_after_a_resume_too(new_run, store, progress_of, monkeypatch):
    asked = []
    batch = TrainingBatches.batch

    def watched(self, step):
        asked.append(step)
        return batch(self, step)

    monkeypatch.setattr(TrainingBatches, "batch", watched)
    run = new_run(config=TINY)
    with pytest.raises(KeyboardInterrupt):
        pretrain(run, store, progress=progress_of(interrupt_at=5))
    pretrain(run, store, progress=progress_of(), resume=True)
    assert asked == [0, 1, 2, 3, 4, *range(4, 9)]


def test_a_diverging_run_stops_and_its_last_checkpoint_is_sound(
    new_run, store, progress_of, monkeypatch
):
    run = new_run(config=TINY)
    likelihood = module.negative_log_likelihood
    calls = []

    def diverging(generator, targets):
        calls.append(1)
        return likelihood(generator, targets) * (math.nan if len(calls) == 6 else 1)

    monkeypatch.setattr(module, "negative_log_likelihood", diverging)
    with pytest.raises(UserError, match="pretrain stopped at step 5: loss became nan"):
        pretrain(run, store, progress=progress_of())
    resumed = checkpoints_of(run).latest()
    assert resumed.step == 4
    assert all(torch.isfinite(p).all() for p in resumed.model.generator.parameters())
    assert all(
        torch.isfinite(p).all() for p in checkpoints_of(run).read_best().generator.parameters()
    )


def test_a_full_disk_stops_the_stage_and_leaves_the_checkpoint_before(
    new_run, store, progress_of, monkeypatch
):
    from rnngan.training import checkpoint

    whole = new_run("whole", TINY)
    expected = model_bytes(pretrain(whole, store, progress=progress_of()))
    run = new_run(config=TINY)
    write = checkpoint.write_atomically

    def full(path, data):
        if "0000006" in path.name:
            raise UserError(f"cannot write {path}: No space left on device")
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_atomically", full)
        with pytest.raises(UserError, match="No space left on device"):
            pretrain(run, store, progress=progress_of())
    assert checkpoints_of(run).latest().step == 4
    assert model_bytes(pretrain(run, store, progress=progress_of(), resume=True)) == expected


def test_a_broken_tensorboard_changes_nothing(new_run, store, progress_of, monkeypatch):
    expected = model_bytes(pretrain(new_run("whole", TINY), store, progress=progress_of()))

    def broken(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Monitor, "_add", lambda self, *_, **__: self._guarded(broken))
    progress = progress_of()
    model = pretrain(new_run("run", TINY), store, progress=progress)
    assert model_bytes(model) == expected
    assert any("going on without it" in line for line in progress.said)
