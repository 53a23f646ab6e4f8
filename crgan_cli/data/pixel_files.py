"""Pixels of many images in one file, mapped into memory and never held whole."""

import math
import mmap
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import torch
from torch import Tensor

MAP_NORESERVE = 0x4000
"""Of Linux's <sys/mman.h>; Python names it from 3.13 on."""


def map_pixels(file: Path | IO[bytes], shape: Sequence[int]) -> Tensor:
    """Map a file of uint8 pixels. What is written to the tensor does not reach the file.

    Without MAP_NORESERVE, Linux refuses such a map of more bytes than the machine has memory.
    """
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return map_pixels(opened, shape)
    if not sys.platform.startswith("linux"):
        return torch.from_numpy(np.memmap(file, np.uint8, mode="c", shape=tuple(shape)))
    flags, prot = mmap.MAP_PRIVATE | MAP_NORESERVE, mmap.PROT_READ | mmap.PROT_WRITE
    mapped = mmap.mmap(file.fileno(), math.prod(shape), flags=flags, prot=prot)
    return torch.from_numpy(np.frombuffer(mapped, np.uint8)).view(tuple(shape))


class StoredPixels(NamedTuple):
    """The file that holds all pixels of a tensor, one image after the other."""

    path: Path
    shape: tuple[int, ...]  # (N, C, H, W)
    sha256: str  # identifies all pixels, so that nobody has to read them

    def remap(self) -> Tensor:
        """Map the file once more.

        What a map has touched counts as memory of the process until the map is gone. Whoever reads
        a large file in small pieces maps it anew for each.
        """
        return map_pixels(self.path, self.shape)
