"""The losses of a discriminator that also classifies, and of a generator that is to please it."""

from torch import Tensor
from torch.nn.functional import cross_entropy

from crgan_cli.config.bounds import NonNegative, PositiveInt
from crgan_cli.gan.labels import Labels
from crgan_cli.gan.regularizers.base import Regularizer
from crgan_cli.gan.scoring import ScoredViews
from crgan_cli.gan.types import Terms


class Classification(Regularizer):
    """StarGAN, Choi et al. 2018 (arXiv:1711.09020) eqs. 2 and 3, after AC-GAN (Odena et al. 2017,
    arXiv:1610.09585).

    D: lambda_cls * E [-log C(y | x)],        real images x with their own labels y
    G: lambda_cls * E [-log C(c | G(x, c))],  generated images, the labels c that G was to give them

    C are D's class logits: by softmax for classes, by a sigmoid each for attributes (`Labels.loss`,
    a sum over attributes and a mean over images). The code gives `labels`. Unlike AC-GAN, D is not
    taught on generated images.
    """

    needs_classes = True
    classes_of = "images"

    def __init__(
        self, lambda_cls: NonNegative, every: PositiveInt = 1, labels: Labels | None = None
    ) -> None:
        super().__init__()
        self.lambda_cls = lambda_cls
        self.every = every
        self.labels = labels

    def d_terms(self, scored: ScoredViews) -> Terms:
        return {"classification/d": self.lambda_cls * self.class_loss(scored, "real")}

    def g_terms(self, scored: ScoredViews) -> Terms:
        return {"classification/g": self.lambda_cls * self.class_loss(scored, "fake")}

    def class_loss(self, scored: ScoredViews, role: str) -> Tensor:
        """The mean loss of D's class logits of the images of `role`, given their labels."""
        y = scored.views[role].y
        assert self.labels is not None and scored.classes is not None and y is not None  # noqa: PT018
        return self.labels.loss(scored.classes[role], y)


class AuxiliaryClassifier(Regularizer):
    """AC-GAN, Odena et al. 2017 (arXiv:1610.09585) section 3, L_C.

    D: lambda_ac * (E [-log C(y | x)] + E [-log C(y | G(z, y))])
    G: lambda_ac * E [-log C(y | G(z, y))]

    C are D's class logits, by softmax. D is taught on generated images too, unlike in StarGAN.
    """

    needs_classes = True
    classes_of = "latents"

    def __init__(self, lambda_ac: NonNegative, every: PositiveInt = 1) -> None:
        super().__init__()
        self.lambda_ac = lambda_ac
        self.every = every

    def d_terms(self, scored: ScoredViews) -> Terms:
        return {
            f"ac/{role}": self.lambda_ac * self.class_loss(scored, role)
            for role in ("real", "fake")
        }

    def g_terms(self, scored: ScoredViews) -> Terms:
        return {"ac/g": self.lambda_ac * self.class_loss(scored, "fake")}

    def class_loss(self, scored: ScoredViews, role: str) -> Tensor:
        """The cross entropy of D's class logits of the images of `role`, given their class ids."""
        y = scored.views[role].y
        assert scored.classes is not None and y is not None  # noqa: PT018
        return cross_entropy(scored.classes[role], y)
