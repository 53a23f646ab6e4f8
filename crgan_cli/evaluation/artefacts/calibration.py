"""The share of augmented images, counted by imperfect detectors and corrected for their errors.

Rogan & Gladen 1978, "Estimating prevalence from the results of a screening test". The interval
follows Lang & Reiczigel 2014, "Confidence limits for prevalence of disease adjusted for estimated
sensitivity and specificity".
"""

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from crgan_cli.evaluation.artefacts.detector import Detector
from crgan_cli.evaluation.artefacts.estimates import Z95
from crgan_cli.evaluation.metrics.small_network import compute_outputs

TOLERANCE = 0.005  # of tpr - fpr


class ErrorRates(NamedTuple):
    """How often a detector calls images augmented; from n images with T and n without."""

    tpr: float  # share of T(real) above the threshold
    fpr: float  # share of real images above it
    n: int


class CorrectedShare(NamedTuple):
    """An estimated share of augmented images, with its 95 % interval within [0, 1]."""

    raw: float  # as estimated: chance can take it below 0 or above 1
    low: float
    high: float
    n: int  # images

    @property
    def clipped(self) -> float:
        """`raw`, within [0, 1]."""
        return min(max(self.raw, 0.0), 1.0)

    def as_json(self) -> dict[str, float | int]:
        """Plain numbers."""
        return {"share": self.clipped, **self._asdict()}


def estimate_share(positives: int, n: int, rates: ErrorRates) -> CorrectedShare:
    """(p - fpr) / (tpr - fpr), p = positives / n (Rogan & Gladen 1978). Needs tpr > fpr.

    The interval is analytic: the delta method with the errors of p, tpr and fpr, around rates that
    are moved towards 1/2 as in Lang & Reiczigel 2014, so that its width is not 0 if a rate is 0 or
    1. Their further shift, here below a tenth of the width, is left out. The interval does not
    cover another detector, or another training of the generator.
    """
    raw = (positives / n - rates.fpr) / (rates.tpr - rates.fpr)
    p = (positives + Z95**2 / 2) / (n + Z95**2)
    known = rates.n + 2
    tpr, fpr = ((rate * rates.n + 1) / known for rate in (rates.tpr, rates.fpr))
    # within [0, 1], so that there is an interval also if p < fpr
    middle = min(max((p - fpr) / (tpr - fpr), 0.0), 1.0)
    variance = (
        p * (1 - p) / (n + Z95**2)
        + (1 - middle) ** 2 * fpr * (1 - fpr) / known
        + middle**2 * tpr * (1 - tpr) / known
    )
    half = Z95 * sqrt(variance) / (tpr - fpr)
    return CorrectedShare(raw, max(middle - half, 0.0), min(middle + half, 1.0), n)


def choose_threshold(real: Tensor, augmented: Tensor) -> float:
    """The middle of the thresholds whose tpr - fpr is the largest, to within `TOLERANCE`.

    The single best threshold depends on one or two unusual images, and lies at an end of the gap
    between the classes. Generated images often fall into that gap.
    """
    cuts = torch.cat([real, augmented]).double().sort().values
    cuts = (cuts[1:] + cuts[:-1]) / 2
    gain = rate_above(augmented, cuts) - rate_above(real, cuts)
    good = cuts[gain >= gain.max() - TOLERANCE]
    return float((good[0] + good[-1]) / 2)


def rate_above(scores: Tensor, cuts: Tensor) -> Tensor:
    """The share of `scores` above each of `cuts`, in the shape of `cuts`."""
    at_most = torch.searchsorted(scores.double().sort().values, cuts, right=True)
    return 1 - at_most.double() / len(scores)


class CalibratedDetector(NamedTuple):
    """Detectors whose mean logit is a score, with a threshold and its error rates."""

    detectors: tuple[Detector, ...]
    threshold: float
    rates: ErrorRates

    def score(self, images: Tensor) -> Tensor:
        """(N,) mean logits of (N, C, H, W) uint8, or float in [-1, 1]."""
        return torch.stack([compute_outputs(each, images) for each in self.detectors]).mean(0)

    def measure_share(self, images: Tensor) -> CorrectedShare:
        """The share of `images` that look augmented."""
        positives = int((self.score(images) > self.threshold).sum())
        return estimate_share(positives, len(images), self.rates)


def calibrate(detectors: Sequence[Detector], real: Tensor, augmented: Tensor) -> CalibratedDetector:
    """Choose the threshold, and measure its error rates, on equally many images of each class."""
    uncalibrated = CalibratedDetector(tuple(detectors), 0.0, ErrorRates(1.0, 0.0, len(real)))
    without, with_T = uncalibrated.score(real), uncalibrated.score(augmented)
    threshold = choose_threshold(without, with_T)
    tpr, fpr = (float((scores > threshold).double().mean()) for scores in (with_T, without))
    return uncalibrated._replace(threshold=threshold, rates=ErrorRates(tpr, fpr, len(real)))
