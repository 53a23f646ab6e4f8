"""The kernel distance (Binkowski et al. 2018, arXiv:1801.01401): an unbiased squared MMD.

torch-fidelity's subsets (same generator, so the same numbers), but in float64 and on the device
of the features: its float32 sums lose digits of what is a small difference of large terms.
"""

import numpy as np
import torch
from torch import Tensor

from crgan_cli.metrics.statistics import float64

SUBSETS = 100  # Binkowski et al. and torch-fidelity
SUBSET_SIZE = 1000  # likewise
SEED = 2020  # torch-fidelity's default


def subset_size(num_samples: int) -> int:
    """Samples in a subset: the paper's 1000, or all of a smaller set."""
    return min(SUBSET_SIZE, num_samples)


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """Mean of `squared_mmd` over random subsets of (N, dims) and (M, dims) features, one device.

    100 subsets of 1000. Where both sets have at most 1000 rows, every subset would be everything,
    so it is computed once.
    """
    size = subset_size(min(len(a), len(b)))
    if size == len(a) == len(b):
        return float(squared_mmd(float64(a), float64(b)))
    random = np.random.RandomState(SEED)
    total = 0.0
    for _ in range(SUBSETS):
        x, y = (
            float64(s[torch.from_numpy(random.choice(len(s), size, replace=False)).to(s.device)])
            for s in (a, b)
        )
        total += float(squared_mmd(x, y))
    return total / SUBSETS


def squared_mmd(x: Tensor, y: Tensor) -> Tensor:
    """E k(x, x') + E k(y, y') - 2 E k(x, y) over distinct pairs of (m, dims) rows. May be < 0."""
    m = len(x)
    within = sum(kernel(s, s).sum() - kernel_diagonal(s).sum() for s in (x, y))
    return within / (m * (m - 1)) - 2 * kernel(x, y).mean()


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """(x . y / dims + 1)^3 of every pair."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def kernel_diagonal(x: Tensor) -> Tensor:
    """`kernel(x, x)` of each row with itself, (m,)."""
    return (x.square().sum(1) / x.shape[1] + 1) ** 3
