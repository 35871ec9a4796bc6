"""Music of the generator in training, beside held-out music."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from eval.cache import measured_side
from eval.features import FEATURES
from eval.pieces import Side
from eval.setwise import VECTOR
from rnngan.config import changed, preset
from rnngan.training.monitor import Monitor
from rnngan.training.pretrain import new_generator, pretrain
from rnngan.training.samples import SampleEvaluation, sample_evaluation, watch

LENGTH = 60
TINY = changed(preset("tiny"), pretrain={"steps": 2, "validate_every": 1})


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(Monitor, "pieces", lambda *_: None)
    monkeypatch.setattr(Monitor, "histogram", lambda *_: None)


@pytest.fixture
def beginnings(store):
    return [
        store.tokenizer.decode(store.piece_tokens(i)[:LENGTH])
        for i in store.indices("validation").tolist()
    ]


@pytest.fixture
def evaluation(store):
    return SampleEvaluation(store, max_length=LENGTH, seed=3)


class TestSampleEvaluation:
    def test_held_out_music_is_itself(self, evaluation, beginnings):
        figures = evaluation.figures(beginnings)
        assert figures["told_apart_rate"] == 0
        assert figures["frechet"] == pytest.approx(0, abs=1e-6)
        telling = {name.rpartition("/")[0] for name in figures if "/" in name}
        assert telling <= set(FEATURES)
        assert len(telling) > 3
        for name in telling:
            assert figures[f"{name}/real"] == figures[f"{name}/generated"]

    def test_music_is_compared_with_beginnings_of_its_length(self, evaluation, beginnings):
        mean = np.mean([np.ptp(piece.pitched["pitch"].astype(int)) for piece in beginnings])
        assert evaluation.figures(beginnings[:2])["pitch_range/real"] == pytest.approx(mean)

    def test_other_music_is_told_apart(self, evaluation, beginnings):
        # Two pieces are too few for any permutation test.
        evaluation._real = measured_side(Side(name="held-out", pieces=(*beginnings,) * 10), VECTOR)
        lower = evaluation.figures([piece.transposed(-12) for piece in beginnings] * 10)
        assert lower["frechet"] > 0.1
        assert 0 < lower["told_apart_rate"] < 0.5

    def test_silent_samples_have_no_figure_where_there_is_none(self, evaluation, beginnings):
        silent = replace(beginnings[0], notes=beginnings[0].notes[:0])
        figures = evaluation.figures([silent, silent])
        assert "pitch_range/generated" not in figures
        assert all(map(math.isfinite, figures.values()))

    def test_one_piece_is_compared_with_nothing(self, evaluation, beginnings):
        assert evaluation.figures(beginnings[:1]) == {}

    def test_nobody_else_s_random_numbers_are_drawn(self, evaluation, beginnings):
        state = torch.get_rng_state()
        first = evaluation.figures(beginnings)
        assert torch.equal(torch.get_rng_state(), state)
        assert evaluation.figures(beginnings) == first


def test_the_figures_are_logged(new_run, store, evaluation, beginnings, read_log):
    run = new_run("run", TINY)
    generator = new_generator(run, store)
    with Monitor(run.folder, "pretrain", step=0, say=print) as monitor:
        for step, asked in ((1, evaluation), (2, None)):
            watch(
                monitor, generator, store.tokenizer, beginnings,
                evaluation=asked, step=step, max_length=LENGTH, seed=0,
            )  # fmt: skip
    (line,) = read_log(run, "pretrain")
    assert line.pop("step") == 1
    assert all(name.startswith("eval/") for name in line)
    assert {"eval/frechet", "eval/told_apart_rate", "eval/pitch_range/real"} <= set(line)


def test_a_run_may_go_without(new_run, store):
    assert sample_evaluation(new_run("with", TINY), store, max_length=LENGTH)
    config = changed(TINY, output={"evaluate_samples": False})
    assert sample_evaluation(new_run("without", config), store, max_length=LENGTH) is None


def test_training_is_the_same_with_and_without(new_run, store, progress_of, read_log):
    weights = []
    for name, asked in (("with", True), ("without", False)):
        run = new_run(name, changed(TINY, output={"evaluate_samples": asked}))
        weights.append(pretrain(run, store, progress=progress_of()).generator.state_dict())
        logged = [line["step"] for line in read_log(run, "pretrain") if "eval/frechet" in line]
        assert logged == ([1, 2] if asked else [])
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
