"""A weak pull of D's scores to 0, which a Wasserstein loss leaves free."""

from crgan_cli.config.bounds import NonNegative, PositiveInt
from crgan_cli.gan.regularizers.base import Regularizer
from crgan_cli.gan.scoring import ScoredViews
from crgan_cli.gan.types import Terms


class Drift(Regularizer):
    """Karras et al. 2018 (arXiv:1710.10196) appendix A.1: epsilon_drift * E D(x)^2, real images x.

    If D scores patches, a mean over them too.
    """

    def __init__(self, epsilon_drift: NonNegative, every: PositiveInt = 1) -> None:
        super().__init__()
        self.epsilon_drift = epsilon_drift
        self.every = every

    def d_terms(self, scored: ScoredViews) -> Terms:
        return {"drift": self.epsilon_drift * scored.scores["real"].square().mean()}
