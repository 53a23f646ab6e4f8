"""A user's own two sets of images, for translation without pairs (CycleGAN).

Sizes and sampling are those of the authors' PyTorch code (junyanz/pytorch-CycleGAN-and-pix2pix,
data/base_dataset.py and unaligned_dataset.py): each image is resized to a square by bicubic
interpolation, whatever its shape; in training to a larger one, of which a random square is used.
"""

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import ImageFile

from crgan_cli.config.bounds import DataPath, PositiveFraction, PositiveInt
from crgan_cli.data.cache import decode_cached
from crgan_cli.data.dataset import Dataset, Split
from crgan_cli.data.decode import (
    ONLY_FIRST,
    Frames,
    Reading,
    least_side,
    make_reading,
    read_frames,
    stack_frames,
    to_planes,
)
from crgan_cli.data.domain_files import SplitEntries, list_domains
from crgan_cli.data.file_listing import Entry
from crgan_cli.data.files import ImageFiles
from crgan_cli.data.folder import ORDER_SEED, hold_out, make_safe_name, shuffle
from crgan_cli.data.images import Images
from crgan_cli.data.pairs import log_grey, require_convertible, require_load_size
from crgan_cli.errors import UserError

log = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class UnpairedImages(Dataset):
    """Two sets of images, "a" and "b", of any counts. A subclass implements `read_domains`.

    `channels` is only the default of `channels_a` and `channels_b`.
    """

    channels_a: PositiveInt
    channels_b: PositiveInt
    load_size: PositiveInt  # side of the stored training images; `resolution` is cut out of it

    def __post_init__(self) -> None:
        require_load_size(self.load_size, self.resolution)
        if self.classes:
            raise UserError(
                f"dataset.classes={self.classes}: the domains a and b have no classes. Leave it "
                "out. For more than two domains sort the images into a sub-folder for each: "
                f"dataset=folder dataset.classes={self.classes}."
            )

    @property
    def stored_resolution(self) -> int:
        return self.load_size

    def read_domains(self, split: Split, side: int) -> dict[str, Images]:
        """Return the images of "a" and of "b", each in a fixed order of its own: whole, squashed to
        squares."""
        raise NotImplementedError

    def read(self, split: Split) -> Images:
        """Raise UserError: there is no one set of images."""
        raise UserError(
            f"{self.title} is two sets of images, a and b, and one set is needed here. They are "
            "for task=cyclegan. To use the images of one domain alone, give its folder: "
            "dataset=folder dataset.root=PATH."
        )

    def load_sets(self, split: Split) -> dict[str, Images]:
        """Return "a" and "b", of the training split only `fraction` of each.

        Raises UserError if the data are missing, damaged, or not as the YAML says.
        """
        self.require_facts()
        channels = {"a": self.channels_a, "b": self.channels_b}
        read = self.read_domains(split, self.stored_side(split))
        return {domain: self.finish(read[domain], split, n) for domain, n in channels.items()}

    def load_views(self, split: Split) -> dict[str, Images]:
        """Return what `load_sets` does, at `resolution`; see `load_whole`."""
        if self.stored_side(split) == self.resolution:
            return self.load_sets(split)
        self.require_facts()
        read = self.read_domains(split, self.resolution)
        return {name: self.take_fraction(each, split) for name, each in read.items()}


@dataclass(kw_only=True, eq=False)
class Domains(UnpairedImages):
    """Two sets of images below `root`: trainA, trainB, testA, testB, or A and B.

    `domain_files` has the layouts. Without a test split, a fraction `holdout` of each domain is
    held out. Each domain is shuffled, always in the same order.
    """

    title = "dataset=domains"

    root: DataPath
    holdout: PositiveFraction = 0.1
    skip_unreadable: bool = False
    range: list[float] | None = None  # black and white of deep grey pixels
    frames: Frames = "first"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.reading = make_reading(self.range, self.frames)
        require_convertible(channels_a=self.channels_a, channels_b=self.channels_b)

    @property
    def name(self) -> str:
        return make_safe_name(Path(self.root))

    def read_domains(self, split: Split, side: int) -> dict[str, Images]:
        """Return both domains: decoded once, then memory-mapped from the cache."""
        files, found = self._listed
        described = split == "train" and side == self.load_size  # once, not for `load_views` again
        if described:
            files.log_left_out()
        domains = {}
        # an order of its own for each: images of one name are no pairs
        for number, (domain, splits) in enumerate(found.items()):
            entries = self._select_split(domain, split)
            key = f"channels_{domain}"
            options = (side, getattr(self, key), self.skip_unreadable, self.reading)
            decoder = SquashDecoder(*options)
            x, _ = decode_cached(files, shuffle(entries, ORDER_SEED + number), decoder)
            if described:
                for other in splits.keys() - {"train", "test"}:
                    count = len(splits[other])
                    log.info(
                        "%s: %d images of %s in %s are unused", self.name, count, domain, other
                    )
                log_grey(x, f"images of {domain}", f"dataset.{key}", self.name)
            domains[domain] = Images(x, torch.zeros(len(x), dtype=torch.int64))
        return domains

    def count_listed(self, split: Split) -> dict[str, int]:
        """Count the files; of several frames each there may be any number of images."""
        counts = {domain: len(self._select_split(domain, split)) for domain in self._listed[1]}
        return counts if self.frames == "first" else {}

    @cached_property
    def _listed(self) -> tuple[ImageFiles, dict[str, SplitEntries]]:
        """The files, and those of each domain and split."""
        files = ImageFiles(self.root)
        return files, list_domains(files)

    def _select_split(self, domain: str, split: Split) -> list[Entry]:
        splits = self._listed[1][domain]
        if "test" in splits:
            return splits[split]
        train = splits["train"]
        return hold_out(train, [""] * len(train), self.holdout, split, f"{self.root} ({domain})")


class SquashDecoder(NamedTuple):
    """Any image to a square of one size by bicubic interpolation, whatever its shape."""

    resolution: int
    channels: int
    skip_unreadable: bool
    reading: Reading = ONLY_FIRST

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.channels, self.resolution, self.resolution)

    @property
    def least_side(self) -> int | None:
        return least_side(self.resolution)

    @property
    def hint(self) -> str:
        return "Repair or remove them, or leave them out with dataset.skip_unreadable=true."

    def decode(self, *pictures: ImageFile.ImageFile) -> np.ndarray:
        """(channels, H, W). Raises one of DECODE_ERRORS."""
        (picture,) = pictures
        size = (self.resolution, self.resolution)
        frames = [
            to_planes(frame, self.channels, size, self.reading)
            for frame in read_frames(picture, self.reading, self.least_side)
        ]
        return stack_frames(frames, self.reading)
