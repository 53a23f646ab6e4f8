"""Images at another resolution: small sets in memory, anew in each session; large ones on disk."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor

from crgan_cli.data.cache import explain_disk_errors, sample_digest
from crgan_cli.data.images import Images, fingerprint
from crgan_cli.data.pixel_files import map_pixels
from crgan_cli.system.atomic import atomic_path, write_text
from crgan_cli.system.cache import cache_folder

log = logging.getLogger(__name__)

IN_MEMORY_BYTES = 1024**3
"""Sets of up to this size, at the larger of the two resolutions, are kept in memory."""

BYTES_AT_ONCE = 64 * 1024**2
"""Pixels that are resized at once. Bounds the extra memory."""

Resize = Callable[[Tensor], Tensor]
"""(n, C, H, W) uint8 -> (n, C, side, side) uint8."""


def resize_images(images: Images, side: int) -> Images:
    """(N, C, H, H) -> (N, C, side, side) uint8, the pixels that dataset=folder makes of such files.

    Raises UserError for an unusable cache folder, RunFailed for a full disk.
    """
    if images.x.shape[-1] == side:
        return images
    return resize_by(
        lambda x: resize_lanczos(x, side),
        images,
        side,
        digest=lambda: fingerprint(images),
        folder="resized",
    )


def resize_lanczos(x: Tensor, side: int) -> Tensor:
    """(n, C, H, W) uint8 -> (n, C, side, side) uint8, as `decode` resizes."""
    resized = np.empty((*x.shape[:2], side, side), np.uint8)
    for image, out in zip(x.numpy(), resized, strict=True):
        for plane, small in zip(image, out, strict=True):
            picture = Image.fromarray(plane)
            small[:] = np.asarray(picture.resize((side, side), Image.Resampling.LANCZOS))
    return torch.from_numpy(resized)


def resize_by(
    resize: Resize, images: Images, side: int, *, digest: Callable[[], str], folder: str
) -> Images:
    """Return the images as `resize` makes them. A large result is a memory map.

    `digest` identifies the images, in hex; `folder` is that of the method, in the cache. Raises
    UserError for an unusable cache folder, RunFailed for a full disk.
    """
    n, c, h, w = images.x.shape
    if n * c * max(h * w, side * side) <= IN_MEMORY_BYTES:
        return Images(torch.cat([resize(x) for x in chunks(images.x)]), images.y)
    stored = cache_folder(folder)
    with explain_disk_errors(stored):
        path = stored / f"{digest()[:32]}-{side}.u8"
        return Images(open_resized(path, images.x, side, resize), images.y)


def chunks(x: Tensor) -> tuple[Tensor, ...]:
    """Parts of (N, C, H, W) of at most BYTES_AT_ONCE."""
    return x.split(max(1, BYTES_AT_ONCE // x[0].nbytes))


def open_resized(path: Path, x: Tensor, side: int, resize: Resize) -> Tensor:
    """Return the resized pixels of `path`, which is written if it is absent or damaged."""
    shape = (*x.shape[:2], side, side)
    path.parent.mkdir(parents=True, exist_ok=True)
    # One process resizes. The others wait for the lock, then find the file whole.
    with FileLock(path.with_suffix(".lock")):
        if not is_whole(path, shape):
            for left in path.parent.glob(f"{path.name}.*.partial"):  # by a kill
                left.unlink()
            with atomic_path(path) as partial:
                # written, not memory-mapped: a full disk is then an exception, not a SIGBUS
                with partial.open("wb") as file:
                    for chunk in chunks(x):
                        file.write(resize(chunk).numpy().tobytes())
                write_text(digest_path(path), sample_digest([], partial))
            log.info("resized %d images to %d pixels into %s", len(x), side, path)
    return map_pixels(path, shape)


def is_whole(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether `path` holds pixels of this shape that fit the digest beside it."""
    if not path.exists() or not digest_path(path).exists():
        return False
    same_size = path.stat().st_size == np.prod(shape, dtype=np.int64)
    whole = same_size and digest_path(path).read_text("utf-8") == sample_digest([], path)
    if not whole:
        log.warning("%s is damaged: the images are resized again", path)
    return whole


def digest_path(path: Path) -> Path:
    """The file with the digest of some pixels."""
    return path.with_suffix(".sha256")
