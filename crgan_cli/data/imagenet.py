"""ImageNet (ILSVRC2012): decoded and resized once, then read from one large file."""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from crgan_cli.config.bounds import DataPath, PositiveInt
from crgan_cli.data.batch_sampler import BlockShuffle
from crgan_cli.data.dataset import Split
from crgan_cli.data.decode import check_channels
from crgan_cli.data.decoding import CentreDecoder, decode_content
from crgan_cli.data.imagenet_files import Place, SplitSource, find_source, has_source
from crgan_cli.data.images import Images, StoredImages
from crgan_cli.data.labelled import LabelledDataset
from crgan_cli.data.prepared import Work, prepare_pixels
from crgan_cli.data.strata import choose_stratified
from crgan_cli.errors import UserError

BLOCK = 256
"""Images that are read at once: 12 MB at 128 pixels."""


@dataclass(kw_only=True, eq=False)
class ImageNet(LabelledDataset):
    """Centre squares of the photos below `root`, resized once to `resolution`.

    "train" are the training images, "test" the validation images: ImageNet's own test images have
    no public labels. What `only_classes` and `fraction` leave out is not decoded. The images are
    shuffled in the file, always alike, so that the first N are a fair sample.
    """

    title = "ImageNet"

    root: DataPath
    shuffle_window: PositiveInt

    def __post_init__(self) -> None:
        check_channels(self.channels)
        if self.shuffle_window % BLOCK:
            nearest = max(1, round(self.shuffle_window / BLOCK)) * BLOCK
            raise UserError(
                f"dataset.shuffle_window={self.shuffle_window} must be a multiple of {BLOCK}, the "
                f"images that are read at once. Type dataset.shuffle_window={nearest}."
            )

    @property
    def described(self) -> str:
        return f"{super().described} at {self.resolution}x{self.resolution}"

    @property
    def block_shuffle(self) -> BlockShuffle:
        return BlockShuffle(BLOCK, self.shuffle_window // BLOCK)

    def read_used(self, split: Split) -> Images:
        """Return the images that are used, mapped from the cache."""
        root = Path(self.root).expanduser().absolute()
        source = find_source(root, split)
        # the numbers of the training classes, if these are there
        known = has_source(root, "train")
        names = (find_source(root, "train") if known else source).list_classes()
        self.class_names = self.list_classes(names)
        self._require_count()
        in_part = split == "train" and self.fraction < 1.0
        part = [self.fraction, self.fraction_seed] if in_part else None
        facts = [str(source.path), source.facts, list(self.class_names), part]
        shape = (self.channels, self.resolution, self.resolution)
        prepared = prepare_pixels(facts, shape, partial(self._list_work, source, split, names))
        return StoredImages.open(prepared.pixels, torch.from_numpy(prepared.labels))

    def take_fraction(self, images: Images, split: Split) -> Images:
        return images  # taken by `_list_work`

    def _require_count(self) -> None:
        """Raise UserError unless there are `classes` classes."""
        count = len(self.class_names)
        if self.classes not in (0, count):
            raise UserError(
                f"dataset.classes={self.classes}, but {self.root} has training images of {count} "
                f"classes. Type dataset.classes={count}, or dataset.classes=0 to ignore them."
            )

    def _list_work(self, source: SplitSource, split: Split, names: Sequence[str]) -> Work:
        numbers = {name: number for number, name in enumerate(self.class_names)}
        found = source.find_images()
        require_known_classes(found, set(names), source.path)
        places = [place for place in found if place.label in numbers]
        labels = np.array([numbers[place.label] for place in places], np.int64)
        if split == "train" and self.fraction < 1.0:
            chosen = choose_stratified(labels, self.fraction, self.fraction_seed)
            places, labels = [places[index] for index in chosen.tolist()], labels[chosen]
        decoder = CentreDecoder(self.resolution, self.channels, None, False)

        def decode_place(number: int) -> np.ndarray:
            return decode_content(source.read(places[number]), decoder)

        return Work(decode_place, [place.name for place in places], labels, str(source.path))


def require_known_classes(places: Sequence[Place], names: Set[str], path: Path) -> None:
    """Raise UserError for images of no class, or of one that has no training images."""
    unknown = [place for place in places if place.label not in names]
    if unknown:
        label = unknown[0].label
        reason = f"class {label} has no training images" if label else "it is in no class's folder"
        raise UserError(
            f"{len(unknown)} of {len(places)} images in {path} cannot be used, such as "
            f"{unknown[0].name}: {reason}. Remove them, or complete the folders."
        )
