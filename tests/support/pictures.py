"""Small image files."""

import io
from collections.abc import Iterable
from pathlib import Path

from PIL import Image


def grey_png(value: int) -> bytes:
    """A PNG of 4x4 pixels of one grey."""
    out = io.BytesIO()
    Image.new("L", (4, 4), value).save(out, "PNG")
    return out.getvalue()


def save_grey(root: Path, names: Iterable[str], start: int = 0) -> Path:
    """Write grey images below `root`, the i-th filled with start + i."""
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(grey_png(start + i))
    return root
