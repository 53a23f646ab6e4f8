"""Decode an image file to uint8 of one size: orientation, colours, crop, antialiased resize."""

import contextlib
import io
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageFile, ImageOps

from crgan_cli.config.sides import Sides
from crgan_cli.errors import UserError

DECODE_ERRORS = (
    OSError,  # includes Pillow's UnidentifiedImageError and its truncated files
    ValueError,
    SyntaxError,  # Pillow raises it for a broken PNG chunk
    RuntimeError,  # an encrypted zip member
    NotImplementedError,  # a zip compression that Python does not support
    EOFError,
    zlib.error,
    zipfile.BadZipFile,
    Image.DecompressionBombError,
)
"""Errors from decoding that are the file's fault, not the program's."""


FULL_RANGE = (0.0, 65535.0)  # of 16-bit pixels

JPEG_FORMATS = ("JPEG", "MPO")

Frames = Literal["first", "all"]


class Reading(NamedTuple):
    """What is used of a file."""

    value_range: tuple[float, float] | None = None  # black and white of deep grey; None: 0, 65535
    frames: Frames = "first"  # of a file that moves, or has pages


ONLY_FIRST = Reading()


SHARPNESS = 2
"""A JPEG is decoded at a part of its size only if that is this many times the size it gets."""


def open_image(content: bytes) -> ImageFile.ImageFile:
    """Read the header of an image, not its pixels. Raises one of DECODE_ERRORS."""
    limit = Image.MAX_IMAGE_PIXELS or float("inf")
    remedy = f"are too many, at most {limit:,} are read: scale it down"
    try:
        opened = Image.open(io.BytesIO(content))
    except Image.DecompressionBombError as error:  # which does not tell the size
        raise ValueError(f"more than {2 * limit:,} pixels {remedy}") from error
    if opened.width * opened.height > limit:  # Pillow only warns
        raise ValueError(f"{opened.width}x{opened.height} pixels {remedy}")
    return opened


def decode(
    picture: ImageFile.ImageFile,
    *,
    resolution: int | tuple[int, int],
    channels: int,
    crop: int | None,
    reading: Reading = ONLY_FIRST,
) -> np.ndarray:
    """Decode an opened image: (channels, height, width) uint8. Raises DECODE_ERRORS.

    The EXIF orientation is applied, alpha is composited on white, grey of more than 8 bits is
    scaled to 8. `crop` is the side of the centre square in pixels; None means the largest part
    in the middle that has the shape of `resolution`.
    Of all frames there are (frames, channels, height, width).
    """
    height, width = sides = Sides.read(resolution)
    parts = []
    for frame in read_frames(picture, reading, least_side(resolution, crop)):
        grey_or_colour = convert_colour(frame, channels, reading.value_range)
        part = _crop_centre(grey_or_colour, crop, sides)
        if part.size != (width, height):
            part = part.resize((width, height), Image.Resampling.LANCZOS)
        pixels = np.asarray(part).reshape(height, width, channels)
        parts.append(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    return stack_frames(parts, reading)


def open_picture(content: bytes) -> Image.Image:
    """Decode an image in its own mode, turned by its EXIF orientation. Raises DECODE_ERRORS."""
    with open_image(content) as opened:
        return next(read_frames(opened, ONLY_FIRST))


def least_side(resolution: int | tuple[int, int], crop: int | None = None) -> int | None:
    """Return the side that a JPEG must keep to be resized to `resolution`; None: all of it.

    A `crop` counts in the pixels of the whole image.
    """
    return None if crop else SHARPNESS * max(Sides.read(resolution))


def choose_reduction(picture: ImageFile.ImageFile, least: int | None) -> int:
    """Return 1, 2, 4 or 8: a JPEG is decoded at this part of its size, fast and in little memory.

    Its shorter side then has `least` pixels or more. None: 1, as for all other images.
    """
    if least is None or picture.format not in JPEG_FORMATS:
        return 1
    return next((by for by in (8, 4, 2) if min(picture.size) // by >= least), 1)


def count_frames(picture: ImageFile.ImageFile, reading: Reading) -> int:
    """Return how many frames or pages are used."""
    # further images in a JPEG are previews and maps
    several = reading.frames == "all" and picture.format != "MPO"
    return getattr(picture, "n_frames", 1) if several else 1


def read_frames(
    picture: ImageFile.ImageFile, reading: Reading, least: int | None = None
) -> Iterator[Image.Image]:
    """Yield the first frame, turned by its EXIF orientation, or each. Raises DECODE_ERRORS.

    A JPEG is reduced as `choose_reduction` says. Up to 7 pixels at its right and lower edge, which
    fill no whole pixel, are left out.
    """
    by = choose_reduction(picture, least)
    whole = (picture.width // by, picture.height // by)
    reduced = by > 1 and picture.draft(None, whole) is not None
    for number in range(count_frames(picture, reading)):
        if number:
            picture.seek(number)
        frame = picture.crop((0, 0, *whole)) if reduced and picture.size != whole else picture
        yield ImageOps.exif_transpose(frame)


def estimate_bytes(picture: ImageFile.ImageFile, least: int | None) -> int:
    """Return about how much memory it takes to decode an image, at its peak.

    Pillow has 4 bytes a pixel, and the steps of `decode` hold four such images, with transparency
    five (six are allowed for); deep greys become numbers of 8 bytes. A progressive JPEG has its
    coefficients besides.
    """
    pixels = picture.width * picture.height
    deep, plain = picture.mode[0] in "IF", picture.mode in ("1", "L", "RGB", "CMYK")
    decoded = (
        (32 if deep else 16 if plain else 24) * pixels // choose_reduction(picture, least) ** 2
    )
    return decoded + (6 * pixels if picture.info.get("progressive") else 0)


def stack_frames(frames: Sequence[np.ndarray], reading: Reading) -> np.ndarray:
    """Return the only array, or all of them stacked, as the decoders do."""
    return np.stack(frames) if reading.frames == "all" else frames[0]


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Ignore Pillow's warnings (damaged EXIF data, odd palettes). Errors are still raised.

    Warning filters are global: enter it once, outside the decoding threads.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\..*")
        yield


def convert_colour(
    picture: Image.Image, channels: int, value_range: tuple[float, float] | None = None
) -> Image.Image:
    """Convert to 8-bit grey (1), RGB (3), both on white, or RGBA (4), which needs transparency.

    `value_range` are black and white of grey pixels of more than 8 bits; None: 0 and 65535.
    """
    if picture.mode[0] in "IF":
        picture = _to_8_bit(picture, value_range)
    elif picture.mode == "La":
        picture = picture.convert("LA")  # Pillow converts it to nothing else
    elif isinstance(key := picture.info.get("transparency"), tuple) and max(key) > 255:
        raise ValueError("a transparent colour of 16 bits cannot be read: give it an alpha channel")
    if channels == 4:
        if not picture.has_transparency_data:
            raise ValueError("it has no alpha channel for the fourth channel")
        return picture.convert("RGBA")
    if picture.has_transparency_data:
        # on white, like a browser: black would draw outlines around cut-out photos
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return picture.convert("L" if channels == 1 else "RGB")


def resize_planes(picture: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Resize by bicubic interpolation: (C, height, width) uint8. `size` is (width, height).

    Plane by plane: Pillow would weigh colours by alpha, which is a mask here.
    """
    planes = (plane.resize(size, Image.Resampling.BICUBIC) for plane in picture.split())
    return np.stack([np.asarray(plane) for plane in planes])


def to_planes(
    picture: Image.Image, channels: int, size: tuple[int, int], reading: Reading
) -> np.ndarray:
    """Convert a picture and resize it to (width, height): (channels, height, width) uint8."""
    return resize_planes(convert_colour(picture, channels, reading.value_range), size)


def _to_8_bit(picture: Image.Image, value_range: tuple[float, float] | None) -> Image.Image:
    values = np.asarray(picture)
    if value_range is None and picture.mode == "F":
        raise ValueError("floating-point pixels have no known range: dataset.range=[BLACK,WHITE]")
    values = values.astype(np.float64)
    if np.isnan(values).any():
        raise ValueError("some of its pixels are no numbers")
    black, white = value_range or FULL_RANGE
    if value_range is None and (values.min() < black or values.max() > white):
        raise ValueError("32-bit pixels have no known range: dataset.range=[BLACK,WHITE]")
    scaled = np.clip((values - black) * 255 / (white - black), 0, 255)
    grey = Image.fromarray(np.round(scaled).astype(np.uint8))
    key = picture.info.get("transparency")
    if isinstance(key, int):  # the one value that is transparent
        alpha = np.where(values == key, 0, 255).astype(np.uint8)
        return Image.merge("LA", (grey, Image.fromarray(alpha)))
    return grey


def _crop_centre(picture: Image.Image, crop: int | None, sides: Sides) -> Image.Image:
    if crop and crop > min(picture.size):
        raise ValueError(f"it is {picture.width}x{picture.height}, smaller than the crop {crop}")
    width, height = (crop, crop) if crop else fit_inside(picture.size, sides)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def fit_inside(size: tuple[int, int], sides: Sides) -> tuple[int, int]:
    """Return the (width, height) of the largest part of an image that has the shape of `sides`.

    `size` is the image's (width, height). Rounded to whole pixels, at least one.
    """
    width, height = size
    if width * sides.height >= height * sides.width:  # it is wider, or the same
        return max(1, round(height * sides.width / sides.height)), height
    return width, max(1, round(width * sides.height / sides.width))


def check_channels(channels: int) -> None:
    """Raise UserError unless images can be converted to this number of channels."""
    if channels not in (1, 3):
        raise UserError(
            f"dataset.channels={channels}: images are converted to 3 channels (colour) or 1 (grey)."
        )


def make_reading(value_range: Sequence[float] | None, frames: Frames) -> Reading:
    """Return how files are read. Raises UserError unless the range is two rising numbers."""
    if value_range is None:
        return Reading(None, frames)
    low, high = value_range if len(value_range) == 2 else (0.0, 0.0)
    if not (low < high and isfinite(low) and isfinite(high)):
        raise UserError(
            f"dataset.range={list(value_range)} must be two numbers, the values of black and of "
            "white, such as dataset.range=[0,4095] for 12-bit values."
        )
    return Reading((float(low), float(high)), frames)
