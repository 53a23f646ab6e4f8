"""Spreads and tests, against numbers worked out by hand and against scipy."""

import math
import random

import pytest
from scipy import special, stats

from crgan_cli.report.statistics import (
    describe_published,
    format_p,
    higher_is_better,
    incomplete_beta,
    is_secondary,
    mean_and_std,
    prediction_test,
    two_sided_p,
    welch_test,
)


def test_a_spread_is_the_mean_and_the_sample_deviation_by_hand() -> None:
    found = mean_and_std([1.0, 3.0, 8.0])
    assert (found.values, found.mean) == ((1.0, 3.0, 8.0), 4.0)
    assert found.deviation == pytest.approx(math.sqrt((9 + 1 + 16) / 2))


def test_one_value_has_no_deviation() -> None:
    assert mean_and_std([5.0]).deviation is None


def test_the_incomplete_beta_function_is_scipys() -> None:
    for a in (0.5, 1.0, 2.5, 30.0, 400.0):
        for b in (0.5, 1.0, 3.0, 50.0):
            for x in (0.0, 1e-6, 0.1, 0.5, 0.9, 1 - 1e-6, 1.0):
                expected = special.betainc(a, b, x)
                assert incomplete_beta(a, b, x) == pytest.approx(expected, rel=1e-10, abs=1e-14)


def test_students_t_with_one_degree_of_freedom_is_cauchys() -> None:
    """P(|T| >= 1) = 1 - 2 atan(1) / pi = 1/2."""
    assert two_sided_p(1.0, 1.0) == pytest.approx(0.5)
    assert two_sided_p(-3.0, 1.0) == pytest.approx(1 - 2 * math.atan(3.0) / math.pi)
    assert two_sided_p(0.0, 7.0) == 1.0
    assert two_sided_p(math.inf, 7.0) == 0.0


def test_welchs_test_is_scipys() -> None:
    draw = random.Random(0)
    for _ in range(200):
        a = [draw.gauss(0, draw.choice([0.01, 1, 5])) for _ in range(draw.randint(2, 6))]
        b = [draw.gauss(draw.choice([0, 1, 30]), 1) for _ in range(draw.randint(2, 30))]
        expected = stats.ttest_ind(a, b, equal_var=False).pvalue
        assert welch_test(a, b) == pytest.approx(expected, rel=1e-9)


def test_welchs_test_by_hand() -> None:
    """Means 2 and 5, variances 1 and 1, n=3 each: t = 3 / sqrt(2/3), 4 degrees of freedom."""
    t = 3 / math.sqrt(2 / 3)
    # of 4 degrees, in closed form: 1 - P = sin(u) (1 + cos(u)^2 / 2), tan(u) = t / 2
    u = math.atan(t / 2)
    expected = 1 - math.sin(u) * (1 + math.cos(u) ** 2 / 2)
    assert welch_test([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]) == pytest.approx(expected)


def test_one_seed_allows_no_statement() -> None:
    assert welch_test([1.0], [4.0, 5.0]) is None
    assert prediction_test([1.0], 4.0) is None


def test_numbers_that_never_vary_differ_surely_or_not_at_all() -> None:
    assert welch_test([1.0, 1.0], [1.0, 1.0]) == 1.0
    assert welch_test([1.0, 1.0], [2.0, 2.0]) == 0.0
    assert prediction_test([1.0, 1.0], 2.0) == 0.0


def test_one_more_draw_is_tested_by_the_width_of_a_prediction() -> None:
    values = [10.0, 12.0, 14.0]
    t = (15 - 12) / (2 * math.sqrt(4 / 3))
    assert prediction_test(values, 15.0) == pytest.approx(2 * stats.t.sf(t, 2))


def test_a_published_number_is_beside_ours_with_its_difference() -> None:
    near = describe_published(mean_and_std([18.0, 19.0, 20.0]), 18.72)
    assert near.startswith("18.72: ours +0.28, within our spread (p = ")
    assert "ours +11.28, outside our spread" in describe_published(
        mean_and_std([29.9, 30.0, 30.1]), 18.72
    )
    assert describe_published(mean_and_std([18.0]), 18.72) == "18.72: ours -0.72, n=1: no statement"


def test_a_p_value_has_two_digits() -> None:
    assert [format_p(p) for p in (0.4571, 0.0104, 0.0001)] == ["p = 0.46", "p = 0.01", "p < 0.001"]


@pytest.mark.parametrize(
    ("metric", "rises", "second"),
    [
        ("fid", False, False),
        ("fid_sd", False, True),
        ("is", True, False),
        ("is_std", True, True),
        ("is_single", True, True),
        ("fd_effnetlite0_224_n500_floor", False, True),
        ("kid_std_effnetlite0_224_n500", False, True),
        ("recall_dinov2_n5000", True, False),
        ("class_fid", False, False),
        ("class_fid_3", False, True),
        ("class_fd_effnetlite0_224_n500", False, False),
    ],
)
def test_names_say_which_way_is_better(metric: str, rises: bool, second: bool) -> None:
    assert (higher_is_better(metric), is_secondary(metric)) == (rises, second)
