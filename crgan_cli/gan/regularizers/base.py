"""What a regularizer is, and the sum of several."""

from math import lcm

from torch import Tensor, nn

from crgan_cli.errors import UserError
from crgan_cli.gan.scoring import ScoredViews
from crgan_cli.gan.types import Discriminator, Terms


class Regularizer(nn.Module):
    """Terms that the players pay besides the adversarial loss. Every part is optional.

    State lives in buffers, so that it is saved, restored and moved with the run.
    """

    views: tuple[str, ...] = ()

    @property
    def d_views(self) -> tuple[str, ...]:
        """What D must score in its turn besides "real" and "fake"."""
        return self.views

    gradient_views: int = 0
    """At how many batches of images it takes D's gradient in D's turn, in a call of its own."""

    every: int = 1
    """Lazy regularization (Karras et al. 2020, arXiv:1912.04958, appendix B): only every k-th turn,
    at k times the weight."""

    def needs_double_backward(self, D: Discriminator) -> bool:
        """Whether its own calls of D take a double backward pass, so that D stays uncompiled."""
        return False

    def latents(self, z: Tensor) -> dict[str, Tensor]:
        """Further codes for G, by the role of their images; same labels as z."""
        return {}

    def d_terms(self, scored: ScoredViews) -> Terms:
        """What D pays."""
        return {}

    def g_terms(self, scored: ScoredViews) -> Terms:
        """What G pays; `scored.scores` has "fake", `scored.views` also the images of `latents`."""
        return {}


class CombinedRegularizer(Regularizer):
    """All terms of several regularizers, each in the turns that it is due in.

    The views that they need are shared: T(x) is drawn once, whoever asks for it.
    """

    def __init__(self, **parts: Regularizer) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        self.members = tuple(parts.values())
        self.period = lcm(*(part.every for part in self.members))
        self.set_turn(0)

    def set_turn(self, turn: int) -> None:
        """Settles which parts are due in a player's turn number `turn`, counted from 0."""
        self.phase = turn % self.period
        self.due = tuple(part for part in self.members if self.phase % part.every == 0)

    @property
    def active_mask(self) -> tuple[bool, ...]:
        """Which of the parts are due."""
        return tuple(self.phase % part.every == 0 for part in self.members)

    @property
    def d_views(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(role for part in self.due for role in part.d_views))

    def latents(self, z: Tensor) -> dict[str, Tensor]:
        return merge_terms([part.latents(z) for part in self.due], "two regularizers draw the code")

    def d_terms(self, scored: ScoredViews) -> Terms:
        return merge_terms(
            [scale_terms(part.d_terms(scored), part.every) for part in self.due], DUPLICATE_TERM
        )

    def g_terms(self, scored: ScoredViews) -> Terms:
        return merge_terms(
            [scale_terms(part.g_terms(scored), part.every) for part in self.due], DUPLICATE_TERM
        )


DUPLICATE_TERM = "two regularizers have a term named"


def scale_terms(terms: Terms, weight: int) -> Terms:
    """Every term times `weight`."""
    return terms if weight == 1 else {name: weight * value for name, value in terms.items()}


def merge_terms(parts: list[dict[str, Tensor]], clash: str) -> dict[str, Tensor]:
    """The union of dictionaries that may not share a key."""
    union: dict[str, Tensor] = {}
    for part in parts:
        if both := union.keys() & part.keys():
            raise UserError(
                f"{clash} {sorted(both)}; choose one of them, for example regularizer=bcr."
            )
        union |= part
    return union
