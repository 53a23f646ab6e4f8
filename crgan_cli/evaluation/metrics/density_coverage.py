"""Density and coverage (Naeem et al. 2020, arXiv:2002.09797, eqs. 3 and 4).

With B_i the ball around real feature i up to its k-th nearest real neighbour, N real features and
M generated ones: density = (sum over j, i of 1[fake_j in B_i]) / (k M), and coverage is the share
of balls with a generated feature inside. Unlike recall, neither uses balls around generated ones.
"""

import torch
from torch import Tensor

from crgan_cli.evaluation.metrics.base import Metric, require_counts
from crgan_cli.evaluation.metrics.features import FeatureSet
from crgan_cli.evaluation.metrics.neighbours import KNNManifold

NEIGHBOURS = 5  # the paper's k: coverage of two samples of one distribution is then 0.97


class DensityCoverage(Metric):
    """`density` and `coverage`: how many generated features are in the real k-nearest-neighbour
    balls, and how many balls have any, Naeem et al. 2020 (arXiv:2002.09797) section 3."""

    name, key = "density_coverage", "density"
    required = frozenset({"pool"})

    def require(self, real: int, fake: int, dims: int) -> None:
        why = f"density and coverage need {NEIGHBOURS} others each"
        require_counts(self.name, real, fake, least=NEIGHBOURS + 1, why=why)

    def describe(self) -> dict[str, str | int | float]:
        return {"density_coverage_neighbours": NEIGHBOURS}

    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        return density_coverage(real.require_pool(), fake.require_pool())


def density_coverage(real: Tensor, fake: Tensor, k: int = NEIGHBOURS) -> dict[str, float]:
    """Return both for (N, dims) and (M, dims) features, N above k.

    Density is about 1 for a perfect generator and may be larger; coverage is in [0, 1].
    The balls are closed, as for precision; the authors' code has open ones. This matters if
    images repeat: a set with k + 1 copies of each image would not cover itself.
    """
    balls = KNNManifold(real, k)
    inside = torch.zeros_like(balls.squared_radii)  # generated features in each ball; exact
    for block in balls.contain(fake):
        inside += block.sum(0)
    return {
        "density": float(inside.sum()) / (k * len(fake)),
        "coverage": float((inside > 0).double().mean()),
    }
