"""Decoded images on disk: made once, then memory-mapped.

One folder per set, named by a hash of the files (name, size, modification time) and of how they
were decoded, so a changed file or option makes a new one. It holds `pixels.u8` (N, C, H, W) and
`kept.json`, the positions of the files that could be read.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from filelock import FileLock
from rich.console import Console
from rich.progress import track
from torch import Tensor

from crgan_cli.data.decode import UNREADABLE, decode, quiet_pillow
from crgan_cli.data.files import Entry, ImageFiles
from crgan_cli.errors import RunFailed, UserError
from crgan_cli.system.cache import cache_folder as cache_folder

FORMAT = 1  # raise it when `decode` changes what it returns
CHUNK = 256  # files in flight: bounds the memory, keeps every thread busy

log = logging.getLogger(__name__)


class Decoder(Protocol):
    """How files become pixels. A tuple of numbers too, which the name of the cache holds."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        ...

    @property
    def skip_unreadable(self) -> bool: ...

    @property
    def hint(self) -> str:
        """What to do about unreadable files, in a sentence."""
        ...

    def decode(self, content: bytes) -> np.ndarray:
        """The pixels of one file; raises one of UNREADABLE."""
        ...


class SquareDecoder(NamedTuple):
    """Squares of one size and colour, whatever the files are; see `decode`."""

    resolution: int
    channels: int
    crop: int | None
    skip_unreadable: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.channels, self.resolution, self.resolution)

    @property
    def hint(self) -> str:
        return "Repair or remove them, or leave them out with dataset.skip_unreadable=true."

    def decode(self, content: bytes) -> np.ndarray:
        return decode(content, resolution=self.resolution, channels=self.channels, crop=self.crop)


class Decoded(NamedTuple):
    """Pixels, and which of the files they are from."""

    x: Tensor  # (N, C, H, W) uint8, memory-mapped
    indices: list[int]  # N positions in the list of files


def decode_cached(files: ImageFiles, entries: Sequence[Entry], recipe: Decoder) -> Decoded:
    """The pixels of `entries`, from the cache where they are in it.

    Raises UserError for unreadable images or an unusable cache folder, RunFailed for a full disk.
    """
    folder = cache_folder("datasets") / _key(files.root, entries, recipe)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # one process of a run decodes, the others wait for it
        with FileLock(folder.with_suffix(".lock")):
            found = _open(folder, recipe)
            if found is None:
                _make(folder, files, entries, recipe)
                found = _open(folder, recipe)
    except OSError as error:
        kind = RunFailed if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO) else UserError
        raise kind(
            f"The decoded images cannot be kept in {folder.parent} ({error.strerror or error}). "
            "Make room there, or name another folder in the environment variable CRGAN_CACHE."
        ) from error
    assert found is not None
    return found


def _key(root: Path, entries: Sequence[Entry], recipe: Decoder) -> str:
    content = json.dumps([FORMAT, str(root), recipe, entries])
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _open(folder: Path, recipe: Decoder) -> Decoded | None:
    """What is in the cache, or None where nothing is or what is there is damaged."""
    try:
        kept = json.loads((folder / "kept.json").read_text())
        shape = (len(kept), *recipe.shape)
        if (folder / "pixels.u8").stat().st_size != np.prod(shape, dtype=np.int64):
            return None
        # "c", copy-on-write, and never written: torch warns about read-only arrays
        pixels = np.memmap(folder / "pixels.u8", dtype=np.uint8, mode="c", shape=shape)
    except (FileNotFoundError, ValueError):
        return None
    return Decoded(torch.from_numpy(pixels), kept)


def _make(folder: Path, files: ImageFiles, entries: Sequence[Entry], recipe: Decoder) -> None:
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".unfinished-"))
    try:
        kept = []
        # appended, not memory-mapped: a full disk is then an exception, and not a SIGBUS
        with quiet_pillow(), open(unfinished / "pixels.u8", "wb") as out:
            for position, pixels in select_readable(files, entries, recipe):
                out.write(pixels.tobytes())
                kept.append(position)
        (unfinished / "kept.json").write_text(json.dumps(kept))
        shutil.rmtree(folder, ignore_errors=True)  # damaged, or _open would have taken it
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    log.info("decoded %d images of %s into %s", len(kept), files.root, folder)


def select_readable(
    files: ImageFiles, entries: Sequence[Entry], recipe: Decoder
) -> Iterator[tuple[int, np.ndarray]]:
    """Position and pixels of each file, in order. Inside `quiet_pillow`.

    In the end raises UserError for unreadable files, or logs them if they are to be left out.
    """
    unreadable = []
    for position, result in enumerate(_decode_all(files, entries, recipe)):
        if isinstance(result, str):
            unreadable.append(f"{entries[position].name} ({result})")
        else:
            yield position, result
    if recipe.skip_unreadable and 0 < len(unreadable) < len(entries):
        log.warning(
            "left out %d unreadable images of %d: %s",
            len(unreadable),
            len(entries),
            format_list(unreadable),
        )
    else:
        require_readable(unreadable, files, len(entries), recipe.hint)


def _decode_all(
    files: ImageFiles, entries: Sequence[Entry], recipe: Decoder
) -> Iterator[np.ndarray | str]:
    """Each file's pixels, or why it has none, in order."""
    console = Console(stderr=True)
    chunks = [entries[start : start + CHUNK] for start in range(0, len(entries), CHUNK)]
    one = partial(_decode_one, files, recipe)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for chunk in track(
            chunks, "decoding images", console=console, disable=not sys.stderr.isatty()
        ):
            yield from pool.map(one, chunk)


def _decode_one(files: ImageFiles, recipe: Decoder, entry: Entry) -> np.ndarray | str:
    try:
        return recipe.decode(files.read(entry))
    except UNREADABLE as error:
        return reason(error)


def reason(error: BaseException) -> str:
    """Why a file is unreadable, in a few words."""
    return " ".join(str(error).split())[:120] or type(error).__name__


def format_list(names: list[str]) -> str:
    """The first ten."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more


def require_readable(unreadable: list[str], files: ImageFiles, total: int, hint: str) -> None:
    """Raises UserError if any file is unreadable, with what to do about it."""
    if unreadable:
        if len(unreadable) == total:
            hint = f"None is left: correct {files.option}."
        raise UserError(
            f"{len(unreadable)} of {total} images in {files.root} are unreadable: "
            f"{format_list(unreadable)}. {hint}"
        )
