"""Means with standard errors, shares with intervals, and the draws that they come from."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from crgan_cli.data.images import Images
from crgan_cli.errors import UserError

Z95 = 1.959964
"""The normal quantile of two-sided 95 %."""


class Estimate(NamedTuple):
    """A mean over images, or over pairs of them, and its standard error."""

    mean: float
    se: float

    def scaled(self, factor: float) -> "Estimate":
        """The estimate of `factor` times the quantity, `factor` known."""
        return Estimate(self.mean * factor, self.se * abs(factor))


class Curve(NamedTuple):
    """Estimates over a growing setting."""

    at: tuple[float, ...]
    estimates: tuple[Estimate, ...]

    def scaled(self, factor: float) -> "Curve":
        """The same curve in another unit."""
        return Curve(self.at, tuple(each.scaled(factor) for each in self.estimates))

    @property
    def means(self) -> list[float]:
        return [each.mean for each in self.estimates]

    @property
    def ses(self) -> list[float]:
        return [each.se for each in self.estimates]


def estimate(values: Tensor) -> Estimate:
    """The mean of independent values, (N,), N >= 2, with s / sqrt(N)."""
    values = values.double()
    return Estimate(float(values.mean()), float(values.std() / len(values) ** 0.5))


def ratio(a: Estimate, b: Estimate) -> Estimate:
    """a / b of independent estimates, to first order in their errors; b is not 0."""
    quotient = a.mean / b.mean
    return Estimate(quotient, float(np.hypot(a.se, quotient * b.se) / abs(b.mean)))


def wilson(share: float, n: float) -> tuple[float, float]:
    """The 95 % score interval of a share of n (Wilson 1927); within [0, 1], also at 0 and 1."""
    middle = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * (share * (1 - share) / n + (Z95 / (2 * n)) ** 2) ** 0.5
    return max(middle - half, 0.0), min(middle + half, 1.0)


def stream(seed: int, purpose: str) -> torch.Generator:
    """A CPU generator of its own for every purpose, so that no two kinds of draw share numbers."""
    mixed = np.random.SeedSequence([seed, *purpose.encode()]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed[0]) >> 1)


def draw_indices(images: Images, n: int, seed: int, split: str) -> Images:
    """n of the images, at random without repetition. Raises UserError where there are fewer."""
    if n > len(images.x):
        raise UserError(
            f"{n} images are to be measured, and the {split} split has {len(images.x)}: give at "
            f"most --n {len(images.x)}."
        )
    chosen = torch.randperm(len(images.x), generator=stream(seed, split))[:n]
    return Images(images.x[chosen], images.y[chosen])


def require_count(n: int, batch_size: int, least: int = 2) -> None:
    """Raises UserError where a standard error cannot be had, or a batch holds nothing."""
    if n < least:
        raise UserError(
            f"{n} images are too few to measure a mean and its error: ask for at least {least}, "
            "and for some hundreds to see anything in it."
        )
    if batch_size < 1:
        raise UserError(f"A batch of {batch_size} images holds none: give a size of at least 1.")


def require_sigmas(sigmas: Sequence[float]) -> None:
    """Raises UserError unless these are standard deviations of a noise."""
    if not sigmas:
        raise UserError("No sigma was given: name at least one, such as 0.03.")
    for sigma in sigmas:
        if not 0 <= sigma < float("inf"):  # NaN fails the comparison as well
            raise UserError(
                f"sigma = {sigma} is not the standard deviation of a noise on z: give numbers of "
                "at least 0, such as 0.01, 0.03, 0.1."
            )
