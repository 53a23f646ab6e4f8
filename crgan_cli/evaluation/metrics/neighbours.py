"""Balls around features, each up to its k-th nearest neighbour in its own set.

The basis of precision, recall, density and coverage. Distances are squared, in float64, and
computed for a block of rows at a time: memory is the two sets in float64 and some arrays of
(BLOCK, N), for N = 10,000 Inception features 330 MB and 41 MB each; never (N, N).
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from crgan_cli.evaluation.metrics.statistics import float64

BLOCK = 512  # rows whose distances to all others are in memory at once

# |x|^2 + |y|^2 - 2 xy of centred float64 rows has an error of about 1e-15 |x|^2. A point on the
# edge of a ball, like the k-th neighbour itself, must count as inside whatever the rounding
EDGE = 1e-12


class KNNManifold:
    """Closed balls around the (N, dims) `features`, up to the k-th nearest other one; N > k."""

    def __init__(self, features: Tensor, k: int) -> None:
        assert len(features) > k, f"{len(features)} points have no {k} neighbours each"
        rows = float64(features)
        self._mean = rows.mean(0)
        self._centres = rows - self._mean
        self._edge = EDGE * self._centres.square().sum(1).mean()
        # k + 1: the nearest of all is the point itself
        self.squared_radii = torch.cat(
            [d.kthvalue(k + 1, dim=1).values for d in self._distances(self._centres)]
        )

    def __len__(self) -> int:
        return len(self._centres)

    def contain(self, points: Tensor) -> Iterator[Tensor]:
        """Yield per block of the (M, dims) points: (block, N) bool, whether a ball has a point."""
        reach = self.squared_radii + self._edge
        for d in self._distances(float64(points) - self._mean):
            yield d <= reach

    def _distances(self, points: Tensor) -> Iterator[Tensor]:
        """Yield (block, N) squared distances of centred points to the centres."""
        norms = self._centres.square().sum(1)
        for block in points.split(BLOCK):
            gram = torch.addmm(norms, block, self._centres.T, alpha=-2)
            yield gram.add_(block.square().sum(1, keepdim=True)).clamp_(min=0)


def share_inside(balls: KNNManifold, points: Tensor) -> float:
    """Return the share of the (M, dims) points that lie in some ball."""
    inside = sum(block.any(1).sum() for block in balls.contain(points))
    return float(inside) / len(points)
