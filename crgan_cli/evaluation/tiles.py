"""Images of any size through a network that takes sides of a multiple: padded, or in tiles."""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

Apply = Callable[[Tensor], Tensor]
"""(1, C, H, W) -> (1, C', H, W)."""


def apply_padded(
    apply: Apply, x: Tensor, multiple: int, tile: int | None, *, least: int = 1
) -> Tensor:
    """`apply` to (1, C, H, W) of any size, reflected up to a multiple and cropped back.

    Sides below `least` are reflected up to it; it is a multiple itself, or below the first. With
    `tile`, a multiple itself, not to more than tile x tile pixels at once.
    """
    height, width = x.shape[2:]
    sides = (max(least, math.ceil(size / multiple) * multiple) for size in (height, width))
    padded = reflect_to(x, *sides)
    image = apply(padded) if tile is None else blend_tiles(apply, padded, tile)
    return image[..., :height, :width]


def reflect_to(x: Tensor, height: int, width: int) -> Tensor:
    """Reflect an image at its right and lower edge up to this size."""
    rows, columns = (
        reflected_positions(size, total).to(x.device)
        for size, total in zip(x.shape[2:], (height, width), strict=True)
    )
    return x[..., rows, :][..., columns]


def reflected_positions(size: int, total: int) -> Tensor:
    """Return the source of each of `total` positions: 0 .. size - 1, then back and forth."""
    period = max(1, 2 * (size - 1))
    position = torch.arange(total) % period
    return torch.where(position < size, position, period - position)


def blend_tiles(apply: Apply, x: Tensor, tile: int) -> Tensor:
    """`apply` to (1, C, H, W) tile by tile.

    Neighbours overlap by at least a quarter of their side. Over the overlap, the weight of one
    falls to 0 while that of the other rises: where both agree, there is no seam.
    """
    sides = [min(tile, size) for size in x.shape[2:]]
    tops, lefts = (tile_starts(*each) for each in zip(x.shape[2:], sides, strict=True))
    if len(tops) == len(lefts) == 1:
        return apply(x)
    downs, acrosses = (
        tile_weights(starts, size, side).to(x.device)
        for starts, size, side in zip((tops, lefts), x.shape[2:], sides, strict=True)
    )
    total = None
    for (i, top), (j, left) in itertools.product(enumerate(tops), enumerate(lefts)):
        rows, columns = slice(top, top + sides[0]), slice(left, left + sides[1])
        image = apply(x[..., rows, columns])
        if total is None:
            total = image.new_zeros(1, image.shape[1], *x.shape[2:])
        total[..., rows, columns] += image * (downs[i, rows, None] * acrosses[j, columns])
    assert total is not None
    return total


def tile_starts(size: int, tile: int) -> list[int]:
    """Return where tiles start, evenly spaced, so that neighbours share at least a quarter."""
    step = tile - tile // 4
    count = math.ceil((size - tile) / step) + 1
    return [round(i * (size - tile) / max(1, count - 1)) for i in range(count)]


def tile_weights(starts: list[int], size: int, tile: int) -> Tensor:
    """The weight of each tile at each position along one side, (tiles, size). They add up to 1."""
    edge = torch.arange(1, tile + 1)
    ramp = torch.minimum(edge, edge.flip(0)).clamp(max=max(1, tile // 4)).float()
    weights = torch.zeros(len(starts), size)
    for row, start in zip(weights, starts, strict=True):
        row[start : start + tile] = ramp
    return weights / weights.sum(0)
