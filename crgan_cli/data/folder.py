"""A user's own images: a folder or a zip, in which sub-folders may be classes and splits."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from crgan_cli.config.bounds import NonNegativeInt, PositiveFraction, PositiveInt
from crgan_cli.data.cache import SquareDecoder, decode_cached
from crgan_cli.data.decode import check_channels
from crgan_cli.data.files import Entry, ImageFiles, strip_outer_folder
from crgan_cli.data.images import Dataset, Images, Split, stratified
from crgan_cli.errors import UserError

TEST_NAMES = ("test", "val", "valid", "validation")  # the first that is there is the test split
SEED = 0  # of the held-out share and of the order


class Item(NamedTuple):
    """An image file and the class that its sub-folder says, None where it lies in no sub-folder."""

    entry: Entry
    label: str | None


class Folder(Dataset):
    """Images below `root`, centre-cropped to squares and resized once to `resolution`.

    `train/` and `test/` (or `val/`) are splits where both are there; otherwise a share of
    `holdout` per class is the test split. Sub-folders are classes, in sorted order, if `classes`
    says how many there are; with `classes: 0` they mean nothing. A lone outer folder is looked
    through. The order of the images is shuffled, always in the same way, so that the first N are
    a fair sample.
    """

    title = "dataset=folder"

    def __init__(
        self,
        *,
        root: str,
        resolution: PositiveInt,
        channels: PositiveInt,
        classes: NonNegativeInt,
        holdout: PositiveFraction = 0.1,
        skip_unreadable: bool = False,
        fraction: PositiveFraction = 1.0,
        fraction_seed: NonNegativeInt = 0,
        flip: bool = False,
    ) -> None:
        super().__init__(
            resolution=resolution,
            channels=channels,
            classes=classes,
            fraction=fraction,
            fraction_seed=fraction_seed,
            flip=flip,
        )
        check_channels(channels)
        self.root = root
        self.holdout = holdout
        self.skip_unreadable = skip_unreadable

    @property
    def name(self) -> str:
        return stem_of(Path(self.root))

    def read(self, split: Split) -> Images:
        """The images of a split, decoded once and then memory-mapped from the cache."""
        files = ImageFiles(self.root)
        splits = {key: _labelled(part) for key, part in _official(files.entries).items()}
        if self.classes:
            self.class_names = self._names(splits, files)
        labels = {name: label for label, name in enumerate(self.class_names)}
        split_items = splits[split] if "test" in splits else self._held_out(splits["train"], split)
        order = np.random.RandomState(SEED).permutation(len(split_items))
        items = [split_items[position] for position in order]
        recipe = SquareDecoder(self.resolution, self.channels, None, self.skip_unreadable)
        x, kept = decode_cached(files, [item.entry for item in items], recipe)
        y = [labels.get(items[position].label or "", 0) for position in kept]
        return Images(x, torch.tensor(y, dtype=torch.int64))

    def _held_out(self, items: list[Item], split: Split) -> list[Item]:
        strata = np.array([(item.label or "") if self.classes else "" for item in items])
        test = set(stratified(strata, self.holdout, SEED).tolist())
        if len(test) == len(items):
            raise UserError(
                f"dataset.holdout={self.holdout} of the {len(items)} image(s) in {self.root} "
                "leaves none to train on: give more images, or a smaller share."
            )
        return [item for at, item in enumerate(items) if (at in test) == (split == "test")]

    def _names(self, splits: dict[str, list[Item]], files: ImageFiles) -> tuple[str, ...]:
        loose = [item.entry.name for item in splits["train"] if item.label is None]
        names = sorted({item.label for item in splits["train"] if item.label is not None})
        if loose:
            raise UserError(
                f"dataset.classes={self.classes} needs every image of {files.root} in the "
                f"sub-folder of its class, and {len(loose)} are in none, such as {loose[0]}. Move "
                "them, or leave the classes out with dataset.classes=0."
            )
        if len(names) != self.classes:
            listed = ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")
            raise UserError(
                f"dataset.classes={self.classes}, and {files.root} has {len(names)} sub-folders "
                f"of images: {listed}. Set dataset.classes={len(names)}, or 0 to leave the "
                "classes out."
            )
        strange = {item.label or "(none)" for item in splits.get("test", [])} - set(names)
        if strange:
            raise UserError(
                f"The test split of {files.root} has sub-folders that its training split lacks: "
                f"{', '.join(sorted(strange)[:10])}. Rename or remove them, or leave the classes "
                "out with dataset.classes=0."
            )
        return tuple(names)


def stem_of(root: Path) -> str:
    """A folder's or a zip's name in letters that are legal in files and tags."""
    return re.sub(r"[^\w.-]+", "-", root.expanduser().absolute().stem) or "images"


def _official(entries: list[Entry]) -> dict[str, list[tuple[Entry, tuple[str, ...]]]]:
    """Entries with the folders above them, by split: {"train", "test"}, or all as {"train"}."""
    below = strip_outer_folder(entries)
    tops = {parts[:1] for _, parts in below}
    tests = [name for name in TEST_NAMES if (name,) in tops]
    # a class may be called "train": splits only where nothing else lies beside them
    if not tests or ("train",) not in tops or tops - {("train",), *((n,) for n in TEST_NAMES)}:
        return {"train": below}
    return {
        key: [(entry, parts[1:]) for entry, parts in below if parts[0] == name]
        for key, name in (("train", "train"), ("test", tests[0]))
    }


def _labelled(part: list[tuple[Entry, tuple[str, ...]]]) -> list[Item]:
    return [Item(entry, parts[0] if parts else None) for entry, parts in part]
