"""List what a folder or a zip holds, wherever it was made, and what of it cannot be used."""

import errno
import os
import re
import stat
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from crgan_cli.errors import UserError

UNUSUAL = re.compile(r"\\|//|/\./|^\.?/|^\.\Z|^[A-Za-z]:/|/\.?\Z")
"""In a name that `unify_name` changes."""


class Entry(NamedTuple):
    """One file. Size and mtime show when its content changes."""

    name: str  # relative to the root, with forward slashes
    size: int  # bytes
    mtime: int  # modification time in ns; in a zip, the checksum


class Listing(NamedTuple):
    """The files of a folder or a zip."""

    found: dict[Entry, str]  # and their names on the disk or in the zip
    left_out: list[tuple[str, str]]  # what cannot be used: its kind, its name


def list_zip(archive: zipfile.ZipFile) -> Listing:
    """List a zip. Of two files of one name the later one counts, as for whoever unpacks it."""
    listing = Listing({}, [])
    by_name: dict[str, Entry] = {}
    for info in archive.infolist():
        if info.filename.endswith(("/", "\\")):
            continue
        entry = Entry(unify_name(info.filename), info.file_size, info.CRC)
        # the upper 16 bits are the Unix mode
        if stat.S_ISLNK(info.external_attr >> 16):
            listing.left_out.append(("symbolic links in a zip", entry.name))
        elif _is_hidden(entry.name):
            listing.left_out.append(("hidden", entry.name))
        else:
            if earlier := by_name.get(entry.name):
                listing.left_out.append(("replaced by a later file of that name", entry.name))
                del listing.found[earlier]
            by_name[entry.name] = entry
            listing.found[entry] = info.filename
    return listing


def list_folder(folder: Path) -> Listing:
    """List all files below a folder. Symbolic links are followed, except to a folder above them.

    Raises UserError for a folder that cannot be read.
    """
    listing = Listing({}, [])
    _scan(folder, "", frozenset(), listing)
    return listing


def _scan(folder: Path, prefix: str, above: frozenset[tuple[int, int]], listing: Listing) -> None:
    """With scandir, which is fast for 200,000 files. `above` are the folders around this one."""
    try:
        status = folder.stat()
        inside = above | {(status.st_dev, status.st_ino)}
        with os.scandir(folder) as children:
            for child in children:
                _add(child, folder, prefix + child.name, inside, listing)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be read ({error.strerror}). Correct its permissions, or see to its "
            "disk or network."
        ) from error


def _add(
    child: os.DirEntry[str],
    folder: Path,
    name: str,
    above: frozenset[tuple[int, int]],
    listing: Listing,
) -> None:
    if _is_hidden(child.name):
        listing.left_out.append(("hidden", name))
        return
    try:
        status = child.stat()  # of what a link leads to
    except OSError as error:
        if error.errno in (errno.EIO, errno.ESTALE):
            raise  # it may be an image as all others
        listing.left_out.append(("links to nothing that can be read", name))
        return
    if stat.S_ISREG(status.st_mode):
        listing.found[Entry(unify_name(name), status.st_size, status.st_mtime_ns)] = name
    elif not stat.S_ISDIR(status.st_mode):
        listing.left_out.append(("no files but devices, pipes or sockets", name))
    else:
        target = os.stat(folder / child.name)  # DirEntry has no st_ino on Windows
        if (target.st_dev, target.st_ino) in above:
            listing.left_out.append(("links to a folder above them", name))
        else:
            _scan(folder / child.name, f"{name}/", above, listing)


def unify_name(name: str) -> str:
    r"""`C:\train\0.png`, `/train/0.png` and `./train/0.png` -> `train/0.png`.

    Programs on Windows separate by backslashes, and some unpackers leave them in file names.
    """
    if not UNUSUAL.search(name):  # as most are: 200,000 names in a second
        return name
    parts = re.sub(r"^[A-Za-z]:[\\/]", "", name).replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", "."))


def _is_hidden(name: str) -> bool:
    if name.startswith(".") or "/." in name:
        return True
    return "__MACOSX" in name and "__MACOSX" in name.split("/")


def format_kinds(left_out: Iterable[tuple[str, str]]) -> str:
    """Count files by kind, the most frequent first, each with the first name."""
    kinds: dict[str, list[str]] = {}
    for kind, name in sorted(left_out):
        kinds.setdefault(kind, []).append(name)
    ranked = sorted(kinds.items(), key=lambda each: -len(each[1]))
    return ", ".join(f"{len(names)} {kind} (e.g. {names[0]})" for kind, names in ranked)
