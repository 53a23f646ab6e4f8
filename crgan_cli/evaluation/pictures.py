"""Write images to files: one grid, a folder of PNGs, or a zip of PNGs."""

import io
import zipfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, Self

import torch
from PIL import Image
from torch import Tensor

from crgan_cli.data.images import to_uint8
from crgan_cli.errors import UserError
from crgan_cli.evaluation.movies import save_movie
from crgan_cli.evaluation.sampler import grid_columns, make_grid, tile
from crgan_cli.runs.metric_names import make_word
from crgan_cli.system.atomic import explain_write_failure
from crgan_cli.system.paths import require_new_folder

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""File types of RGB pictures that every Pillow writes."""


def save_picture(picture: Tensor, path: Path) -> None:
    """Write a uint8 picture, (1 or 3, H, W), in the format that the file name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    to_pillow(picture).save(path)


def to_pillow(picture: Tensor) -> Image.Image:
    """(1 or 3, H, W) uint8 -> a Pillow image."""
    channels_last = picture.permute(1, 2, 0).numpy()
    return Image.fromarray(channels_last[..., 0] if len(picture) == 1 else channels_last)


class GridWriter:
    """Writes one picture of all images."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.batches: list[Tensor] = []

    def add(self, images: Tensor) -> None:
        """Add (N, C, H, W) images in [-1, 1]."""
        self.batches.append(images.cpu())

    def finish(self, columns: int) -> None:
        """Write the file; `columns` is the width of the grid."""
        save_picture(make_grid(torch.cat(self.batches), columns), self.path)


class MovieWriter:
    """Writes one movie, whose frames are grids if there are several columns."""

    def __init__(self, path: Path, fps: float) -> None:
        with report_unwritable(path, "--out"):  # now: before images are drawn
            self.path = path
        self.fps = fps
        self.batches: list[Tensor] = []

    def add(self, images: Tensor) -> None:
        """Add (N, C, H, W) images in [-1, 1]."""
        self.batches.append(to_uint8(images).cpu())

    def finish(self, columns: int) -> None:
        """Write the file; so many images are a frame."""
        width = grid_columns(columns)
        frames = torch.cat(self.batches).split(columns)
        pictures = (tile(each, width) if columns > 1 else each[0] for each in frames)
        save_movie([to_pillow(each).convert("RGB") for each in pictures], self.path, self.fps)


class PngWriter(ABC):
    """Writes one PNG per image, numbered from 000000.png, in folders if asked."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()  # images per folder; "" is no folder

    def add(self, images: Tensor) -> None:
        """Add (N, C, H, W) images in [-1, 1]."""
        self.put(to_uint8(images))

    def put(self, images: Tensor, folder: str = "") -> None:
        """Add (N, 1 or 3, H, W) uint8 images after those already in the folder."""
        self.counts.setdefault(folder, 0)  # `discard` must know it even if the first image fails
        for picture in images.cpu():
            self.write(png_name(folder, self.counts[folder]), encode_png(picture))
            self.counts[folder] += 1

    @abstractmethod
    def write(self, name: str, png: bytes) -> None:
        """Write one file."""

    @abstractmethod
    def finish(self, columns: int = 0) -> None:
        """Complete the files."""

    @abstractmethod
    def discard(self) -> None:
        """Remove everything that was written."""


class FolderWriter(PngWriter):
    """Writes into a new or an empty folder, so that nothing is overwritten."""

    def __init__(self, path: Path, option: str = "--out") -> None:
        super().__init__()
        require_new_folder(path, option)
        self.path = path
        self.created_here = not path.exists()
        path.mkdir(exist_ok=True)  # now: an error is reported before images are drawn

    def write(self, name: str, png: bytes) -> None:
        file = self.path / name
        try:
            file.write_bytes(png)
        except FileNotFoundError:
            file.parent.mkdir(parents=True)
            file.write_bytes(png)

    def finish(self, columns: int = 0) -> None:
        pass

    def discard(self) -> None:
        for folder, count in self.counts.items():
            for number in range(count + 1):  # the last one may be incomplete
                (self.path / png_name(folder, number)).unlink(missing_ok=True)
        folders = [self.path / folder for folder in self.counts if folder]
        folders += [folder.parent for folder in folders if folder.parent != self.path]
        for folder in [*folders, *([self.path] if self.created_here else [])]:
            with suppress(OSError):  # another program's file is in it
                folder.rmdir()


class ZipWriter(PngWriter):
    """Writes a zip, which appears when it is complete."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.partial = path.with_name(path.name + ".partial")
        self.file = zipfile.ZipFile(self.partial, "w", zipfile.ZIP_STORED)  # PNGs are compressed

    def write(self, name: str, png: bytes) -> None:
        # without the time: the same images give the same file
        # names in a zip are UTF-8: the bytes of a file's name that are not become escapes
        utf8 = name.encode("utf-8", "backslashreplace").decode()
        self.file.writestr(zipfile.ZipInfo(utf8), png)

    def finish(self, columns: int = 0) -> None:
        self.file.close()
        self.partial.replace(self.path)

    def discard(self) -> None:
        with suppress(OSError):  # it writes the table of contents: on a full disk it cannot
            self.file.close()
        self.partial.unlink(missing_ok=True)


def png_name(folder: str, number: int) -> str:
    """Return the file name of an image."""
    return f"{folder}/{number:06d}.png" if folder else f"{number:06d}.png"


def encode_png(picture: Tensor) -> bytes:
    """Convert a uint8 picture, (1 or 3, H, W), on the CPU to the content of a PNG file."""
    png = io.BytesIO()
    to_pillow(picture).save(png, "png")
    return png.getvalue()


class Export:
    """Writes the images behind a score to generated/ and real/ of a new folder or a zip.

    Use it in a `with` block: if the block raises, everything written is removed. Raises UserError
    at once if nothing can be written there, RunFailed later (full disk).
    """

    def __init__(self, path: Path, option: str = "--export") -> None:
        if path.suffix.lower() in PICTURES:
            raise UserError(
                f"{option} {path} names one picture, but writes many: give FILE.zip or a "
                "folder's name."
            )
        self.path = path
        if path.suffix.lower() == ".zip" and path.is_dir():
            raise UserError(
                f"{option} {path} is a folder with the name of a zip. Give another one."
            )
        with report_unwritable(path, option):
            self.files = make_png_writer(path, option)

    def add(self, kind: Literal["generated", "real"], images: Tensor, name: str = "") -> None:
        """Add (N, 1 or 3, H, W) uint8 images as they are scored, in order. `name`: a folder for
        those that are scored together."""
        assert images.dtype == torch.uint8, f"scored images are uint8, not {images.dtype}"
        with explain_write_failure(self.path):
            self.files.put(images, f"{kind}/{make_word(name)}" if name else kind)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return self.files.discard()
        with discarded_on_failure(self.files), explain_write_failure(self.path):
            self.files.finish()


def make_image_writer(path: Path) -> "GridWriter | PngWriter":
    """Choose by the name: .zip, a picture, else a folder. Raise UserError if it is impossible."""
    suffix = path.suffix.lower()
    if suffix and suffix not in (".zip", *PICTURES):
        raise UserError(
            f"--out {path}: crgan writes no {path.suffix} files. Give FILE.png for one grid, "
            "FILE.zip, or a folder's name."
        )
    if suffix and path.is_dir():
        raise UserError(f"--out {path} is a folder with the name of a file. Give another --out.")
    with report_unwritable(path, "--out"):
        return GridWriter(path) if suffix in PICTURES else make_png_writer(path, "--out")


@contextmanager
def discarded_on_failure(writer: GridWriter | MovieWriter | PngWriter) -> Iterator[None]:
    """Remove what was written if the body fails, so that the same command can be typed again."""
    try:
        yield
    except BaseException:
        if isinstance(writer, PngWriter):  # the others write one file, at the end
            writer.discard()
        raise


@contextmanager
def open_file_writer(path: Path, *, single: bool) -> Iterator[Callable[[str, bytes], None]]:
    """Provide a function that writes PNGs by name: to FILE.png if there is a `single` one, to a
    zip, or to a new folder.

    A zip appears when it is complete; a folder keeps what was written before an error. Raises
    UserError at once if nothing can be written there, RunFailed later (full disk).
    """
    suffix = path.suffix.lower()
    if suffix and suffix != ".zip" and not (single and suffix == ".png"):
        one = "FILE.png, " if single else ""
        raise UserError(
            f"--out {path}: give {one}FILE.zip or a folder's name; all images become PNGs"
            + ("." if single else ", and there are several.")
        )
    if suffix and path.is_dir():
        raise UserError(f"--out {path} is a folder with the name of a file. Give another --out.")
    with report_unwritable(path, "--out"):
        writer = None if suffix == ".png" else make_png_writer(path, "--out")
    complete = written = False

    def write(name: str, png: bytes) -> None:
        nonlocal written
        with explain_write_failure(path):
            writer.write(name, png) if writer else path.write_bytes(png)
        written = True

    try:
        yield write
        if writer and written:
            with explain_write_failure(path):
                writer.finish()
        complete = written
    finally:
        if writer and not complete and not (written and isinstance(writer, FolderWriter)):
            writer.discard()


def make_png_writer(path: Path, option: str) -> PngWriter:
    """Choose by the name: .zip, else a folder."""
    return ZipWriter(path) if path.suffix.lower() == ".zip" else FolderWriter(path, option)


@contextmanager
def report_unwritable(path: Path, option: str) -> Iterator[None]:
    """Create the folder around `path`. An OSError in the block becomes a UserError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(
            f"{option} {path} cannot be written ({error.strerror}). Give another {option}."
        ) from None
