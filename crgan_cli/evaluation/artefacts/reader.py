"""A share counted by detectors that err, corrected for their errors.

Rogan & Gladen 1978, "Estimating prevalence from the results of a screening test"; the interval
in the manner of Lang & Reiczigel 2014, "Confidence limits for prevalence of disease adjusted for
estimated sensitivity and specificity".
"""

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from crgan_cli.evaluation.artefacts.detector import Detector, scores_of
from crgan_cli.evaluation.artefacts.estimates import Z95

TOLERANCE = 0.005  # of tpr - fpr


class ErrorRates(NamedTuple):
    """How often a detector is right, from so many images each with and without T."""

    tpr: float  # share of T(real) above the threshold
    fpr: float  # share of real above it
    n: int


class Share(NamedTuple):
    """An estimated share of augmented images, with its 95 % interval within [0, 1]."""

    raw: float  # as estimated: chance can take it below 0 or above 1
    low: float
    high: float
    n: int  # images read

    @property
    def shown(self) -> float:
        """`raw`, within [0, 1]."""
        return min(max(self.raw, 0.0), 1.0)

    def as_json(self) -> dict[str, float | int]:
        """Plain numbers for the record."""
        return {"share": self.shown, **self._asdict()}


def estimate_share(positives: int, n: int, rates: ErrorRates) -> Share:
    """(p - fpr) / (tpr - fpr), p = positives / n (Rogan & Gladen 1978). Needs tpr > fpr.

    The interval is analytic: the delta method, with the errors of p, tpr and fpr in it, around
    rates that are moved towards 1/2 as Lang & Reiczigel 2014 do (their further shift, below a
    tenth of the width here, is left out), so that it does not shrink to nothing where a rate is
    0 or 1. It does not cover another detector or another training of the generator.
    """
    raw = (positives / n - rates.fpr) / (rates.tpr - rates.fpr)
    p = (positives + Z95**2 / 2) / (n + Z95**2)
    known = rates.n + 2
    tpr, fpr = ((rate * rates.n + 1) / known for rate in (rates.tpr, rates.fpr))
    # within [0, 1]: images that are mistaken less often than real ones would else have no interval
    middle = min(max((p - fpr) / (tpr - fpr), 0.0), 1.0)
    variance = (
        p * (1 - p) / (n + Z95**2)
        + (1 - middle) ** 2 * fpr * (1 - fpr) / known
        + middle**2 * tpr * (1 - tpr) / known
    )
    half = Z95 * sqrt(variance) / (tpr - fpr)
    return Share(raw, max(middle - half, 0.0), min(middle + half, 1.0), n)


def threshold(real: Tensor, augmented: Tensor) -> float:
    """The middle of the thresholds whose tpr - fpr is the largest, to within `TOLERANCE`.

    The very best one hangs on the most unusual image or two, and lies at the end of the gap
    between the classes; what is generated often falls into that gap.
    """
    cuts = torch.cat([real, augmented]).double().sort().values
    cuts = (cuts[1:] + cuts[:-1]) / 2
    gain = rate_above(augmented, cuts) - rate_above(real, cuts)
    good = cuts[gain >= gain.max() - TOLERANCE]
    return float((good[0] + good[-1]) / 2)


def rate_above(scores: Tensor, cuts: Tensor) -> Tensor:
    """The share of `scores` above each of `cuts`, as many numbers as cuts."""
    at_most = torch.searchsorted(scores.double().sort().values, cuts, right=True)
    return 1 - at_most.double() / len(scores)


class CalibratedDetector(NamedTuple):
    """Detectors whose mean is a score, with a threshold and what is known of its errors."""

    detectors: tuple[Detector, ...]
    cut: float
    rates: ErrorRates

    def score(self, images: Tensor) -> Tensor:
        """(N,) mean logits of (N, C, H, W) uint8, or float in [-1, 1]."""
        return torch.stack([scores_of(each, images) for each in self.detectors]).mean(0)

    def read(self, images: Tensor) -> Share:
        """The share of `images` that look augmented."""
        return estimate_share(int((self.score(images) > self.cut).sum()), len(images), self.rates)


def calibrate(detectors: Sequence[Detector], real: Tensor, augmented: Tensor) -> CalibratedDetector:
    """A reader whose threshold and errors come from images of either kind, equally many."""
    blank = CalibratedDetector(tuple(detectors), 0.0, ErrorRates(1.0, 0.0, len(real)))
    without, with_T = blank.score(real), blank.score(augmented)
    cut = threshold(without, with_T)
    tpr, fpr = (float((scores > cut).double().mean()) for scores in (with_T, without))
    return blank._replace(cut=cut, rates=ErrorRates(tpr, fpr, len(real)))
