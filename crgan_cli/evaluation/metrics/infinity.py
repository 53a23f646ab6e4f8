"""The Frechet distance for infinitely many generated images.

Chong and Forsyth 2020 (arXiv:1911.07023), section 3: the distance of N samples is, but for terms
of higher order, a line in 1/N, so the intercept of a regression on 1/N is free of that bias. The
bias of the real side's own number of images stays.
"""

import numpy as np
import torch
from torch import Tensor

from crgan_cli.evaluation.metrics.frechet import frechet_distance
from crgan_cli.evaluation.metrics.statistics import Moments

POINTS = 15  # sample counts on the line [code: mchong6/FID_IS_infinity score_infinity.py]
LEAST = 5000  # samples in the smallest subset of the paper's 50,000 [code: likewise]
SEED = 0  # of the choice of the subsets
BLOCK = 5000  # rows in float64 at once


def frechet_infinity(real: Moments, fake: Tensor, root: Tensor | None = None) -> float:
    """Intercept of the distances of random subsets of (N, dims) features on 1 / their size.

    `root` is that of `real`, where known. Needs more rows in the smallest subset than dimensions:
    without full rank the distance does not follow the line.
    """
    generator = torch.Generator().manual_seed(SEED)  # leaves torch's own untouched
    sizes = subset_sizes(*fake.shape)
    distances = []
    for size in sizes:
        rows = torch.randperm(len(fake), generator=generator)[:size].to(fake.device)
        distances.append(frechet_distance(real, compute_moments(fake, rows), root))
    return intercept(sizes, distances)


def subset_sizes(n: int, dims: int) -> list[int]:
    """15 sizes of n, equally spaced from the paper's 5,000, or half of fewer than 10,000, up to n.

    Half and not, as 5,000 of 50,000 would suggest, a tenth: on Gaussians of known distance with
    N = 5 dims the intercept from N/10 on is off by as much as half of the bias it is to remove,
    that from N/2 on by a twentieth.
    """
    smallest = min(max(LEAST, dims + 1), n // 2)
    return [int(size) for size in np.linspace(smallest, n, POINTS)]


def compute_moments(features: Tensor, rows: Tensor) -> Moments:
    """Moments of the features at the indices `rows`, a block at a time."""
    moments = Moments(features.shape[1])
    for block in rows.split(BLOCK):
        moments.update(features[block])
    return moments


def intercept(sizes: list[int], distances: list[float]) -> float:
    """The value at 1/N = 0 of the least-squares line through (1 / size, distance)."""
    x, y = 1 / np.asarray(sizes, dtype=np.float64), np.asarray(distances)
    slope = (x - x.mean()) @ (y - y.mean()) / np.square(x - x.mean()).sum()
    return float(y.mean() - slope * x.mean())
