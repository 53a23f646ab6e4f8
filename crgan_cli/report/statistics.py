"""Numbers over seeds: their spread, and whether two differ by more than chance.

Welch 1947 (Biometrika 34); Student's t through the regularised incomplete beta function, by the
continued fraction of DLMF 8.17.22, evaluated by Lentz's method (Press et al., Numerical Recipes,
section 6.4). No scipy: a report needs nothing beyond what training needs.
"""

import math
import re
from collections.abc import Sequence
from statistics import fmean, stdev, variance

from crgan_cli.report.model import Comparison, Row, Spread

NOISE = 0.05
"""Differences at least this probable by chance alone are called noise."""

HIGHER_IS_BETTER = ("is", "precision", "recall", "density", "coverage")
"""Numbers that are better when higher; all others are distances."""


def higher_is_better(metric: str) -> bool:
    """Whether a model is better when this number is higher."""
    return metric.split("_")[0] in HIGHER_IS_BETTER


def is_secondary(metric: str) -> bool:
    """Whether a number is of another one: its spread, its floor, one class's part of it."""
    return bool(re.search(r"_(sd|std|single|floor)(_|$)|^class_fi?d_\d+(_|$)", metric))


def mean_and_std(values: Sequence[float]) -> Spread:
    """At least one value: mean, and sample standard deviation where there are two or more."""
    deviation = stdev(values) if len(values) > 1 else None
    return Spread(tuple(values), fmean(values), deviation)


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised I_x(a, b), for a, b > 0 and x in [0, 1]."""
    if x in (0.0, 1.0):
        return x
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on the other side only
        return 1.0 - incomplete_beta(b, a, 1.0 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    log_front += a * math.log(x) + b * math.log1p(-x)
    tiny = 1e-300  # Lentz: keeps a vanishing denominator from being divided by
    c, d, total = 1.0, 0.0, 1.0
    for i in range(1000):
        m = i // 2
        if i == 0:
            term = 1.0
        elif i % 2 == 0:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1.0 / ((1.0 + term * d) or tiny)
        c = (1.0 + term / c) or tiny
        total *= c * d
        if i and abs(c * d - 1.0) < 1e-15:
            break
    return math.exp(log_front) * (total - 1.0) / a


def two_sided_p(t: float, freedom: float) -> float:
    """P(|T| >= |t|) of Student's t with `freedom` > 0 degrees of freedom."""
    if math.isinf(t):
        return 0.0
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def welch_test(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Two-sided p-value that both have one mean, variances not being equal; None below two values.

    Values that never vary differ surely, or not at all.
    """
    if min(len(a), len(b)) < 2:
        return None
    va, vb = variance(a) / len(a), variance(b) / len(b)
    gap = fmean(a) - fmean(b)
    if va + vb == 0:
        return float(gap == 0)
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    return two_sided_p(gap / math.sqrt(va + vb), freedom)


def prediction_test(values: Sequence[float], other: float) -> float | None:
    """Two-sided p-value that `other` is one more draw of what gave `values`; None below two.

    Student's t of (other - mean) / (sd sqrt(1 + 1/n)), n - 1 degrees of freedom.
    """
    n = len(values)
    if n < 2:
        return None
    width = stdev(values) * math.sqrt(1 + 1 / n)
    gap = other - fmean(values)
    if width == 0:
        return float(gap == 0)
    return two_sided_p(gap / width, n - 1)


def compare_rows(best: Row, other: Row, metric: str) -> Comparison:
    """The best row beside another that has the number as well."""
    p = welch_test(best.numbers[metric].values, other.numbers[metric].values)
    if p is None:
        words = "n=1: no statement"
    elif p > NOISE:
        words = f"within the noise of the best ({format_p(p)})"
    else:
        words = f"worse than the best ({format_p(p)})"
    return Comparison(best.label, other.label, p, words)


def format_p(p: float) -> str:
    """A p-value in two digits."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def describe_published(ours: Spread, published: float) -> str:
    """A published number of the same protocol beside ours, in words."""
    p = prediction_test(ours.values, published)
    gap = f"ours {ours.mean - published:+.2f}"
    if p is None:
        return f"{published:g}: {gap}, n=1: no statement"
    place = "within" if p > NOISE else "outside"
    return f"{published:g}: {gap}, {place} our spread ({format_p(p)})"
