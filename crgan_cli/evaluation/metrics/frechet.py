"""The Frechet distance between two Gaussians (Heusel et al. 2017, arXiv:1706.08500, eq. 6).

With A = L L^T, the eigenvalues of AB are those of the symmetric L^T B L and as many zeros as L
lacks columns, so one factorisation and one symmetric eigenvalue problem replace the square root of
a matrix; and where samples are fewer than dimensions, they are L.
"""

import torch
from torch import Tensor

from crgan_cli.evaluation.metrics.statistics import Moments, float64


def frechet_distance(a: Moments, b: Moments, root: Tensor | None = None) -> float:
    """|mean_a - mean_b|^2 + tr(A + B - 2 (AB)^(1/2)), in float64; `root` is A's, where known.

    Also right where a covariance has not full rank (fewer samples than dimensions), but the
    distance of so small samples is biased upwards: compare at equal counts.
    """
    first, second = a.covariance, b.covariance.to(a.mean.device)
    L = covariance_factor(first) if root is None else root
    gap = a.mean - b.mean.to(a.mean.device)
    traces = first.trace() + second.trace() - 2 * trace_sqrt_product(L, second)
    return float(gap @ gap + traces)


def trace_sqrt_product(L: Tensor, second: Tensor) -> Tensor:
    """tr((L L^T B)^(1/2)) of a (dims, any) root and a (dims, dims) covariance, both float64."""
    # float32 here moves an FID by 0.3: small eigenvalues drown, and their roots are not small
    assert L.dtype == second.dtype == torch.float64
    product = L.T @ second @ L
    return torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()


def covariance_factor(matrix: Tensor) -> Tensor:
    """L with L L^T = `matrix`: Cholesky, or from the eigenvectors where the rank is not full."""
    L, failed = torch.linalg.cholesky_ex(matrix)
    if not failed:
        return L
    try:
        values, vectors = torch.linalg.eigh(matrix)
    except RuntimeError:  # LinAlgError: seen where a few samples leave almost all eigenvalues at 0
        _, singular, rows = torch.linalg.svd(matrix)
        values, vectors = singular, rows.T
    return vectors * values.clamp(min=0).sqrt()


def covariance_factor_thin(features: Tensor) -> Tensor:
    """L with L L^T = the covariance of (N, dims) features: they themselves, centred, as columns.

    (dims, N), so cheaper than `covariance_factor` where N < dims, and it needs no rank.
    """
    rows = float64(features)
    return (rows - rows.mean(0)).T / (len(rows) - 1) ** 0.5


class CachedFactor:
    """The root of a covariance, kept for as long as it is asked for the same moments."""

    def __init__(self) -> None:
        self._moments: Moments | None = None
        self._state = (0, torch.device("cpu"))
        self._root = torch.empty(0)

    def get(self, moments: Moments) -> Tensor:
        """`factor(moments.covariance)`; the real images' are the same at every evaluation."""
        state = (moments.count, moments.mean.device)  # moments grow, and move, in place
        if moments is not self._moments or state != self._state:
            self._root = covariance_factor(moments.covariance)
            self._moments, self._state = moments, state
        return self._root
