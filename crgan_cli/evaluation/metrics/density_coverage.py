"""Density and coverage (Naeem et al. 2020, arXiv:2002.09797, eqs. 3 and 4).

With B_i the ball around real feature i up to its k-th nearest real neighbour, N real features and
M generated ones: density = (sum over j, i of 1[fake_j in B_i]) / (k M), and coverage the share of
the balls that hold a generated feature. Unlike recall, neither trusts balls around generated ones.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from crgan_cli.evaluation.metrics.neighbours import KNNManifold

NEIGHBOURS = 5  # the paper's k: coverage of two samples of one distribution is then 0.97


class DensityCoverage(NamedTuple):
    """Density is about 1 for a perfect generator and may be larger; coverage is in [0, 1]."""

    density: float
    coverage: float


def density_coverage(real: Tensor, fake: Tensor, k: int = NEIGHBOURS) -> DensityCoverage:
    """Of (N, dims) and (M, dims) features, N above k.

    The balls are closed, as precision's are; the authors' code has open ones. That differs where
    images repeat: a set that holds each image k + 1 times would not cover itself.
    """
    balls = KNNManifold(real, k)
    held = torch.zeros_like(balls.squared_radii)  # generated features in each ball; exact
    for inside in balls.contain(fake):
        held += inside.sum(0)
    return DensityCoverage(float(held.sum()) / (k * len(fake)), float((held > 0).double().mean()))
