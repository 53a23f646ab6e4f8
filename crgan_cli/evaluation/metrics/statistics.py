"""Streaming mean and covariance in float64.

Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample
variances": two summaries are merged without a difference of large sums.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

WIDTH = 256
"""Columns of a symmetric matrix that are computed at once."""

ROWS = 1024
"""Rows in float64 at once. Bounds the memory, and stays in the cache of many CPUs."""


def float64(x: Tensor) -> Tensor:
    """Return `x` in float64, on its device, or on the CPU if that has no float64 (MPS)."""
    return (x.cpu() if x.device.type == "mps" else x).double()


def column_blocks(count: int) -> Iterator[slice]:
    """Yield 0 .. count in slices of WIDTH."""
    for start in range(0, count, WIDTH):
        yield slice(start, min(start + WIDTH, count))


def add_gram(total: Tensor, rows: Tensor) -> None:
    """Add rows^T rows to the lower triangle of `total`, in place: half of the work of a product.

    What is above the diagonal is undefined afterwards. float64.
    """
    if not len(total):
        return  # no features: BLAS takes no empty matrix
    if total.device.type != "cpu":
        add_gram_in_blocks(total, rows)
        return
    # only here: the import takes a tenth of a second
    from scipy.linalg.blas import dsyrk  # pyright: ignore[reportAttributeAccessIssue]

    assert total.is_contiguous()  # or it would work on a copy
    dsyrk(1.0, rows.numpy().T, 1.0, total.numpy().T, overwrite_c=1)  # Fortran's upper triangle


def add_gram_in_blocks(total: Tensor, rows: Tensor) -> None:
    """Do what `add_gram` does, in PyTorch, which has no symmetric product of its own."""
    for block in column_blocks(rows.shape[1]):
        total[block, : block.stop].addmm_(rows[:, block].T, rows[:, : block.stop])


class Moments:
    """Count, mean (dims,) and unbiased covariance (dims, dims) of rows, without storing the rows.

    Lives on the device of the first batch.
    """

    count: int
    mean: Tensor

    def __init__(self, dims: int) -> None:
        self.count = 0
        self.mean = torch.zeros(dims, dtype=torch.float64)
        # the sum of the products of centred rows; only its lower triangle is used
        self._scatter = torch.zeros(dims, dims, dtype=torch.float64)

    @classmethod
    def from_features(cls, features: Tensor) -> "Moments":
        """Compute the moments of (N, dims) features."""
        moments = cls(features.shape[1])
        moments.update(features)
        return moments

    @classmethod
    def from_covariance(cls, count: int, mean: Tensor, covariance: Tensor) -> "Moments":
        """Restore moments that were saved."""
        moments = cls(len(mean))
        moments.count, moments.mean = count, mean
        moments._scatter = (covariance * (count - 1)).contiguous()
        return moments

    @property
    def covariance(self) -> Tensor:
        """(dims, dims), divided by count - 1; needs two rows."""
        assert self.count > 1, "a covariance needs at least two samples"
        lower = self._scatter.tril()
        return (lower + lower.tril(-1).T) / (self.count - 1)

    def update(self, features: Tensor) -> None:
        """Add (N, dims) features: S <- S + S_batch + d d^T n m / (n + m).

        d is the difference of the means, n and m are the counts.
        """
        on_cpu = features.device.type == "mps"  # which has no float64
        for block in features.split(ROWS):
            self._add(block.cpu() if on_cpu else block)

    def _add(self, features: Tensor) -> None:
        self.to(features.device)
        n, m = self.count, len(features)
        centre = features.mean(0, dtype=torch.float64)
        difference = centre - self.mean
        rows = torch.empty(m + 1, len(centre), dtype=torch.float64, device=centre.device)
        torch.sub(features, centre, out=rows[:m])
        rows[m] = difference * (n * m / (n + m)) ** 0.5  # the last term, as one more row
        add_gram(self._scatter, rows)
        self.mean = self.mean + difference * (m / (n + m))
        self.count = n + m

    def to(self, device: torch.device | str) -> "Moments":
        """Move to `device`, in place."""
        self.mean, self._scatter = self.mean.to(device), self._scatter.to(device)
        return self
