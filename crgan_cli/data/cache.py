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
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock
from rich.console import Console
from rich.progress import track
from torch import Tensor

from crgan_cli.data.decode import UNREADABLE, decode, quiet_pillow
from crgan_cli.data.files import Entry, ImageFiles
from crgan_cli.errors import RunFailed, UserError

FORMAT = 1  # raise it when `decode` changes what it returns
CHUNK = 256  # files in flight: bounds the memory, keeps every thread busy

log = logging.getLogger(__name__)


class Recipe(NamedTuple):
    """How files become pixels; see `decode`."""

    resolution: int
    channels: int
    crop: int | None
    skip_unreadable: bool


class Decoded(NamedTuple):
    """Pixels, and which of the files they are from."""

    x: Tensor  # (N, C, H, W) uint8, memory-mapped
    kept: list[int]  # N positions in the list of files


def decoded(files: ImageFiles, entries: Sequence[Entry], recipe: Recipe) -> Decoded:
    """The pixels of `entries`, from the cache where they are in it.

    Raises UserError for unreadable images or an unusable cache folder, RunFailed for a full disk.
    """
    folder = cache_root() / _key(files.root, entries, recipe)
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


def cache_root() -> Path:
    """Where decoded sets are kept: $CRGAN_CACHE/datasets, by default ~/.cache/crgan/datasets."""
    return Path(os.environ.get("CRGAN_CACHE") or "~/.cache/crgan").expanduser() / "datasets"


def _key(root: Path, entries: Sequence[Entry], recipe: Recipe) -> str:
    content = json.dumps([FORMAT, str(root), recipe, entries])
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _open(folder: Path, recipe: Recipe) -> Decoded | None:
    """What is in the cache, or None where nothing is or what is there is damaged."""
    try:
        kept = json.loads((folder / "kept.json").read_text())
        shape = (len(kept), recipe.channels, recipe.resolution, recipe.resolution)
        if (folder / "pixels.u8").stat().st_size != np.prod(shape, dtype=np.int64):
            return None
        # "c", copy-on-write, and never written: torch warns about read-only arrays
        pixels = np.memmap(folder / "pixels.u8", dtype=np.uint8, mode="c", shape=shape)
    except (FileNotFoundError, ValueError):
        return None
    return Decoded(torch.from_numpy(pixels), kept)


def _make(folder: Path, files: ImageFiles, entries: Sequence[Entry], recipe: Recipe) -> None:
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".unfinished-"))
    try:
        kept, unreadable = [], []
        # appended, not memory-mapped: a full disk is then an exception, and not a SIGBUS
        with quiet_pillow(), open(unfinished / "pixels.u8", "wb") as out:
            for position, result in enumerate(_decode_all(files, entries, recipe)):
                if isinstance(result, str):
                    unreadable.append(f"{entries[position].name} ({result})")
                else:
                    out.write(result.tobytes())
                    kept.append(position)
        _judge(unreadable, files.root, len(entries), recipe.skip_unreadable)
        (unfinished / "kept.json").write_text(json.dumps(kept))
        shutil.rmtree(folder, ignore_errors=True)  # damaged, or _open would have taken it
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    log.info("decoded %d images of %s into %s", len(kept), files.root, folder)


def _decode_all(
    files: ImageFiles, entries: Sequence[Entry], recipe: Recipe
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


def _decode_one(files: ImageFiles, recipe: Recipe, entry: Entry) -> np.ndarray | str:
    try:
        return decode(
            files.read(entry),
            resolution=recipe.resolution,
            channels=recipe.channels,
            crop=recipe.crop,
        )
    except UNREADABLE as error:
        return " ".join(str(error).split())[:120] or type(error).__name__


def _judge(unreadable: list[str], root: Path, total: int, skip: bool) -> None:
    if not unreadable:
        return
    listed = ", ".join(unreadable[:10]) + (
        f" and {len(unreadable) - 10} more" if len(unreadable) > 10 else ""
    )
    if skip and len(unreadable) < total:
        log.warning("left out %d unreadable images of %d: %s", len(unreadable), total, listed)
        return
    remedy = (
        "There is nothing to train on: correct dataset.root=."
        if len(unreadable) == total
        else "Repair or remove them, or leave them out with dataset.skip_unreadable=true."
    )
    raise UserError(
        f"{len(unreadable)} of {total} images in {root} are unreadable: {listed}. {remedy}"
    )
