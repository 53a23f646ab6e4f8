"""Images on their way to a file: one grid, a folder of PNGs, or a zip of PNGs."""

import io
import zipfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

import torch
from PIL import Image
from torch import Tensor

from crgan_cli.data.images import to_uint8
from crgan_cli.errors import RunFailed, UserError
from crgan_cli.evaluation.sampler import make_grid

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""What Pillow writes of an RGB picture wherever it is installed."""


def save_picture(picture: Tensor, path: Path) -> None:
    """Writes a uint8 picture, (1 or 3, H, W), as the kind of file that the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    to_pillow(picture).save(path)


def to_pillow(picture: Tensor) -> Image.Image:
    """(1 or 3, H, W) uint8 -> a Pillow image."""
    channels_last = picture.permute(1, 2, 0).numpy()
    return Image.fromarray(channels_last[..., 0] if len(picture) == 1 else channels_last)


class ImageWriter(Protocol):
    """Where images go, batch by batch."""

    def add(self, images: Tensor) -> None:
        """(N, C, H, W) in [-1, 1]."""
        ...

    def finish(self, columns: int) -> None:
        """All are there; `columns` is the width of a grid."""
        ...


class GridWriter:
    """One picture of all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.batches: list[Tensor] = []

    def add(self, images: Tensor) -> None:
        self.batches.append(images.cpu())

    def finish(self, columns: int) -> None:
        save_picture(make_grid(torch.cat(self.batches), columns), self.path)


class PngWriter(ABC):
    """One PNG an image, numbered from 000000.png, perhaps in folders."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()  # images by folder; "" is none

    def add(self, images: Tensor) -> None:
        self.put(to_uint8(images))

    def put(self, images: Tensor, folder: str = "") -> None:
        """(N, 1 or 3, H, W) uint8, after the images that are in the folder already."""
        self.counts.setdefault(folder, 0)  # `discard` has to know where the first one failed
        for picture in images.cpu():
            self.write(png_name(folder, self.counts[folder]), encode_png(picture))
            self.counts[folder] += 1

    @abstractmethod
    def write(self, name: str, png: bytes) -> None:
        """One file."""

    @abstractmethod
    def finish(self, columns: int = 0) -> None:
        """All are there."""

    @abstractmethod
    def discard(self) -> None:
        """There will be no more: what was written is removed."""


class FolderWriter(PngWriter):
    """In a new or an empty folder: nothing is lost."""

    def __init__(self, path: Path, asked: str = "--out") -> None:
        super().__init__()
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"{path} exists and is not an empty folder. Give another {asked}.")
        self.path = path
        self.created_here = not path.exists()
        path.mkdir(exist_ok=True)  # one that cannot be is told of before there are images

    def write(self, name: str, png: bytes) -> None:
        file = self.path / name
        try:
            file.write_bytes(png)
        except FileNotFoundError:
            file.parent.mkdir()
            file.write_bytes(png)

    def finish(self, columns: int = 0) -> None:
        pass

    def discard(self) -> None:
        for folder, count in self.counts.items():
            for number in range(count + 1):  # the last one may be there in part
                (self.path / png_name(folder, number)).unlink(missing_ok=True)
        made = [self.path / folder for folder in self.counts if folder]
        for folder in [*made, *([self.path] if self.created_here else [])]:
            with suppress(OSError):  # somebody else's file is in it
                folder.rmdir()


class ZipWriter(PngWriter):
    """In a zip, which is there once it is whole."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.partial = path.with_name(path.name + ".partial")
        self.file = zipfile.ZipFile(self.partial, "w", zipfile.ZIP_STORED)  # PNGs are packed

    def write(self, name: str, png: bytes) -> None:
        # without the time: the same images are the same file
        self.file.writestr(zipfile.ZipInfo(name), png)

    def finish(self, columns: int = 0) -> None:
        self.file.close()
        self.partial.replace(self.path)

    def discard(self) -> None:
        with suppress(OSError):  # it writes the directory: on a full disk it cannot
            self.file.close()
        self.partial.unlink(missing_ok=True)


def png_name(folder: str, number: int) -> str:
    """The name of an image."""
    return f"{folder}/{number:06d}.png" if folder else f"{number:06d}.png"


def encode_png(picture: Tensor) -> bytes:
    """A uint8 picture, (1 or 3, H, W), on the CPU -> a PNG file."""
    png = io.BytesIO()
    to_pillow(picture).save(png, "png")
    return png.getvalue()


class Export:
    """The images behind a score, in generated/ and real/ of a new folder or a zip.

    A `with` block that ends well finishes it; one that raises leaves nothing behind. UserError at
    once where nothing can be written there, RunFailed later (full disk).
    """

    def __init__(self, path: Path, asked: str = "--export") -> None:
        if path.suffix.lower() in PICTURES:
            raise UserError(
                f"{asked} {path} names one picture, and it is for many: give FILE.zip or a "
                "folder's name."
            )
        self.path = path
        if path.suffix.lower() == ".zip" and path.is_dir():
            raise UserError(f"{asked} {path} is a folder, and its name a zip's. Give another one.")
        with require_writable(path, asked):
            self.files = make_png_writer(path, asked)

    def add(self, kind: Literal["generated", "real"], images: Tensor) -> None:
        """(N, 1 or 3, H, W) uint8, as they are scored, in order."""
        assert images.dtype == torch.uint8, f"what was scored is uint8, not {images.dtype}"
        with self.explain_failure():
            self.files.put(images, kind)

    def finish(self) -> None:
        """All are there."""
        with self.explain_failure():
            self.files.finish()

    @contextmanager
    def explain_failure(self) -> Iterator[None]:
        """Says what a failure was about."""
        try:
            yield
        except OSError as error:
            raise RunFailed(f"writing to {self.path} failed: {error.strerror or error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            return self.files.discard()
        try:
            self.finish()
        except BaseException:
            self.files.discard()
            raise


def make_image_writer(path: Path) -> ImageWriter:
    """By the name: .zip, a picture, or else a folder. Raises UserError where none can be there."""
    suffix = path.suffix.lower()
    if suffix and suffix not in (".zip", *PICTURES):
        raise UserError(
            f"--out {path}: crgan writes no {path.suffix} files. Give FILE.png for one grid, "
            "FILE.zip, or a folder's name."
        )
    if suffix and path.is_dir():
        raise UserError(f"--out {path} is a folder, and its name a file's. Give another --out.")
    with require_writable(path, "--out"):
        return GridWriter(path) if suffix in PICTURES else make_png_writer(path, "--out")


def make_png_writer(path: Path, asked: str) -> PngWriter:
    """A zip by the name .zip, or else a folder."""
    return ZipWriter(path) if path.suffix.lower() == ".zip" else FolderWriter(path, asked)


@contextmanager
def require_writable(path: Path, asked: str) -> Iterator[None]:
    """Makes the folder around `path`; what cannot be written in the body is a UserError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(
            f"{asked} {path} cannot be written ({error.strerror}). Give another {asked}."
        ) from None
