"""The discriminators by name."""

from __future__ import annotations

from rnngan.config import DiscriminatorConfig
from rnngan.discriminator.base import Discriminator
from rnngan.discriminator.conv import ConvDiscriminator
from rnngan.discriminator.conv_gru import ConvGRUDiscriminator
from rnngan.discriminator.gru import GRUDiscriminator
from rnngan.layers import bound_singular_values
from rnngan.music.tokenizers.base import Codec

DISCRIMINATORS: dict[str, type[GRUDiscriminator | ConvDiscriminator | ConvGRUDiscriminator]] = {
    "gru": GRUDiscriminator,
    "conv": ConvDiscriminator,
    "conv-gru": ConvGRUDiscriminator,
}
"""Names as in `DiscriminatorConfig.kind`."""


def new_discriminator(config: DiscriminatorConfig, codec: Codec) -> Discriminator:
    """A fresh one, drawn from torch's own random numbers.

    Args:
        config: Its stride is at least 1.
        codec: Of the pieces to judge; for the tokens view its vocabulary is all that is read.

    Raises:
        UserError: The stride is 0.
    """
    discriminator = DISCRIMINATORS[config.kind](config, codec)
    if config.spectral_norm:
        bound_singular_values(discriminator)
    return discriminator
