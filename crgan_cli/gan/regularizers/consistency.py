"""Consistency regularization: CR, bCR and zCR. ICR is bCR plus zCR.

CR: Zhang, Zhang, Odena & Lee 2020, "Consistency Regularization for Generative Adversarial
Networks" (arXiv:1910.12027). bCR, zCR, ICR: Zhao, Singh, Lee, Zhang, Odena & Zhang 2021, "Improved
Consistency Regularization for GANs" (arXiv:2002.04724).

D(x) is the logit, before any activation. Both sides of a term carry gradient. With `classes`, CR
and bCR also hold for the class logits of a D that classifies: a further term of the same weight, as
in StudioGAN for AC-GANs.
"""

from typing import Literal

from torch import Tensor

from crgan_cli.config.bounds import NonNegative, PositiveInt
from crgan_cli.gan.regularizers.base import Regularizer
from crgan_cli.gan.scoring import ScoredViews
from crgan_cli.gan.types import Terms
from crgan_cli.system import rng


def mse(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference: over the batch, and also over the pixels of images and the places of
    a map of logits."""
    return (a - b).square().mean()


def class_terms(scored: ScoredViews, prefix: str, weights: dict[str, float]) -> Terms:
    """weight * E ||C(x) - C(T(x))||^2 for each role, C(x) being D's class logits."""
    assert scored.classes is not None, "checked when the run was built"
    c = scored.classes
    return {
        f"{prefix}/{role}_classes": weight * mse(c[role], c[f"T({role})"])
        for role, weight in weights.items()
    }


class ConsistencyRegularization(Regularizer):
    """CR, arXiv:1910.12027 Algorithm 1: lambda_cr * E ||D(x) - D(T(x))||^2, real images x."""

    views = ("T(real)",)

    def __init__(
        self, lambda_cr: NonNegative, every: PositiveInt = 1, classes: bool = False
    ) -> None:
        super().__init__()
        self.lambda_cr = lambda_cr
        self.every = every
        self.needs_classes = classes

    def d_terms(self, scored: ScoredViews) -> Terms:
        s = scored.scores
        terms = {"cr/real": self.lambda_cr * mse(s["real"], s["T(real)"])}
        if self.needs_classes:
            terms |= class_terms(scored, "cr", {"real": self.lambda_cr})
        return terms


class BalancedConsistency(Regularizer):
    """bCR, arXiv:2002.04724 Algorithm 1: real and generated images, each with its own T.

    lambda_real * E ||D(x) - D(T(x))||^2 + lambda_fake * E ||D(G(z)) - D(T(G(z)))||^2
    """

    views = ("T(real)", "T(fake)")

    def __init__(
        self,
        lambda_real: NonNegative,
        lambda_fake: NonNegative,
        every: PositiveInt = 1,
        classes: bool = False,
    ) -> None:
        super().__init__()
        self.lambda_real = lambda_real
        self.lambda_fake = lambda_fake
        self.every = every
        self.needs_classes = classes

    def d_terms(self, scored: ScoredViews) -> Terms:
        s = scored.scores
        terms = {
            "bcr/real": self.lambda_real * mse(s["real"], s["T(real)"]),
            "bcr/fake": self.lambda_fake * mse(s["fake"], s["T(fake)"]),
        }
        if self.needs_classes:
            weights = {"real": self.lambda_real, "fake": self.lambda_fake}
            terms |= class_terms(scored, "bcr", weights)
        return terms


class LatentConsistency(Regularizer):
    """zCR, arXiv:2002.04724 Algorithm 2, with T(z) = z + e, e ~ N(0, sigma^2), same labels.

    `noise="uniform"`: e ~ sigma * U[-1, 1] instead, as in StudioGAN with a uniform prior.

    D:  lambda_dis * E ||D(G(z)) - D(G(T(z)))||^2
    G: -lambda_gen * E ||G(z) - G(T(z))||^2, unbounded below: keep lambda_gen small

    The squared norm of an image is the mean over its pixels in [-1, 1], as in StudioGAN and
    NVIDIA's code. The paper does not state which norm its weights belong to; a sum would be 3,072
    times as large at 32 x 32 x 3.
    """

    views = ("near",)
    latent_views = ("near",)

    def __init__(
        self,
        lambda_dis: NonNegative,
        lambda_gen: NonNegative,
        sigma: NonNegative,
        every: PositiveInt = 1,
        noise: Literal["normal", "uniform"] = "normal",
    ) -> None:
        super().__init__()
        self.lambda_dis = lambda_dis
        self.lambda_gen = lambda_gen
        self.sigma = sigma
        self.every = every
        self.noise = noise

    def extra_latents(self, z: Tensor) -> dict[str, Tensor]:
        if self.noise == "normal":
            e = rng.randn(*z.shape, device=z.device, dtype=z.dtype)
        else:
            e = 2 * rng.rand(*z.shape, device=z.device, dtype=z.dtype) - 1
        return {"near": z + self.sigma * e}

    def d_terms(self, scored: ScoredViews) -> Terms:
        return {"zcr/dis": self.lambda_dis * mse(scored.scores["fake"], scored.scores["near"])}

    def g_terms(self, scored: ScoredViews) -> Terms:
        return {"zcr/gen": -self.lambda_gen * mse(scored.views["fake"].x, scored.views["near"].x)}
