"""Pairs from the embedded Fashion-MNIST: a drawing of each garment, and the garment."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from crgan_cli.data.dataset import DatasetInfo, Split
from crgan_cli.data.embedded import TILE, read_tiles
from crgan_cli.data.images import Images
from crgan_cli.data.pairs import PairedImages

GARMENT = 16  # grey above this belongs to the garment; the background is 0
STRONG = 80  # slope of the grey per pixel from which an inner edge is drawn; chosen by eye
BLACK, WHITE = 0, 255
DRAWN_AT_ONCE = 256  # what a core keeps in its cache: eight times faster than all at once


class DemoPairs(PairedImages):
    """20,000 + 4,000 pairs, 32x32: black lines on white, and the grey garment on black.

    Made when they are read, always alike. The larger stored images have a wider border, so a random
    square of 32 moves the garment, by up to 2 pixels with `load_size: 36`, and never cuts it.
    """

    title = "The demo set of pairs"
    facts = DatasetInfo(32, 2, 0, inside_border=28)

    def read_at(self, split: Split, side: int) -> Images:
        """Return 20,000 or 4,000 pairs; their classes would alternate as in `Demo`."""
        x = draw_pairs(split, side)
        return Images(x, torch.zeros(len(x), dtype=torch.int64))


@cache
def draw_pairs(split: Split, side: int) -> Tensor:
    """(N, 2, side, side) uint8: drawing and garment of each pair. Made once: it takes a second."""
    garments = read_tiles(split)
    chunks = np.split(garments, range(DRAWN_AT_ONCE, len(garments), DRAWN_AT_ONCE))
    drawings = np.concatenate([draw_outlines(chunk) for chunk in chunks])
    border = side - TILE
    margin = (border // 2, border - border // 2)
    halves = [
        np.pad(tiles, ((0, 0), margin, margin), constant_values=background)
        for tiles, background in ((drawings, WHITE), (garments, BLACK))
    ]
    return torch.from_numpy(np.stack(halves, 1))


def draw_outlines(grey: np.ndarray) -> np.ndarray:
    """(N, H, W) uint8 garments on black -> drawings of the same shape, black lines on white.

    Lines are the rim of the silhouette, and inside it the ridges of a strong Sobel gradient.
    """
    framed = np.pad(grey, ((0, 0), (2, 2), (2, 2))).astype(np.int16)
    inside = framed > GARMENT
    whole = _near(inside, 1, 0) & _near(inside, -1, 0) & _near(inside, 0, 1) & _near(inside, 0, -1)
    core = inside & whole
    # Sobel: differences over two pixels, smoothed by (1, 2, 1) across, so 8 times the slope
    across = _near(framed, 0, 1) - _near(framed, 0, -1)
    down = _near(framed, 1, 0) - _near(framed, -1, 0)
    dx = (_near(across, 1, 0) + 2 * across + _near(across, -1, 0)).astype(np.int32)
    dy = (_near(down, 0, 1) + 2 * down + _near(down, 0, -1)).astype(np.int32)
    steep = dx * dx + dy * dy
    ridge = np.where(
        np.abs(dx) >= np.abs(dy),
        (steep >= _near(steep, 0, -1)) & (steep > _near(steep, 0, 1)),
        (steep >= _near(steep, -1, 0)) & (steep > _near(steep, 1, 0)),
    )
    lines = (inside & ~whole) | (core & ridge & (steep > (4 * STRONG) ** 2))
    return np.where(lines, BLACK, WHITE).astype(np.uint8)[:, 2:-2, 2:-2]


def _near(x: np.ndarray, down: int, right: int) -> np.ndarray:
    """The value so many pixels further down and right; it wraps around, in the black frame."""
    return np.roll(x, (-down, -right), (1, 2))
