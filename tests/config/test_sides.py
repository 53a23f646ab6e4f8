"""Height and width, as a user types them."""

import pytest

from crgan_cli.config.sides import Sides
from crgan_cli.errors import UserError


@pytest.mark.parametrize(
    ("resolution", "sides", "text", "typed"),
    [(64, (64, 64), "64", "64"), ([96, 64], (96, 64), "96x64", "[96,64]")],
)
def test_a_resolution_is_a_side_or_height_and_width(
    resolution: int, sides: tuple[int, int], text: str, typed: str
) -> None:
    found = Sides.read(resolution)
    assert found == sides
    assert (str(found), found.typed) == (text, typed)
    assert Sides.read(found) is found
    assert found.pixels == sides[0] * sides[1]


def test_a_pair_of_equal_sides_is_refused() -> None:
    with pytest.raises(UserError, match=r"\[64,64\] is a square. Type dataset.resolution=64."):
        Sides.read((64, 64))


def test_both_sides_are_divided_and_have_to_be_multiples() -> None:
    assert Sides(96, 64) // 8 == (12, 8)
    assert Sides(96, 64).are_multiples(32)
    assert not Sides(96, 64).are_multiples(64)
