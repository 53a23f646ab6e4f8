"""A discriminator with its loss, its regularizer and its T: everything that G plays against."""

from torch import Tensor, nn

from crgan_cli.errors import UserError
from crgan_cli.gan.augment import Augment
from crgan_cli.gan.losses import AdversarialLoss
from crgan_cli.gan.regularizers.base import Sum
from crgan_cli.gan.scoring import Seen, divided, join, mixes_samples, score, widen
from crgan_cli.gan.types import Batch, Move, Views
from crgan_cli.system import rng


class Adversary(nn.Module):
    """Both players' terms for one D, which scores all it must see in one call where it may."""

    def __init__(self, D: nn.Module, loss: AdversarialLoss, regularizer: Sum, T: Augment) -> None:
        super().__init__()
        self.D = D
        self.loss = loss
        self.regularizer = regularizer
        self.T = T
        self.jointly = not mixes_samples(D)

    @property
    def roles(self) -> tuple[str, ...]:
        """What D scores in its turn."""
        return tuple(dict.fromkeys(("real", "fake", *self.regularizer.d_views)))

    @property
    def differentiates_twice(self) -> bool:
        """Whether a penalty differentiates D's backward pass."""
        return any(part.differentiates_twice(self.D) for part in self.regularizer.every_part)

    def d_move(self, real: Batch, fakes: Views) -> Move:
        """What D pays for real images and for generated ones; nothing of it reaches G."""
        images = {"real": real} | {role: seam(batch, detach=True) for role, batch in fakes.items()}
        views = pick(images, self.roles, self.T)
        seen = Seen(views, score(self.D, views, jointly=self.jointly), self.D)
        return Move(self.loss.d_terms(seen) | self.regularizer.d_terms(seen), gauges(seen))

    def g_move(self, fakes: Views) -> Move:
        """What G pays. D sees the generated images as they are: there is no T in G's turn."""
        views = {role: seam(batch, detach=False) for role, batch in fakes.items()}
        seen = Seen(views, score(self.D, {"fake": views["fake"]}, jointly=True), self.D)
        return Move(self.loss.g_terms(seen) | self.regularizer.g_terms(seen), {})


def seam(batch: Batch, *, detach: bool) -> Batch:
    """Generated images as D gets them: fp32, whatever precision G works in."""
    return batch._replace(x=widen(batch.x.detach() if detach else batch.x))


def pick(images: Views, roles: tuple[str, ...], T: Augment) -> Views:
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
    with rng.joined(len(plain)):
        return views | divided(T(join(list(plain.values()))), plain)


def gauges(seen: Seen) -> dict[str, Tensor]:
    """Mean logits of real and generated images and the gap between them."""
    real, fake = (seen.scores[role].detach().mean() for role in ("real", "fake"))
    return {"logits/real": real, "logits/fake": fake, "logits/gap": real - fake}
