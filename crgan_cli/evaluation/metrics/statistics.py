"""Streaming mean and covariance in float64.

Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample
variances": two summaries are merged without a difference of large sums.
"""

import torch
from torch import Tensor


def float64(x: Tensor) -> Tensor:
    """Return `x` in float64, on its device, or on the CPU if that has no float64 (MPS)."""
    return (x.cpu() if x.device.type == "mps" else x).double()


class Moments:
    """Count, mean (dims,) and unbiased covariance (dims, dims) of rows, without storing the rows.

    Lives on the device of the first batch.
    """

    count: int
    mean: Tensor

    def __init__(self, dims: int) -> None:
        self.count = 0
        self.mean = torch.zeros(dims, dtype=torch.float64)
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
        moments._scatter = covariance * (count - 1)
        return moments

    @property
    def covariance(self) -> Tensor:
        """(dims, dims), divided by count - 1; needs two rows."""
        assert self.count > 1, "a covariance needs at least two samples"
        return self._scatter / (self.count - 1)

    def update(self, features: Tensor) -> None:
        """Add (N, dims) features: S <- S + S_batch + d d^T n m / (n + m).

        d is the difference of the means, n and m are the counts.
        """
        rows = float64(features)
        self.to(rows.device)
        total = self.count + len(rows)
        centre = rows.mean(0)
        rows = rows - centre
        difference = centre - self.mean
        self._scatter += rows.T @ rows
        self._scatter += torch.outer(difference, difference) * (self.count * len(rows) / total)
        self.mean = self.mean + difference * (len(rows) / total)
        self.count = total

    def to(self, device: torch.device | str) -> "Moments":
        """Move to `device`, in place."""
        self.mean, self._scatter = self.mean.to(device), self._scatter.to(device)
        return self
