"""The classes of a user's own images: sub-folders, or the numbers of a `dataset.json`."""

import logging
import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from crgan_cli.data.dataset_json import FILE, find_json_labels, require_json_labels
from crgan_cli.data.decoding import format_names
from crgan_cli.data.file_listing import Entry
from crgan_cli.data.files import ImageFiles
from crgan_cli.errors import UserError

LabelSource = Literal["auto", "folders", "dataset_json", "none"]
"""Where classes are: auto is a `dataset.json` with labels, else sub-folders."""

SplitFiles = dict[str, list[tuple[Entry, tuple[str, ...]]]]
"""Split -> its files and the folders above them."""

log = logging.getLogger(__name__)


class Item(NamedTuple):
    """An image file and its class: the name of its sub-folder, or a number; None without one."""

    entry: Entry
    label: str | None


class Classified(NamedTuple):
    """The items of each split, and the names of their classes, if these are asked for."""

    splits: dict[str, list[Item]]
    names: tuple[str, ...]


def sort_naturally(names: Iterable[str]) -> list[str]:
    """Sort as a person counts: 2 before 10."""

    def count(name: str) -> tuple[list[str | int], str]:
        parts = re.split(r"(\d+)", name)  # every second one is a number
        return [int(part) if i % 2 else part for i, part in enumerate(parts)], name

    return sorted(names, key=count)


def classify(
    files: ImageFiles, found: SplitFiles, source: LabelSource, classes: int | None
) -> Classified:
    """Give each file its class. `classes` is how many there must be; None: any number.

    With 0, `auto` and `none` give no classes.

    Raises UserError if their number is another, or a file has none.
    """
    numbers = None if source in ("folders", "none") else find_json_labels(files)
    if source == "dataset_json" and numbers is None:
        raise UserError(
            f"{files.root} holds no {FILE} with labels. Type dataset.labels=folders if its "
            "sub-folders are classes."
        )
    if numbers is None:
        splits = {
            split: [Item(entry, parts[0] if parts else None) for entry, parts in part]
            for split, part in found.items()
        }
    else:
        splits = {
            split: [Item(entry, _format(numbers.get(entry.name))) for entry, _ in part]
            for split, part in found.items()
        }
    if classes == 0 and source in ("auto", "none"):
        if numbers:
            count = max(numbers.values()) + 1
            log.info("%s labels %d classes: dataset.classes=%d uses them", FILE, count, count)
        return Classified(splits, ())
    if numbers is None:
        names = _require_sub_folders(splits, files)
        _require_count(len(names), classes, f"{files.root} has", "sub-folders of images", names)
        return Classified(splits, names)
    require_json_labels(files.entries, numbers, files)
    count = max(numbers.values()) + 1
    _require_count(count, classes, f"{FILE} in {files.root} labels", "classes")
    return Classified(splits, tuple(map(str, range(count))))


def _require_count(
    count: int, classes: int | None, who: str, what: str, names: tuple[str, ...] = ()
) -> None:
    if classes not in (None, count):
        listed = f": {format_names(list(names))}" if names else ""
        raise UserError(
            f"dataset.classes={classes}, but {who} {count} {what}{listed}. Set dataset.classes="
            f"{count}, or ignore the classes with dataset.classes=0 dataset.labels=none."
        )


def _format(number: int | None) -> str | None:
    return None if number is None else str(number)


def _require_sub_folders(splits: dict[str, list[Item]], files: ImageFiles) -> tuple[str, ...]:
    """Return the names of the sub-folders of the training split. Raise UserError if an image is in
    none of them."""
    loose = [item.entry.name for item in splits["train"] if item.label is None]
    names = sort_naturally({item.label for item in splits["train"] if item.label is not None})
    if loose:
        raise UserError(
            f"Classes need every image of {files.root} in the sub-folder of its class (or a "
            f"{FILE}), but {len(loose)} are in none, e.g. {loose[0]}. Move "
            "them, or ignore the classes with dataset.classes=0."
        )
    unknown = {item.label or "(none)" for item in splits.get("test", [])} - set(names)
    if unknown:
        raise UserError(
            f"The test split of {files.root} has sub-folders that its training split lacks: "
            f"{', '.join(sorted(unknown)[:10])}. Rename or remove them, or ignore the classes "
            "with dataset.classes=0."
        )
    return tuple(names)
