"""Causal attention over what was written before: how a phrase returns."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SHARPNESS = 5.0
"""Size of the first queries and keys, in that of the states."""


class Memory(NamedTuple):
    """What the attention has to look back on.

    `keys` `(batch, heads, places + 1, size)` and `values` `(batch, heads, places, size)`: the last
    key is that of the latest state, and what follows it is not known yet.
    """

    keys: Tensor
    values: Tensor


class CausalAttention(nn.Module):
    """Finds earlier states like the present one, and returns what followed them.

    Place `j` is token `j`. Its value is made of that token and the state after it, its key of the
    state before it. So a query that finds the key of a like state gets what came next there, and
    one such step goes on with a phrase that was met before. Nothing comes before the first token:
    its key is learned, and it is the place to look at when there is nothing to find.

    Queries and keys begin as one projection of the states, so that like states find each other
    before anything is learned; as two they would first have to learn to agree.

    References:
        Bahdanau, Cho & Bengio, "Neural machine translation by jointly learning to align and
        translate", 2015. Grave, Joulin & Usunier, "Improving neural language models with a
        continuous cache", 2017, whose keys and values are paired like these. Scaled dot products
        with several heads as in Vaswani et al., "Attention is all you need", 2017, equation 1.
    """

    def __init__(self, hidden_size: int, embedding_size: int, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.of_states = nn.Linear(hidden_size, 3 * width)
        self.of_tokens = nn.Linear(embedding_size, width, bias=False)
        self.first_key = nn.Parameter(torch.zeros(width))
        self._reset()

    def _reset(self) -> None:
        """Make keys of queries; an LSTM's states begin small, hence the factor."""
        query, key, _ = self.of_states.weight.data.chunk(3)
        nn.init.normal_(query, std=_SHARPNESS / query.shape[1] ** 0.5)
        key.copy_(query)
        nn.init.zeros_(self.of_states.bias)

    def start(self, batch_size: int) -> Memory:
        """Memory before the first token."""
        first = self.first_key.view(1, self.num_heads, 1, -1).expand(batch_size, -1, -1, -1)
        return Memory(first, first[:, :, :0])

    def forward(self, states: Tensor, embedded: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Look back from every time.

        Args:
            states: `(batch, time, hidden)`, each after its token.
            embedded: The tokens, `(batch, time, embedding)`.
            memory: Of what came before them.

        Returns:
            Contexts `(batch, time, width)`, and the memory to go on from.
        """
        query, memory = self._look_up(states, embedded, memory)
        num_seen = memory.values.shape[2] - states.shape[1]
        context = F.scaled_dot_product_attention(
            query,
            memory.keys[:, :, :-1],
            memory.values,
            # Without a mask the kernel needs no memory quadratic in time.
            attn_mask=_mask(query, memory) if num_seen else None,
            is_causal=not num_seen,
        )
        return context.transpose(1, 2).flatten(2), memory

    def weights(self, states: Tensor, embedded: Tensor) -> Tensor:
        """Share of each place in what each time finds, `(batch, heads, time, place)`."""
        query, memory = self._look_up(states, embedded, self.start(len(states)))
        scores: Tensor = query @ memory.keys[:, :, :-1].transpose(2, 3) / query.shape[-1] ** 0.5
        return scores.masked_fill(~_mask(query, memory), -torch.inf).softmax(-1)

    def _look_up(self, states: Tensor, embedded: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Queries `(batch, heads, time, size)`, and the memory with these places added."""
        query, key, value = self.of_states(states).chunk(3, dim=-1)
        query, key, value = map(self._by_head, (query, key, value + self.of_tokens(embedded)))
        keys = torch.cat([memory.keys.to(key.dtype), key], dim=2)
        values = torch.cat([memory.values.to(value.dtype), value], dim=2)
        return query, Memory(keys, values)

    def _by_head(self, vectors: Tensor) -> Tensor:
        """`(batch, heads, time, size)` from `(batch, time, width)`."""
        batch, time, _ = vectors.shape
        return vectors.view(batch, time, self.num_heads, -1).transpose(1, 2)


def _mask(query: Tensor, memory: Memory) -> Tensor:
    """True where a place is not later than the time that looks, `(time, place)`."""
    time, places = query.shape[2], memory.values.shape[2]
    return torch.ones(time, places, dtype=torch.bool, device=query.device).tril(places - time)
