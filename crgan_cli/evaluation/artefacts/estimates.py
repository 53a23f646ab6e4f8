"""Means with standard errors and proportions with intervals."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Z95 = 1.959964
"""The normal quantile of two-sided 95 %."""


class MeanEstimate(NamedTuple):
    """A mean over images or over pairs of images, and its standard error."""

    mean: float
    se: float

    def scaled(self, factor: float) -> "MeanEstimate":
        """The estimate of `factor` times the quantity; `factor` has no error."""
        return MeanEstimate(self.mean * factor, self.se * abs(factor))


class Curve(NamedTuple):
    """Estimates over a growing setting."""

    at: tuple[float, ...]
    estimates: tuple[MeanEstimate, ...]

    def scaled(self, factor: float) -> "Curve":
        """The same curve in another unit."""
        return Curve(self.at, tuple(each.scaled(factor) for each in self.estimates))

    @property
    def means(self) -> list[float]:
        return [each.mean for each in self.estimates]

    @property
    def ses(self) -> list[float]:
        return [each.se for each in self.estimates]


class Proportion(NamedTuple):
    """A share of images with its 95 % interval."""

    value: float
    low: float
    high: float


def estimate(values: Tensor) -> MeanEstimate:
    """The mean of independent values, (N,), N >= 2, with s / sqrt(N)."""
    values = values.double()
    return MeanEstimate(float(values.mean()), float(values.std() / len(values) ** 0.5))


def ratio(a: MeanEstimate, b: MeanEstimate) -> MeanEstimate:
    """a / b of independent estimates, to first order in their errors; b is not 0."""
    quotient = a.mean / b.mean
    return MeanEstimate(quotient, float(np.hypot(a.se, quotient * b.se) / abs(b.mean)))


def auc(low: Tensor, high: Tensor) -> float:
    """P(high > low) + P(high = low) / 2 over all pairs, (N,) and (M,).

    The statistic U / NM of Mann & Whitney 1947: the area under the ROC curve of a detector that
    gives these scores to negatives (`low`) and positives (`high`).
    """
    low = low.sort().values
    below = torch.searchsorted(low, high)
    up_to = torch.searchsorted(low, high, right=True)
    return float((below + up_to).double().mean() / (2 * len(low)))


def wilson(share: float, n: float) -> Proportion:
    """A share of n with its 95 % score interval (Wilson 1927): within [0, 1], also at 0 and 1."""
    middle = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * (share * (1 - share) / n + (Z95 / (2 * n)) ** 2) ** 0.5
    return Proportion(share, max(middle - half, 0.0), min(middle + half, 1.0))


def share_below_quantile(level: float, n: int, m: int) -> Proportion:
    """The expected share of m values below a quantile of n others alike, and its 95 % range.

    If the quantile were the k-th smallest of the n, the count below would be beta-binomial with
    parameters m, k and n + 1 - k, whatever the distribution of the values. torch's quantile
    interpolates, at k = 1 + level (n - 1), and so do we. The mean is k / (n + 1): for 1 %, 1.1 % of
    1,000 values and 3.4 % of 40.
    """
    from scipy.stats import betabinom  # takes a second

    k = 1 + level * (n - 1)
    low, high = (betabinom.ppf([0.025, 0.975], m, k, n + 1 - k) / m).tolist()
    return Proportion(k / (n + 1), low, high)
