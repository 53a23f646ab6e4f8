"""Read the attributes of images from a text file: CelebA's own format, or CSV with a header.

CelebA's `list_attr_celeba.txt` has the number of images in its first line, the names of the
attributes in its second, then a line per image: its file and 1 (yes) or -1 (no) for each attribute.
In a CSV the first column is the file, the others are attributes: 1 (yes), 0 or -1 (no).
"""

import csv
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from crgan_cli.errors import UserError, unknown_name

VALUES = {"1": 1, "0": 0, "-1": 0}


class LabelTable(NamedTuple):
    """The chosen attributes of files, in the order of the label file."""

    names: list[str]  # N files, as the label file spells them
    y: np.ndarray  # (N, attributes) int64 of 0 and 1


def read_labels(content: bytes, source: str, attributes: Sequence[str]) -> LabelTable:
    """Read the columns `attributes`, in this order. `source` is the file, for error messages.

    Raises UserError for unknown attributes, two rows of one file, and other values.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{source} is no text in UTF-8 ({error}). Convert it.") from error
    header, rows = _split_csv(text) if source.lower().endswith(".csv") else _split_celeba(text)
    if not header:
        first = next(iter(text.splitlines()), "")
        raise UserError(
            f"{source} names no attributes: its first line is {first[:60]!r}. A CSV has a header, "
            "such as file,Male,Young, and commas between its columns: not semicolons or tabs."
        )
    _require_attributes(attributes, header, source)
    columns = [header.index(name) + 1 for name in attributes]
    names: dict[str, list[int]] = {}
    for line, row in rows:
        if len(row) != len(header) + 1:
            raise UserError(
                f"{source}, line {line} has {len(row)} columns, but a file and {len(header)} "
                f"attributes are expected: {' '.join(row)[:80]!r}. Correct that line."
            )
        if row[0] in names:
            raise UserError(f"{source}, line {line}: {row[0]} has two rows. Remove one of them.")
        values = [VALUES.get(row[column].strip()) for column in columns]
        if None in values:
            at = values.index(None)
            raise UserError(
                f"{source}, line {line}: {attributes[at]} of {row[0]} is {row[columns[at]]!r}. An "
                "attribute is 1 (yes), or 0 or -1 (no). Correct it, or choose other attributes: "
                "dataset.attributes=[...]."
            )
        names[row[0]] = [value for value in values if value is not None]
    y = np.array(list(names.values()), np.int64).reshape(len(names), len(columns))
    return LabelTable(list(names), y)


Rows = list[tuple[int, list[str]]]
"""Number of the line and its words."""


def _split_csv(text: str) -> tuple[list[str], Rows]:
    lines = [(number, row) for number, row in enumerate(csv.reader(text.splitlines()), 1) if row]
    header = [name.strip() for name in lines[0][1][1:]] if lines else []
    return header, [(number, [row[0].strip(), *row[1:]]) for number, row in lines[1:]]


def _split_celeba(text: str) -> tuple[list[str], Rows]:
    lines = [
        (number, words)
        for number, line in enumerate(text.splitlines(), 1)
        if (words := line.split())
    ]
    if lines and len(lines[0][1]) == 1 and lines[0][1][0].isdigit():
        lines = lines[1:]  # the number of images
    return (lines[0][1] if lines else []), lines[1:]


def _require_attributes(attributes: Sequence[str], header: list[str], source: str) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise UserError(f"{source} has two columns {', '.join(twice)}. Rename or remove one.")
    for name in attributes:
        if name not in header:
            raise UserError(unknown_name("attribute", name, header, where=source))
