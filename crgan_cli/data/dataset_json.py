"""Class labels from `dataset.json`, the file that the tools of StyleGAN write beside images.

{"labels": [["00000/img00000000.png", 6], ...]}, or null for none: paths below the file's folder,
and class numbers from 0 or rows of which one number is 1 (NVlabs/stylegan2-ada-pytorch,
dataset_tool.py and training/dataset.py). There are as many classes as the largest number says.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import PurePosixPath

from crgan_cli.data.decode import DECODE_ERRORS
from crgan_cli.data.file_listing import Entry, unify_name
from crgan_cli.data.files import ImageFiles
from crgan_cli.errors import UserError

FILE = "dataset.json"
EXPECTED = '{"labels": [[NAME, NUMBER], ...]}, with NAME below its folder and NUMBER from 0'

log = logging.getLogger(__name__)


def find_json_labels(files: ImageFiles) -> dict[str, int] | None:
    """Return the class of each named file; None if no `dataset.json` has labels.

    Several files, as in train/ and test/, count together. Raises UserError for a damaged one.
    """
    labels: dict[str, int] = {}
    for entry in files.others:
        if PurePosixPath(entry.name).name == FILE:
            labels |= _read(files, entry)
    return labels or None


def _read(files: ImageFiles, entry: Entry) -> dict[str, int]:
    source = f"{files.root}/{entry.name}"
    try:
        content = json.loads(files.read(entry))
    except (*DECODE_ERRORS, RecursionError) as error:
        raise UserError(
            f"{source} cannot be read ({error}). Correct it, or remove it, or use the sub-folders "
            "with dataset.labels=folders."
        ) from error
    rows = content.get("labels") if isinstance(content, dict) else content
    if rows is None:
        return {}
    if isinstance(rows, dict):
        rows = list(rows.items())
    pairs = [
        (row[0], row[1])
        for row in (rows if isinstance(rows, list) else [None])
        if isinstance(row, list | tuple) and len(row) == 2 and isinstance(row[0], str)
    ]
    if not isinstance(rows, list) or len(pairs) != len(rows):
        raise UserError(f"{source} must be {EXPECTED}. Correct it.")
    folder = entry.name.removesuffix(FILE)
    return {folder + unify_name(name): _to_class(value, name, source) for name, value in pairs}


def _to_class(value: object, name: str, source: str) -> int:
    if isinstance(value, list) and value.count(1) == 1 and value.count(0) == len(value) - 1:
        return value.index(1)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise UserError(
        f"{source}: the label of {name} is {value!r:.80}. A class is a number from 0, or a row of "
        "zeros with a single 1. Correct it. Several labels of one image are attributes: write "
        "them into a CSV, and type dataset=attributes."
    )


def require_json_labels(
    entries: Sequence[Entry], labels: dict[str, int], files: ImageFiles
) -> None:
    """Raise UserError if an image has no label. Log labels without an image."""
    names = {entry.name for entry in entries}
    missing = [entry.name for entry in entries if entry.name not in labels]
    if missing:
        raise UserError(
            f"{FILE} in {files.root} has no label for {len(missing)} of the {len(entries)} images, "
            f"such as {missing[0]}. Add them, remove these images, or use the sub-folders with "
            "dataset.labels=folders."
        )
    if unused := [name for name in labels if name not in names]:
        log.warning("%d labels in %s are of no image: %s", len(unused), FILE, unused[0])
