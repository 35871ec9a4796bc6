"""Tags that count for more than a generator learnt."""

from __future__ import annotations

from torch import Tensor

from rnngan.generator.plain import Stepper


class ContrastedStepper:
    """Two steppers, one of which is told the tags of the pieces, the other not.

    Logits are (1 + w) those of the first less w those of the second: a token gains by as much as
    the tags make it likelier.

    Costs two steps of the generator per token.

    Args:
        told: Has seen what the pieces begin with.
        untold: Has seen the same without tags.
        weight: w, at least 0.
        untagged: What the second sees of each token, `(vocab,)`.

    References:
        Ho & Salimans, "Classifier-free diffusion guidance", 2022, equation 6, there for scores;
        Sanchez et al., "Stay on topic with classifier-free guidance", 2023, for tokens.
    """

    def __init__(self, told: Stepper, untold: Stepper, *, weight: float, untagged: Tensor) -> None:
        self._told, self._untold = told, untold
        self._weight, self._untagged = weight, untagged

    def step(self, tokens: Tensor) -> Tensor:
        """Logits after one more token per piece, `(batch, vocab)` from `(batch,)`."""
        told, untold = self._told.step(tokens), self._untold.step(self._untagged[tokens])
        return told.lerp(untold, -self._weight)

    def select(self, rows: Tensor) -> None:
        """Go on with these pieces, by index `(new_batch,)`, each as often as it is named."""
        self._told.select(rows)
        self._untold.select(rows)
