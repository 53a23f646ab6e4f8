"""Images that others made, exactly as they are: what `crgan eval` scores beside generators.

Unlike dataset=folder nothing is resized, cropped, turned or converted, since each of these moves a
score (Parmar et al. 2022, arXiv:2104.11222). The order is torch-fidelity's, by name, because KID
and IS depend on it; so is the choice of the first frame, and of pixels as stored whatever EXIF
says. torch-fidelity takes png, jpg and jpeg alone, and sub-folders only if it is told to.
"""

import io
import logging
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageFile
from torch import Tensor

from crgan_cli.data.cache import decode_cached, reason, require_readable, select_readable
from crgan_cli.data.decode import UNREADABLE, quiet_pillow
from crgan_cli.data.files import Entry, ImageFiles, strip_outer_folder
from crgan_cli.data.images import Images, fingerprint
from crgan_cli.errors import UserError

CHANNELS = {"1": 1, "L": 1, "P": 3, "RGB": 3}
"""Pillow's modes that become grey or RGB with every value kept -> channels."""

IN_MEMORY_BYTES = 1024**3
"""Pixels up to this size are decoded into memory, more into the cache on disk."""

JPEGS = (".jpg", ".jpeg", ".jfif")
EXPORTED = {"generated", "real"}  # the folders of `crgan eval --export`
CONVERT_HINT = "Repair or remove them, or make them anew."

log = logging.getLogger(__name__)


class ImageCollection(NamedTuple):
    """Images with where they are from and the names of their classes."""

    images: Images  # in order of their names; y is zeros without classes
    class_names: tuple[str, ...]  # the sub-folders, sorted; empty where there are none
    sha256: str  # `fingerprint` of the images


class UnchangedImages(NamedTuple):
    """Files that are all of one shape already."""

    channels: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.channels, self.height, self.width)

    @property
    def skip_unreadable(self) -> bool:
        return False

    @property
    def hint(self) -> str:
        return CONVERT_HINT

    def decode(self, content: bytes) -> np.ndarray:
        """(C, H, W) uint8. Raises ValueError if the file changed since its header was read."""
        with Image.open(io.BytesIO(content)) as opened:
            if (CHANNELS.get(mode_of(opened)), opened.height, opened.width) != self:
                raise ValueError("it changed while it was read")
            pixels = np.asarray(opened.convert("L" if self.channels == 1 else "RGB"))
        pixels = pixels.reshape(self.height, self.width, self.channels)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))


class Header(NamedTuple):
    """What a file says of itself before its pixels."""

    mode: str
    width: int
    height: int


def read_collection(path: Path, asked: str = "--samples") -> ImageCollection:
    """All images of a folder or a zip. `asked` is the option that they were given by, for errors.

    If every image lies in a sub-folder (of a lone outer folder, perhaps), these are its classes.
    Raises UserError unless all can be read, have one size, and are all grey or all RGB.
    """
    files = ImageFiles(str(path), asked)
    placed = strip_outer_folder(files.entries)
    tops = {parts[0] if parts else "" for _, parts in placed}
    if tops == EXPORTED:
        raise UserError(
            f"{files.root} is what crgan eval --export wrote: {asked} takes one of its two folders "
            "(unpack a zip first). Give its generated/ or real/."
        )
    recipe = common_header(read_headers(files), files)
    warn_of_jpeg(files)
    names = () if "" in tops else tuple(sorted(tops))
    number = {name: label for label, name in enumerate(names)}
    y = torch.tensor([number[parts[0]] if names else 0 for _, parts in placed])
    images = Images(read_pixels(files, recipe), y)
    return ImageCollection(images, names, fingerprint(images))


def read_headers(files: ImageFiles) -> list[Header]:
    """Mode and size of every file, without its pixels. Raises UserError for unreadable ones."""
    found, unreadable = [], []
    with quiet_pillow():
        for entry in files.entries:
            try:
                found.append(read_header(files, entry))
            except UNREADABLE as error:
                unreadable.append(f"{entry.name} ({reason(error)})")
    require_readable(unreadable, files, len(files.entries), CONVERT_HINT)
    return found


def read_header(files: ImageFiles, entry: Entry) -> Header:
    """Of one file. Raises one of UNREADABLE."""
    with files.open(entry) as file, Image.open(file) as picture:
        return Header(mode_of(picture), picture.width, picture.height)


def mode_of(picture: ImageFile.ImageFile) -> str:
    """Pillow's mode, with a word on what it leaves out: transparency and 16-bit colour."""
    if picture.has_transparency_data and picture.mode in CHANNELS:
        return f"{picture.mode} with transparency"
    # Pillow halves 16-bit RGB without a word; the packing of the file's pixels tells
    if any(str(tile[3]).lstrip("('").startswith("RGB;16") for tile in picture.tile):
        return "16-bit RGB"
    return picture.mode


def common_header(found: list[Header], files: ImageFiles) -> UnchangedImages:
    """The shape that all files have; raises UserError, naming examples, where there is none."""
    names = [entry.name for entry in files.entries]
    strange = [at for at, head in enumerate(found) if head.mode not in CHANNELS]
    if strange:
        shown = " and ".join(f"{names[at]} is {found[at].mode}" for at in strange[:2])
        raise UserError(
            f"{len(strange)} of {len(names)} images in {files.root} are neither 8-bit grey nor "
            f"8-bit RGB: {shown} (in Pillow's words). A score depends on how they are converted, "
            f"so crgan leaves that to you: {convert(names, to_8_bit(found[strange[0]].mode))}"
        )
    sizes = [f"{head.width}x{head.height}" for head in found]
    if one_of_each := examples(names, sizes):
        most = Counter(sizes).most_common(1)[0][0]
        raise UserError(
            f"The images in {files.root} have different sizes: {one_of_each}. Their score depends "
            "on how they are resized, so crgan leaves that to you: "
            + convert(names, f"-resize '{most}!'")
        )
    colours = ["grey" if CHANNELS[head.mode] == 1 else "RGB" for head in found]
    if one_of_each := examples(names, colours):
        raise UserError(
            f"Some images in {files.root} are grey and some are RGB: {one_of_each}. Make them all "
            f"RGB: {convert(names, '-type TrueColor -define png:color-type=2')}"
        )
    first = found[0]
    return UnchangedImages(CHANNELS[first.mode], first.height, first.width)


def examples(names: list[str], values: list[str]) -> str:
    """One name of each of the two most frequent values; empty where all values are the same."""
    ranked = Counter(values).most_common(2)
    if len(ranked) < 2:
        return ""
    one, other = (f"{names[values.index(v)]} is {v} (one of {count})" for v, count in ranked)
    return f"{one}, {other}"


def to_8_bit(mode: str) -> str:
    """ImageMagick's options that make files of a mode 8-bit grey or RGB."""
    if mode.endswith(("A", "a", "transparency")):
        return "-background white -alpha remove -alpha off"
    return "-depth 8" if "16" in mode else "-colorspace sRGB -depth 8"


def convert(names: list[str], options: str) -> str:
    """What to type."""
    ending = Path(names[0]).suffix
    return (
        "in that folder (a zip has to be unpacked) type `mkdir converted && mogrify -path converted"
        f" {options} *{ending}` (ImageMagick), and give converted/."
    )


def warn_of_jpeg(files: ImageFiles) -> None:
    """JPEG's losses alone move an FID (Parmar et al. 2022)."""
    count = sum(entry.name.lower().endswith(JPEGS) for entry in files.entries)
    if count:
        log.warning(
            "%d of %d images in %s are JPEG: its losses move scores, so compare with JPEG only",
            count,
            len(files.entries),
            files.root,
        )


def read_pixels(files: ImageFiles, recipe: UnchangedImages) -> Tensor:
    """(N, C, H, W) uint8: in memory, or memory-mapped from the cache where they are many."""
    shape = (len(files.entries), *recipe.shape)
    if np.prod(shape, dtype=np.int64) > IN_MEMORY_BYTES:
        return decode_cached(files, files.entries, recipe).x
    x = np.empty(shape, dtype=np.uint8)
    with quiet_pillow():
        for position, pixels in select_readable(files, files.entries, recipe):
            x[position] = pixels
    return torch.from_numpy(x)
