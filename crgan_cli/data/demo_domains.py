"""Domains and attributes from the embedded Fashion-MNIST, which need no download."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from crgan_cli.data.dataset import Dataset, DatasetInfo, Split
from crgan_cli.data.domains import UnpairedImages
from crgan_cli.data.embedded import TILE, read_tiles
from crgan_cli.data.images import Images
from crgan_cli.data.labelled import LabelledDataset
from crgan_cli.data.standard import FASHION_NAMES
from crgan_cli.errors import UserError

DOMAINS = {"a": "t-shirt/top", "b": "trouser"}
GARMENTS = ("t-shirt/top", "trouser", "dress", "bag", "ankle boot")
TOPS = ("pullover", "coat", "shirt")
PADDED = 32  # side of the garments within their border

GARMENT = 16  # grey above this belongs to the garment; the background is 0
BRIGHT = 170  # mean grey of a garment, and
PATTERNED = 43  # standard deviation of it, above which it is called so: near the medians of TOPS


class DemoDomains(UnpairedImages):
    """T-shirts (a) and trousers (b), 2,000 + 400 images each, 32x32 grey.

    The larger stored images have a wider border, so a random square of 32 moves the garment, by up
    to 2 pixels with `load_size: 36`, and never cuts it.
    """

    title = "The demo set of domains"
    facts = DatasetInfo(32, 1, 0, inside_border=28)

    def read_domains(self, split: Split, side: int) -> dict[str, Images]:
        """Return 2,000 or 400 images of each domain, in official order."""
        if (self.channels_a, self.channels_b) != (1, 1):
            raise UserError(
                f"{self.title} is grey, so dataset.channels_a={self.channels_a} and "
                f"dataset.channels_b={self.channels_b} cannot be true. Leave them out, or train on "
                "your own images: dataset=domains dataset.root=PATH."
            )
        return {domain: choose_garments(split, [name], side) for domain, name in DOMAINS.items()}


class DemoAttributes(LabelledDataset):
    """Five kinds of garments as domains: 2,000 + 400 images each, 32x32 grey.

    An image has one kind, so `y` are class ids.
    """

    title = "The demo set of attributes"
    facts = DatasetInfo(32, 1, len(GARMENTS), inside_border=28)
    class_names = GARMENTS

    def read(self, split: Split) -> Images:
        """Return 10,000 or 2,000 images; the classes alternate 0, 1, ... 4, 0, ..."""
        return choose_garments(split, GARMENTS, PADDED)


@dataclass(kw_only=True, eq=False)
class DemoTraits(Dataset):
    """Pullovers, coats and shirts, 6,000 + 1,200 images, 32x32 grey, with attributes.

    `bright` and `patterned` are computed from the pixels of the garment: their mean and their
    standard deviation are large. Each is true of about half of the images.
    """

    title = "The demo set of traits"
    facts = DatasetInfo(32, 1, 0, inside_border=28)

    attributes: list[Literal["bright", "patterned"]]

    def __post_init__(self) -> None:
        if not self.attributes or len(set(self.attributes)) < len(self.attributes):
            raise UserError(
                f"dataset.attributes={self.attributes} must name bright, patterned or both, once."
            )

    def read(self, split: Split) -> Images:
        """Return 6,000 or 1,200 images, with a column of 0 and 1 for each attribute."""
        x, _ = choose_garments(split, TOPS, self.resolution)
        inside = x.flatten(1) > GARMENT
        grey = x.flatten(1).double()
        count = inside.sum(1)
        mean = (grey * inside).sum(1) / count
        spread = (((grey - mean[:, None]) ** 2 * inside).sum(1) / count).sqrt()
        traits = {"bright": mean > BRIGHT, "patterned": spread > PATTERNED}
        return Images(x, torch.stack([traits[name] for name in self.attributes], 1).long())


def choose_garments(split: Split, names: Sequence[str], side: int) -> Images:
    """The embedded images of some classes: (N, 1, side, side) with a black border.

    The labels are positions in `names`; they alternate 0, 1, ...
    """
    tiles = read_tiles(split)
    numbers = [FASHION_NAMES.index(name) for name in names]
    # tile i has class i modulo 10
    chosen = tiles.reshape(-1, len(FASHION_NAMES), TILE, TILE)[:, numbers].reshape(-1, TILE, TILE)
    border = side - TILE
    margin = (border // 2, border - border // 2)
    x = np.pad(chosen, ((0, 0), margin, margin))[:, None]
    y = np.arange(len(x)) % len(names)
    return Images(torch.from_numpy(x), torch.from_numpy(y.astype(np.int64)))
