"""Small image files."""

import io
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

from PIL import Image


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The bytes of a picture's file."""
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def build_png(side: int, depth: int, colour_type: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A square PNG of these chunks, (name, content): also such that Pillow cannot write."""
    header = struct.pack(">IIBBBBB", side, side, depth, colour_type, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n"
    for name, content in ((b"IHDR", header), *chunks, (b"IEND", b"")):
        body = name + content
        png += struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))
    return png


def grey_png(value: int) -> bytes:
    """A PNG of 4x4 pixels of one grey."""
    return encoded(Image.new("L", (4, 4), value))


def save_grey(root: Path, names: Iterable[str], start: int = 0) -> Path:
    """Write grey images below `root`, the i-th filled with start + i."""
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(grey_png(start + i))
    return root
