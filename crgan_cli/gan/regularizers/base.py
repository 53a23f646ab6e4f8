"""The interface of a regularizer, and the combination of several."""

from collections.abc import Hashable
from itertools import compress
from typing import Literal

from torch import Tensor, nn

from crgan_cli.errors import UserError
from crgan_cli.gan.scoring import ScoredViews
from crgan_cli.gan.types import Discriminator, Terms


class Regularizer(nn.Module):
    """Loss terms of D and G besides the adversarial loss. Override only what the method needs.

    Keep state in buffers: they are saved, restored and moved with the run.
    """

    views: tuple[str, ...] = ()
    """Roles that D must score in a D step, besides "real" and "fake"."""

    latent_views: tuple[str, ...] = ()
    """Roles whose images G makes from `extra_latents`."""

    differentiates_G: bool = False
    """Whether a G step differentiates G's images with respect to the latents. G is then not
    compiled."""

    gradient_views: int = 0
    """Number of views at which it needs dD/dx. Costs one extra D call, or one per view with batch
    norm."""

    needs_classes: bool = False
    """Whether D must classify: `scored.classes` is then there."""

    mixes_samples: bool = False
    """Whether its terms are no means over the images of a batch, each by itself."""

    classes_of: Literal["", "latents", "images"] = ""
    """What G makes images from in the tasks whose class labels this takes; "" for both."""

    every: int = 1
    """Lazy regularization (Karras et al. 2020, arXiv:1912.04958, appendix B): the terms are
    computed in every k-th turn only, with k times the weight."""

    needs_G: bool = False
    """Whether its terms need G itself: `scored.origin` is then there, in G's turns."""

    def set_turn(self, who: str, turn: int) -> None:
        """Prepare for turn number `turn` of `who`, counted from 0 over the whole run. Fill tensors,
        which a CUDA graph reads anew; what else changes belongs to `signature`."""

    def signature(self) -> Hashable:
        """What decides, besides `every`, which operations the coming turn consists of."""
        return None

    def prepare(self, D: nn.Module) -> None:
        """Change D's weights at the start of a turn, in place."""

    def choose_fakes(self, scores: Tensor) -> Tensor | None:
        """D's logits of generated images -> the positions (k,) of those that G's adversarial loss
        is of. None: all."""
        return None

    def needs_double_backward(self, D: Discriminator) -> bool:
        """Whether its calls of D need a double backward pass. D is then not compiled."""
        return False

    def extra_latents(self, z: Tensor) -> dict[str, Tensor]:
        """role -> (N, z_dim), for `latent_views`: G makes further views, with the labels of z."""
        return {}

    def d_terms(self, scored: ScoredViews) -> Terms:
        """D's loss terms. `scored` has "real", "fake" and `views`."""
        return {}

    def g_terms(self, scored: ScoredViews) -> Terms:
        """G's loss terms. `scored.scores` has "fake"; `scored.views` also those of
        `extra_latents`."""
        return {}


class CombinedRegularizer(nn.Module):
    """The terms of several regularizers. A lazy one takes part in every k-th turn only.

    Parts share their views: T(x) is drawn once, however many parts use it.
    """

    def __init__(self, **parts: Regularizer) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)  # names the buffers in checkpoints
        self.named_members = parts  # the same, as a type checker knows them
        self.members = tuple(parts.values())
        choosing = [n for n, p in parts.items() if overrides(p, "choose_fakes")]
        if len(choosing) > 1:
            raise UserError(
                f"{' and '.join(choosing)} both choose the images that G learns from. Choose one."
            )
        self.set_turn("d", 0)

    def set_turn(self, who: str, turn: int) -> None:
        """Choose the parts that are active in turn number `turn` of `who`, counted from 0."""
        self.active_mask = tuple(turn % part.every == 0 for part in self.members)
        self.active = tuple(compress(self.members, self.active_mask))
        for part in self.active:
            part.set_turn(who, turn)

    def signature(self) -> Hashable:
        """What decides which operations the coming turn consists of."""
        return self.active_mask, tuple(part.signature() for part in self.active)

    def prepare(self, D: nn.Module) -> None:
        """Let the active parts change D's weights."""
        for part in self.active:
            part.prepare(D)

    def choose_fakes(self, scores: Tensor) -> Tensor | None:
        """The positions that a part chooses. At most one of the parts does."""
        chosen = [part.choose_fakes(scores) for part in self.active]
        return next((positions for positions in chosen if positions is not None), None)

    @property
    def views(self) -> tuple[str, ...]:
        """Roles that the active parts need scored in a D step, each once."""
        return tuple(dict.fromkeys(role for part in self.active for role in part.views))

    def extra_latents(self, z: Tensor) -> dict[str, Tensor]:
        """role -> (N, z_dim), of all active parts."""
        return merge([part.extra_latents(z) for part in self.active], "latents")

    def d_terms(self, scored: ScoredViews) -> Terms:
        """D's loss terms of all active parts."""
        return merge([scale(part.d_terms(scored), part.every) for part in self.active], "term")

    def g_terms(self, scored: ScoredViews) -> Terms:
        """G's loss terms of all active parts."""
        return merge([scale(part.g_terms(scored), part.every) for part in self.active], "term")


def overrides(part: Regularizer, method: str) -> bool:
    """Whether a regularizer has its own form of a method of the base class."""
    return getattr(type(part), method) is not getattr(Regularizer, method)


def scale(terms: Terms, weight: int) -> Terms:
    """Every term times `weight`."""
    return terms if weight == 1 else {name: weight * value for name, value in terms.items()}


def merge(parts: list[dict[str, Tensor]], what: str) -> dict[str, Tensor]:
    """The union of dictionaries. Raise UserError if two share a key."""
    union: dict[str, Tensor] = {}
    for part in parts:
        if shared := sorted(union.keys() & part.keys()):
            raise UserError(
                f"Two regularizers define the same {what}: {', '.join(shared)}. Choose one of "
                "them, e.g. regularizer=bcr."
            )
        union |= part
    return union
