"""Quality against diversity on the oracle of SeqGAN: `python benchmarks/oracle.py --data FOLDER`.

The oracle is a random LSTM whose probabilities are known. Of a generator two figures count, both of
the distribution that is drawn from, temperature and guidance included:

- NLL_oracle, quality: the generator's samples, scored by the oracle;
- NLL_test, diversity: held-out samples of the oracle, scored by the generator.

A lower temperature buys the first with the second, so that only curves can be compared (Caccia et
al., "Language GANs falling short", 2020): NLL_oracle where NLL_test has a given value.

The protocol is Texygen's and SeqGAN's: vocabulary 5,000, length 20, 10,000 training sequences. The
data are drawn once, from a fixed seed; the seeds of an arm are of initial weights, order, dropout
and samples. Of the 10,000 the last 500 choose the checkpoint and calibrate discriminators.

Every finished arm is a JSON file under --cache, and every likelihood generator a file of weights:
broken off, the benchmark goes on where it was.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from common import machine, shared_data, table
from torch import Tensor, nn

from rnngan.config import DiscriminatorConfig, GeneratorConfig, PretrainConfig, RefineConfig
from rnngan.data.batches import Batch
from rnngan.discriminator.base import Discriminator
from rnngan.discriminator.registry import new_discriminator
from rnngan.files import write_atomically
from rnngan.generator.recurrent import RecurrentGenerator
from rnngan.generator.registry import new_generator
from rnngan.generator.sampling import Decoding, drawing_log_probs, sample, uniforms
from rnngan.music.vocabulary import END, FRAME_TOKENS, PAD, START, Grammar, Vocabulary
from rnngan.objectives.base import Diverged, Players, Round, draw, piece_logits
from rnngan.objectives.likelihood import Targets, autocast, negative_log_likelihood, targets_of
from rnngan.objectives.registry import OBJECTIVES
from rnngan.progress import Progress
from rnngan.training.critic import Critic
from rnngan.training.optimizers import optimizer_of
from rnngan.training.pretrain import learning_rate_at
from rnngan.training.seeds import reseed_torch, seed_for

SYMBOLS, LENGTH = 5000, 20
ROW = LENGTH + 2
"""Tokens of a sequence between Start and End, both included."""
FIRST = len(FRAME_TOKENS)
"""Token of symbol 0."""
NUM_TRAIN, NUM_VALIDATION = 10_000, 500
FLOOR = 5.749
"""NLL_oracle of the oracle's own samples."""
AT = (7.75, 8.0, 8.5, 9.0)
"""Values of NLL_test at which curves are compared."""
PUBLISHED = {
    "published: likelihood": (8.831, 8.145, 7.064, 6.303),
    "published: CoT": (8.507, 7.827, 6.927, 6.416),
}
"""NLL_oracle at those."""

Floats = npt.NDArray[np.float64]


class Symbols:
    """A tokenizer as far as networks ask: symbols without music, 20 to a sequence."""

    def __init__(self, num_symbols: int = SYMBOLS, length: int = LENGTH) -> None:
        self.vocabulary = Vocabulary((*FRAME_TOKENS, *(f"Symbol_{i}" for i in range(num_symbols))))
        self.grammar = Grammar(chain(num_symbols, length))


def chain(num_symbols: int, length: int) -> npt.NDArray[np.int32]:
    """Start, so many symbols, End, padding: `(states, vocab)` as in `Grammar`."""
    next_state = np.full((length + 3, FIRST + num_symbols), -1, dtype=np.int32)
    next_state[0, START] = 1
    for time_ in range(1, length + 1):
        next_state[time_, FIRST:] = time_ + 1
    next_state[length + 1, END] = next_state[length + 2, PAD] = length + 2
    return next_state


def published_oracle(path: Path) -> RecurrentGenerator:
    """The oracle as a generator of ours: its Start is their symbol 0, which they begin with."""
    with np.load(path) as arrays:
        theirs = [torch.from_numpy(arrays[f"arr_{i}"]) for i in range(len(arrays.files))]
    embedding, gates, (weight, bias) = theirs[0], theirs[1:13], theirs[13:]
    config = GeneratorConfig(embedding_size=32, hidden_size=32, num_layers=1, attention=0)
    oracle = new_generator(config, FIRST + SYMBOLS).eval().requires_grad_(False)
    order = (0, 3, 9, 6)  # input, forget, cell, output gate: theirs have the output gate third
    oracle.rnn.weight_ih_l0.copy_(torch.cat([gates[gate].T for gate in order]))
    oracle.rnn.weight_hh_l0.copy_(torch.cat([gates[gate + 1].T for gate in order]))
    oracle.rnn.bias_ih_l0.copy_(torch.cat([gates[gate + 2] for gate in order]))
    oracle.rnn.bias_hh_l0.zero_()
    oracle.embedding.weight[FIRST:] = embedding
    oracle.embedding.weight[START] = embedding[0]
    oracle.output.weight[FIRST:] = weight.T
    oracle.output.bias[FIRST:] = bias
    return oracle


def drawn_from(
    generator: RecurrentGenerator,
    grammar: Grammar,
    num: int,
    seed: int,
    *,
    temperature: float = 1.0,
) -> Batch:
    """Sequences in float32, in groups that fit a processor's memory."""
    numbers = uniforms(seed, range(num), grammar.next_state.shape[0] - 1)
    decoding = Decoding(temperature=temperature)
    groups = [
        sample(generator, grammar, part, decoding, precision="float32").tokens
        for part in np.array_split(numbers, math.ceil(num / 500))
    ]
    tokens = torch.cat(groups).numpy()
    return Batch(tokens=tokens, lengths=np.full(num, tokens.shape[1]))


def rows(batch: Batch, index: slice | npt.NDArray[np.integer]) -> Batch:
    """Some of the sequences."""
    return Batch(tokens=batch.tokens[index], lengths=batch.lengths[index])


@torch.no_grad()
def nats_per_symbol(
    generator: RecurrentGenerator,
    batch: Batch,
    grammar: Grammar,
    temperatures: Sequence[float] = (1.0,),
) -> Floats:
    """Negative log-likelihood of each sequence at each temperature: `(temperatures, sequences)`."""
    generator.eval()
    parts = []
    for first in range(0, len(batch.lengths), 50):
        targets = targets_of(rows(batch, slice(first, first + 50)), grammar)
        hidden, _ = generator.hidden(targets.inputs)
        logits = generator.logits(hidden[targets.mask])
        parts.append([_sums(logits, targets, temperature) for temperature in temperatures])
    return np.concatenate(parts, axis=1) / (batch.tokens.shape[1] - 2)


def _sums(logits: Tensor, targets: Targets, temperature: float) -> Floats:
    log_probs = drawing_log_probs(logits, targets.allowed, temperature=temperature)
    chosen = log_probs.gather(1, targets.tokens[:, None]).reshape(targets.mask.shape)
    sums: Floats = -chosen.double().sum(1).numpy()
    return sums


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The oracle and what was drawn from it, once and for all arms."""

    oracle: RecurrentGenerator
    tokenizer: Symbols
    train: Batch
    validation: Batch
    test: Batch


def protocol_of(oracle: RecurrentGenerator, num_test: int) -> Protocol:
    """Training, validation and test sequences, each from a seed of its own."""
    tokenizer = Symbols()
    real = drawn_from(oracle, tokenizer.grammar, NUM_TRAIN, seed_for(0, "oracle: training"))
    split = NUM_TRAIN - NUM_VALIDATION
    return Protocol(
        oracle=oracle,
        tokenizer=tokenizer,
        train=rows(real, slice(split)),
        validation=rows(real, slice(split, None)),
        test=drawn_from(oracle, tokenizer.grammar, num_test, seed_for(0, "oracle: test")),
    )


class Shuffled:
    """Endless batches of the training sequences, as a function of (seed, step)."""

    def __init__(self, train: Batch, batch_size: int, seed: int) -> None:
        self.train, self.batch_size, self.seed = train, batch_size, seed

    def batch(self, step: int) -> Batch:
        """A permutation for each epoch, cut into batches."""
        per_epoch = len(self.train.lengths) // self.batch_size
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.train.lengths))
        return rows(self.train, order[place * self.batch_size : (place + 1) * self.batch_size])


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How much is done."""

    pretrain: PretrainConfig
    seeds: int = 3
    prior: float = 6.0
    """Precision of the Gaussian prior on embedding and output weights: 1 / variance."""
    critic_steps: int = 300
    refine_steps: int = 60
    candidates: tuple[int, ...] = (4, 16)
    pool: int = 4096
    """Candidates that guided decoding draws in all."""
    num_samples: int = 1000
    num_test: int = 1000
    temperatures: tuple[float, ...] = (1.0, 0.8, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45)


FULL = Settings(
    pretrain=PretrainConfig(
        steps=4000, batch_size=32, learning_rate=1e-2, gradient_clip=1.0, validate_every=500
    )
)
QUICK = Settings(
    seeds=1,
    pretrain=replace(FULL.pretrain, steps=300, validate_every=100),
    critic_steps=20,
    refine_steps=3,
    candidates=(4,),
    pool=512,
    num_samples=200,
    num_test=200,
    temperatures=(1.0, 0.8, 0.6, 0.45),
)

GENERATOR = GeneratorConfig(
    embedding_size=32, hidden_size=64, num_layers=1, embedding_dropout=0.0, output_dropout=0.4,
    attention=0,
)  # fmt: skip
UNREGULARISED = replace(GENERATOR, hidden_size=32, output_dropout=0.0)
"""Of the published size, to see that figures here are comparable with the published curve."""
DISCRIMINATOR = DiscriminatorConfig(
    views="tokens", causal_head=True, embedding_size=32, hidden_size=64, stride=1, max_length=ROW,
    dropout=0.5,
)  # fmt: skip


def trained_by_likelihood(
    world: Protocol, network: GeneratorConfig, prior: float, config: PretrainConfig, seed: int
) -> RecurrentGenerator:
    """Maximum likelihood with a Gaussian prior and dropout; the best on validation.

    200,000 tokens do not determine 5,000 embeddings and as many output rows; without the prior the
    network learns them by heart before it has learnt what they share.

    Args:
        world: What to learn.
        network: Its size and dropout.
        prior: Precision on embedding and output weights, 1 / variance; 0 for none.
        config: Steps, batches and rates.
        seed: Of initial weights, order and dropout.
    """
    grammar = world.tokenizer.grammar
    reseed_torch(seed, "oracle: likelihood")
    generator = new_generator(network, FIRST + SYMBOLS)
    counts = np.bincount(world.train.tokens.ravel(), minlength=FIRST + SYMBOLS) + 0.5
    counts[:FIRST] = 0.5
    log_rates = torch.from_numpy(np.log(counts / counts.mean())).float()
    with torch.no_grad():
        generator.embedding.weight.normal_(std=0.3)
        generator.output.weight.normal_(std=0.1)
        generator.output.bias.copy_(log_rates)
    optimizer = optimizer_of(generator, learning_rate=config.learning_rate, weight_decay=0.0)
    batches = Shuffled(world.train, config.batch_size, seed_for(seed, "oracle: order"))
    num_targets = len(world.train.lengths) * (ROW - 1)
    wide = (generator.embedding.weight, generator.output.weight)
    best, best_nats = generator.state_dict(), math.inf
    progress = Progress("likelihood", config.steps)
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(config, step, 0)
        generator.train()
        with autocast(config.precision):
            loss = negative_log_likelihood(generator, targets_of(batches.batch(step), grammar))
        penalty = sum(weight.square().sum() for weight in wide) / 2
        optimizer.zero_grad()
        (loss + prior / num_targets * penalty).backward()
        nn.utils.clip_grad_norm_(generator.parameters(), config.gradient_clip)
        optimizer.step()
        if (step + 1) % config.validate_every == 0 or step + 1 == config.steps:
            nats = float(nats_per_symbol(generator, world.validation, grammar).mean())
            progress.update(step + 1, f"validation {nats:.4f}")
            if nats < best_nats:
                best, best_nats = copy.deepcopy(generator.state_dict()), nats
    generator.load_state_dict(best)
    return generator.eval()


def fresh_critic(world: Protocol, config: RefineConfig, seed: int) -> Critic:
    """A discriminator that knows nothing yet."""
    reseed_torch(seed, "oracle: discriminator")
    discriminator = new_discriminator(DISCRIMINATOR, world.tokenizer)
    return Critic(discriminator, world.tokenizer, config, precision="auto", seed=seed)


def trained_critic(
    world: Protocol, generator: RecurrentGenerator, config: RefineConfig, seed: int
) -> Critic:
    """A discriminator that has learnt to tell the oracle from the generator, and is calibrated."""
    critic = fresh_critic(world, config, seed)
    openings = Shuffled(world.train, config.batch_size, seed_for(seed, "oracle: openings"))

    def fakes(update: int) -> Batch:
        return drawn_for(world, generator, config, seed_for(seed, "oracle: first fakes", update))

    figures = critic.pretrain(
        openings.batch,
        fakes,
        world.validation,
        progress=Progress("critic", config.discriminator_pretrain_steps),
    )
    print(f"critic, seed {seed}: AUC {figures['discriminator_auc']:.3f}", flush=True)
    return critic


def drawn_for(
    world: Protocol, generator: RecurrentGenerator, config: RefineConfig, seed: int
) -> Batch:
    """The samples of a step."""
    grammar = world.tokenizer.grammar
    return draw(generator, grammar, num=config.batch_size, max_length=ROW, seed=seed)


def refined(
    world: Protocol,
    reference: RecurrentGenerator,
    discriminator: Discriminator,
    config: RefineConfig,
    seed: int,
) -> RecurrentGenerator:
    """The generator after refinement, against a copy of the discriminator.

    Raises:
        Diverged: A figure became NaN or infinite.
    """
    grammar, generator = world.tokenizer.grammar, copy.deepcopy(reference).requires_grad_(True)
    critic = fresh_critic(world, config, seed)
    critic.discriminator.load_state_dict(discriminator.state_dict())
    players = Players(
        generator=generator,
        reference=copy.deepcopy(reference).eval().requires_grad_(False),
        discriminator=critic.discriminator,
        optimizer=optimizer_of(generator, learning_rate=config.learning_rate, weight_decay=0.0),
        grammar=grammar,
        config=config,
        precision="auto",
    )
    objective = OBJECTIVES[config.objective](players)
    source = players.reference if objective.from_reference else generator
    openings = Shuffled(world.train, config.batch_size, seed_for(seed, "oracle: openings"))
    excerpts = Shuffled(
        world.train, config.batch_size // config.minibatches, seed_for(seed, "oracle: excerpts")
    )
    updates = config.epochs * config.minibatches
    progress = Progress(config.objective, config.steps)
    for step in range(config.steps):
        reseed_torch(seed, "oracle: refinement", step)
        generator.eval()
        fakes, logits, told = Batch.empty(), torch.empty(0), ""
        if objective.plays or objective.samples:
            fakes = drawn_for(world, source, config, seed_for(seed, "oracle: fakes", step))
        if objective.plays:
            logits, log = critic.judge(fakes, world.validation)
            told = f"AUC {log['discriminator_auc']:.3f}"
        real = [excerpts.batch(step * updates + i) for i in range(updates)]
        objective.update(
            Round(
                step=step,
                seed=seed_for(seed, "oracle: objective", step),
                fakes=fakes,
                logits=logits,
                openings=openings.batch(config.discriminator_pretrain_steps + step),
                real=[targets_of(batch, grammar) for batch in real],
            )
        )
        if objective.plays:
            first = config.discriminator_pretrain_steps + step * config.discriminator_updates
            for update in range(first, first + config.discriminator_updates):
                critic.learn(openings.batch(update), fakes, update)
        progress.update(step + 1, told)
    return generator.eval()


@torch.no_grad()
def log_ratios(discriminator: Discriminator, batch: Batch) -> Floats:
    """Calibrated logits, ln p_oracle / p_generator, of each sequence."""
    discriminator.eval()
    logits = [
        discriminator.log_ratio(piece_logits(discriminator, rows(batch, slice(i, i + 500)), "auto"))
        for i in range(0, len(batch.lengths), 500)
    ]
    ratios: Floats = torch.cat(logits).double().numpy()
    return ratios


def mean_of_chosen(values: Floats, ratios: Floats, candidates: int) -> float:
    """Mean over groups of the value that is expected of the chosen one.

    Of every `candidates` in a row one is chosen with weights exp(ratio), which is sampling-
    importance-resampling; the expectation is the mean under those weights.
    """
    groups = ratios.reshape(-1, candidates)
    weights = np.exp(groups - groups.max(1, keepdims=True))
    return float(np.average(values.reshape(-1, candidates), axis=1, weights=weights).mean())


def guided_log_weight(
    ratios: Floats, pool: Floats, candidates: int, rng: np.random.Generator, *, repeats: int = 200
) -> Floats:
    """Logarithm of how much likelier resampling makes a sequence, from below.

    One of k candidates, drawn from p and chosen with weights w, has exactly the density

        q(x) = p(x) E[ k w(x) / (w(x) + Σ_{i=2..k} w(x_i)) ],    x_i ~ p,

    and the expectation is a mean over `repeats` sets of k − 1 from the pool. The logarithm of a
    mean errs downwards: NLL_test is overstated, if at all.
    """
    weights = np.exp(ratios)
    others = np.exp(pool)[rng.integers(len(pool), size=(repeats, candidates - 1))].sum(1)
    return np.log((candidates * weights[:, None] / (weights[:, None] + others)).mean(1))


@dataclass(frozen=True, kw_only=True)
class Curve:
    """An arm with one seed: NLL_test and NLL_oracle at each temperature, nats per token."""

    temperatures: tuple[float, ...]
    test: tuple[float, ...]
    oracle: tuple[float, ...]
    seconds: float = 0.0

    def oracle_at(self, test: float) -> float:
        """NLL_oracle where NLL_test has that value, by linear interpolation; NaN outside.

        Of the branch of temperatures on which colder means a greater NLL_test.
        """
        warmest = int(np.argmin(self.test))
        along, values = self.test[warmest:], self.oracle[warmest:]
        return float(np.interp(test, along, values, left=math.nan, right=math.nan))


def curve_of(
    world: Protocol, generator: RecurrentGenerator, settings: Settings, seed: int
) -> Curve:
    """Of a generator alone."""
    grammar = world.tokenizer.grammar
    test = nats_per_symbol(generator, world.test, grammar, settings.temperatures).mean(1)
    oracle = [
        nats_per_symbol(
            world.oracle,
            drawn_from(
                generator, grammar, settings.num_samples, seed_for(seed, "oracle: samples", i),
                temperature=temperature,
            ),
            grammar,
        ).mean()
        for i, temperature in enumerate(settings.temperatures)
    ]  # fmt: skip
    return Curve(
        temperatures=settings.temperatures,
        test=tuple(test.tolist()),
        oracle=tuple(map(float, oracle)),
    )


def guided_curve(
    world: Protocol,
    generator: RecurrentGenerator,
    discriminator: Discriminator,
    candidates: int,
    settings: Settings,
    seed: int,
) -> Curve:
    """Of a generator that draws `candidates` sequences, of which a discriminator picks one."""
    grammar, rng = world.tokenizer.grammar, np.random.default_rng([seed, candidates])
    plain = nats_per_symbol(generator, world.test, grammar, settings.temperatures).mean(1)
    test_ratios = log_ratios(discriminator, world.test)
    test, oracle = [], []
    for i, temperature in enumerate(settings.temperatures):
        pool = drawn_from(
            generator, grammar, candidates * (settings.pool // candidates),
            seed_for(seed, "oracle: samples", i), temperature=temperature,
        )  # fmt: skip
        ratios = log_ratios(discriminator, pool)
        nats = nats_per_symbol(world.oracle, pool, grammar)[0]
        oracle.append(mean_of_chosen(nats, ratios, candidates))
        gain = guided_log_weight(test_ratios, ratios, candidates, rng).mean() / LENGTH
        test.append(float(plain[i] - gain))
    return Curve(temperatures=settings.temperatures, test=tuple(test), oracle=tuple(oracle))


def refine_config(settings: Settings, objective: str, **changes: Any) -> RefineConfig:
    """The same for all objectives, but for what one alone must be told."""
    config = RefineConfig(
        objective=objective,
        steps=settings.refine_steps,
        max_length=ROW,
        discriminator_transpose=0,
        discriminator_learning_rate=1e-3,
        discriminator_pretrain_steps=settings.critic_steps,
    )
    return replace(config, **changes)


REFINEMENTS: dict[str, dict[str, Any]] = {
    "leave-one-out": {"objective": "leave-one-out"},
    "rollout": {"objective": "rollout", "rollouts": 4},
    "dense": {"objective": "dense"},
    "gumbel": {"objective": "gumbel", "discriminator_loss": "relativistic"},
    "importance": {"objective": "importance"},
    "distillation": {"objective": "importance", "offline": True},
    "cooperative": {"objective": "cooperative"},
    "control: further likelihood": {"objective": "likelihood"},
    "control: placebo-constant": {"objective": "placebo-constant"},
    "control: placebo-random": {"objective": "placebo-random"},
    "control: placebo-shuffled": {"objective": "placebo-shuffled"},
}
"""Arms that refine, with the settings that are their own; feature matching is for tuples."""


class Cache:
    """Finished arms and trained networks on disk: nothing is done twice."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        told = json.dumps([asdict(part) for part in (settings, GENERATOR, DISCRIMINATOR)], indent=1)
        kept = folder / "settings.json"
        if kept.exists() and kept.read_text(encoding="utf-8") != told:
            raise SystemExit(f"{folder} holds arms of other settings; name another --cache")
        write_atomically(kept, told.encode())

    def curve(self, arm: str, seed: int, make: Callable[[], Curve]) -> Curve:
        """The arm's curve with a seed; made now if it was not before."""
        path = self.folder / f"{'-'.join(re.findall('[a-z0-9]+', arm))}-{seed}.json"
        if not path.exists():
            started = time.perf_counter()
            made = replace(make(), seconds=time.perf_counter() - started)
            write_atomically(path, json.dumps(asdict(made)).encode())
            at = "  ".join(f"{made.oracle_at(test):.3f}" for test in AT)
            print(f"{arm}, seed {seed}: {at}  ({made.seconds:.0f} s)", flush=True)
        return Curve(**json.loads(path.read_text(encoding="utf-8")))

    def network(self, name: str, into: nn.Module, train: Callable[[], nn.Module]) -> None:
        """Fill a network with weights; they are trained now if they were not before."""
        path = self.folder / f"{name}.pt"
        if not path.exists():
            buffer = io.BytesIO()
            torch.save(train().state_dict(), buffer)
            write_atomically(path, buffer.getvalue())
        into.load_state_dict(torch.load(path, weights_only=True))
        into.eval()


def run_seed(
    world: Protocol, settings: Settings, seed: int, cache: Cache, wanted: Callable[[str], bool]
) -> dict[str, Curve]:
    """All wanted arms with one seed; they begin from the same likelihood generator."""
    generator = new_generator(GENERATOR, FIRST + SYMBOLS)
    cache.network(
        f"likelihood-{seed}",
        generator,
        lambda: trained_by_likelihood(world, GENERATOR, settings.prior, settings.pretrain, seed),
    )
    plain = refine_config(settings, "leave-one-out")
    critic = fresh_critic(world, plain, seed).discriminator
    cache.network(
        f"critic-{seed}",
        critic,
        lambda: trained_critic(world, generator, plain, seed).discriminator,
    )

    def unregularised() -> Curve:
        plain = trained_by_likelihood(world, UNREGULARISED, 0.0, settings.pretrain, seed)
        return curve_of(world, plain, settings, seed)

    def refinement(own: dict[str, Any]) -> Curve:
        config = refine_config(settings, **own)
        try:
            moved = refined(world, generator, critic, config, seed)
        except Diverged as error:
            print(f"{config.objective}, seed {seed}: {error}", flush=True)
            nothing = tuple(math.nan for _ in settings.temperatures)
            return Curve(temperatures=settings.temperatures, test=nothing, oracle=nothing)
        return curve_of(world, moved, settings, seed)

    arms: dict[str, Callable[[], Curve]] = {
        "likelihood": lambda: curve_of(world, generator, settings, seed),
        "likelihood, unregularised": unregularised,
    }
    for k in settings.candidates:
        arms[f"guided, 1 in {k}"] = partial(
            guided_curve, world, generator, critic, k, settings, seed
        )
    for name, own in REFINEMENTS.items():
        if own["objective"] in OBJECTIVES:
            arms[name] = partial(refinement, own)
    return {name: cache.curve(name, seed, make) for name, make in arms.items() if wanted(name)}


def interval(values: Sequence[float]) -> str:
    """Mean and half of the 95 % interval over seeds, by Student's t."""
    from scipy.stats import t

    if len(values) < 2:
        return f"{np.mean(values):.3f}"
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return f"{np.mean(values):.3f} ± {half:.3f}"


def report(curves: dict[str, list[Curve]], floor: Floats, settings: Settings) -> str:
    """The page of results."""
    published = [[name, *(f"{nats:.3f}" for nats in at), "–"] for name, at in PUBLISHED.items()]
    at = [
        [
            name,
            *(interval([curve.oracle_at(test) for curve in seeds]) for test in AT),
            f"{np.mean([curve.seconds for curve in seeds]):.0f}",
        ]
        for name, seeds in curves.items()
    ]
    base = curves["likelihood"]
    gains = [
        [
            name,
            *(
                interval([a.oracle_at(test) - b.oracle_at(test) for a, b in zip(seeds, base)])
                for test in AT
            ),
        ]
        for name, seeds in curves.items()
        if name != "likelihood"
    ]
    sweep = [
        [
            name,
            *(
                f"{test:.3f} / {oracle:.3f}"
                for test, oracle in zip(
                    np.mean([curve.test for curve in seeds], axis=0),
                    np.mean([curve.oracle for curve in seeds], axis=0),
                )
            ),
        ]
        for name, seeds in curves.items()
    ]
    heads = [f"at {test}" for test in AT]
    return "\n\n".join(
        [
            "# The oracle of SeqGAN",
            machine(f"torch {torch.__version__}, {torch.get_num_threads()} threads"),
            f"Floor: {floor.mean():.3f} ± {floor.std() / math.sqrt(len(floor)):.3f} nats per token "
            f"({len(floor)} samples of the oracle under itself, standard error); published "
            f"{FLOOR} ± 0.005.",
            f"{NUM_TRAIN} training sequences, {NUM_VALIDATION} of them for validation; "
            f"{settings.num_test} held-out sequences for NLL_test, {settings.num_samples} samples "
            f"per temperature for NLL_oracle; {settings.seeds} seeds. All in nats per token, at "
            "the temperature of the samples. Intervals are 95 %, Student's t over seeds.",
            "## NLL_oracle where NLL_test is",
            table(["arm", *heads, "seconds"], published + at),
            "The seconds are of an arm beyond the likelihood generator and the discriminator that "
            "all arms of a seed share. A dash in a curve's place, `nan`, is outside of the sweep.",
            "## Difference from likelihood, by seed",
            table(["arm", *heads], gains),
            "## The sweep: NLL_test / NLL_oracle",
            table(["arm", *(f"T {t:g}" for t in settings.temperatures)], sweep),
        ]
    )


def main() -> None:
    """Run what is not done yet and print, or write, the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder that holds seqgan_oracle")
    parser.add_argument("--cache", type=Path, default=Path("runs/oracle"), help="finished arms")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--arms", nargs="*", help="only arms whose names begin so")
    parser.add_argument("--seeds", type=int, help="how many")
    parser.add_argument("--quick", action="store_true", help="a few minutes, to see that it works")
    arguments = parser.parse_args()
    data = shared_data(arguments.data)
    if data is None:
        return
    settings = QUICK if arguments.quick else FULL
    num_seeds = arguments.seeds or settings.seeds
    cache = Cache(arguments.cache / ("quick" if arguments.quick else "full"), settings)
    oracle = published_oracle(data / "seqgan_oracle" / "target_params.npz")
    world = protocol_of(oracle, settings.num_test)
    floor = nats_per_symbol(oracle, world.train, world.tokenizer.grammar)[0]
    print(f"floor: {floor.mean():.4f}", flush=True)

    def wanted(arm: str) -> bool:
        names = ["likelihood", *arguments.arms] if arguments.arms else [""]
        return any(arm.startswith(name) for name in names)

    curves: dict[str, list[Curve]] = {}
    for seed in range(num_seeds):
        for name, curve in run_seed(world, settings, seed, cache, wanted).items():
            curves.setdefault(name, []).append(curve)
    text = report(curves, floor, replace(settings, seeds=num_seeds)) + "\n"
    print(text)
    if arguments.out:
        write_atomically(arguments.out, text.encode())


if __name__ == "__main__":
    main()
