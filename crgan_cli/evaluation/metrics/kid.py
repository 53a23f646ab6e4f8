"""The kernel distance (Binkowski et al. 2018, arXiv:1801.01401): an unbiased squared MMD.

torch-fidelity's subsets (same generator, so the same numbers), but in float64 and on the device
of the features: its float32 sums lose digits, as the result is a small difference of large terms.
No pair is computed twice.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from crgan_cli.errors import UserError
from crgan_cli.evaluation.metrics.base import Metric, require_counts
from crgan_cli.evaluation.metrics.features import FeatureSet
from crgan_cli.evaluation.metrics.statistics import column_blocks, float64

SUBSETS = 100  # Binkowski et al. and torch-fidelity
SUBSET_SIZE = 1000  # likewise
SEED = 2020  # torch-fidelity's default


class KID(Metric):
    """`kid`: unbiased squared MMD with the kernel (x . y / dims + 1)^3, and `kid_std` over its
    subsets if there are several, Binkowski et al. 2018 (arXiv:1801.01401) section 4."""

    name = key = "kid"
    required = frozenset({"pool"})

    def __init__(self, subsets: int = SUBSETS, subset_size: int | None = None) -> None:
        if subset_size == 1:
            raise UserError(
                "metrics.kid_subset_size=1 has no pairs of images: give 2 or more, or null for the "
                f"paper's {SUBSET_SIZE}."
            )
        self.subsets = subsets
        self.subset_size = subset_size

    def require(self, real: int, fake: int, dims: int) -> None:
        require_counts(self.name, real, fake, least=2, why="the kernel distance needs 2, a pair")
        n = min(real, fake)
        if self.subset_size is not None and self.subset_size > n:
            raise UserError(
                f"metrics.kid_subset_size={self.subset_size} images are more than there are "
                f"({real} real, {fake} generated): give at most metrics.kid_subset_size={n}, or "
                f"null for the smaller of {SUBSET_SIZE} and all."
            )

    def describe(self) -> dict[str, str | int | float]:
        default = f"min({SUBSET_SIZE}, images)"
        return {"kid_subsets": self.subsets, "kid_subset_size": self.subset_size or default}

    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        mean, deviation = kernel_distance(
            fake.require_pool(), real.require_pool(), subsets=self.subsets, size=self.subset_size
        )
        return {"kid": mean} if deviation is None else {"kid": mean, "kid_std": deviation}


class KIDValue(NamedTuple):
    """The mean over the subsets, and their spread."""

    mean: float
    deviation: float | None  # standard deviation over the subsets (ddof 0); None for one subset


def kernel_distance(
    fake: Tensor, real: Tensor, *, subsets: int = SUBSETS, size: int | None = None
) -> KIDValue:
    """Compute `squared_mmd` over random subsets of (N, dims) and (M, dims) features, on one device.

    Without `size`, a subset has the paper's 1000 samples, or all of a smaller set. If that is all
    of both sets, every subset would be the same, so it is computed once. The order of the sets
    decides the subsets: torch-fidelity gives the same numbers with the generated images as its
    first input.
    """
    m = min(SUBSET_SIZE, len(fake), len(real)) if size is None else size
    if m == len(fake) == len(real):
        return KIDValue(float(squared_mmd(float64(fake), float64(real))), None)
    random = np.random.RandomState(SEED)
    drawn = [
        [random.choice(len(s), m, replace=False) for s in (fake, real)] for _ in range(subsets)
    ]
    if (len(fake) + len(real)) ** 2 <= subsets * (2 * m) ** 2:
        # subsets share pairs: each pair of the whole sets once is less work
        x, y = float64(fake), float64(real)
        members = (mark_members(x, [i for i, _ in drawn]), mark_members(y, [j for _, j in drawn]))
        values = squared_mmd(x, y, *members).tolist()
    else:
        values = [float(squared_mmd(pick(fake, i), pick(real, j))) for i, j in drawn]
    return KIDValue(float(np.mean(values)), float(np.std(values)) if subsets > 1 else None)


def pick(features: Tensor, rows: np.ndarray) -> Tensor:
    """Return some rows of (N, dims) features, in float64."""
    return float64(features[torch.from_numpy(rows).to(features.device)])


def mark_members(features: Tensor, subsets: Sequence[np.ndarray]) -> Tensor:
    """Return (N, subsets) float64: 1 where a row of the features is in a subset of indices."""
    members = features.new_zeros(len(features), len(subsets))
    for number, rows in enumerate(subsets):
        members[torch.from_numpy(rows).to(features.device), number] = 1
    return members


def squared_mmd(
    x: Tensor, y: Tensor, in_x: Tensor | None = None, in_y: Tensor | None = None
) -> Tensor:
    """Return E k(x, x') + E k(y, y') - 2 E k(x, y) over distinct pairs of (N, dims) rows, (1,).

    `in_x` and `in_y` are `mark_members` of S subsets of equal size: then of each subset, (S,). May
    be negative.
    """
    u = x.new_ones(len(x), 1) if in_x is None else in_x
    v = y.new_ones(len(y), 1) if in_y is None else in_y
    m = int(u[:, 0].sum())
    within = sum_within(x, u) + sum_within(y, v)
    return 2 * within / (m * (m - 1)) - 2 * sum_across(x, y, u, v) / m**2


def sum_within(x: Tensor, members: Tensor) -> Tensor:
    """Return the sum of `kernel` over pairs of two rows, each pair once, of each subset, (S,)."""
    total = members.new_zeros(members.shape[1])
    for block in column_blocks(len(x)):
        below = kernel(x[block.start :], x[block]).tril(-1)
        total += (members[block.start :] * (below @ members[block])).sum(0)
    return total


def sum_across(x: Tensor, y: Tensor, in_x: Tensor, in_y: Tensor) -> Tensor:
    """Return the sum of `kernel` over pairs of a row of x and one of y, of each subset, (S,)."""
    total = in_x.new_zeros(in_x.shape[1])
    for block in column_blocks(len(x)):
        total += (in_x[block] * (kernel(x[block], y) @ in_y)).sum(0)
    return total


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """Return (x . y / dims + 1)^3 of every pair."""
    return (x @ y.T / x.shape[1] + 1) ** 3
