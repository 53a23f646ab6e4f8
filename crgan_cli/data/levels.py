"""A data set at the lower resolutions of a run that grows.

Karras et al. 2018 (arXiv:1710.10196): each pixel is the mean of a square of pixels, rounded to 8
bits, as in the authors' dataset_tool.py.
"""

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from crgan_cli.data.cache import explain_disk_errors, sample_digest
from crgan_cli.data.images import Images
from crgan_cli.system.atomic import atomic_path, write_text
from crgan_cli.system.cache import cache_folder

log = logging.getLogger(__name__)

IN_MEMORY_BYTES = 1024**3
"""Sets up to this size are shrunk in memory, anew in each session; larger ones once, on disk."""

BYTES_AT_ONCE = 64 * 1024**2
"""Pixels that are shrunk at once. Bounds the extra memory."""


def shrink_images(images: Images, resolution: int, digest: str) -> Images:
    """Return the images at a resolution that divides theirs. A large result is a memory map.

    Raises UserError for an unusable cache folder, RunFailed for a full disk.
    """
    factor = images.x.shape[-1] // resolution
    if factor == 1:
        return images
    if images.x.nbytes <= IN_MEMORY_BYTES:
        return images._replace(x=torch.cat([shrink_pixels(x, factor) for x in chunks(images.x)]))
    folder = cache_folder("levels")
    with explain_disk_errors(folder):
        x = open_level(folder / f"{digest[:32]}-{resolution}.u8", images.x, factor)
    return images._replace(x=x)


def chunks(x: Tensor) -> tuple[Tensor, ...]:
    """Parts of (N, C, H, W) of at most BYTES_AT_ONCE."""
    return x.split(max(1, BYTES_AT_ONCE // x[0].nbytes))


def shrink_pixels(x: Tensor, factor: int) -> Tensor:
    """(N, C, H, W) uint8 -> (N, C, H / factor, W / factor) uint8: means, rounded, half to even."""
    return F.avg_pool2d(x.float(), factor).round_().to(torch.uint8)


def open_level(path: Path, x: Tensor, factor: int) -> Tensor:
    """Return the shrunk pixels of `path`, which is written if it is absent or damaged."""
    n, c, h, w = x.shape
    shape = (n, c, h // factor, w // factor)
    if not is_whole(path, shape):
        with atomic_path(path) as partial:
            # written, not memory-mapped: a full disk is then an exception, not a SIGBUS
            with partial.open("wb") as file:
                for chunk in chunks(x):
                    file.write(shrink_pixels(chunk, factor).numpy().tobytes())
            write_text(digest_path(path), sample_digest([], partial))
        log.info("shrunk %d images to %d pixels into %s", n, shape[-1], path)
    # "c" (copy-on-write): torch warns about read-only arrays; nothing is written
    return torch.from_numpy(np.memmap(path, np.uint8, "c", shape=shape))


def is_whole(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether `path` holds pixels of this shape that fit the digest beside it."""
    if not path.exists() or not digest_path(path).exists():
        return False
    same_size = path.stat().st_size == np.prod(shape, dtype=np.int64)
    whole = same_size and digest_path(path).read_text("utf-8") == sample_digest([], path)
    if not whole:
        log.warning("%s is damaged: the images are shrunk again", path)
    return whole


def digest_path(path: Path) -> Path:
    """The file with the digest of some pixels."""
    return path.with_suffix(".sha256")
