"""Adversarial losses, on logits: `d_loss` is what D minimises, `g_loss` what G minimises.

Logits are D's output before any activation. Every value is a mean over the batch (and over the
patches, if D scores patches).
"""

from torch import Tensor
from torch.nn.functional import relu, softplus

from crgan_cli.gan.scoring import ScoredViews
from crgan_cli.gan.types import Terms


class AdversarialLoss:
    """The adversarial terms of both players. A loss implements `d_loss` and `g_loss`."""

    g_roles: tuple[str, ...] = ("fake",)
    """The views that D scores in a G step: also "real" for a loss that compares with them."""

    sign_is_verdict: bool = True
    """Whether a positive logit means that D takes an image for real. ADA counts them."""

    needs_bounded_slope: bool = False
    """Whether D's loss has no least value unless something else keeps D Lipschitz."""

    def d_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """D's loss, a scalar, from its logits of real and generated images."""
        raise NotImplementedError

    def g_loss(self, fake: Tensor) -> Tensor:
        """G's loss, a scalar, from D's logits of generated images."""
        raise NotImplementedError

    def d_terms(self, scored: ScoredViews) -> Terms:
        """The adversarial term of a D step."""
        return {"adversarial/d": self.d_loss(scored.scores["real"], scored.scores["fake"])}

    def g_terms(self, scored: ScoredViews) -> Terms:
        """The adversarial term of a G step."""
        return {"adversarial/g": self.g_loss(scored.scores["fake"])}


class Minimax(AdversarialLoss):
    """Goodfellow et al. 2014 (arXiv:1406.2661) eq. 1.

    min_G max_D E log s(D(x)) + E log(1 - s(D(G(z)))), where s is the sigmoid:
    log s(l) = -softplus(-l) and log(1 - s(l)) = -softplus(l).
    """

    def d_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(-real).mean() + softplus(fake).mean()

    def g_loss(self, fake: Tensor) -> Tensor:
        return -softplus(fake).mean()


class NonSaturating(Minimax):
    """Goodfellow et al. 2014 (arXiv:1406.2661) section 3: G maximises E log s(D(G(z))) instead."""

    def g_loss(self, fake: Tensor) -> Tensor:
        return softplus(-fake).mean()


class Hinge(AdversarialLoss):
    """Lim & Ye 2017 (arXiv:1705.02894), as in Miyato et al. 2018 (arXiv:1802.05957) eqs. 16, 17.

    D: E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))).  G: -E D(G(z)).
    """

    def d_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return relu(1 - real).mean() + relu(1 + fake).mean()

    def g_loss(self, fake: Tensor) -> Tensor:
        return -fake.mean()


class Wasserstein(AdversarialLoss):
    """Arjovsky et al. 2017 (arXiv:1701.07875) eq. 2: D: E D(G(z)) - E D(x).  G: -E D(G(z)).

    Spectral norm, a gradient penalty or weight clipping (`regularizer=clip`, the paper's) has to
    keep D Lipschitz. Only differences of scores count.
    """

    sign_is_verdict = False
    needs_bounded_slope = True

    def d_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - real.mean()

    def g_loss(self, fake: Tensor) -> Tensor:
        return -fake.mean()


class Relativistic(AdversarialLoss):
    """RpGAN, Jolicoeur-Martineau 2018 (arXiv:1807.00734) eqs. 3 and 4 with the standard GAN's f.

    D: E softplus(-(D(x) - D(G(z)))).  G: E softplus(-(D(G(z)) - D(x))), x and z in pairs.

    With R1 and R2 the loss of R3GAN, Huang et al. 2024 (arXiv:2501.05441) eq. 2: D is asked only
    whether x is more real than G(z), which keeps G from dropping modes. The real images of a G step
    are those of the D step before it. Images of a pair may have different labels.
    """

    g_roles = ("real", "fake")
    sign_is_verdict = False  # only differences of scores count

    def d_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(fake - real).mean()

    def g_terms(self, scored: ScoredViews) -> Terms:
        return {"adversarial/g": self.d_loss(scored.scores["fake"], scored.scores["real"])}


class LeastSquares(AdversarialLoss):
    """Mao et al. 2017 (arXiv:1611.04076) eq. 9: targets 1 for real and 0 for generated images.

    D: 1/2 E (D(x) - 1)^2 + 1/2 E D(G(z))^2.  G: 1/2 E (D(G(z)) - 1)^2.
    """

    sign_is_verdict = False  # undecided is 1/2

    def d_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return 0.5 * (real - 1).square().mean() + 0.5 * fake.square().mean()

    def g_loss(self, fake: Tensor) -> Tensor:
        return 0.5 * (fake - 1).square().mean()
