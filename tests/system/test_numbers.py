"""A reader sees enough digits of every number, in a unit that fits."""

import pytest

from crgan_cli.system.numbers import (
    align_points,
    format_bytes,
    format_duration,
    format_flop,
    format_mean,
    format_metric,
    format_number,
    format_rate,
    format_share,
    format_time,
)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (12.3456, "12.35"),
        (0.00009123, "0.00009123"),
        (1740.4, "1740"),
        (123456.7, "123457"),
        (0.99996, "1.000"),
        (99.996, "100.0"),
        (-0.5, "-0.5000"),
        (-0.0, "0"),
        (1.5e-7, "1.500e-07"),
        (2e12, "2.000e+12"),
        (float("nan"), "nan"),
    ],
)
def test_a_number_has_four_digits_and_no_exponent_where_people_read_none(
    value: float, words: str
) -> None:
    assert format_number(value) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (12.34567, "12.3457"),
        (0.682, "0.6820"),
        (9e-5, "0.00009000"),
        (0.0202449, "0.02024"),
        (-0.000012, "-0.00001200"),
        (-0.0, "0.0000"),
        (-3e-9, "-3.000e-09"),
        (float("nan"), "nan"),
    ],
)
def test_a_metric_has_four_decimals_and_four_digits(value: float, words: str) -> None:
    assert format_metric(value) == words


def test_a_difference_has_its_sign() -> None:
    assert [format_metric(value, "+") for value in (0.5, 0.0, -9e-5)] == [
        "+0.5000",
        "+0.0000",
        "-0.00009000",
    ]


def test_points_stand_below_each_other() -> None:
    assert align_points(["12.3457", "-0.00009", "-"]) == ["12.3457 ", "-0.00009", "       -"]


@pytest.mark.parametrize(
    ("mean", "deviation", "words"),
    [
        (87.0, 1.414, ("87.0", "1.4")),
        (0.00009123, 0.0000012, ("0.0000912", "0.0000012")),
        (71.2, 18.4, ("71", "18")),
        (50.0, 9.96, ("50", "10")),
        (-0.00001, 0.01, ("0.000", "0.010")),
        (64.2594, None, ("64.26", "")),
        (3.0, 0.0, ("3.000", "0.000")),
    ],
)
def test_a_mean_ends_where_its_deviation_ends(
    mean: float, deviation: float | None, words: tuple[str, str]
) -> None:
    assert format_mean(mean, deviation) == words


def test_speeds_have_whole_numbers_or_three_digits() -> None:
    speeds = (1740.3, 99.96, 35.24, 0.8131, 12345678.0)
    assert list(map(format_rate, speeds)) == ["1,740", "100", "35.2", "0.813", "12,345,678"]


def test_a_unit_is_the_largest_that_is_reached() -> None:
    assert list(map(format_bytes, (1.25 * 2**30, 2**30 - 1, 356.4 * 2**20, 12))) == [
        "1.25 GiB",
        "1.00 GiB",
        "356 MiB",
        "12.0 B",
    ]
    assert list(map(format_flop, (9.07e9, 989e12, 1.234e15, 2.5e5))) == [
        "9.07 GFLOP",
        "989 TFLOP",
        "1.23 PFLOP",
        "250000 FLOP",
    ]
    assert list(map(format_time, (0.0, 0.42, 44.6, 0.0124 * 3600, 263, 2001, 86400 * 10))) == [
        "0 s",
        "0.42 s",
        "45 s",
        "45 s",
        "4.4 min",
        "33 min",
        "240 h",
    ]
    assert [format_share(share) for share in (0.3054, 0.00031, 1.0)] == ["30.5%", "0.0310%", "100%"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.42, "0.4 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (125, "2 min 5 s"),
        (3599.7, "1 h 0 min"),
        (3 * 3600 + 5 * 60 + 59, "3 h 5 min"),
        (26 * 3600, "1 d 2 h"),
    ],
)
def test_a_duration_is_said_in_its_two_largest_units(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words
