"""The Frechet distance for infinitely many generated images.

Chong and Forsyth 2020 (arXiv:1911.07023), section 3: up to terms of higher order, the distance of
N samples is a line in 1/N, so the intercept of a regression on 1/N is free of that bias. The
bias of the number of real images stays.
"""

import numpy as np
import torch
from torch import Tensor

from crgan_cli.evaluation.metrics.base import Metric, require_counts, too_few
from crgan_cli.evaluation.metrics.features import FeatureSet
from crgan_cli.evaluation.metrics.frechet import CachedFactor, frechet_distance
from crgan_cli.evaluation.metrics.statistics import Moments

POINTS = 15  # sample counts on the line [code: mchong6/FID_IS_infinity score_infinity.py]
LEAST = 5000  # samples in the smallest subset of the paper's 50,000 [code: likewise]
SEED = 0  # of the choice of the subsets
BLOCK = 5000  # rows in float64 at once


class FrechetInfinity(Metric):
    """`fd_infinity`: the Frechet distance for infinitely many fakes, by regression on 1 / their
    number, Chong and Forsyth 2020 (arXiv:1911.07023) section 3."""

    name, key = "fid_infinity", "fd_infinity"
    required = frozenset({"pool"})

    def __init__(self) -> None:
        self._factor = CachedFactor()

    def require(self, real: int, fake: int, dims: int) -> None:
        require_counts(self.name, real, fake, least=2, why="a covariance needs 2")
        # full rank in every subset, and as many different sizes as points on the line
        least = max(2 * (dims + 1), 2 * POINTS)
        if fake < least:
            raise too_few(
                f"{fake} generated images are too few for the fid_infinity of "
                "metrics.measures: half of them, its smallest subset, must be more than the "
                f"{dims} features of the extractor",
                least,
                self.name,
            )

    def describe(self) -> dict[str, str | int | float]:
        return {
            "fd_infinity_points": POINTS,
            "fd_infinity_smallest": f"min(max({LEAST}, features + 1), images // 2)",
            "fd_infinity_seed": SEED,
        }

    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        factor = self._factor.get(real.moments)
        return {"fd_infinity": frechet_infinity(real.moments, fake.require_pool(), factor)}


def frechet_infinity(real: Moments, fake: Tensor, factor: Tensor | None = None) -> float:
    """Return the intercept of the distances of random subsets of (N, dims) features on 1 / size.

    `factor` is the one of `real`'s covariance, if known. The smallest subset needs more rows than
    dimensions: without full rank the distance does not follow the line.
    """
    generator = torch.Generator().manual_seed(SEED)  # torch's own stays untouched
    sizes = subset_sizes(*fake.shape)
    distances = []
    for size in sizes:
        rows = torch.randperm(len(fake), generator=generator)[:size].to(fake.device)
        distances.append(frechet_distance(real, compute_moments(fake, rows), factor))
    return intercept(sizes, distances)


def subset_sizes(n: int, dims: int) -> list[int]:
    """Return 15 equally spaced sizes, from the paper's 5,000 (half of n if n < 10,000) up to n.

    Half, and not a tenth as 5,000 of 50,000 would suggest: on Gaussians of known distance with
    N = 5 dims, the intercept from N/10 on is wrong by as much as half of the bias that it should
    remove, the one from N/2 on by a twentieth.
    """
    smallest = min(max(LEAST, dims + 1), n // 2)
    return [int(size) for size in np.linspace(smallest, n, POINTS)]


def compute_moments(features: Tensor, rows: Tensor) -> Moments:
    """Compute the moments of the features at the indices `rows`, block by block."""
    moments = Moments(features.shape[1])
    for block in rows.split(BLOCK):
        moments.update(features[block])
    return moments


def intercept(sizes: list[int], distances: list[float]) -> float:
    """Return the value at 1/N = 0 of the least-squares line through (1 / size, distance)."""
    x, y = 1 / np.asarray(sizes, dtype=np.float64), np.asarray(distances)
    slope = (x - x.mean()) @ (y - y.mean()) / np.square(x - x.mean()).sum()
    return float(y.mean() - slope * x.mean())
