import pytest
import torch

from rnngan.config import GeneratorConfig
from rnngan.errors import UserError
from rnngan.generator.contrast import ContrastedStepper
from rnngan.generator.fast import FastStepper
from rnngan.generator.registry import new_generator
from rnngan.generator.sampling import Decoding, sample, uniforms
from rnngan.music.tokenizers.events import Events, EventsConfig
from rnngan.music.tokenizers.tags import tagged_prefix, untagged
from rnngan.music.vocabulary import START

TUNES = Events(
    EventsConfig(metres=("4/4",), lowest=60, highest=64, tags=("style=", "style=jig", "style=reel"))
)
REEL = tagged_prefix(TUNES, {"style": "reel"})
UNTAGGED = untagged(TUNES.vocabulary)
BARE = (START, TUNES.vocabulary.index["Tag_style="])


def generator():
    torch.manual_seed(0)
    settings = {"embedding_size": 8, "hidden_size": 12, "attention": 8}
    network = new_generator(GeneratorConfig(**settings), len(TUNES.vocabulary)).eval()
    torch.nn.init.normal_(network.output.weight)
    return network


def drawn(network, decoding, prefix=REEL, num=40):
    draws = uniforms(0, range(num), 40)
    return sample(
        network, TUNES.grammar, draws, decoding, prefix=prefix, bar=TUNES.bar, precision="float32"
    ).tokens


@torch.inference_mode()
def test_logits_lead_away_from_those_without_the_tag():
    """Of pieces with two beginnings, after some have been dropped and others doubled."""
    network, weight = generator(), 1.5
    stepper = ContrastedStepper(
        *(FastStepper(network, batch_size=3, precision="float32") for _ in range(2)),
        weight=weight,
        untagged=torch.tensor(UNTAGGED),
    )
    beginnings = [torch.tensor(prefix).repeat(3, 1) for prefix in (REEL, BARE)]
    torch.manual_seed(1)
    first = TUNES.vocabulary.ids("Metre").start
    more, rows = torch.randint(first, len(TUNES.vocabulary), (3, 5)), torch.tensor([2, 0, 2, 1])
    for token in torch.cat([beginnings[0], more], 1).T:
        stepper.step(token)
    stepper.select(rows)
    last = torch.randint(first, len(TUNES.vocabulary), (4,))
    with_tag, without = (
        network(torch.cat([tokens, more], 1)[rows][:, : len(REEL) + 5])[1] for tokens in beginnings
    )
    with_tag, without = network.step(last, with_tag)[0], network.step(last, without)[0]
    expected = (1 + weight) * with_tag - weight * without
    torch.testing.assert_close(stepper.step(last), expected, rtol=1e-4, atol=1e-4)


def test_a_weight_of_nothing_changes_nothing_and_another_does():
    network = generator()
    plain = drawn(network, Decoding())
    assert torch.equal(drawn(network, Decoding(untagged=UNTAGGED)), plain)
    assert not torch.equal(drawn(network, Decoding(tag_weight=2.0, untagged=UNTAGGED)), plain)


def test_where_the_tag_says_nothing_its_weight_changes_nothing():
    network = generator()
    names = TUNES.vocabulary.index
    with torch.no_grad():
        network.embedding.weight[names["Tag_style=reel"]] = network.embedding.weight[
            names["Tag_style="]
        ]
    weighted = drawn(network, Decoding(tag_weight=2.0, untagged=UNTAGGED))
    assert torch.equal(weighted, drawn(network, Decoding()))


@pytest.mark.parametrize("weight", [-1.0, float("inf"), float("nan")])
def test_a_weight_is_at_least_0(weight):
    with pytest.raises(UserError, match="tag_weight must be at least 0"):
        Decoding(tag_weight=weight)
