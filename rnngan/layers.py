"""Masking and pooling that both networks share.

Axes: `batch` pieces, `time` token positions, `vocab` tokens, `hidden` units.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

BFLOAT16_IS_FAST = torch.backends.mkldnn.is_available() and bool(  # type: ignore[no-untyped-call]
    torch.ops.mkldnn._is_mkldnn_bf16_supported()  # not there in builds without the library
)
"""Whether this processor multiplies in bfloat16; where it does not, emulation is slower."""


def length_mask(lengths: Tensor, time: int) -> Tensor:
    """True where a position is inside its piece: `(batch, time)` from lengths `(batch,)`."""
    return torch.arange(time, device=lengths.device) < lengths[:, None]


def grammar_log_softmax(logits: Tensor, allowed: Tensor) -> Tensor:
    """Log-probabilities of the tokens that may come, −inf for the others.

    Args:
        logits: `(..., vocab)`.
        allowed: Boolean, the same shape; at least one token per row.
    """
    return logits.float().masked_fill(~allowed, -torch.inf).log_softmax(-1)


class AttentionPooling(nn.Module):
    """Weighted mean over time; one learned query, scores from a tanh layer.

    References:
        Bahdanau, Cho & Bengio, "Neural machine translation by jointly learning to align and
        translate", 2015, with the decoder state replaced by a constant.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.score = nn.Sequential(
            nn.Linear(hidden_size, hidden_size), nn.Tanh(), nn.Linear(hidden_size, 1)
        )

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """`(batch, hidden)` from `(batch, time, hidden)`; masked-out steps weigh nothing.

        Args:
            hidden: `(batch, time, hidden)`.
            mask: Boolean `(batch, time)`, at least one True per row.
        """
        scores = self.score(hidden).squeeze(-1).float()
        weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
        pooled: Tensor = (weights[:, None].to(hidden.dtype) @ hidden).squeeze(1)
        return pooled
