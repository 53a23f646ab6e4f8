"""Image files in a folder or a zip: list them and read them."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from crgan_cli.config.bounds import DataPath
from crgan_cli.errors import UserError

EXTENSIONS = (
    ".png",
    ".jpg",
    ".jpeg",
    ".jfif",
    ".webp",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
)
MAX_FILE_BYTES = 512 * 1024**2
"""The largest image file, unpacked. A larger one is a mistake or a zip bomb."""


class Entry(NamedTuple):
    """One image file. Size and mtime show when its content changes."""

    name: str  # relative to the root, with forward slashes
    size: int  # bytes
    mtime: int  # modification time in ns; in a zip, the checksum


class ImageFiles:
    """The image files below a folder or in a zip, sorted by name.

    Hidden files and folders, symbolic links and macOS's `__MACOSX` are skipped. `option` is the
    option that gave the root, for error messages.
    """

    def __init__(self, root: DataPath, option: str = "dataset.root=") -> None:
        self.root = Path(root).expanduser().absolute()
        self.option = option
        if not self.root.exists():
            raise UserError(
                f"There is nothing at {self.root}: {option} must be a folder of images or a "
                "zip of images."
            )
        self._zip = None if self.root.is_dir() else _open_zip(self.root, option)
        files = _list_zip(self._zip) if self._zip else _list_folder(self.root)
        visible = [entry for entry in files if not _is_hidden(entry.name)]
        self.entries = sorted(e for e in visible if e.name.lower().endswith(EXTENSIONS))
        self.others = sorted(e for e in visible if not e.name.lower().endswith(EXTENSIONS))
        if not self.entries:
            raise UserError(_format_no_images(self.root, visible, option))

    def read(self, entry: Entry) -> bytes:
        """Return the content of a file. Raises OSError, zipfile.BadZipFile or RuntimeError."""
        if entry.size > MAX_FILE_BYTES:
            raise OSError(f"it has {entry.size:,} bytes; at most {MAX_FILE_BYTES:,} are allowed")
        return self._zip.read(entry.name) if self._zip else (self.root / entry.name).read_bytes()

    def open(self, entry: Entry) -> IO[bytes]:
        """Open a file, to read its first bytes only. Raises what `read` raises."""
        return self._zip.open(entry.name) if self._zip else (self.root / entry.name).open("rb")


def strip_outer_folder(
    entries: list[Entry], keep: Callable[[str], bool] = lambda name: False
) -> list[tuple[Entry, tuple[str, ...]]]:
    """Return entries with the folders above them, without a single outer folder around all.

    It stays if `keep` says so of its name.
    """
    located = [(entry, PurePosixPath(entry.name).parts[:-1]) for entry in entries]
    while len({parts[:1] for _, parts in located}) == 1 and located[0][1]:
        if keep(located[0][1][0]):
            break
        located = [(entry, parts[1:]) for entry, parts in located]
    return located


def _open_zip(path: Path, asked: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(
            f"{path} is neither a folder nor a zip that can be opened ({error}): {asked} must "
            "be a folder of images or a zip of images. Unpack other archives first; download a "
            "damaged zip again."
        ) from error


def _list_zip(archive: zipfile.ZipFile) -> list[Entry]:
    files = (info for info in archive.infolist() if not info.is_dir())
    # the upper 16 bits are the Unix mode: 0o120000 is a symbolic link
    regular = (info for info in files if (info.external_attr >> 16) & 0o170000 != 0o120000)
    return [Entry(info.filename, info.file_size, info.CRC) for info in regular]


def _list_folder(folder: Path, prefix: str = "") -> list[Entry]:
    """List all files below a folder. With scandir, which is fast for 200,000 files."""
    entries: list[Entry] = []
    try:
        with os.scandir(folder) as children:
            for child in children:
                if child.is_dir(follow_symlinks=False) and not _is_hidden(child.name):
                    entries += _list_folder(folder / child.name, f"{prefix}{child.name}/")
                elif child.is_file(follow_symlinks=False):
                    status = child.stat(follow_symlinks=False)
                    entries.append(Entry(prefix + child.name, status.st_size, status.st_mtime_ns))
    except OSError as error:
        raise UserError(
            f"{folder} cannot be read ({error.strerror}). Correct its permissions."
        ) from error
    return entries


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _format_no_images(root: Path, others: list[Entry], asked: str) -> str:
    expected = f"Images end in one of {' '.join(EXTENSIONS)}."
    if not others:
        return (
            f"{root} holds no file (hidden files and symbolic links do not count). {expected} "
            f"Correct {asked}."
        )
    endings = sorted({PurePosixPath(entry.name).suffix or "(none)" for entry in others})
    return (
        f"{root} holds {len(others)} files but no image: they end in {' '.join(endings[:5])}"
        f"{' ...' if len(endings) > 5 else ''}. {expected} Convert them, or correct {asked}."
    )
