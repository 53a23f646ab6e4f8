"""A cache of decoded images on disk: decoded once, then memory-mapped.

One folder per data set. Its name is a hash of the files (name, size, modification time) and of the
decoding options, so a changed file or option gets a new folder. It holds `pixels.u8` (N, C, H, W)
and `kept.json`: the positions of the files that could be read, and a SHA-256 of them and the
pixels. It is compared at every start, so of a large file it covers only a sample: damage between is
not noticed.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from filelock import FileLock
from torch import Tensor

from crgan_cli.data.decode import quiet_pillow
from crgan_cli.data.decoding import Decoder, Item, decode_readable, format_item, log_skipped
from crgan_cli.data.file_facts import SetFacts, log_moving
from crgan_cli.data.files import ImageFiles
from crgan_cli.data.pixel_files import map_pixels
from crgan_cli.errors import RunFailed, UserError
from crgan_cli.system.cache import cache_folder

# increase both when `decode` changes its results
FORMAT = 1
REDUCED_FORMAT = 2  # of sets whose large JPEGs are decoded at a part of their size
BLOCK = 1 << 16  # bytes
MAX_BLOCKS = 4096  # 256 MiB of pixels: a tenth of a second from memory

log = logging.getLogger(__name__)


class Decoded(NamedTuple):
    """Pixels and the files that they are from."""

    x: Tensor  # (N, C, H, W) uint8, memory-mapped
    indices: list[int]  # N positions in the list of files; of several frames equal ones


def decode_cached(files: ImageFiles, entries: Sequence[Item], decoder: Decoder) -> Decoded:
    """Return the pixels of `entries`: open the cache; if they are absent, build it and open again.

    Raises UserError for unreadable images or an unusable cache folder, RunFailed for a full disk or
    one that cannot be read.
    """
    folder = cache_folder("datasets") / _key(files.root, entries, decoder)
    with explain_disk_errors(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        # One process builds. The others wait for the lock, then find the cache complete.
        with FileLock(folder.with_suffix(".lock")):
            opened = _open(folder, decoder)
            if opened is None:
                _build(folder, files, entries, decoder)
                opened = _open(folder, decoder)
            else:
                kept = set(opened[0].indices)
                skipped = [item for i, item in enumerate(entries) if i not in kept]
                log_skipped([format_item(item) for item in skipped], len(entries))
    assert opened is not None
    decoded, moving = opened
    log_moving(moving, len(entries), files, decoder.reading)
    return decoded


@contextmanager
def explain_disk_errors(folder: Path) -> Iterator[None]:
    """Raise UserError for an unusable folder, RunFailed for a full disk, in place of OSError."""
    try:
        yield
    except OSError as error:
        kind = RunFailed if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO) else UserError
        raise kind(
            f"The decoded images cannot be written to {folder} ({error.strerror or error}). "
            "Free space there, or set the environment variable CRGAN_CACHE to another folder."
        ) from error


def _key(root: Path, entries: Sequence[Item], decoder: Decoder) -> str:
    fields = list(cast("tuple[object, ...]", decoder))
    defaults = list(getattr(type(decoder), "_field_defaults", {}).values())
    if defaults and fields[-1:] == defaults[-1:]:
        fields.pop()
    number = FORMAT if decoder.least_side is None else REDUCED_FORMAT
    content = json.dumps([number, str(root), fields, entries], allow_nan=False)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _open(folder: Path, decoder: Decoder) -> tuple[Decoded, int] | None:
    """Open the cached images, and say how many files have more frames than one.

    None if they are absent or damaged.
    """
    try:
        kept = json.loads((folder / "kept.json").read_text("utf-8"))
        if isinstance(kept, list):  # from before crgan wrote a digest
            return None
        indices, file = kept["indices"], folder / "pixels.u8"
        moving = kept.get("moving", [])  # absent if there is none
        shape = (len(indices), *decoder.shape)
        whole = file.stat().st_size == np.prod(shape, dtype=np.int64)
        if not whole or kept["sha256"] != sample_digest([*indices, *moving], file):
            raise ValueError("its SHA-256 is another")
        pixels = map_pixels(file, shape)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        log.warning("%s is damaged (%s): its images are decoded again", folder, error)
        return None
    return Decoded(pixels, indices), sum(moving)


def sample_digest(indices: Sequence[int], file: Path) -> str:
    """Return the SHA-256 (hex) of the positions and of the pixels, or `MAX_BLOCKS` blocks of them.

    The blocks are spread evenly, the first and the last among them.
    """
    digest = hashlib.sha256(json.dumps(indices, allow_nan=False).encode())
    last = max(file.stat().st_size - BLOCK, 0)
    blocks = min(-(-last // BLOCK) + 1, MAX_BLOCKS)
    with open(file, "rb") as pixels:
        for number in range(blocks):
            pixels.seek(last * number // max(blocks - 1, 1))
            digest.update(pixels.read(BLOCK))
    return digest.hexdigest()


def _build(folder: Path, files: ImageFiles, entries: Sequence[Item], decoder: Decoder) -> None:
    unfinished = folder.with_name(f".unfinished-{folder.name}")  # under the lock, so of nobody else
    shutil.rmtree(unfinished, ignore_errors=True)  # what a kill has left
    unfinished.mkdir()
    try:
        indices: list[int] = []
        facts = SetFacts()
        # written, not memory-mapped: a full disk is then an exception, not a SIGBUS
        with quiet_pillow(), open(unfinished / "pixels.u8", "wb") as out:
            for position, pixels in decode_readable(files, entries, decoder, facts):
                out.write(pixels.tobytes())
                indices += [position] * (len(pixels) if pixels.ndim == 4 else 1)
        moving = [facts.moving] if facts.moving else []
        digest = sample_digest([*indices, *moving], unfinished / "pixels.u8")
        kept = {"indices": indices, "sha256": digest, **({"moving": moving} if moving else {})}
        (unfinished / "kept.json").write_text(json.dumps(kept, allow_nan=False))
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one, which _open refused
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    log.info("decoded %d images of %s into %s", len(indices), files.root, folder)
