"""Padding and tiles: what they cover, and that no seam shows."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from crgan_cli.evaluation.tiles import (
    apply_padded,
    blend_tiles,
    reflected_positions,
    tile_starts,
    tile_weights,
)


def numbered(height: int, width: int) -> Tensor:
    """(1, 1, height, width): each pixel has a value of its own."""
    return torch.arange(height * width, dtype=torch.float32).view(1, 1, height, width)


def test_positions_go_back_and_forth() -> None:
    assert reflected_positions(3, 8).tolist() == [0, 1, 2, 1, 0, 1, 2, 1]
    assert reflected_positions(1, 4).tolist() == [0, 0, 0, 0]
    assert reflected_positions(5, 3).tolist() == [0, 1, 2]


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (8, 8), (17, 3)])
@pytest.mark.parametrize("tile", [None, 8, 32])
def test_the_network_sees_multiples_of_which_the_image_is_a_part(
    size: tuple[int, int], tile: int | None
) -> None:
    seen: list[tuple[int, int]] = []

    def apply(x: Tensor) -> Tensor:
        seen.append((x.shape[2], x.shape[3]))
        return torch.cat([x, -x], 1)

    x = numbered(*size)
    found = apply_padded(apply, x, 4, tile)
    torch.testing.assert_close(found, torch.cat([x, -x], 1))
    assert all(side % 4 == 0 for sides in seen for side in sides)
    if tile:
        assert max(side for sides in seen for side in sides) <= tile
    else:
        assert len(seen) == 1


def test_sides_that_are_too_short_for_the_network_are_reflected_up_to_what_it_takes() -> None:
    seen: list[tuple[int, int]] = []

    def apply(x: Tensor) -> Tensor:
        seen.append((x.shape[2], x.shape[3]))
        return x

    x = numbered(1, 13)
    torch.testing.assert_close(apply_padded(apply, x, 4, None, least=8), x)
    assert seen == [(8, 16)]


def test_a_tile_is_no_larger_than_the_image_where_that_is_smaller() -> None:
    seen: list[tuple[int, int]] = []

    def apply(x: Tensor) -> Tensor:
        seen.append((x.shape[2], x.shape[3]))
        return x

    assert apply_padded(apply, numbered(6, 100), 4, 32).shape == (1, 1, 6, 100)
    assert set(seen) == {(8, 32)}


@pytest.mark.parametrize("tile", [1, 2, 3, 4, 8, 32])
@pytest.mark.parametrize("size", [32, 33, 40, 57, 64, 200])
def test_tiles_cover_a_side_share_a_quarter_and_weigh_one(size: int, tile: int) -> None:
    starts = tile_starts(size, tile)
    assert (starts[0], starts[-1]) == (0, size - tile)
    assert all(b - a <= tile - tile // 4 for a, b in pairwise(starts))
    weights = tile_weights(starts, size, tile)
    torch.testing.assert_close(weights.sum(0), torch.ones(size))
    for start, row in zip(starts, weights, strict=True):
        assert (row[start : start + tile] > 0).all()
        assert row.sum() == pytest.approx(row[start : start + tile].sum())


def test_a_smooth_image_has_no_seam_under_a_smooth_network() -> None:
    """The network blurs, and pads with zeros, so that tiles are wrong at their edges only."""
    x = torch.linspace(-1, 1, 200).expand(1, 1, 40, 200).contiguous()

    def apply(x: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(x + 2, 3, 1, 1)  # zeros at the edge: a third less

    def largest_steps(image: Tensor) -> Tensor:
        return image[0, 0, 3:-3].diff(dim=1).abs().amax(0)[3:-3]

    whole, tiled = largest_steps(apply(x)), largest_steps(blend_tiles(apply, x, 32))
    hard = torch.cat([apply(part) for part in x.split(40, 3)], 3)
    assert largest_steps(hard).max() > 50 * whole.max()
    assert tiled.max() < 0.15 * largest_steps(hard).max()


@pytest.mark.parametrize("width", [56, 60, 80, 200])
def test_tiles_that_differ_by_a_constant_blend_by_a_ramp(width: int) -> None:
    """The n-th tile adds n: between neighbours the sum rises evenly, never by a step."""
    count = iter(range(1000))
    found = blend_tiles(lambda x: x + next(count), torch.zeros(1, 1, 32, width), 32)[0, 0]
    steps = found.diff(dim=1)
    starts = tile_starts(width, 32)
    assert found[:, 0].eq(0).all()
    assert found[:, -1].allclose(torch.tensor(len(starts) - 1.0))
    assert steps.min() > -1e-6
    assert steps.max() < 2 / 9  # over 8 pixels or more: 1/9 each, twice where three tiles meet
    if width == 56:  # they share exactly a quarter
        ramp = torch.cat([torch.zeros(24), torch.arange(1, 9) / 9, torch.ones(24)])
        torch.testing.assert_close(found[0], ramp)
