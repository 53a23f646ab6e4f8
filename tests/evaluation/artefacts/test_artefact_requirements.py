"""What advice for a small data set is worth: typed, it works."""

import logging
import re

import pytest

from crgan_cli.commands.artefacts import NAMES
from crgan_cli.errors import UserError
from crgan_cli.evaluation.artefacts.requirements import Counts, choose_measurable

PHOTOS: Counts = {"train": 360, "test": 40}


def test_without_names_the_impossible_measurement_is_left_out_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    chosen = choose_measurable(NAMES, 40, PHOTOS, named=False)
    assert chosen == ["consistency", "diversity", "memorisation"]
    assert "leakage is left out. Leakage needs at least 400 training images" in caplog.text


def test_a_measurement_that_was_named_is_refused() -> None:
    with pytest.raises(UserError, match="at least 400 training images, and there are 360"):
        choose_measurable(["leakage"], 1000, PHOTOS, named=True)


@pytest.mark.parametrize("names", [NAMES, ["consistency", "memorisation"]])
@pytest.mark.parametrize("counts", [PHOTOS, {"train": 30, "test": 40}, {"test": 40}])
def test_the_number_of_images_that_a_refusal_names_is_accepted(
    names: tuple[str, ...], counts: Counts
) -> None:
    with pytest.raises(UserError) as refused:
        choose_measurable(names, 1000, counts, named=False)
    (n,) = re.findall(r"at most --n (\d+)", str(refused.value))
    assert choose_measurable(names, int(n), counts, named=False)


def test_a_number_that_no_measurement_could_take_is_not_advised() -> None:
    with pytest.raises(UserError, match=r"held-out split has 1, .* needs at least 2. Use a larger"):
        choose_measurable(["memorisation"], 1000, {"train": 9, "test": 1}, named=True)
