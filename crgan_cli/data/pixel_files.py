"""Pixels of many images in one file, mapped into memory and never held whole."""

import math
import mmap
import os
import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

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


@dataclass(frozen=True)
class StoredPixels:
    """The file that holds all pixels of a tensor, one image after the other.

    It is opened once, and until this object is gone: a run goes on if the cache is deleted.
    """

    path: Path
    shape: tuple[int, ...]  # (N, C, H, W)
    sha256: str  # identifies all pixels, so that nobody has to read them

    def remap(self) -> Tensor:
        """Map the file once more.

        What a map has touched counts as memory of the process until the map is gone. Whoever reads
        a large file in small pieces maps it anew for each.
        """
        with self.open() as file:
            return map_pixels(file, self.shape)

    def open(self) -> IO[bytes]:
        """Return the file to read. To close it costs nothing."""
        return open(self._descriptor, "rb", closefd=False)

    @cached_property
    def _descriptor(self) -> int:
        descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, descriptor)
        return descriptor
