"""Existing images, exactly as they are, for `crgan eval --samples`.

Unlike dataset=folder, nothing is resized, cropped, rotated or converted: each of these changes
scores (Parmar et al. 2022, arXiv:2104.11222). As in torch-fidelity, files are in order of their
names (KID and IS depend on it), only the first frame counts, and EXIF orientation is ignored.
torch-fidelity reads only png, jpg and jpeg, and sub-folders only on request.
"""

import logging
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageFile
from torch import Tensor

from crgan_cli.data.cache import decode_cached
from crgan_cli.data.decode import DECODE_ERRORS, ONLY_FIRST, Reading, quiet_pillow
from crgan_cli.data.decoding import decode_readable, format_reason, require_readable
from crgan_cli.data.file_facts import SetFacts, log_moving
from crgan_cli.data.file_listing import Entry
from crgan_cli.data.files import ImageFiles, strip_outer_folder
from crgan_cli.data.images import Images, fingerprint
from crgan_cli.errors import UserError

CHANNELS = {"1": 1, "L": 1, "P": 3, "RGB": 3}
"""Pillow's modes that convert to grey or RGB without loss -> channels."""

IN_MEMORY_BYTES = 1024**3
"""Pixels up to this size are decoded into memory, larger sets into the cache on disk."""

JPEGS = (".jpg", ".jpeg", ".jpe", ".jfif")
EXPORT_FOLDERS = {"generated", "real"}  # the folders of `crgan eval --export`
REPAIR_HINT = "Repair or remove them, or generate them again."

log = logging.getLogger(__name__)


class ImageCollection(NamedTuple):
    """Images, the names of their classes, and a hash."""

    images: Images  # in order of file names; y is zeros without classes
    class_names: tuple[str, ...]  # the sub-folders, sorted; empty without classes
    sha256: str  # `fingerprint` of the images


class UnchangedDecoder(NamedTuple):
    """Decodes files of one shape, without any change."""

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
    def reading(self) -> Reading:
        return ONLY_FIRST

    @property
    def least_side(self) -> int | None:
        return None

    @property
    def hint(self) -> str:
        return REPAIR_HINT

    def decode(self, *pictures: ImageFile.ImageFile) -> np.ndarray:
        """(C, H, W) uint8. Raises ValueError if the file changed since its header was read."""
        (picture,) = pictures
        if (CHANNELS.get(describe_mode(picture)), picture.height, picture.width) != self:
            raise ValueError("it changed while it was read")
        pixels = np.asarray(picture.convert("L" if self.channels == 1 else "RGB"))
        pixels = pixels.reshape(self.height, self.width, self.channels)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))


class Header(NamedTuple):
    """The header of an image file."""

    mode: str
    width: int
    height: int


def read_collection(path: Path, option: str = "--samples") -> ImageCollection:
    """All images of a folder or a zip. `option` is the option that they were given by, for errors.

    If every image is in a sub-folder (maybe within a single outer folder), these are the classes.
    Raises UserError unless all are readable, have one size, and are all grey or all RGB.
    """
    files = ImageFiles(str(path), option)
    files.log_left_out()
    located = strip_outer_folder(files.entries)
    tops = {parts[0] if parts else "" for _, parts in located}
    if tops == EXPORT_FOLDERS:
        raise UserError(
            f"{files.root} was written by crgan eval --export: {option} takes one of its "
            "folders, generated/ or real/ (unpack a zip first)."
        )
    decoder = require_same_shape(read_headers(files), files)
    warn_about_jpeg(files)
    names = () if "" in tops else tuple(sorted(tops))
    number = {name: label for label, name in enumerate(names)}
    y = torch.tensor([number[parts[0]] if names else 0 for _, parts in located])
    images = Images(read_pixels(files, decoder), y)
    return ImageCollection(images, names, fingerprint(images))


def read_headers(files: ImageFiles) -> list[Header]:
    """Read mode and size of every file. Raises UserError for unreadable ones."""
    headers, unreadable = [], []
    with quiet_pillow():
        for entry in files.entries:
            try:
                headers.append(read_header(files, entry))
            except DECODE_ERRORS as error:
                unreadable.append(f"{entry.name} ({format_reason(error)})")
    require_readable(unreadable, files, len(files.entries), REPAIR_HINT)
    return headers


def read_header(files: ImageFiles, entry: Entry) -> Header:
    """Read mode and size of a file, not its pixels. Raises one of DECODE_ERRORS."""
    with files.open(entry) as file, Image.open(file) as picture:
        return Header(describe_mode(picture), picture.width, picture.height)


def describe_mode(picture: ImageFile.ImageFile) -> str:
    """Return Pillow's mode, and mention what it hides: transparency and 16-bit colour."""
    if picture.has_transparency_data and picture.mode in CHANNELS:
        return f"{picture.mode} with transparency"
    # Pillow reduces 16-bit RGB to 8 bits silently; only the raw mode of the tiles shows it
    if any(str(tile[3]).lstrip("('").startswith("RGB;16") for tile in picture.tile):
        return "16-bit RGB"
    return picture.mode


def require_same_shape(headers: list[Header], files: ImageFiles) -> UnchangedDecoder:
    """Return a decoder for the shape of all files. Raises UserError if their shapes differ."""
    names = [entry.name for entry in files.entries]
    other_modes = [i for i, header in enumerate(headers) if header.mode not in CHANNELS]
    if other_modes:
        listed = " and ".join(f"{names[i]} is {headers[i].mode}" for i in other_modes[:2])
        command = format_command(names, choose_conversion(headers[other_modes[0]].mode))
        raise UserError(
            f"{len(other_modes)} of {len(names)} images in {files.root} are neither 8-bit grey nor "
            f"8-bit RGB: {listed} (Pillow's modes). A score depends on how they are converted, "
            f"so crgan leaves that to you: {command}"
        )
    sizes = [f"{header.width}x{header.height}" for header in headers]
    if one_of_each := format_examples(names, sizes):
        most_common = Counter(sizes).most_common(1)[0][0]
        raise UserError(
            f"The images in {files.root} have different sizes: {one_of_each}. Their score depends "
            "on how they are resized, so crgan leaves that to you: "
            + format_command(names, f"-resize '{most_common}!'")
        )
    colours = ["grey" if CHANNELS[header.mode] == 1 else "RGB" for header in headers]
    if one_of_each := format_examples(names, colours):
        raise UserError(
            f"Some images in {files.root} are grey and some are RGB: {one_of_each}. Make them all "
            f"RGB: {format_command(names, '-type TrueColor -define png:color-type=2')}"
        )
    first = headers[0]
    return UnchangedDecoder(CHANNELS[first.mode], first.height, first.width)


def format_examples(names: list[str], values: list[str]) -> str:
    """Give one name for each of the two most frequent values; "" if all values are equal."""
    ranked = Counter(values).most_common(2)
    if len(ranked) < 2:
        return ""
    one, other = (f"{names[values.index(v)]} is {v} (one of {count})" for v, count in ranked)
    return f"{one}, {other}"


def choose_conversion(mode: str) -> str:
    """Return ImageMagick's options that convert a mode to 8-bit grey or RGB."""
    if mode.endswith(("A", "a", "transparency")):
        return "-background white -alpha remove -alpha off"
    return "-depth 8" if "16" in mode else "-colorspace sRGB -depth 8"


def format_command(names: list[str], options: str) -> str:
    """Say how to convert the images with ImageMagick."""
    ending = Path(names[0]).suffix
    return (
        "in that folder (unpack a zip first) type `mkdir converted && mogrify -path converted"
        f" {options} *{ending}` (ImageMagick), and give converted/."
    )


def warn_about_jpeg(files: ImageFiles) -> None:
    """Warn that JPEG compression changes an FID (Parmar et al. 2022)."""
    count = sum(entry.name.lower().endswith(JPEGS) for entry in files.entries)
    if count:
        log.warning(
            "%d of %d images in %s are JPEG, which changes scores: compare with JPEG only",
            count,
            len(files.entries),
            files.root,
        )


def read_pixels(files: ImageFiles, decoder: UnchangedDecoder) -> Tensor:
    """Return (N, C, H, W) uint8: in memory, or memory-mapped from the cache for large sets."""
    shape = (len(files.entries), *decoder.shape)
    if np.prod(shape, dtype=np.int64) > IN_MEMORY_BYTES:
        return decode_cached(files, files.entries, decoder).x
    x, facts = np.empty(shape, dtype=np.uint8), SetFacts()
    with quiet_pillow():
        for position, pixels in decode_readable(files, files.entries, decoder, facts):
            x[position] = pixels
    log_moving(facts.moving, len(x), files, decoder.reading)
    return torch.from_numpy(x)
