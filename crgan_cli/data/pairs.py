"""A user's own pairs of images, for translation from one to the other (pix2pix).

Sizes and sampling are those of the authors' PyTorch code (junyanz/pytorch-CycleGAN-and-pix2pix,
data/base_dataset.py and aligned_dataset.py): each half is resized to a square by bicubic
interpolation, whatever its shape; in training to a larger one, of which a random square is used.
"""

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageFile
from torch import Tensor

from crgan_cli.config.bounds import DataPath, PositiveFraction, PositiveInt
from crgan_cli.data.cache import decode_cached
from crgan_cli.data.collection import read_header
from crgan_cli.data.dataset import Dataset, Split
from crgan_cli.data.decode import (
    ONLY_FIRST,
    Frames,
    Reading,
    count_frames,
    make_reading,
    read_frames,
    stack_frames,
    to_planes,
)
from crgan_cli.data.decoding import Item
from crgan_cli.data.file_listing import Entry
from crgan_cli.data.files import ImageFiles
from crgan_cli.data.folder import TEST_NAMES, find_test, hold_out, make_safe_name, shuffle
from crgan_cli.data.images import Images
from crgan_cli.data.pair_files import list_pairs
from crgan_cli.errors import UserError
from crgan_cli.gan.types import split_pair

Direction = Literal["a_to_b", "b_to_a"]

log = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class PairedImages(Dataset):
    """Pairs. Each is one image: the channels of the input, then those of the target.

    So a crop, a flip and T move both alike. `gan.types.split_pair` takes them apart.
    """

    channels_in: PositiveInt
    channels_out: PositiveInt
    load_size: PositiveInt  # side of the stored training images; `resolution` is cut out of it

    def __post_init__(self) -> None:
        if self.channels != self.channels_in + self.channels_out:
            raise UserError(
                f"dataset.channels={self.channels} must be the sum of dataset.channels_in="
                f"{self.channels_in} and dataset.channels_out={self.channels_out}. Leave it out; "
                "set these two."
            )
        require_load_size(self.load_size, self.resolution)
        if self.classes:
            raise UserError(f"dataset.classes={self.classes}: pairs have no classes. Leave it out.")

    @property
    def stored_resolution(self) -> int:
        return self.load_size

    def read_at(self, split: Split, side: int) -> Images:
        """Return the pairs of a split in a fixed order, each whole, squashed to squares."""
        raise NotImplementedError

    def read(self, split: Split) -> Images:
        return self.read_at(split, self.stored_side(split))

    def load_whole(self, split: Split) -> Images:
        if self.stored_side(split) == self.resolution:
            return self.load(split)
        self.require_facts()
        return self.take_fraction(self.read_at(split, self.resolution), split)

    def views(self, images: Images) -> dict[str, Images]:
        x, target = split_pair(images.x, self.channels_in)
        return {"real": images, "input": Images(x, images.y), "target": Images(target, images.y)}


@dataclass(kw_only=True, eq=False)
class Pairs(PairedImages):
    """Pairs below `root`, side by side in one file or in folders A and B; see `pair_files`.

    `train/` and `test/` (or `val/`) are the splits. Without a test split, a fraction `holdout` is
    held out. The pairs are shuffled, always in the same order.
    """

    title = "dataset=pairs"

    root: DataPath
    direction: Direction  # which half is the input
    holdout: PositiveFraction = 0.1
    skip_unreadable: bool = False
    range: list[float] | None = None  # black and white of deep grey pixels
    frames: Frames = "first"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.reading = make_reading(self.range, self.frames)
        require_convertible(channels_in=self.channels_in, channels_out=self.channels_out)

    @property
    def name(self) -> str:
        return make_safe_name(Path(self.root))

    def read_at(self, split: Split, side: int) -> Images:
        """Return the pairs of a split: decoded once, then memory-mapped from the cache."""
        files, splits = self._listed
        described = split == "train" and side == self.load_size  # once, not for `load_whole` again
        if described:
            files.log_left_out()
        items = shuffle(self._select_split(split))
        sizes = (side, self.channels_in, self.channels_out)
        decoder = PairDecoder(*sizes, self.direction, self.skip_unreadable, self.reading)
        x, indices = decode_cached(files, items, decoder)
        if described:
            for name in [name for name in TEST_NAMES if name in splits][1:]:
                log.info("%s: %d pairs in %s/ are not used", self.name, len(splits[name]), name)
            log.info("%s: %s", self.name, self._describe(items[indices[0]], files))
            source, target = split_pair(x, self.channels_in)
            log_grey(source, "inputs", "dataset.channels_in", self.name)
            log_grey(target, "targets", "dataset.channels_out", self.name)
        return Images(x, torch.zeros(len(x), dtype=torch.int64))

    def count_listed(self, split: Split) -> dict[str, int]:
        """Count the pairs; of several frames each there may be any number of them."""
        return {"real": len(self._select_split(split))} if self.frames == "first" else {}

    @cached_property
    def _listed(self) -> tuple[ImageFiles, dict[str, list[Item]]]:
        """The files, and the pairs of each split."""
        files = ImageFiles(self.root)
        return files, list_pairs(files)

    def _select_split(self, split: Split) -> list[Item]:
        splits = self._listed[1]
        train = splits["train"]
        if test := find_test(splits):
            return train if split == "train" else splits[test]
        return hold_out(train, [""] * len(train), self.holdout, split, self.root)

    def _describe(self, item: Item, files: ImageFiles) -> str:
        """Say which image is the input, by the example of one pair."""
        if isinstance(item, Entry):
            _, width, height = read_header(files, item)
            width //= 2
            a, b = f"the left half of {item.name}", f"the right half of {item.name}"
        else:
            _, width, height = read_header(files, item[0])
            a, b = (entry.name for entry in item)
        source, target = (a, b) if self.direction == "a_to_b" else (b, a)
        squashed = "" if width == height else ", squashed to squares"
        return (
            f"the input is {source}, the target {target} (dataset.direction={self.direction}); "
            f"each is {width}x{height}{squashed}"
        )


class PairDecoder(NamedTuple):
    """Two files, or one with two images side by side, to one array: the input, then the target."""

    resolution: int
    channels_in: int
    channels_out: int
    direction: Direction
    skip_unreadable: bool
    reading: Reading = ONLY_FIRST

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.channels_in + self.channels_out, self.resolution, self.resolution)

    @property
    def least_side(self) -> int | None:
        return None  # the sizes of two files are compared, and one file is cut at its middle

    @property
    def hint(self) -> str:
        return (
            "Both images of a pair have one size: two files of equal size in A/ and B/, or the two "
            "halves of one wide file. Repair or remove these files, or leave them out with "
            "dataset.skip_unreadable=true."
        )

    def decode(self, *pictures: ImageFile.ImageFile) -> np.ndarray:
        """(channels_in + channels_out, H, W). Raises one of DECODE_ERRORS."""
        counts = [count_frames(picture, self.reading) for picture in pictures]
        if len(set(counts)) > 1:
            raise ValueError(f"A has {counts[0]} frames, but B has {counts[1]}")
        files = [read_frames(picture, self.reading) for picture in pictures]
        pairs = [self._join(*frames) for frames in zip(*files, strict=True)]
        return stack_frames(pairs, self.reading)

    def _join(self, *pictures: Image.Image) -> np.ndarray:
        a, b = pictures if len(pictures) == 2 else cut_in_half(pictures[0])
        if a.size != b.size:
            raise ValueError(f"A is {a.width}x{a.height}, but B is {b.width}x{b.height}")
        source, target = (a, b) if self.direction == "a_to_b" else (b, a)
        parts = ((source, self.channels_in), (target, self.channels_out))
        size = (self.resolution, self.resolution)
        return np.concatenate([to_planes(*part, size, self.reading) for part in parts])


def cut_in_half(picture: Image.Image) -> tuple[Image.Image, Image.Image]:
    """Return the left and the right half. Raises ValueError if it cannot be two images."""
    width, height = picture.size
    if width % 2:
        raise ValueError(f"its width {width} is odd, so it has no two equal halves")
    if width <= height:
        raise ValueError(f"it is {width}x{height}, not two images side by side")
    return picture.crop((0, 0, width // 2, height)), picture.crop((width // 2, 0, width, height))


def require_convertible(**channels: int) -> None:
    """Raise UserError for a number of channels that images are not converted to, by its key."""
    for key, count in channels.items():
        if count not in (1, 3, 4):
            raise UserError(
                f"dataset.{key}={count}: images are converted to 1 channel (grey), 3 (colour) or 4 "
                "(colour and alpha, such as a mask)."
            )


def require_load_size(load_size: int, resolution: int) -> None:
    """Raise UserError if squares of `resolution` cannot be cut out of stored images."""
    if load_size < resolution:
        raise UserError(
            f"dataset.load_size={load_size} is smaller than dataset.resolution={resolution}, which "
            f"is cut out of it. Give at least {resolution}; the same number means no random crop. "
            f"The authors' ratio gives dataset.load_size={round(resolution * 286 / 256)}."
        )


def log_grey(x: Tensor, what: str, key: str, name: str) -> None:
    """Log how many of the colour images `x` are grey; `key` sets their number of channels."""
    if x.shape[1] > 1 and (count := count_grey(x)):
        advice = f" ({key}=1 would do)" if count == len(x) else ""
        text = "%s: %d of %d %s are grey: their colour channels are equal%s"
        log.info(text, name, count, len(x), what, advice)


def count_grey(x: Tensor) -> int:
    """How many images of x (N, C, H, W), C at least 3, are grey: three equal channels."""
    # the middle row first: it rules out nearly every image in colour, and is quickly read
    middle = x[:, :3, x.shape[2] // 2]
    candidates = (middle == middle[:, :1]).flatten(1).all(1).nonzero().flatten()
    return sum(bool((x[i, :3] == x[i, :1]).all()) for i in candidates)
