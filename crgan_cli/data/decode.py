"""Decode an image file to a square uint8 array: orientation, colours, crop, antialiased resize."""

import contextlib
import io
import warnings
import zipfile
import zlib
from collections.abc import Iterator

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


def decode(content: bytes, *, resolution: int, channels: int, crop: int | None) -> np.ndarray:
    """Decode an image: (channels, resolution, resolution) uint8. Raises one of DECODE_ERRORS.

    The EXIF orientation is applied, alpha is composited on white, 16-bit grey is scaled to 8.
    `crop` is the side of the centre square in pixels; None means the largest square.
    """
    square = _crop_centre(convert_colour(open_picture(content), channels), crop)
    if square.size != (resolution, resolution):
        square = square.resize((resolution, resolution), Image.Resampling.LANCZOS)
    pixels = np.asarray(square).reshape(resolution, resolution, channels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def open_picture(content: bytes) -> Image.Image:
    """Decode an image in its own mode, turned by its EXIF orientation. Raises DECODE_ERRORS."""
    with Image.open(io.BytesIO(content)) as opened:
        # Pillow only warns at this size, and raises at twice as many pixels
        if opened.width * opened.height > (Image.MAX_IMAGE_PIXELS or float("inf")):
            raise ValueError(f"{opened.width}x{opened.height} pixels are too many")
        return ImageOps.exif_transpose(opened)


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Ignore Pillow's warnings (damaged EXIF data, odd palettes). Errors are still raised.

    Warning filters are global: enter it once, outside the decoding threads.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\..*")
        yield


def convert_colour(picture: Image.Image, channels: int) -> Image.Image:
    """Convert to 8-bit grey (1), RGB (3), both on white, or RGBA (4), which needs transparency."""
    if picture.mode.startswith("I"):
        picture = _to_8_bit(picture)
    elif picture.mode == "F":
        raise ValueError("floating-point pixels have no known range")
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


def _to_8_bit(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture).astype(np.int64)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise ValueError("32-bit pixels have no known range")
    return Image.fromarray(np.round(values / 257).astype(np.uint8))  # 65535 / 255 = 257


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
