"""Precision and recall (Kynkaanniemi et al. 2019, arXiv:1904.06991, eqs. 1-3).

A set's manifold is the union of balls around its features up to the k-th nearest neighbour.
Precision is the share of generated images on the real manifold (how good they are), recall that
of real images on the generated manifold (how much of the data is reached).
"""

from typing import NamedTuple

from torch import Tensor

from crgan_cli.evaluation.metrics.neighbours import KNNManifold, coverage

NEIGHBOURS = 3  # the paper's k (section 2), and torch-fidelity's


class PrecisionRecall(NamedTuple):
    """Both in [0, 1]."""

    precision: float
    recall: float


def precision_recall(real: Tensor, fake: Tensor, k: int = NEIGHBOURS) -> PrecisionRecall:
    """Of (N, dims) and (M, dims) features; N and M above k. Both depend on N, M and k."""
    return PrecisionRecall(
        coverage(KNNManifold(real, k), fake), coverage(KNNManifold(fake, k), real)
    )
