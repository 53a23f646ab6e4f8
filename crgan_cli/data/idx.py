"""MNIST's file format, IDX, gzipped or not (LeCun et al., yann.lecun.com/exdb/mnist).

Two zero bytes, the type (8: unsigned byte), the number of dimensions, each dimension as a
big-endian 32-bit integer, then the values.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from crgan_cli.errors import UserError


def find_idx(folder: Path, stem: str) -> Path | None:
    """Find the file `stem` or `stem`.gz in a folder; None if there is neither."""
    candidates = (folder / stem, folder / f"{stem}.gz")
    return next((path for path in candidates if path.is_file()), None)


def read_idx(path: Path) -> np.ndarray:
    """Read the array of an IDX file of unsigned bytes. Raises UserError if it is damaged."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}). Download it again.") from error
    if len(content) < 4 or content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise UserError(f"{path} is not an IDX file of unsigned bytes. Download it again.")
    shape = tuple(np.frombuffer(content, dtype=">i4", count=content[3], offset=4).tolist())
    start = 4 + 4 * len(shape)
    if len(content) - start != math.prod(shape):
        raise UserError(
            f"{path} holds {len(content) - start} values, but its header says {shape}: it is "
            "damaged. Download it again."
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
