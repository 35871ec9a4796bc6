"""What a step of each objective costs: `python benchmarks/objectives.py --out objectives.md`.

Times are processor seconds of one thread, so that other work on the machine matters little. Ways of
doing the same work take turns, A B A B, in one process; what counts is the median over the turns.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import process_time

import torch
from common import machine, median_ratio, table
from training import endless

from rnngan.config import RunConfig, changed, preset
from rnngan.data.batches import Batch
from rnngan.data.prepare import prepare
from rnngan.data.store import Store
from rnngan.discriminator.base import Discriminator
from rnngan.discriminator.registry import new_discriminator
from rnngan.generator.recurrent import RecurrentGenerator
from rnngan.generator.rollouts import completions
from rnngan.generator.sampling import uniforms
from rnngan.layers import BFLOAT16_IS_FAST
from rnngan.music.vocabulary import Grammar
from rnngan.objectives.base import Objective, draw
from rnngan.objectives.likelihood import autocast, negative_log_likelihood, targets_of
from rnngan.objectives.registry import OBJECTIVES
from rnngan.objectives.rollout import judged
from rnngan.progress import Progress
from rnngan.training.adversarial import Refinement
from rnngan.training.checkpoint import Checkpoints, Model
from rnngan.training.pretrain import new_generator, pretrain
from rnngan.training.run import Run

ROLLOUTS = 16
LENGTH = 64
BATCH = 64
NEEDS = {
    "dense": {"causal_head": True},
    "gumbel": {"views": "tokens"},
}
"""Settings of the discriminator without which an objective cannot work."""
LEFT_OUT = {"feature-matching": "needs continuous tuples, another corpus and other networks"}
PARTS = ("sampling", "discriminator", "generator")


def interleaved(
    works: dict[str, Callable[[], object]], repeats: int, *, warm_ups: int = 1
) -> dict[str, list[float]]:
    """Processor seconds of each work in each of `repeats` turns, after some to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(1 - warm_ups, repeats + 1):
        for name, work in works.items():
            start = process_time()
            work()
            if turn > 0:
                seconds[name].append(process_time() - start)
            print(f"turn {turn} of {repeats}: {name} done", flush=True)
    return seconds


class Bench:
    """A corpus, and pretrained networks to play with."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder, self.steps = folder, steps
        self.store: Store = prepare(preset("base").data, folder / "store", seed=0)
        self.count = 0

    def run(self, config: RunConfig) -> Run:
        """A new run of that configuration."""
        self.count += 1
        return Run.begin(
            self.folder / f"run-{self.count}", config, stages=(), store=self.store.folder,
            resume=False,
        )  # fmt: skip

    def pretrained(self, config: RunConfig) -> Model:
        """A generator trained for a little while."""
        config = changed(config, pretrain={"steps": self.steps, "validate_every": self.steps})
        return pretrain(self.run(config), self.store, progress=Progress("pretrain", self.steps))

    def refinement(self, config: RunConfig, model: Model) -> Refinement:
        """A refinement of a copy of that model, with a fresh discriminator."""
        run = self.run(config)
        checkpoints = Checkpoints(run.checkpoints, "refine", keep=1, say=print)
        progress = Progress("refine", 1)
        return Refinement(run, self.store, copy.deepcopy(model), checkpoints, progress=progress)


def configuration(length: int, **refine: object) -> RunConfig:
    """The demo's, with samples and excerpts of a length; weights hardly move, and stay alike."""
    return changed(
        preset("base"),
        data={"max_length": length},
        refine={
            "max_length": length,
            "batch_size": BATCH,
            "learning_rate": 1e-7,
            "discriminator_learning_rate": 1e-7,
            "rollouts": ROLLOUTS,
            **refine,
        },
    )


def likelihood_step(objective: Objective, fakes: Batch) -> None:
    """What pretraining does with so many tokens: one update, dropout and all."""
    players = objective.players
    players.generator.train()
    with autocast(players.precision):
        loss = negative_log_likelihood(players.generator, targets_of(fakes, players.grammar))
    objective.descend(loss)
    players.generator.eval()


def step_of(refinement: Refinement, objective: type[Objective]) -> Callable[[], dict[str, float]]:
    """A whole step of an objective, and its figures."""
    made = objective(refinement.players)

    def step() -> dict[str, float]:
        refinement.objective = made
        return refinement.move(0)

    return step


def every_objective(bench: Bench, model: Model, repeats: int) -> str:
    """Table of seconds per step and where they go."""
    config = configuration(LENGTH)
    refinements: dict[str, Refinement] = {}
    works: dict[str, Callable[[], object]] = {}
    shares: dict[str, dict[str, list[float]]] = {}

    def timed(name: str, step: Callable[[], dict[str, float]]) -> Callable[[], None]:
        def work() -> None:
            log = step()
            for part in PARTS:
                shares.setdefault(name, {}).setdefault(part, []).append(log[f"share_{part}"])

        return work

    for name, objective in OBJECTIVES.items():
        if name in LEFT_OUT or not objective.moves:
            continue
        needs = NEEDS.get(name, {})
        if str(needs) not in refinements:
            refinements[str(needs)] = bench.refinement(changed(config, discriminator=needs), model)
        works[name] = timed(name, step_of(refinements[str(needs)], objective))
    plain = refinements[str({})]
    fakes = plain.draw("fakes", 0)
    num_tokens = int((fakes.lengths - 1).sum())
    works["a likelihood step"] = lambda: likelihood_step(plain.objective, fakes)
    seconds = interleaved(works, repeats)
    base = seconds["a likelihood step"]
    rows = [
        [
            name,
            f"{statistics.median(times):.3f}",
            f"{num_tokens / statistics.median(times):,.0f}",
            *(
                f"{statistics.median(shares[name][part][1:]):.0%}" if name in shares else "–"
                for part in PARTS
            ),
            f"{median_ratio(times, base):.1f}",
        ]
        for name, times in seconds.items()
    ]
    left_out = "".join(f" {name} is left out: it {why}." for name, why in LEFT_OUT.items())
    refine = config.refine
    return "\n".join(
        [
            "## Every objective",
            "",
            f"Batches of {BATCH} samples of {LENGTH} tokens at most, {num_tokens:,} drawn tokens "
            f"in all; {refine.epochs} epochs of {refine.minibatches} parts, each with as many real "
            f"excerpts, {refine.discriminator_updates} discriminator updates; {ROLLOUTS} "
            "completions for rollout. Tokens per second are those of the samples. The last column "
            "is against one likelihood step, dropout and all, on the same tokens. Medians over "
            f"{repeats} turns; shares are of the wall clock.{left_out}",
            "",
            table(
                ["", "s per step", "tokens/s", *PARTS, "likelihood steps"],
                rows,
            ),
        ]
    )


def one_step(bench: Bench, model: Model, length: int, repeats: int) -> str:
    """A leave-one-out step against likelihood on as many tokens."""
    kinds = {
        "one update of either network": {
            "epochs": 1, "minibatches": 1, "discriminator_updates": 1,
        },
        "the default": {},
    }  # fmt: skip
    refinements = {
        name: bench.refinement(configuration(length, **settings), model)
        for name, settings in kinds.items()
    }
    plain = next(iter(refinements.values()))
    fakes = plain.draw("fakes", 0)
    works: dict[str, Callable[[], object]] = {
        name: step_of(refinement, OBJECTIVES["leave-one-out"])
        for name, refinement in refinements.items()
    }
    works["likelihood"] = lambda: likelihood_step(plain.objective, fakes)
    seconds = interleaved(works, repeats)
    num_tokens = int((fakes.lengths - 1).sum())
    rows = []
    for name, refinement in refinements.items():
        excerpts = sum(len(part.tokens) for part in refinement.music.excerpts_of(0))
        learnt = refinement.config.epochs * num_tokens + excerpts
        ratio = median_ratio(seconds[name], seconds["likelihood"])
        rows.append(
            [
                name,
                f"{statistics.median(seconds[name]):.2f}",
                f"{learnt:,}",
                f"{ratio:.1f}",
                f"**{ratio * num_tokens / learnt:.2f}**",
            ]
        )
    return "\n".join(
        [
            "## A leave-one-out step against likelihood",
            "",
            f"{BATCH} samples of {length} tokens at most, {num_tokens:,} drawn tokens; sampling, "
            "verdicts on samples and held-out pieces, passes of the reference and of the policy, "
            "updates of generator and discriminator. A likelihood step on the samples takes "
            f"{statistics.median(seconds['likelihood']):.2f} s. The generator learns from its "
            "samples, once per epoch, and from as many real excerpts. The last column compares "
            "with a likelihood step on all tokens that it learns from; the bar is 4. Medians over "
            f"{repeats} turns.",
            "",
            table(["", "s", "tokens learnt from", "× samples alone", "× the same tokens"], rows),
        ]
    )


def prefix_by_prefix(
    generator: RecurrentGenerator, discriminator: Discriminator, fakes: Batch, givens: range
) -> None:
    """One completion of the first `given` tokens of every sample, as published codes go about it.

    For one length of beginnings after the other: they are fed through `nn.LSTM` from scratch, the
    rest is drawn token by token, and the discriminator judges that batch; all in float32.
    """
    tokens, lengths = torch.from_numpy(fakes.tokens), torch.from_numpy(fakes.lengths)
    with torch.inference_mode():
        for given in givens:
            rows = [tokens[:, :given]]
            state = None
            for _ in range(given, tokens.shape[1]):
                output, state = generator.rnn(generator.embedding(rows[-1]), state)
                probs = generator.output(output[:, -1]).softmax(-1)
                rows.append(torch.multinomial(probs, 1))
            discriminator(torch.cat(rows, dim=1), lengths).sigmoid()


def all_at_once(
    generator: RecurrentGenerator,
    discriminator: Discriminator,
    fakes: Batch,
    grammar: Grammar,
    drawn: list[int],
) -> None:
    """All completions of every beginning, judged; `drawn` is told how many had to be drawn."""
    numbers = uniforms(1, range(BATCH * ROLLOUTS), LENGTH).reshape(BATCH, ROLLOUTS, LENGTH)
    tokens, lengths = torch.from_numpy(fakes.tokens), torch.from_numpy(fakes.lengths)
    found = completions(generator, grammar, tokens, lengths, numbers)
    drawn.append(sum(len(probs) for _, probs in judged(discriminator, found, "auto")))


def rollout_speed(bench: Bench, repeats: int) -> str:
    """Table of the time of all action values of a batch, both ways."""
    config = changed(configuration(LENGTH), generator={"attention": 0})
    grammar, stride = endless(bench.store.tokenizer.grammar), bench.store.tokens_per_note
    generators = {
        "untrained": new_generator(bench.run(config), bench.store).eval(),
        "pretrained": bench.pretrained(config).generator.eval(),
    }
    small, large = f"GRU of 128, stride {stride}", "GRU of 256, stride 1"
    discriminators = {
        name: new_discriminator(
            changed(config, discriminator={"views": "tokens", **settings}).discriminator,
            bench.store.tokenizer,
        ).eval()
        for name, settings in {
            small: {"stride": stride},
            large: {"hidden_size": 256, "stride": 1},
        }.items()
    }
    givens = range(2, LENGTH)  # Start and a token at least, and never the whole sample
    some = givens[4::9]  # 6, 15, … 60: evenly spread, and of the same mean but for a half
    scale = len(givens) * ROLLOUTS / len(some)
    rows, checked = [], 0.0
    for trained, judge in (("untrained", small), ("pretrained", small), ("pretrained", large)):
        generator, discriminator = generators[trained], discriminators[judge]
        fakes = draw(generator, grammar, num=BATCH, max_length=LENGTH, seed=0)
        drawn: list[int] = []
        slow_loop = partial(prefix_by_prefix, generator, discriminator, fakes)
        seconds = interleaved(
            {
                "prefix by prefix": partial(slow_loop, some),
                "all at once": partial(
                    all_at_once, generator, discriminator, fakes, grammar, drawn
                ),
            },
            repeats,
            warm_ups=0,  # each takes many seconds
        )
        slow = [scale * time for time in seconds["prefix by prefix"]]
        if not checked:
            start = process_time()
            slow_loop(givens)
            checked = ROLLOUTS * (process_time() - start) / statistics.median(slow)
        rows.append(
            [
                trained,
                judge,
                f"{statistics.median(slow):.0f}",
                f"{statistics.median(seconds['all at once']):.1f}",
                f"{1 - drawn[-1] / (len(givens) * BATCH * ROLLOUTS):.0%}",
                f"**{median_ratio(slow, seconds['all at once']):.1f}**",
            ]
        )
    return "\n".join(
        [
            "## Rollouts",
            "",
            f"All action values of {BATCH} samples of {LENGTH} tokens, {ROLLOUTS} completions of "
            f"each of the {len(givens)} beginnings, generator of 2 × 256 without attention. Prefix "
            "by prefix: for each completion and each beginning, the beginning through `nn.LSTM` "
            "from scratch, the rest by steps of `nn.LSTM` and multinomial, the discriminator on "
            f"that batch of {BATCH}, in float32 as published. It is timed on {len(some)} "
            f"beginnings evenly spread, once each, and scaled by {scale:.0f}; one whole round of "
            f"all beginnings took {checked:.2f} of what the scaling says. All at once: "
            "`rnngan.generator.rollouts` and `rnngan.objectives.rollout`, which draw no completion "
            "twice that meets its sample; the share of those stands under reused. The bar is 8. "
            f"Pretrained is after {bench.steps} steps. Medians over {repeats} turns.",
            "",
            table(
                [
                    "generator",
                    "discriminator",
                    "prefix by prefix, s",
                    "all at once, s",
                    "reused",
                    "ratio",
                ],
                rows,
            ),
        ]
    )


def main() -> None:
    """Run all and print, or write, the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--length", type=int, default=256, help="tokens in leave-one-out's test")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each way")
    parser.add_argument("--steps", type=int, default=300, help="pretraining steps")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), arguments.steps)
        model = bench.pretrained(configuration(LENGTH))
        report = "# Objectives\n\n" + machine(
            f"torch {torch.__version__}, one thread",
            f"bfloat16 products: {'yes' if BFLOAT16_IS_FAST else 'no'}",
            f"command: python benchmarks/objectives.py --repeats {arguments.repeats} "
            f"--steps {arguments.steps} --length {arguments.length}",
        )
        for part in (
            lambda: rollout_speed(bench, arguments.repeats),
            lambda: one_step(bench, model, arguments.length, arguments.repeats),
            lambda: every_objective(bench, model, arguments.repeats),
        ):
            report += f"\n\n{part()}"
            if arguments.out:  # part by part: the whole takes long
                arguments.out.write_text(report + "\n", encoding="utf-8")
    print(report)


if __name__ == "__main__":
    main()
