"""A discriminator with its loss, its regularizer and its T: everything that G plays against."""

from torch import Tensor, nn

from crgan_cli.errors import UserError
from crgan_cli.gan.augment import Augment
from crgan_cli.gan.losses import AdversarialLoss
from crgan_cli.gan.regularizers.base import CombinedRegularizer
from crgan_cli.gan.scoring import (
    ScoredViews,
    at_least_fp32,
    concatenate,
    mixes_samples,
    score,
    split_views,
)
from crgan_cli.gan.types import Batch, PlayerLoss, Views
from crgan_cli.system import rng


class Adversary(nn.Module):
    """Both players' terms for one D, which scores all it must see in one call where it may."""

    def __init__(
        self, D: nn.Module, loss: AdversarialLoss, regularizer: CombinedRegularizer, T: Augment
    ) -> None:
        super().__init__()
        self.D = D
        self.loss = loss
        self.regularizer = regularizer
        self.T = T
        self.score_jointly = not mixes_samples(D)

    @property
    def roles(self) -> tuple[str, ...]:
        """What D scores in its turn."""
        return tuple(dict.fromkeys(("real", "fake", *self.regularizer.d_views)))

    @property
    def needs_double_backward(self) -> bool:
        """Whether a penalty differentiates D's backward pass."""
        return any(part.needs_double_backward(self.D) for part in self.regularizer.members)

    def discriminator_loss(self, real: Batch, fakes: Views) -> PlayerLoss:
        """What D pays for real images and for generated ones; nothing of it reaches G."""
        images = {"real": real} | {
            role: for_discriminator(batch, detach=True) for role, batch in fakes.items()
        }
        views = select_views(images, self.roles, self.T)
        scored = ScoredViews(views, score(self.D, views, jointly=self.score_jointly), self.D)
        return PlayerLoss(
            self.loss.d_terms(scored) | self.regularizer.d_terms(scored), diagnostics(scored)
        )

    def generator_loss(self, fakes: Views) -> PlayerLoss:
        """What G pays. D sees the generated images as they are: there is no T in G's turn."""
        views = {role: for_discriminator(batch, detach=False) for role, batch in fakes.items()}
        scored = ScoredViews(views, score(self.D, {"fake": views["fake"]}, jointly=True), self.D)
        return PlayerLoss(self.loss.g_terms(scored) | self.regularizer.g_terms(scored), {})


def for_discriminator(batch: Batch, *, detach: bool) -> Batch:
    """Generated images as D gets them: fp32, whatever precision G works in."""
    return batch._replace(x=at_least_fp32(batch.x.detach() if detach else batch.x))


def select_views(images: Views, roles: tuple[str, ...], T: Augment) -> Views:
    """The images by the roles asked for; "T(role)" is made from `role`, with a T of its own.

    Raises UserError for a role that this game does not have.
    """
    sources = {role: role[2:-1] if role.startswith("T(") else role for role in roles}
    for source in sources.values():
        if source not in images:
            have = ", ".join(sorted(images))
            raise UserError(
                f"the regularizer needs images in the role '{source}', and this task has {have}; "
                "choose another with regularizer=..."
            )
    views = {role: images[source] for role, source in sources.items()}
    plain = {role: views[role] for role, source in sources.items() if role != source}
    if not plain:
        return views
    with rng.draws_for(len(plain)):
        return views | split_views(T(concatenate(list(plain.values()))), plain)


def diagnostics(scored: ScoredViews) -> dict[str, Tensor]:
    """Mean logits of real and generated images and the gap between them."""
    real, fake = (scored.scores[role].detach().mean() for role in ("real", "fake"))
    return {"logits/real": real, "logits/fake": fake, "logits/gap": real - fake}
