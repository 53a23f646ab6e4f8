"""Decode an image file to a square uint8 array: orientation, colours, crop, antialiased resize."""

import contextlib
import io
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps

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

Frames = Literal["first", "all"]


class Reading(NamedTuple):
    """What is used of a file."""

    value_range: tuple[float, float] | None = None  # black and white of deep grey; None: 0, 65535
    frames: Frames = "first"  # of a file that moves, or has pages


ONLY_FIRST = Reading()


def decode(
    content: bytes,
    *,
    resolution: int,
    channels: int,
    crop: int | None,
    reading: Reading = ONLY_FIRST,
) -> np.ndarray:
    """Decode an image: (channels, resolution, resolution) uint8. Raises one of DECODE_ERRORS.

    The EXIF orientation is applied, alpha is composited on white, grey of more than 8 bits is
    scaled to 8. `crop` is the side of the centre square in pixels; None means the largest square.
    Of all frames there are (frames, channels, resolution, resolution).
    """
    squares = []
    for picture in open_frames(content, reading):
        grey_or_colour = convert_colour(picture, channels, reading.value_range)
        square = _crop_centre(grey_or_colour, crop)
        if square.size != (resolution, resolution):
            square = square.resize((resolution, resolution), Image.Resampling.LANCZOS)
        pixels = np.asarray(square).reshape(resolution, resolution, channels)
        squares.append(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    return stack_frames(squares, reading)


def open_picture(content: bytes) -> Image.Image:
    """Decode an image in its own mode, turned by its EXIF orientation. Raises DECODE_ERRORS."""
    return next(open_frames(content, ONLY_FIRST))


def open_frames(content: bytes, reading: Reading) -> Iterator[Image.Image]:
    """Yield the first frame as `open_picture` does, or each. Raises DECODE_ERRORS."""
    with Image.open(io.BytesIO(content)) as opened:
        # Pillow only warns at this size, and raises at twice as many pixels
        if opened.width * opened.height > (Image.MAX_IMAGE_PIXELS or float("inf")):
            raise ValueError(f"{opened.width}x{opened.height} pixels are too many")
        # further images in a JPEG are previews and maps
        several = reading.frames == "all" and opened.format != "MPO"
        for number in range(getattr(opened, "n_frames", 1) if several else 1):
            if number:
                opened.seek(number)
            yield ImageOps.exif_transpose(opened)


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


def _crop_centre(picture: Image.Image, crop: int | None) -> Image.Image:
    side = crop or min(picture.size)
    if side > min(picture.size):
        raise ValueError(f"it is {picture.width}x{picture.height}, smaller than the crop {side}")
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))


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
