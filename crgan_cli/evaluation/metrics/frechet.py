"""The Frechet distance between two Gaussians (Heusel et al. 2017, arXiv:1706.08500, eq. 6).

With A = L L^T, the eigenvalues of AB are those of the symmetric L^T B L, and zeros if L has fewer
columns than rows. So one factorisation and one symmetric eigenvalue problem replace the square
root of a matrix. With fewer samples than dimensions, the centred samples themselves are L.
"""

import torch
from torch import Tensor

from crgan_cli.evaluation.metrics.base import Metric, require_counts
from crgan_cli.evaluation.metrics.features import FeatureSet
from crgan_cli.evaluation.metrics.statistics import Moments, column_blocks, float64


class FrechetDistance(Metric):
    """`fd`: the distance of the Gaussians with the features' moments, Heusel et al. 2017
    (arXiv:1706.08500) eq. 6."""

    name, key = "fid", "fd"

    def __init__(self) -> None:
        self._factor = CachedFactor()

    def require(self, real: int, fake: int, dims: int) -> None:
        require_counts(self.name, real, fake, least=2, why="a covariance needs 2")

    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        factor = self._factor.get(real.moments)
        return {"fd": frechet_distance(real.moments, fake.moments, factor)}


def frechet_distance(a: Moments, b: Moments, factor: Tensor | None = None) -> float:
    """Return |mean_a - mean_b|^2 + tr(A + B - 2 (AB)^(1/2)), in float64.

    `factor` is `covariance_factor` of A, if known. Also exact without full rank (fewer samples
    than dimensions), but the distance of so few samples is biased upwards: compare at equal counts.
    """
    first, second = a.covariance, b.covariance.to(a.mean.device)
    L = covariance_factor(first, a.count - 1) if factor is None else factor
    difference = a.mean - b.mean.to(a.mean.device)
    traces = first.trace() + second.trace() - 2 * trace_sqrt_product(L, second)
    return float(difference @ difference + traces)


def trace_sqrt_product(L: Tensor, second: Tensor) -> Tensor:
    """Return tr((L L^T B)^(1/2)) of a (dims, any) factor and a (dims, dims) covariance, float64.

    Of L^T B L only the lower triangle is computed; what is zero in a triangular L is left out.
    """
    # float32 here moves an FID by 0.3: small eigenvalues drown, and their roots are not small
    assert L.dtype == second.dtype == torch.float64
    triangular = L.equal(L.tril())
    product = L.new_zeros(L.shape[1], L.shape[1])
    for block in column_blocks(L.shape[1]):
        first = block.start if triangular else 0  # the rows above are zeros
        columns = second[first:, first:] @ L[first:, block]
        product[block.start :, block] = L[first:, block.start :].T @ columns
    return torch.linalg.eigvalsh(product, UPLO="L").clamp(min=0).sqrt().sum()


def covariance_factor(matrix: Tensor, rank: int) -> Tensor:
    """Return L with L L^T = `matrix`: Cholesky, or from eigenvectors if it has not full rank.

    Then it has at most `rank` columns, a bound of the rank: the other eigenvalues are rounding.
    """
    L, failed = torch.linalg.cholesky_ex(matrix)
    if not failed:
        return L
    try:
        values, vectors = torch.linalg.eigh(matrix)
    except RuntimeError:  # LinAlgError: seen if few samples leave almost all eigenvalues at 0
        _, singular, rows = torch.linalg.svd(matrix)
        values, vectors = singular.flip(0), rows.T.flip(1)
    return vectors[:, -rank:] * values[-rank:].clamp(min=0).sqrt()


def covariance_factor_thin(features: Tensor) -> Tensor:
    """Return L with L L^T = the covariance of (N, dims) features: the centred features as columns.

    (dims, N), so cheaper than `covariance_factor` if N < dims. Works for any rank.
    """
    rows = float64(features)
    return (rows - rows.mean(0)).T / (len(rows) - 1) ** 0.5


class CachedFactor:
    """`covariance_factor` of the last moments: the real images' are the same every time."""

    def __init__(self) -> None:
        self._moments: Moments | None = None
        self._state = (0, torch.device("cpu"))
        self._factor = torch.empty(0)

    def get(self, moments: Moments) -> Tensor:
        """Return the factor of `moments.covariance`."""
        state = (moments.count, moments.mean.device)  # moments grow, and move, in place
        if moments is not self._moments or state != self._state:
            self._factor = covariance_factor(moments.covariance, moments.count - 1)
            self._moments, self._state = moments, state
        return self._factor
