"""Images on their way to a file: one grid, a folder of PNGs, or a zip of PNGs."""

import io
import zipfile
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from crgan_cli.data.images import to_uint8
from crgan_cli.errors import UserError
from crgan_cli.sampler import grid

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""What Pillow writes of an RGB picture wherever it is installed."""


def save_picture(picture: Tensor, path: Path) -> None:
    """Writes a uint8 picture, (1 or 3, H, W), as the kind of file that the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    as_pillow(picture).save(path)


def as_pillow(picture: Tensor) -> Image.Image:
    """(1 or 3, H, W) uint8 -> a Pillow image."""
    channels_last = picture.permute(1, 2, 0).numpy()
    return Image.fromarray(channels_last[..., 0] if len(picture) == 1 else channels_last)


class Target(Protocol):
    """Where images go, batch by batch."""

    def add(self, images: Tensor) -> None:
        """(N, C, H, W) in [-1, 1]."""
        ...

    def finish(self, columns: int) -> None:
        """All are there; `columns` is the width of a grid."""
        ...


class Grid:
    """One picture of all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.batches: list[Tensor] = []

    def add(self, images: Tensor) -> None:
        self.batches.append(images.cpu())

    def finish(self, columns: int) -> None:
        save_picture(grid(torch.cat(self.batches), columns), self.path)


class Folder:
    """One PNG an image, 000000.png and on, in a new or an empty folder: nothing is lost."""

    def __init__(self, path: Path) -> None:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"{path} exists and is not an empty folder. Give another --out.")
        self.path = path
        self.count = 0

    def add(self, images: Tensor) -> None:
        for picture in to_uint8(images).cpu():
            save_picture(picture, self.path / f"{self.count:06d}.png")
            self.count += 1

    def finish(self, columns: int) -> None:
        pass


class Zip:
    """One PNG an image in a zip, which is there once it is whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = path.with_name(path.name + ".partial")
        self.file = zipfile.ZipFile(self.partial, "w", zipfile.ZIP_STORED)  # PNGs are packed

    def add(self, images: Tensor) -> None:
        for picture in to_uint8(images).cpu():
            png = io.BytesIO()
            as_pillow(picture).save(png, "png")
            self.file.writestr(f"{len(self.file.namelist()):06d}.png", png.getvalue())

    def finish(self, columns: int) -> None:
        self.file.close()
        self.partial.replace(self.path)


def target_of(path: Path) -> Target:
    """By the name: .zip, a picture, or else a folder. Raises UserError where none can be there."""
    suffix = path.suffix.lower()
    if suffix and suffix not in (".zip", *PICTURES):
        raise UserError(
            f"--out {path}: crgan writes no {path.suffix} files. Give FILE.png for one grid, "
            "FILE.zip, or a folder's name."
        )
    if suffix and path.is_dir():
        raise UserError(f"--out {path} is a folder, and its name a file's. Give another --out.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not suffix:
            return Folder(path)
        return Zip(path) if suffix == ".zip" else Grid(path)
    except OSError as error:
        raise UserError(
            f"--out {path} cannot be written ({error.strerror}). Give another --out."
        ) from None
