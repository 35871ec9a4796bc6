import torch

from rnngan.config import DiscriminatorConfig
from rnngan.discriminator.conv import WIDTHS, ConvDiscriminator
from rnngan.music.tokenizers.events import Events, EventsConfig

TUNES = Events(EventsConfig(metres=("4/4",), lowest=60, highest=70))


def test_pooling_by_hand():
    config = DiscriminatorConfig(views="tokens", embedding_size=1, hidden_size=1, stride=1)
    net = ConvDiscriminator(config, TUNES)
    with torch.no_grad():
        for filters in net.filters:
            filters.weight.fill_(1)
            filters.bias.zero_()
    embedded = torch.tensor([[1.0, -3.0, 5.0, 0.0], [2.0, 0.0, 0.0, 0.0]])[..., None]
    pooled = net.pooled(embedded, torch.tensor([3, 1]))
    # Sums of 3, 5 and 9 neighbours: -2, 3, 2, then 3 at every time; what is behind counts nowhere.
    assert len(WIDTHS) == 3
    torch.testing.assert_close(
        pooled, torch.tensor([[3.0, 3, 3, 5 / 3, 3, 3], [2.0, 2, 2, 2, 2, 2]])
    )
