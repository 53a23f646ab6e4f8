"""A user's own images: a folder or a zip. Its sub-folders may be classes and splits."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from crgan_cli.config.bounds import DataPath, PositiveFraction
from crgan_cli.data.cache import SquareDecoder, decode_cached
from crgan_cli.data.decode import check_channels
from crgan_cli.data.file_listing import Entry
from crgan_cli.data.files import ImageFiles, strip_outer_folder
from crgan_cli.data.images import Dataset, Images, Split, choose_stratified
from crgan_cli.errors import UserError

TEST_NAMES = ("test", "val", "valid", "validation")  # the first that exists is the test split
ORDER_SEED = 0  # of the held-out images and of the order

Value = TypeVar("Value")


class Item(NamedTuple):
    """An image file and its class: the name of its sub-folder, None without one."""

    entry: Entry
    label: str | None


@dataclass(kw_only=True, eq=False)
class Folder(Dataset):
    """Images below `root`, centre-cropped to squares and resized once to `resolution`.

    `train/` and `test/` (or `val/`) are the splits if both exist. Otherwise a fraction `holdout` of
    each class is the test split. Sub-folders are classes, in sorted order, if `classes` is their
    number; with `classes: 0` they have no meaning. A single outer folder is skipped. The images are
    shuffled, always in the same order, so that the first N are a fair sample.
    """

    title = "dataset=folder"

    root: DataPath
    holdout: PositiveFraction = 0.1
    skip_unreadable: bool = False

    def __post_init__(self) -> None:
        check_channels(self.channels)

    @property
    def name(self) -> str:
        return make_safe_name(Path(self.root))

    def read(self, split: Split) -> Images:
        """Return the images of a split: decoded once, then memory-mapped from the cache."""
        files = ImageFiles(self.root)
        if split == "train":
            files.log_left_out()
        splits = {
            key: _label_by_folder(part) for key, part in _split_by_folder(files.entries).items()
        }
        if self.classes:
            self.class_names = self._require_class_names(splits, files)
        labels = {name: label for label, name in enumerate(self.class_names)}
        items = shuffle(
            splits[split] if "test" in splits else self._hold_out(splits["train"], split)
        )
        decoder = SquareDecoder(self.resolution, self.channels, None, self.skip_unreadable)
        x, indices = decode_cached(files, [item.entry for item in items], decoder)
        y = [labels.get(items[index].label or "", 0) for index in indices]
        return Images(x, torch.tensor(y, dtype=torch.int64))

    def _hold_out(self, items: list[Item], split: Split) -> list[Item]:
        strata = [(item.label or "") if self.classes else "" for item in items]
        return hold_out(items, strata, self.holdout, split, self.root)

    def _require_class_names(
        self, splits: dict[str, list[Item]], files: ImageFiles
    ) -> tuple[str, ...]:
        loose = [item.entry.name for item in splits["train"] if item.label is None]
        names = sorted({item.label for item in splits["train"] if item.label is not None})
        if loose:
            raise UserError(
                f"dataset.classes={self.classes} needs every image of {files.root} in the "
                f"sub-folder of its class, but {len(loose)} are in none, e.g. {loose[0]}. Move "
                "them, or ignore the classes with dataset.classes=0."
            )
        if len(names) != self.classes:
            listed = ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")
            raise UserError(
                f"dataset.classes={self.classes}, but {files.root} has {len(names)} sub-folders "
                f"of images: {listed}. Set dataset.classes={len(names)}, or 0 to ignore the "
                "classes."
            )
        unknown = {item.label or "(none)" for item in splits.get("test", [])} - set(names)
        if unknown:
            raise UserError(
                f"The test split of {files.root} has sub-folders that its training split lacks: "
                f"{', '.join(sorted(unknown)[:10])}. Rename or remove them, or ignore the classes "
                "with dataset.classes=0."
            )
        return tuple(names)


def hold_out(
    items: Sequence[Value], strata: Sequence[str], share: float, split: Split, root: str
) -> list[Value]:
    """Return the items of a split, if a `share` of each stratum is the test split.

    `strata` are as many as items. Raises UserError if no item is left to train on.
    """
    test = set(choose_stratified(np.array(strata), share, ORDER_SEED).tolist())
    if len(test) == len(items):
        raise UserError(
            f"dataset.holdout={share} of the {len(items)} image(s) in {root} "
            "leaves none to train on. Give more images, or a smaller dataset.holdout."
        )
    return [item for i, item in enumerate(items) if (i in test) == (split == "test")]


def shuffle(items: Sequence[Value], seed: int = ORDER_SEED) -> list[Value]:
    """Return the items in another order, always the same: the first N are a fair sample."""
    order = np.random.RandomState(seed).permutation(len(items))
    return [items[position] for position in order]


def make_safe_name(root: Path) -> str:
    """Return the name of a folder or a zip, with only letters that file names and tags allow."""
    return re.sub(r"[^\w.-]+", "-", root.expanduser().absolute().stem) or "images"


def _split_by_folder(entries: list[Entry]) -> dict[str, list[tuple[Entry, tuple[str, ...]]]]:
    """Group entries and the folders above them by split: "train" and "test", or all as "train"."""
    located = strip_outer_folder(entries)
    tops = {parts[:1] for _, parts in located}
    tests = [name for name in TEST_NAMES if (name,) in tops]
    # a class may be called "train": these are splits only if there are no other folders
    if not tests or ("train",) not in tops or tops - {("train",), *((n,) for n in TEST_NAMES)}:
        return {"train": located}
    return {
        key: [(entry, parts[1:]) for entry, parts in located if parts[0] == name]
        for key, name in (("train", "train"), ("test", tests[0]))
    }


def _label_by_folder(part: list[tuple[Entry, tuple[str, ...]]]) -> list[Item]:
    return [Item(entry, parts[0] if parts else None) for entry, parts in part]
