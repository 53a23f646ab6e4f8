"""The Frechet distance between two Gaussians (Heusel et al. 2017, arXiv:1706.08500, eq. 6).

With A = L L^T, the eigenvalues of AB are those of the symmetric L^T B L, so one Cholesky
factorisation and one symmetric eigenvalue problem replace the square root of a matrix.
"""

import torch
from torch import Tensor

from crgan_cli.metrics.statistics import Moments


def frechet_distance(a: Moments, b: Moments) -> float:
    """|mean_a - mean_b|^2 + tr(A + B - 2 (AB)^(1/2)), in float64.

    Also right where a covariance has not full rank (fewer samples than dimensions), but the
    distance of so small samples is biased upwards: compare at equal counts.
    """
    first, second = a.covariance, b.covariance.to(a.mean.device)
    gap = a.mean - b.mean.to(a.mean.device)
    traces = first.trace() + second.trace() - 2 * trace_of_root(first, second)
    return float(gap @ gap + traces)


def trace_of_root(first: Tensor, second: Tensor) -> Tensor:
    """tr((AB)^(1/2)) of two symmetric positive semi-definite float64 matrices."""
    # float32 here moves an FID by 0.3: small eigenvalues drown, and their roots are not small
    assert first.dtype == second.dtype == torch.float64
    L = factor(first)
    product = L.T @ second @ L
    return torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()


def factor(matrix: Tensor) -> Tensor:
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
