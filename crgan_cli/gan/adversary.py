"""A discriminator with its loss, regularizers and T: the loss terms of both players."""

from torch import Tensor, nn

from crgan_cli.errors import UserError
from crgan_cli.gan.augment import Augment, Chain
from crgan_cli.gan.losses import AdversarialLoss
from crgan_cli.gan.regularizers.base import CombinedRegularizer
from crgan_cli.gan.scoring import (
    Origin,
    ScoredViews,
    concatenate,
    mean_over_places,
    mixes_samples,
    score,
    split_views,
)
from crgan_cli.gan.types import Batch, PlayerLoss, Views
from crgan_cli.networks.layers import at_least_fp32
from crgan_cli.system import rng


class Adversary(nn.Module):
    """The loss terms of both players against one discriminator.

    D scores all views of a turn in one call, unless its layers mix the images of a batch.

    Example of usage::

        T = FlipShift(shift=4, flip=0.5, padding="reflect")
        regularizer = CombinedRegularizer(cr=ConsistencyRegularization(lambda_cr=10))
        adversary = Adversary(D, Hinge(), regularizer, T)
        real = Batch(images)  # (N, C, H, W) in [-1, 1]
        fake = Batch(G(z, None))
        terms = adversary.discriminator_loss(real, {"fake": fake}).terms
        total = sum(terms.values())  # "adversarial/d" and "cr/real"
        total.backward()  # gradients for D, none for G
    """

    def __init__(
        self,
        D: nn.Module,
        loss: AdversarialLoss,
        regularizer: CombinedRegularizer,
        T: Augment,
        T_both: Chain | None = None,
    ) -> None:
        """`T_both` transforms all that D sees, in both players' turns; T(x) too, after T."""
        super().__init__()
        self.D = D
        self.loss = loss
        self.regularizer = regularizer
        self.T = T
        self.T_both = T_both or Chain()
        self.score_jointly = not mixes_samples(D)

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles of the views that D scores in a D step."""
        return tuple(dict.fromkeys(("real", "fake", *self.regularizer.views)))

    @property
    def needs_double_backward(self) -> bool:
        """Whether a penalty differentiates D's backward pass."""
        return any(part.needs_double_backward(self.D) for part in self.regularizer.members)

    @property
    def players_with_double_backward(self) -> tuple[str, ...]:
        """The players whose backward pass a penalty differentiates."""
        differentiates_G = any(part.differentiates_G for part in self.regularizer.members)
        return ("d",) * self.needs_double_backward + ("g",) * differentiates_G

    @property
    def has_noisy_consistency(self) -> bool:
        """Whether a regularizer compares D's logits of two views that D's dropout masks apart."""
        compared = any(part.views for part in self.regularizer.members)
        return compared and has_dropout(self.D)

    def describe_calls(self) -> str:
        """The D calls of a D step, for the log."""
        roles, jointly = self.roles, self.score_jointly
        calls = 1 if jointly else len(roles)
        reason = "" if jointly else " (D's layers mix the images of a batch)"
        gradients = [part.gradient_views for part in self.regularizer.members]
        more = sum(map(bool, gradients)) if jointly else sum(gradients)
        method = "double backward" if self.needs_double_backward else "adjoint network"
        penalty = f"; {more} more for a gradient, by {method}" if more else ""
        return (
            f"{calls} D call{'s'[: calls > 1]} for {len(roles)} views{reason}: "
            f"{' '.join(roles)}{penalty}"
        )

    def describe_generator_calls(self) -> str:
        """The D calls of a G step, for the log."""
        roles = self.loss.g_roles
        calls = 1 if self.score_jointly else len(roles)
        return (
            f"{calls} D call{'s'[: calls > 1]} for {len(roles)} view{'s'[: len(roles) > 1]}: "
            f"{' '.join(roles)}"
        )

    def discriminator_loss(self, real: Batch, fakes: Views) -> PlayerLoss:
        """D's loss terms on real and generated images. No gradient reaches G."""
        images = {"real": real} | {
            role: for_discriminator(batch, detach=True) for role, batch in fakes.items()
        }
        views = self.show(select_views(images, self.roles, self.T))
        scored = score(self.D, views, jointly=self.score_jointly)
        self.T_both.observe(mean_over_places(scored.scores["real"]))
        return PlayerLoss(
            self.loss.d_terms(scored) | self.regularizer.d_terms(scored),
            diagnostics(scored) | self.T_both.diagnostics(),
        )

    def show(self, views: Views) -> Views:
        """The views as D sees them: through T_both, drawn for each view and image."""
        if not self.T_both.members:
            return views
        with rng.draws_for(len(views)):
            return split_views(self.T_both(concatenate(list(views.values()))), views)

    def generator_loss(self, real: Batch, fakes: Views, origin: Origin | None = None) -> PlayerLoss:
        """G's loss terms. T is not applied: in a G step D sees the images as G made them, but for
        T_both, through which G learns.

        D scores the real images only if the loss compares with them. `origin` tells where the
        generated ones come from, for regularizers that need G.
        """
        views = {role: for_discriminator(batch, detach=False) for role, batch in fakes.items()}
        seen = self.show(select_views({"real": real} | views, self.loss.g_roles, self.T))
        scored = score(self.D, seen, jointly=self.score_jointly, origin=origin)
        scored = scored._replace(views=views)  # also those that D does not see in this turn
        terms = self.loss.g_terms(self.choose_fakes(scored))
        return PlayerLoss(terms | self.regularizer.g_terms(scored), {})

    def choose_fakes(self, scored: ScoredViews) -> ScoredViews:
        """The logits of the images that G's adversarial loss is of."""
        chosen = self.regularizer.choose_fakes(scored.scores["fake"])
        if chosen is None:
            return scored
        scores = {role: each.index_select(0, chosen) for role, each in scored.scores.items()}
        return scored._replace(scores=scores)

    def prepare_turn(self) -> None:
        """Change D's weights at the start of a turn, if a regularizer does."""
        self.regularizer.prepare(self.D)

    def require_roles(self, roles: tuple[str, ...], *, latents: bool, task: str) -> None:
        """Raise UserError if a regularizer needs a view that a task does not have.

        `roles` are those of the task; with `latents` also those that regularizers draw from latents
        of their own. `task` is its name.
        """
        for name, part in self.regularizer.named_members.items():
            if not latents and (part.latent_views or part.differentiates_G or part.needs_G):
                of_latents = part.latent_views or part.differentiates_G
                what = "latents" if of_latents else "the generator of images from latents"
                raise UserError(
                    f"regularizer={name} works on {what}, and {task} has none: its generator "
                    "translates images. Type another, for example regularizer=bcr."
                )
            known = (*roles, *part.latent_views)
            for role in part.views:
                if source_role(role) not in known:
                    raise UserError(
                        f"regularizer={name} scores the view '{role}', and {task} has only "
                        f"{', '.join(known)}. Type another, for example regularizer=bcr."
                    )

    def require_classes(self, *, latents: bool) -> None:
        """Raise UserError if a regularizer needs class logits and D gives none, if it is for
        another kind of task, or if nothing teaches D the classes that it gives.

        `latents`: whether images are made from them.
        """
        classifies = getattr(self.D, "classifies", False)
        members = self.regularizer.named_members
        for name, part in members.items():
            if part.needs_classes and not classifies:
                always = type(part).needs_classes
                remedy = "another regularizer" if always else "regularizer.classes=false"
                raise UserError(
                    f"regularizer={name} works on class logits, and {type(self.D).__name__} gives "
                    f"none. Type architecture=pggan architecture.labels=ac for images from "
                    f"latents, or task=stargan architecture=stargan, or {remedy}."
                )
            if part.classes_of not in ("", "latents" if latents else "images"):
                instead = "ac" if latents else "classification"
                raise UserError(
                    f"regularizer={name} is for tasks that make images from "
                    f"{part.classes_of}, and this one makes them from "
                    f"{'latents' if latents else 'images'}. Type {instead} in its place."
                )
        taught = any(type(part).needs_classes for part in members.values())
        if classifies and not taught:
            own = ",".join(["classification", *members])
            remedy = (
                "regularizer=[gp_drift,ac], or ac beside your own, or architecture.labels=none or "
                "projection"
                if latents
                else f"regularizer=[{own}]"
            )
            raise UserError(
                f"{type(self.D).__name__} classifies, and no regularizer teaches it the classes: "
                f"it would learn nothing of them. Type {remedy}."
            )


def has_dropout(module: nn.Module) -> bool:
    """Whether a layer sets a share of its input to 0 in training."""
    return any(
        isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0
        for layer in module.modules()
    )


def for_discriminator(batch: Batch, *, detach: bool) -> Batch:
    """Generated images as D takes them: fp32, whatever the precision of G."""
    return batch._replace(x=at_least_fp32(batch.x.detach() if detach else batch.x))


def select_views(images: Views, roles: tuple[str, ...], T: Augment) -> Views:
    """The images for each role. "T(role)" is T of the images of `role`, drawn per role."""
    sources = {role: source_role(role) for role in roles}
    views = {role: images[source] for role, source in sources.items()}
    to_transform = {role: views[role] for role, source in sources.items() if role != source}
    if not to_transform:
        return views
    with rng.draws_for(len(to_transform)):
        return views | split_views(T(concatenate(list(to_transform.values()))), to_transform)


def source_role(role: str) -> str:
    """ "T(role)" -> "role", and "role" -> "role"."""
    return role[2:-1] if role.startswith("T(") else role


def diagnostics(scored: ScoredViews) -> dict[str, Tensor]:
    """Mean logits of real and of generated images, and their difference."""
    real, fake = (scored.scores[role].detach().mean() for role in ("real", "fake"))
    return {"logits/real": real, "logits/fake": fake, "logits/gap": real - fake}
