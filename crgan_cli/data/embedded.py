"""The embedded demo data: a subset of Fashion-MNIST (Zalando SE, MIT licence) inside the package.

Two PNG files, one per split, written by scripts/make_demo_data.py. Each is a grid of 28x28 tiles in
row order. Tile i has class i modulo 10: labels need no file, and consecutive tiles are balanced.
"""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from crgan_cli.data.dataset import DatasetInfo, Split
from crgan_cli.data.decode import DECODE_ERRORS
from crgan_cli.data.images import Images
from crgan_cli.data.labelled import LabelledDataset
from crgan_cli.data.standard import FASHION_NAMES, pad_to_32
from crgan_cli.errors import UserError

FOLDER = Path(__file__).parent / "demo"
TILE = 28
COLUMNS = 200  # a multiple of 10: all tiles of a column have the same class


def pack_grid(tiles: np.ndarray) -> np.ndarray:
    """(N, 28, 28), N a multiple of 200 -> (28 * N / 200, 28 * 200), row by row."""
    rows = tiles.reshape(-1, COLUMNS, TILE, TILE)
    return rows.transpose(0, 2, 1, 3).reshape(-1, COLUMNS * TILE)


def unpack_grid(grid: np.ndarray) -> np.ndarray:
    """Invert `pack_grid`."""
    rows = grid.reshape(-1, TILE, COLUMNS, TILE)
    return rows.transpose(0, 2, 1, 3).reshape(-1, TILE, TILE)


class Demo(LabelledDataset):
    """Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747): 20,000 + 4,000 of its images, 32x32 grey.

    The first 2,000 and 400 of each class in official order. Needs no download.
    """

    title = "The demo set"
    facts = DatasetInfo(32, 1, 10, inside_border=28, counts={"train": 20000, "test": 4000})
    class_names = FASHION_NAMES

    def read(self, split: Split) -> Images:
        """Return 20,000 or 4,000 images; the classes alternate 0, 1, ... 9, 0, ..."""
        tiles = read_tiles(split)
        return pad_to_32(tiles, np.arange(len(tiles)) % 10)


def read_tiles(split: Split) -> np.ndarray:
    """Return the embedded images of a split, (20000 or 4000, 28, 28) uint8."""
    return decode_tiles(FOLDER / f"fashion_mnist_{split}.png")


@cache
def decode_tiles(path: Path) -> np.ndarray:
    """Decode one file, once in a process: the jobs of a sweep share the tiles, read-only."""
    try:
        with Image.open(path) as picture:
            tiles = unpack_grid(np.asarray(picture))
            tiles.flags.writeable = False
            return tiles
    except DECODE_ERRORS as error:
        raise UserError(
            f"The embedded images in {path} cannot be read ({error}). Install crgan again, or "
            "write them again with scripts/make_demo_data.py."
        ) from error
