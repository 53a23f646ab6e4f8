"""Image files in a folder or a zip: list them and read them."""

import logging
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from crgan_cli.config.bounds import DataPath
from crgan_cli.data.decode import DECODE_ERRORS
from crgan_cli.data.file_listing import Entry, format_kinds, list_folder, list_zip
from crgan_cli.errors import RunFailed, UserError
from crgan_cli.system.read_errors import may_be_whole

EXTENSIONS = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".bmp", ".dib", ".gif",
    ".tif", ".tiff", ".tga", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
"""Files that end so are images; one that this Pillow cannot read is refused by name."""

NO_ENDING = "without an ending"

PLAIN_KINDS = {"hidden", ".txt", ".csv", ".json", ".jsonl", ".md", ".html", ".xml", ".yaml", ".py"}
"""Nobody expects images in these."""

MAX_FILE_BYTES = 512 * 1024**2
"""The largest image file, unpacked. A larger one is a mistake or a zip bomb."""

log = logging.getLogger(__name__)


class ImageFiles:
    """The image files below a folder or in a zip, sorted by name.

    A file without an ending is one if it begins like one. Hidden files and folders and macOS's
    `__MACOSX` are left out. `option` is the option that gave the root, for error messages,
    and `expected` what it may be.
    """

    def __init__(
        self,
        root: DataPath,
        option: str = "dataset.root=",
        expected: str = "a folder of images or a zip of images",
    ) -> None:
        self.root = Path(root).expanduser().absolute()
        self.option = option
        if not self.root.exists():
            raise UserError(f"There is nothing at {self.root}: {option} must be {expected}.")
        asked = f"{option} must be {expected}"
        self._zip = None if self.root.is_dir() else _open_zip(self.root, asked)
        listing = list_zip(self._zip) if self._zip else list_folder(self.root)
        self._sources = listing.found
        self.entries: list[Entry] = []
        self.others: list[Entry] = []
        for entry in sorted(listing.found):
            (self.entries if self._is_image(entry) else self.others).append(entry)
        self._left_out = listing.left_out
        if not self.entries:
            raise UserError(self._format_no_images())

    def read(self, entry: Entry) -> bytes:
        """Return the content of a file. Raises OSError, zipfile.BadZipFile or RuntimeError."""
        if entry.size > MAX_FILE_BYTES:
            raise OSError(f"it has {entry.size:,} bytes; at most {MAX_FILE_BYTES:,} are allowed")
        with self.open(entry) as file:
            return file.read()

    def open(self, entry: Entry) -> IO[bytes]:
        """Open a file, to read its first bytes only. Raises what `read` raises."""
        source = self._sources[entry]
        return self._zip.open(source) if self._zip else (self.root / source).open("rb")

    def log_left_out(self, used: Sequence[str] = ()) -> None:
        """Log how many files are no images or cannot be used, by kind. `used` are names of others
        that are."""
        left_out = self._list_left_out(used)
        if left_out:
            plain = {kind for kind, _ in left_out} <= PLAIN_KINDS
            log.log(
                logging.INFO if plain else logging.WARNING,
                "%s: %d images, and %d left out: %s%s",
                self.root,
                len(self.entries),
                len(left_out),
                format_kinds(left_out),
                "" if plain else ". Convert what is an image to PNG or JPEG to use it",
            )

    def _list_left_out(self, used: Sequence[str] = ()) -> list[tuple[str, str]]:
        """The kind and the name of all that is no image, or cannot be used."""
        others = (entry.name for entry in self.others)
        return self._left_out + [(_ending(name), name) for name in others if name not in used]

    def _is_image(self, entry: Entry) -> bool:
        if entry.name.lower().endswith(EXTENSIONS):
            return True
        if _ending(entry.name) != NO_ENDING:
            return False
        try:
            with self.open(entry) as file:
                return begins_like_image(file.read(12))
        except DECODE_ERRORS as error:
            if not isinstance(error, PermissionError):
                require_damage(error, entry.name, self.root)
            return False

    def _format_no_images(self) -> str:
        left_out = self._list_left_out()
        expected = f"Images end in one of {' '.join(EXTENSIONS)}."
        if not left_out:
            return f"{self.root} holds no file. {expected} Correct {self.option}."
        return (
            f"{self.root} holds {len(left_out)} files but no image: {format_kinds(left_out)}. "
            f"{expected} Convert them, or correct {self.option}."
        )


def require_damage(error: BaseException, name: str, root: object) -> None:
    """Raise RunFailed for an error of reading that says nothing about the content of the file."""
    if may_be_whole(error):
        raise RunFailed(
            f"{name} in {root} could not be read ({error}). That does not show that it is damaged: "
            "nothing was left out. See to its disk, network or permissions, and try again."
        ) from error


def begins_like_image(head: bytes) -> bool:
    """Whether a file that begins with these 12 bytes is a PNG, JPEG, GIF, TIFF, WebP or AVIF."""
    known = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return head.startswith(known) or webp or head[4:12] in (b"ftypavif", b"ftypavis")


def _ending(name: str) -> str:
    return PurePosixPath(name).suffix.lower() or NO_ENDING


def strip_outer_folder(
    entries: list[Entry], keep: Callable[[str], bool] = lambda name: False
) -> list[tuple[Entry, tuple[str, ...]]]:
    """Return entries with the folders above them, without a single outer folder around all.

    It stays if `keep` says so of its name.
    """
    located = [(entry, tuple(entry.name.split("/")[:-1])) for entry in entries]
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
            f"{path} is neither a folder nor a zip that can be opened ({error}): {asked}. "
            "Unpack other archives first; download a damaged zip again."
        ) from error
