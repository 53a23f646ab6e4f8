"""Image files in a folder or a zip: which there are, and the bytes of each."""

import os
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

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
LARGEST_FILE = 512 * 1024**2
"""Bytes that one image file may unpack to: more is a mistake or a zip bomb."""


class Entry(NamedTuple):
    """One image file, with what changes when its content does."""

    name: str  # relative to the root, with forward slashes
    size: int  # bytes
    mtime: int  # modification time in ns, or the checksum in a zip's directory


class ImageFiles:
    """The image files below a folder or in a zip, sorted by name.

    Hidden files and folders, symbolic links and macOS's `__MACOSX` are left out. `option` is what
    the user typed the root after, for the errors.
    """

    def __init__(self, root: str, asked: str = "dataset.root=") -> None:
        self.root = Path(root).expanduser().absolute()
        self.option = asked
        if not self.root.exists():
            raise UserError(
                f"There is nothing at {self.root}: {asked} must be a folder of images or a "
                "zip of images."
            )
        self._zip = None if self.root.is_dir() else _open_zip(self.root, asked)
        found = _in_zip(self._zip) if self._zip else _in_folder(self.root)
        visible = [entry for entry in found if not _hidden(entry.name)]
        self.entries = sorted(e for e in visible if e.name.lower().endswith(EXTENSIONS))
        if not self.entries:
            raise UserError(_nothing(self.root, visible, asked))

    def read(self, entry: Entry) -> bytes:
        """The content of one file; raises OSError, zipfile.BadZipFile or RuntimeError."""
        if entry.size > LARGEST_FILE:
            raise OSError(f"it is {entry.size:,} bytes long, and {LARGEST_FILE:,} are allowed")
        return self._zip.read(entry.name) if self._zip else (self.root / entry.name).read_bytes()

    def open(self, entry: Entry) -> IO[bytes]:
        """One file, for whoever needs its first bytes only; raises what `read` does."""
        return self._zip.open(entry.name) if self._zip else (self.root / entry.name).open("rb")


def strip_outer_folder(entries: list[Entry]) -> list[tuple[Entry, tuple[str, ...]]]:
    """Entries with the folders above them, but for a lone outer folder around all of them."""
    below = [(entry, PurePosixPath(entry.name).parts[:-1]) for entry in entries]
    while len({parts[:1] for _, parts in below}) == 1 and below[0][1]:
        below = [(entry, parts[1:]) for entry, parts in below]
    return below


def _open_zip(path: Path, asked: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(
            f"{path} is neither a folder nor a zip that can be opened ({error}): {asked} must "
            "be a folder of images or a zip of images. Unpack other archives first; download a "
            "damaged zip again."
        ) from error


def _in_zip(archive: zipfile.ZipFile) -> list[Entry]:
    files = (info for info in archive.infolist() if not info.is_dir())
    # the upper half of the attributes is the Unix mode: 0o120000 marks a symbolic link
    kept = (info for info in files if (info.external_attr >> 16) & 0o170000 != 0o120000)
    return [Entry(info.filename, info.file_size, info.CRC) for info in kept]


def _in_folder(folder: Path, prefix: str = "") -> list[Entry]:
    """All files below a folder; scandir, since a set may have 200,000 of them."""
    found: list[Entry] = []
    try:
        with os.scandir(folder) as children:
            for child in children:
                if child.is_dir(follow_symlinks=False) and not _hidden(child.name):
                    found += _in_folder(folder / child.name, f"{prefix}{child.name}/")
                elif child.is_file(follow_symlinks=False):
                    status = child.stat(follow_symlinks=False)
                    found.append(Entry(prefix + child.name, status.st_size, status.st_mtime_ns))
    except OSError as error:
        raise UserError(
            f"{folder} cannot be read ({error.strerror}). Correct its permissions."
        ) from error
    return found


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _nothing(root: Path, others: list[Entry], asked: str) -> str:
    wanted = f"Images end in one of {' '.join(EXTENSIONS)}."
    if not others:
        return (
            f"{root} holds no file (hidden files and symbolic links do not count). {wanted} "
            f"Correct {asked}."
        )
    endings = sorted({PurePosixPath(entry.name).suffix or "(none)" for entry in others})
    return (
        f"{root} holds {len(others)} files and no image: they end in {' '.join(endings[:5])}"
        f"{' ...' if len(endings) > 5 else ''}. {wanted} Convert them, or correct {asked}."
    )
