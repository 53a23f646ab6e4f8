"""Spreads and tests, against numbers worked out by hand and published tables."""

import math
from statistics import stdev

import pytest

from crgan_cli.report.model import Row
from crgan_cli.report.statistics import (
    compare_rows,
    describe_published,
    format_p,
    mean_and_std,
    prediction_test,
    welch_test,
)


def test_a_spread_is_the_mean_and_the_sample_deviation_by_hand() -> None:
    found = mean_and_std([1.0, 3.0, 8.0])
    assert (found.values, found.mean) == ((1.0, 3.0, 8.0), 4.0)
    assert found.deviation == pytest.approx(math.sqrt((9 + 1 + 16) / 2))


def test_one_value_has_no_deviation() -> None:
    assert mean_and_std([5.0]).deviation is None


def two_sided_p(t: float, freedom: int) -> float:
    """P(|T| >= |t|) of Student's t in closed form (Abramowitz & Stegun 1964, 26.7.3-4)."""
    angle = math.atan(abs(t) / math.sqrt(freedom))
    sin, cos = math.sin(angle), math.cos(angle)
    inside = {
        1: 2 * angle / math.pi,
        2: sin,
        3: 2 / math.pi * (angle + sin * cos),
        4: sin * (1 + cos**2 / 2),
    }
    return 1 - inside[freedom]


@pytest.mark.parametrize(
    ("freedom", "t_05", "t_01"),
    [
        (1, 12.706, 63.657),
        (2, 4.303, 9.925),
        (3, 3.182, 5.841),
        (4, 2.776, 4.604),
        (5, 2.571, 4.032),
        (10, 2.228, 3.169),
        (20, 2.086, 2.845),
        (30, 2.042, 2.750),
    ],
)
def test_p_values_are_those_of_the_table_of_students_t(
    freedom: int, t_05: float, t_01: float
) -> None:
    """Critical values of NIST/SEMATECH e-Handbook of Statistical Methods, section 1.3.6.7.2."""
    values = [float(i) for i in range(freedom + 1)]
    mean = freedom / 2
    width = stdev(values) * math.sqrt(1 + 1 / (freedom + 1))
    for t, p in ((t_05, 0.05), (t_01, 0.01)):
        for sign in (1, -1):
            assert prediction_test(values, mean + sign * t * width) == pytest.approx(p, rel=2e-3)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4])
@pytest.mark.parametrize("t", [0.0, 1e-3, -0.5, 1.0, 3.0, -40.0])
def test_p_values_are_those_in_closed_form(freedom: int, t: float) -> None:
    values = [float(i) for i in range(freedom + 1)]
    width = stdev(values) * math.sqrt(1 + 1 / (freedom + 1))
    found = prediction_test(values, freedom / 2 + t * width)
    assert found == pytest.approx(two_sided_p(t, freedom), rel=1e-10, abs=1e-13)


def test_welchs_test_by_hand() -> None:
    """Means 2 and 5, variances 1 and 1, n=3 each: t = 3 / sqrt(2/3), 4 degrees of freedom."""
    expected = two_sided_p(3 / math.sqrt(2 / 3), 4)
    assert welch_test([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]) == pytest.approx(expected, rel=1e-12)


def test_welchs_test_of_two_sizes_and_variances_by_hand() -> None:
    """With u = var / n: u = 6 and 3, so that (u + w)^2 / (u^2 / 1 + w^2 / 2) = 81 / 40.5 = 2."""
    a, b = [0.0, 2 * math.sqrt(6)], [7.0, 10.0, 13.0]
    expected = two_sided_p((10 - math.sqrt(6)) / 3, 2)
    assert welch_test(a, b) == pytest.approx(expected, rel=1e-12)
    assert welch_test(b, a) == welch_test(a, b)


def test_a_side_that_never_varies_leaves_the_other_sides_freedom() -> None:
    expected = two_sided_p(2 / math.sqrt(1 / 3), 2)
    assert welch_test([1.0, 2.0, 3.0], [4.0, 4.0]) == pytest.approx(expected, rel=1e-12)


def test_one_seed_allows_no_statement() -> None:
    assert welch_test([1.0], [4.0, 5.0]) is None
    assert prediction_test([1.0], 4.0) is None


def test_numbers_that_never_vary_allow_no_statement() -> None:
    assert welch_test([0.5, 0.5], [0.52, 0.52]) is None
    assert welch_test([1.0, 1.0], [1.0, 1.0]) is None
    assert prediction_test([1.0, 1.0], 2.0) is None
    words = "18.72: ours -0.72, no spread over seeds: no statement"
    assert describe_published(mean_and_std([18.0, 18.0]), 18.72) == words
    rows = [
        Row(name, {}, (), {"fid": mean_and_std([value, value])}, 0.0, "")
        for name, value in (("a", 0.5), ("b", 0.52))
    ]
    assert compare_rows(*rows, "fid").words == "no spread over seeds: no statement"


def test_one_more_draw_is_tested_by_the_width_of_a_prediction() -> None:
    values = [10.0, 12.0, 14.0]
    t = (15 - 12) / (2 * math.sqrt(4 / 3))
    assert prediction_test(values, 15.0) == pytest.approx(two_sided_p(t, 2), rel=1e-12)


def test_a_published_number_is_beside_ours_with_its_difference() -> None:
    near = describe_published(mean_and_std([18.0, 19.0, 20.0]), 18.72)
    assert near.startswith("18.72: ours +0.28, within our spread (p = ")
    assert "ours +11.28, outside our spread" in describe_published(
        mean_and_std([29.9, 30.0, 30.1]), 18.72
    )
    assert describe_published(mean_and_std([18.0]), 18.72) == "18.72: ours -0.72, n=1: no statement"


def test_a_p_value_has_two_digits() -> None:
    assert [format_p(p) for p in (0.4571, 0.0104, 0.0001)] == ["p = 0.46", "p = 0.01", "p < 0.001"]
