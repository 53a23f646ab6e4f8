"""A user's own images: a folder or a zip. Its sub-folders may be classes and splits."""

import logging
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from crgan_cli.config.bounds import DataPath, ImageSize, PositiveFraction
from crgan_cli.data.cache import decode_cached
from crgan_cli.data.dataset import Split
from crgan_cli.data.decode import Frames, check_channels, make_reading
from crgan_cli.data.decoding import CentreDecoder, format_names
from crgan_cli.data.files import ImageFiles, strip_outer_folder
from crgan_cli.data.folder_classes import Classified, Item, LabelSource, SplitFiles, classify
from crgan_cli.data.images import Images
from crgan_cli.data.labelled import LabelledDataset
from crgan_cli.data.strata import choose_stratified
from crgan_cli.errors import UserError, conflict

TEST_NAMES = ("test", "val", "valid", "validation")  # the first that exists is the test split
ORDER_SEED = 0  # of the held-out images and of the order

SPLIT_NAMES = ("train", *TEST_NAMES)

Value = TypeVar("Value")

log = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class Folder(LabelledDataset):
    """Images below `root`, centre-cropped to the shape of `resolution` and resized to it once.

    `train/` and `test/` (or `val/`) are the splits if both exist. Otherwise a fraction `holdout` of
    each class is the test split. Classes are in a `dataset.json` or else are the sub-folders,
    sorted as a person counts; `labels` chooses. `classes` must be their number; with `classes: 0`
    they have no meaning. A single outer folder is skipped. The images are shuffled, always in the
    same order, so that the first N are a fair sample.
    """

    title = "dataset=folder"

    resolution: ImageSize  # pyright: ignore[reportIncompatibleVariableOverride] - see `sides`
    root: DataPath
    holdout: PositiveFraction = 0.1
    skip_unreadable: bool = False
    labels: LabelSource = "auto"
    range: list[float] | None = None  # black and white of deep grey pixels
    frames: Frames = "first"

    def __post_init__(self) -> None:
        self.reading = make_reading(self.range, self.frames)
        check_channels(self.channels)
        if self.labels == "none" and self.classes:
            one, other = "dataset.labels=none", f"dataset.classes={self.classes}"
            raise UserError(conflict(one, other, "the first means no classes", "Leave out one."))

    @property
    def name(self) -> str:
        return make_safe_name(Path(self.root))

    def read(self, split: Split) -> Images:
        """Return the images of a split: decoded once, then memory-mapped from the cache."""
        files, found = self._listed
        if split == "train":
            files.log_left_out()
            for other in sorted(found.splits.keys() - {"train", "test"}):
                log.info(
                    "%s: %d images in %s/ are unused", self.name, len(found.splits[other]), other
                )
        self.class_names = self.renumber(found.names)
        labels = {name: label for label, name in enumerate(self.class_names)}
        if split == "train" and labels:
            numbered = [f"{label} {name}" for name, label in labels.items()]
            log.info("%s: %d classes: %s", self.name, len(labels), format_names(numbered))
            tested = {item.label for item in self._select_split("test")}
            if untested := [name for name in self.class_names if name not in tested]:
                text = "%s: the test split has no image of %d of them: %s"
                log.warning(text, self.name, len(untested), format_names(untested))
        items = shuffle(self._select_split(split))
        options = (self.resolution, self.channels, None, self.skip_unreadable, self.reading)
        decoder = CentreDecoder(*options)
        x, indices = decode_cached(files, [item.entry for item in items], decoder)
        y = [labels.get(items[index].label or "", 0) for index in indices]
        return Images(x, torch.tensor(y, dtype=torch.int64))

    def count_listed(self, split: Split) -> dict[str, int]:
        """Count the files; of several frames each there may be any number of images."""
        only = set(map(str, self.only_classes))
        items = [item for item in self._select_split(split) if not only or item.label in only]
        return {"real": len(items)} if self.frames == "first" else {}

    @cached_property
    def _listed(self) -> tuple[ImageFiles, Classified]:
        """The files, and the items of each split with the names of their classes."""
        files = ImageFiles(self.root)
        count = None if self.only_classes else self.classes
        return files, classify(files, _split_by_folder(files, self.labels), self.labels, count)

    def _select_split(self, split: Split) -> list[Item]:
        splits, names = self._listed[1]
        if "test" in splits:
            return splits[split]
        strata = [(item.label or "") if names else "" for item in splits["train"]]
        return hold_out(splits["train"], strata, self.holdout, split, self.root)


def hold_out(
    items: Sequence[Value], strata: Sequence[str], share: float, split: Split, root: str
) -> list[Value]:
    """Return the items of a split, if a `share` of each stratum is the test split.

    `strata` are as many as items. Of each the first is trained on if all would be held out. Raises
    UserError if no item is left to train on.
    """
    test = set(choose_stratified(np.array(strata), share, ORDER_SEED).tolist())
    if len(test) == len(items):
        least = len(choose_stratified(np.array(strata), 0, ORDER_SEED))  # one of each stratum
        smaller = ", or a smaller dataset.holdout" if least < len(items) else ""
        raise UserError(
            f"dataset.holdout={share} of the {len(items)} image(s) in {root} "
            f"leaves none to train on. Give more images{smaller}."
        )
    for stratum in sorted(set(strata) - {each for i, each in enumerate(strata) if i not in test}):
        test.remove(strata.index(stratum))  # or a class would be asked for and never seen
    return [item for i, item in enumerate(items) if (i in test) == (split == "test")]


def find_test(names: Container[str]) -> str | None:
    """Return the name of the test split among those of splits, if there is one."""
    return next((name for name in TEST_NAMES if name in names), None)


def shuffle(items: Sequence[Value], seed: int = ORDER_SEED) -> list[Value]:
    """Return the items in another order, always the same: the first N are a fair sample."""
    order = np.random.RandomState(seed).permutation(len(items))
    return [items[position] for position in order]


def make_safe_name(root: Path) -> str:
    """Return the name of a folder or a zip, with only letters that file names and tags allow."""
    return re.sub(r"[^\w.-]+", "-", root.expanduser().absolute().stem) or "images"


def _split_by_folder(files: ImageFiles, labels: LabelSource) -> SplitFiles:
    """Group entries and the folders above them by split: "train", "test" and others that are not
    used, or all as "train".

    Raises UserError for folders of splits that cannot be used: to pool them would train on the test
    images. They may be classes of these names, if sub-folders are asked for as classes.
    """
    located = strip_outer_folder(files.entries)
    inside: dict[tuple[str, ...], set[str]] = {}  # folder -> the folders in it
    for _, parts in located:
        for depth, name in enumerate(parts):
            inside.setdefault(parts[:depth], set()).add(name.casefold())
    around = [folder for folder, names in inside.items() if "train" in names and find_test(names)]
    outside = [
        entry.name
        for entry, parts in located
        if () not in around or not parts or parts[0].casefold() not in SPLIT_NAMES
    ]
    if not around or (outside and labels == "folders"):
        return {"train": located}
    if outside:
        names = ("train", find_test(inside[around[0]]) or "")
        train, test = ("/".join((*around[0], name)) for name in names)
        raise UserError(
            f"{files.root} has folders of splits, {train}/ and {test}/, but {len(outside)} of "
            f"{len(located)} images are not in splits directly below it: {format_names(outside)}. "
            "Move these away, or give the folder that holds nothing but splits: dataset.root=PATH. "
            "If all its folders are classes, type dataset.labels=folders dataset.classes=N."
        )
    test, splits = find_test(inside[()]), SplitFiles()
    for entry, parts in located:
        name = parts[0].casefold()
        splits.setdefault("test" if name == test else name, []).append((entry, parts[1:]))
    return splits
