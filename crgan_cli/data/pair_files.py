"""Which image files are pairs: two layouts, in a folder or a zip, with or without splits."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import NamedTuple

from crgan_cli.data.decoding import Item, format_names
from crgan_cli.data.file_listing import Entry
from crgan_cli.data.files import ImageFiles, strip_outer_folder
from crgan_cli.data.folder import SPLIT_NAMES
from crgan_cli.errors import UserError

HALVES = ("A", "B")
UNPAIRED = re.compile(rf"({'|'.join(SPLIT_NAMES)})[_-]?([AB])", re.IGNORECASE)
"""Folders of unpaired images: trainA, trainB, testA ... (CycleGAN), also train_A."""

LAYOUTS = (
    "dataset=pairs reads two layouts. (1) Side by side: each file is two images of equal size, A "
    "left and B right, directly in the folder or in train/, val/ and test/ in it. (2) Two folders "
    "A/ and B/: A/1.jpg and B/1.png are a pair; train/, val/ and test/ are in both of them "
    "(A/train/1.jpg), or around them (train/A/1.jpg)."
)


class Located(NamedTuple):
    """A file, and what the folders above it say."""

    entry: Entry
    half: str  # "A" or "B", "" without such a folder
    split: str  # "train", "test", ..., "" without such a folder
    folders: tuple[str, ...]  # the others, from the first that says nothing
    unpaired: bool  # one folder says both

    @property
    def key(self) -> tuple[str, ...]:
        """What the two files of a pair have in common."""
        return (self.split, *self.folders, PurePosixPath(self.entry.name).stem)


def list_pairs(files: ImageFiles) -> dict[str, list[Item]]:
    """List the pairs of each split, sorted by name; all are "train" if there are no splits.

    A pair is one file, side by side, or its files in A and B. Raises UserError, with the names of
    the files that fit neither layout or have no partner.
    """
    located = locate_all(files)
    _require_layout(located, files)
    pairs: dict[str, list[Item]] = {}
    if located[0].half:
        for key, item in _match(located, files):
            pairs.setdefault(key[0] or "train", []).append(item)
    else:
        for each in located:
            pairs.setdefault(each.split or "train", []).append(each.entry)
    return pairs


def locate_all(files: ImageFiles) -> list[Located]:
    """Read the folders above each file, below a single outer folder that says nothing."""
    return [_locate(*each) for each in strip_outer_folder(files.entries, keep=_has_a_meaning)]


def _has_a_meaning(folder: str) -> bool:
    known = folder.casefold() in SPLIT_NAMES or folder.upper() in HALVES
    return known or UNPAIRED.fullmatch(folder) is not None


def _locate(entry: Entry, parts: tuple[str, ...]) -> Located:
    half = split = ""
    for number, part in enumerate(parts):
        both = UNPAIRED.fullmatch(part)
        if both and not half and not split:
            return Located(entry, both[2].upper(), both[1].lower(), parts[number + 1 :], True)
        if not half and part.upper() in HALVES:
            half = part.upper()
        elif not split and part.casefold() in SPLIT_NAMES:
            split = part.casefold()
        else:
            return Located(entry, half, split, parts[number:], False)
    return Located(entry, half, split, (), False)


def _require_layout(located: list[Located], files: ImageFiles) -> None:
    """Raise UserError unless all files are in one of the two layouts."""
    if any(each.unpaired for each in located):
        raise UserError(
            f"The images in {files.root} are in {format_folders(located)}: that is a layout of "
            "unpaired images: type dataset=domains. If images of the same name are pairs, rename "
            f"the folders: trainA to A/train, trainB to B/train. {LAYOUTS}"
        )
    halves, splits = {each.half for each in located}, {each.split for each in located}
    side_by_side = halves == {""} and not any(each.folders for each in located)
    one_depth = splits == {""} or ("" not in splits and "train" in splits)
    if not (side_by_side or halves == set(HALVES)) or not one_depth:
        if "" not in splits and "train" not in splits:
            problem = "there is no train/ among them"
        elif "" in splits and len(splits) > 1:
            problem = "some are in train/, val/ or test/, and some are not"
        elif "" in halves and len(halves) > 1:
            problem = "some are in A/ or B/, and some are not"
        elif halves == {""}:
            problem = "these names mean nothing here"
        else:
            problem = f"{'B' if halves == {'A'} else 'A'}/ is missing"
        raise UserError(
            f"The images in {files.root} are in {format_folders(located)}: {problem}. {LAYOUTS}"
        )


def format_folders(located: Iterable[Located]) -> str:
    """List the folders of the files, the fullest first."""
    counts = Counter(str(PurePosixPath(each.entry.name).parent) for each in located)
    names = [f"{name if name != '.' else 'no folder'} ({n})" for name, n in counts.most_common()]
    return format_names(names)


def _match(located: list[Located], files: ImageFiles) -> list[tuple[tuple[str, ...], Item]]:
    """Return the key and the files (A, B) of each pair, sorted by key."""
    found: dict[str, dict[tuple[str, ...], Entry]] = {half: {} for half in HALVES}
    twins = []
    for each in located:
        first = found[each.half].setdefault(each.key, each.entry)
        if first != each.entry:
            twins.append(f"{first.name} and {PurePosixPath(each.entry.name).name}")
    a, b = (found[half] for half in HALVES)
    problems = [
        f"{len(names)} {what}: {format_names(names)}."
        for what, names in (
            ("in A have no partner in B", [a[key].name for key in sorted(a.keys() - b.keys())]),
            ("in B have no partner in A", [b[key].name for key in sorted(b.keys() - a.keys())]),
            ("name(s) with two files", twins),
        )
        if names
    ]
    if problems:
        raise UserError(
            f"The images in {files.root} are no complete pairs. {' '.join(problems)} A pair is "
            "one file in A and one of the same name in B; endings may differ. Rename or remove "
            "these files. Images that do not show the same in A and B are unpaired: type "
            "dataset=domains."
        )
    return [(key, (a[key], b[key])) for key in sorted(a)]
