"""What the pixels of a decoded file do not show: how deep they were, and that there were more."""

import logging
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import ImageFile

from crgan_cli.data.decode import FULL_RANGE, JPEG_FORMATS, Reading
from crgan_cli.data.files import ImageFiles
from crgan_cli.errors import UserError

DEEP_COLOUR = re.compile(r"\b(RGB[AXa]?|LA);16[BLN]")
"""In the arguments of Pillow's tiles; BGR;16 is 5, 6 and 5 bits."""

USUAL_DEPTHS = (8, 10, 12, 14)
"""Bits of cameras and scanners that are written into 16 bits."""

log = logging.getLogger(__name__)


class FileFacts(NamedTuple):
    """Of one file: how many frames it has, and the values of its first one if it is deep."""

    frames: int = 1
    low: float | None = None  # of grey pixels of more than 8 bits
    high: float | None = None
    colour: bool = False  # 16-bit colour, which Pillow reduces to 8 bits as it reads it


def inspect_file(picture: ImageFile.ImageFile) -> FileFacts:
    """Return the facts of an opened image, before it is decoded. Raises one of DECODE_ERRORS."""
    # no JPEG is deep or moves: what phones add to one is a preview or a map, and no other image
    if picture.format in JPEG_FORMATS:
        return FileFacts()
    frames = getattr(picture, "n_frames", 1)
    colour = any(DEEP_COLOUR.search(str(tile[3])) for tile in picture.tile)
    if not colour and picture.mode[0] not in "IF":
        return FileFacts(frames)
    values = np.asarray(picture.convert("RGB") if colour else picture)
    scale = 257 if colour else 1
    return FileFacts(frames, float(values.min()) * scale, float(values.max()) * scale, colour)


class SetFacts:
    """The facts of all files of a set."""

    def __init__(self) -> None:
        self.moving = 0
        self.deep: list[FileFacts] = []

    def add(self, files: Sequence[FileFacts]) -> None:
        """Count what becomes one image: a file, or several."""
        self.moving += any(each.frames > 1 for each in files)
        self.deep += [each for each in files if each.high is not None]

    def check(self, reading: Reading, files: ImageFiles) -> None:
        """Log what is done to deep pixels. Raises UserError if all would be nearly black."""
        for colour in (False, True):
            deep = [each for each in self.deep if each.colour == colour]
            if deep:
                low = min(each.low or 0.0 for each in deep)
                high = max(each.high or 0.0 for each in deep)
                what = (
                    f"{len(deep)} images of {files.root} have {'colours' if colour else 'greys'} "
                    f"of more than 8 bits, of values from {low:g} to {high:g}"
                )
                if reading.value_range is None:
                    _require_bright(what, high, colour)
                black, white = FULL_RANGE if colour else reading.value_range or FULL_RANGE
                log.info("%s: %g is black, %g is white", what, black, white)


def _require_bright(what: str, high: float, colour: bool) -> None:
    bits = next((bits for bits in USUAL_DEPTHS if high < 2**bits), None)
    if bits is None:
        return
    if colour:
        remedy = "`mogrify -auto-level -depth 8` (ImageMagick) scales them; Pillow reads no more."
    else:
        remedy = f"If they are {bits}-bit values, type dataset.range=[0,{2**bits - 1}]."
    raise UserError(
        f"{what}: nearly black, if 65535 is white. {remedy} To keep them dark, type "
        "dataset.range=[0,65535]."
    )


def log_moving(moving: int, total: int, files: ImageFiles, reading: Reading) -> None:
    """Log how many files have more frames or pages than are used."""
    if moving and reading.frames == "first":
        advice = " (dataset.frames=all uses all)" if files.option.startswith("dataset.") else ""
        text = "%d of %d images of %s have more frames or pages: only the first is used%s"
        log.warning(text, moving, total, files.root, advice)
