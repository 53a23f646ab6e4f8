"""The kernel distance (Binkowski et al. 2018, arXiv:1801.01401): an unbiased squared MMD.

torch-fidelity's subsets (same generator, so the same numbers), but in float64 and on the device
of the features: its float32 sums lose digits of what is a small difference of large terms.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from crgan_cli.evaluation.metrics.statistics import float64

SUBSETS = 100  # Binkowski et al. and torch-fidelity
SUBSET_SIZE = 1000  # likewise
SEED = 2020  # torch-fidelity's default


class KIDValue(NamedTuple):
    """The estimate, and how far its subsets lie apart."""

    mean: float
    deviation: float | None  # over the subsets, divided by their number; None where there is one


def subset_size(num_samples: int) -> int:
    """Samples in a subset: the paper's 1000, or all of a smaller set."""
    return min(SUBSET_SIZE, num_samples)


def kernel_distance(
    fake: Tensor, real: Tensor, *, subsets: int = SUBSETS, size: int | None = None
) -> KIDValue:
    """`squared_mmd` over random subsets of (N, dims) and (M, dims) features, on one device.

    Subsets of `size`, or of `subset_size`. Where that is all of both sets, every subset would be
    everything, so it is computed once. The order of the sets chooses the subsets: torch-fidelity
    gives the same numbers with the generated images as its first input.
    """
    m = subset_size(min(len(fake), len(real))) if size is None else size
    if m == len(fake) == len(real):
        return KIDValue(float(squared_mmd(float64(fake), float64(real))), None)
    random = np.random.RandomState(SEED)
    found = []
    for _ in range(subsets):
        x, y = (
            float64(s[torch.from_numpy(random.choice(len(s), m, replace=False)).to(s.device)])
            for s in (fake, real)
        )
        found.append(float(squared_mmd(x, y)))
    return KIDValue(float(np.mean(found)), float(np.std(found)) if subsets > 1 else None)


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
