"""Images as uint8 tensors.

Pixels are stored as 0..255. Networks see x / 127.5 - 1: black is -1, white is 1.
"""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from crgan_cli.data.pixel_files import StoredPixels


class Images(NamedTuple):
    """One split of a data set."""

    x: Tensor  # (N, C, H, W) uint8
    y: Tensor  # (N,) int64 class ids, zeros without classes; or rows of `gan.labels.Labels`

    @property
    def stored(self) -> StoredPixels | None:
        """The file of x, if there is one whose digest is known."""
        return None

    def with_labels(self, y: Tensor) -> "Images":
        """Return the same pixels with other labels."""
        return Images(self.x, y)

    def select(self, rows: Tensor) -> "Images":
        """Return the images at the indices `rows`: copies."""
        return Images(self.x[rows], self.y[rows])


class StoredImages(Images):
    """Images whose pixels are all those of a file."""

    _stored: StoredPixels | None = None

    @classmethod
    def open(cls, stored: StoredPixels, y: Tensor) -> "StoredImages":
        """Map the file."""
        images = cls(stored.remap(), y)
        images._stored = stored
        return images

    @property
    def stored(self) -> StoredPixels | None:
        return self._stored

    def with_labels(self, y: Tensor) -> "Images":
        return StoredImages.open(self._stored, y) if self._stored else super().with_labels(y)


def to_float(x: Tensor) -> Tensor:
    """0..255 -> float32 in [-1, 1], same shape. `to_uint8` inverts it exactly."""
    return x.to(torch.float32).div_(127.5).sub_(1.0)


def to_uint8(x: Tensor) -> Tensor:
    """[-1, 1] -> the nearest of 0..255, same shape. Values outside [-1, 1] are clamped."""
    # float32 first: bfloat16 cannot tell 254 from 255
    return x.to(torch.float32).add(1.0).mul_(127.5).round_().clamp_(0.0, 255.0).to(torch.uint8)


def to_unrounded(x: Tensor) -> Tensor:
    """[-1, 1] -> float32 in 0..255, same shape, as `to_uint8` but for the rounding."""
    return x.float().add(1).mul(127.5).clamp(0, 255)


def fingerprint(images: Images) -> str:
    """Return the sha256 (hex) of shape, pixels and labels. It identifies the data in caches.

    Pixels whose digest is known are not read; the digest stands for them.
    """
    digest = hashlib.sha256(repr(tuple(images.x.shape)).encode())
    if images.stored:
        digest.update(images.stored.sha256.encode() + images.y.numpy().tobytes())
        return digest.hexdigest()
    for chunk in images.x.split(4096):  # chunks: memory-mapped pixels may be larger than the memory
        digest.update(chunk.cpu().numpy().tobytes())
    digest.update(images.y.cpu().numpy().tobytes())
    return digest.hexdigest()


def fingerprint_sets(sets: Mapping[str, Images]) -> str:
    """Return the `fingerprint` of a set, or of several that are trained on side by side."""
    digests = {name: fingerprint(images) for name, images in sets.items()}
    if len(digests) == 1:
        return next(iter(digests.values()))
    return hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()


def format_shape(shape: tuple[int, ...]) -> str:
    """(1, 32, 32) -> '1 x 32 x 32'."""
    return " x ".join(map(str, shape))
