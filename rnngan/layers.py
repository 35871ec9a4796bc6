"""Masking and pooling that both networks share.

Axes: `batch` pieces, `time` token positions, `vocab` tokens, `hidden` units.
"""

from __future__ import annotations

import platform

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


def _multiplies_in_bfloat16() -> bool:
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if platform.machine().lower() in ("x86_64", "amd64"):
        # oneDNN says yes on any AVX-512, and then emulates.
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


BFLOAT16_IS_FAST = _multiplies_in_bfloat16()
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


def reset_recurrent(rnn: nn.RNNBase) -> None:
    """Weights that pass signals on at full strength from the first step.

    torch's own, uniform in ±1/√hidden, leave networks of a few hundred units silent for their
    first hundreds of updates. Recurrent matrices become orthogonal (Saxe et al. 2014), those of the
    input as in Glorot & Bengio 2010, each gate's for itself, biases and peepholes zero; an LSTM's
    forget gates begin open (Gers et al. 2000).
    """
    hidden = rnn.hidden_size
    for name, weight in rnn.named_parameters():
        if name.startswith(("weight_hh", "weight_ih")):
            reset = nn.init.orthogonal_ if name.startswith("weight_hh") else nn.init.xavier_uniform_
            for gate in torch.split(weight.data, hidden):
                reset(gate)
        else:
            nn.init.zeros_(weight)
            if rnn.mode == "LSTM" and name.startswith("bias_ih"):
                weight.data[hidden : 2 * hidden] = 1


class LockedDropout(nn.Module):
    """Dropout that drops the same units at every time of a piece; `(batch, time, hidden)`.

    One draw per piece and unit in place of one per time, which on a CPU costs an eighth of a
    training step.

    References:
        Gal & Ghahramani, "A theoretically grounded application of dropout in recurrent neural
        networks", 2016.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, hidden: Tensor) -> Tensor:
        """The same shape; unchanged in evaluation."""
        if not self.training or not self.rate:
            return hidden
        kept = hidden.new_empty(len(hidden), 1, hidden.shape[-1]).bernoulli_(1 - self.rate)
        return hidden * (kept / (1 - self.rate))


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


class GRU(nn.GRU):
    """One layer in one direction, from zeros, that reads its weights anew in every pass.

    `nn.GRU` keeps references of its own to them, which a parametrization such as spectral
    normalisation does not reach.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, batch_first=True)
        reset_recurrent(self)

    def forward(self, steps: Tensor) -> Tensor:  # type: ignore[override]
        """States `(batch, time, hidden)` from `(batch, time, input)`."""
        begin = steps.new_zeros(1, len(steps), self.hidden_size)
        states, _ = torch.gru(
            steps,
            begin,
            tuple(self.all_weights[0]),
            has_biases=True,
            num_layers=1,
            dropout=0.0,
            train=self.training,
            bidirectional=False,
            batch_first=True,
        )
        return states


def bound_singular_values(module: nn.Module) -> None:
    """Divide every matrix of linear, convolutional and GRU layers by its largest singular value.

    A kernel counts as the matrix from all inputs of its window, and a GRU's gates as one matrix
    each from the input and from the state. The singular value is followed by one power iteration
    per pass in training.

    References:
        Miyato et al., "Spectral normalization for generative adversarial networks", 2018.
    """
    for layer in list(module.modules()):
        if isinstance(layer, nn.Linear | nn.Conv1d):
            spectral_norm(layer)
        elif isinstance(layer, nn.GRU):
            spectral_norm(layer, "weight_ih_l0")
            spectral_norm(layer, "weight_hh_l0")
