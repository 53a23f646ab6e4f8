"""Balls around features, each up to its k-th nearest neighbour in its own set.

What precision and recall, density and coverage are made of. Distances are squared, in float64 and
a block of rows at a time: memory is the two sets in float64 and some arrays of (BLOCK, N), with
N = 10,000 Inception features 330 MB and 41 MB each; never (N, N).
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from crgan_cli.evaluation.metrics.statistics import float64

BLOCK = 512  # rows whose distances to all others are held at once

# |x|^2 + |y|^2 - 2 xy of centred float64 rows is off by about 1e-15 of |x|^2: a point on the edge
# of a ball, as its own k-th neighbour is, counts as inside whatever the rounding
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
        """For each block of the (M, dims) points: (block, N) bool, whether a ball holds a point."""
        reach = self.squared_radii + self._edge
        for d in self._distances(float64(points) - self._mean):
            yield d <= reach

    def _distances(self, points: Tensor) -> Iterator[Tensor]:
        """(block, N) squared distances of centred points to the centres."""
        norms = self._centres.square().sum(1)
        for block in points.split(BLOCK):
            gram = torch.addmm(norms, block, self._centres.T, alpha=-2)
            yield gram.add_(block.square().sum(1, keepdim=True)).clamp_(min=0)


def coverage(balls: KNNManifold, points: Tensor) -> float:
    """Share of the (M, dims) points that lie in some ball."""
    inside = sum(held.any(1).sum() for held in balls.contain(points))
    return float(inside) / len(points)
