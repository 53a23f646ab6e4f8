"""LeCam regularization: D's scores are anchored to moving averages of their counterparts."""

import torch
from torch import Tensor
from torch.nn.functional import relu

from crgan_cli.config.bounds import Decay, NonNegative, NonNegativeInt
from crgan_cli.gan.regularizers.base import Regularizer
from crgan_cli.gan.scoring import ScoredViews
from crgan_cli.gan.types import Terms
from crgan_cli.system.distributed.tensors import all_reduce_mean


class LeCam(Regularizer):
    """Tseng et al. 2021 (arXiv:2104.03310) eq. 4, for training on few images.

    lambda_lc * ( E max(0, D(x) - a_F)^2 + E max(0, a_R - D(G(z)))^2 )

    a_R and a_F are moving averages of D's mean score of real and of generated images, of all
    processes. The paper's formula has no max; the authors' code does (google/lecam-gan). As there,
    the averages are the newest scores in the first `start` D steps, and the term is 0.
    """

    mixes_samples = True  # by the averages
    a_real: Tensor
    a_fake: Tensor
    turns: Tensor

    def __init__(self, lambda_lc: NonNegative, decay: Decay, start: NonNegativeInt) -> None:
        super().__init__()
        self.lambda_lc = lambda_lc
        self.decay = decay
        self.start = start
        for name in ("a_real", "a_fake"):
            self.register_buffer(name, torch.zeros(()))
        self.register_buffer("turns", torch.zeros((), dtype=torch.int64))

    def d_terms(self, scored: ScoredViews) -> Terms:
        real, fake = scored.scores["real"], scored.scores["fake"]
        started = self.turns >= self.start
        with torch.no_grad():
            newest = torch.where(started, 1 - self.decay, 1.0)  # weight of the newest scores
            self.a_real.lerp_(all_reduce_mean(real.mean()).to(self.a_real), newest.to(self.a_real))
            self.a_fake.lerp_(all_reduce_mean(fake.mean()).to(self.a_fake), newest.to(self.a_fake))
            self.turns += 1
        distance = relu(real - self.a_fake).square().mean()
        distance = distance + relu(self.a_real - fake).square().mean()
        return {"lecam": self.lambda_lc * torch.where(started, distance, 0.0)}
