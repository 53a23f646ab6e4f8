"""Metrics over seeds: mean and spread, and whether two differ by more than chance.

scipy.stats is imported only when a test is done: it takes a second.
"""

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from crgan_cli.report.model import Comparison, Row, Spread

NOISE = 0.05
"""A difference is called noise if chance alone gives it with at least this probability."""


def mean_and_std(values: Sequence[float]) -> Spread:
    """Return the mean, and from two values on the sample standard deviation."""
    deviation = stdev(values) if len(values) > 1 else None
    return Spread(tuple(values), fmean(values), deviation)


def welch_test(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Return the two-sided p-value that both have one mean, Welch 1947 (Biometrika 34).

    The variances may differ. Return None if a side has fewer than two values, or if neither side
    varies: how much chance moves them is then not known.
    """
    if min(len(a), len(b)) < 2:
        return None
    means, deviations = (fmean(a), fmean(b)), (stdev(a), stdev(b))
    if deviations == (0, 0):
        return None
    from scipy.stats import ttest_ind_from_stats

    return float(
        ttest_ind_from_stats(
            *(means[0], deviations[0], len(a)), *(means[1], deviations[1], len(b)), equal_var=False
        ).pvalue
    )


def prediction_test(values: Sequence[float], other: float) -> float | None:
    """Return the two-sided p-value that `other` is one more draw like `values`.

    It is Student's t of (other - mean) / (sd sqrt(1 + 1/n)) with n - 1 degrees of freedom. Return
    None if there are fewer than two values, or if they do not vary.
    """
    n = len(values)
    if n < 2:
        return None
    width = stdev(values) * math.sqrt(1 + 1 / n)
    if width == 0:
        return None
    from scipy.stats import t

    return float(2 * t.sf(abs((other - fmean(values)) / width), n - 1))


def compare_rows(best: Row, other: Row, metric: str, name: str = "the best") -> Comparison:
    """Compare the best row, by this name, with another row that has the metric too."""
    values = [row.numbers[metric].values for row in (best, other)]
    p = welch_test(*values)
    if p is None:
        words = f"{explain_untested(*values)}: no statement"
    elif p > NOISE:
        words = f"within the noise of {name} ({format_p(p)})"
    else:
        words = f"worse than {name} ({format_p(p)})"
    return Comparison(best.label, other.label, p, words)


def explain_untested(*rows: Sequence[float]) -> str:
    """Return why there is no test of these values."""
    return "n=1" if min(map(len, rows)) < 2 else "no spread over seeds"


def format_p(p: float) -> str:
    """Return a p-value in two digits."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def describe_published(ours: Spread, published: float) -> str:
    """Compare a published number of the same protocol with ours, as text."""
    p = prediction_test(ours.values, published)
    gap = f"ours {ours.mean - published:+.2f}"
    if p is None:
        return f"{published:g}: {gap}, {explain_untested(ours.values)}: no statement"
    place = "within" if p > NOISE else "outside"
    return f"{published:g}: {gap}, {place} our spread ({format_p(p)})"
