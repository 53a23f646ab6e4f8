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
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import numpy as np
from filelock import FileLock
from rich.console import Console
from rich.progress import track
from torch import Tensor

from crgan_cli.data.decode import DECODE_ERRORS, ONLY_FIRST, Reading, decode, quiet_pillow
from crgan_cli.data.file_facts import FileFacts, SetFacts, inspect_file, log_moving
from crgan_cli.data.file_listing import Entry
from crgan_cli.data.files import ImageFiles
from crgan_cli.data.pixel_files import map_pixels
from crgan_cli.errors import RunFailed, UserError
from crgan_cli.system.cache import cache_folder

FORMAT = 1  # increase it when `decode` changes its results
BLOCK = 1 << 16  # bytes
MAX_BLOCKS = 4096  # 256 MiB of pixels: a tenth of a second from memory
CHUNK = 256  # files decoded at a time: limits the memory, keeps all threads busy

log = logging.getLogger(__name__)

Item = Entry | tuple[Entry, ...]
"""What becomes one image: a file, or several."""


class Decoder(Protocol):
    """Turns files into pixels. A NamedTuple: its fields are part of the cache's key.

    A field with a default is the last, and no part of the key while it has that value.
    """

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        ...

    @property
    def skip_unreadable(self) -> bool: ...

    @property
    def reading(self) -> Reading: ...

    @property
    def hint(self) -> str:
        """What the user can do about unreadable files, as a sentence."""
        ...

    def decode(self, *contents: bytes) -> np.ndarray:
        """Return the pixels of one item, (C, H, W) uint8, or (frames, C, H, W) if all are read.

        Raises one of DECODE_ERRORS.
        """
        ...


class SquareDecoder(NamedTuple):
    """Any image to a square of one size, in grey or RGB; see `decode`."""

    resolution: int
    channels: int
    crop: int | None
    skip_unreadable: bool
    reading: Reading = ONLY_FIRST

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.channels, self.resolution, self.resolution)

    @property
    def hint(self) -> str:
        return "Repair or remove them, or leave them out with dataset.skip_unreadable=true."

    def decode(self, *contents: bytes) -> np.ndarray:
        (content,) = contents
        return decode(
            content,
            resolution=self.resolution,
            channels=self.channels,
            crop=self.crop,
            reading=self.reading,
        )


class Decoded(NamedTuple):
    """Pixels and the files that they are from."""

    x: Tensor  # (N, C, H, W) uint8, memory-mapped
    indices: list[int]  # N positions in the list of files; of several frames equal ones


def decode_cached(files: ImageFiles, entries: Sequence[Item], decoder: Decoder) -> Decoded:
    """Return the pixels of `entries`: open the cache; if they are absent, build it and open again.

    Raises UserError for unreadable images or an unusable cache folder, RunFailed for a full disk.
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
    content = json.dumps([FORMAT, str(root), fields, entries], allow_nan=False)
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
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".unfinished-"))
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


def decode_readable(
    files: ImageFiles, entries: Sequence[Item], decoder: Decoder, facts: SetFacts
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the position and pixels of each readable file, in order. Use within `quiet_pillow`.

    `facts` learns of them. At the end, raise UserError for unreadable files, or log them with
    `skip_unreadable`; raise it for pixels of another range than their type's.
    """
    unreadable = []
    for position, result in enumerate(_decode_all(files, entries, decoder)):
        if isinstance(result, str):
            names = " with ".join(entry.name for entry in _files_in(entries[position]))
            unreadable.append(f"{names} ({result})")
        else:
            pixels, found = result
            facts.add(found)
            yield position, pixels
    if decoder.skip_unreadable and 0 < len(unreadable) < len(entries):
        log.warning(
            "skipped %d unreadable images of %d: %s",
            len(unreadable),
            len(entries),
            format_names(unreadable),
        )
    else:
        require_readable(unreadable, files, len(entries), decoder.hint)
    facts.check(decoder.reading, files)


def _decode_all(
    files: ImageFiles, entries: Sequence[Item], decoder: Decoder
) -> Iterator[tuple[np.ndarray, list[FileFacts]] | str]:
    """Yield each item's pixels and the facts of its files, or why it is unreadable, in order."""
    chunks = [entries[start : start + CHUNK] for start in range(0, len(entries), CHUNK)]
    decode_one = partial(_decode_one, files, decoder)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        hidden = not sys.stderr.isatty()
        for chunk in track(chunks, "decoding images", console=Console(stderr=True), disable=hidden):
            yield from pool.map(decode_one, chunk)


def _decode_one(
    files: ImageFiles, decoder: Decoder, item: Item
) -> tuple[np.ndarray, list[FileFacts]] | str:
    try:
        contents = [files.read(entry) for entry in _files_in(item)]
        return decoder.decode(*contents), [inspect_file(content) for content in contents]
    except DECODE_ERRORS as error:
        return format_reason(error)


def _files_in(item: Item) -> tuple[Entry, ...]:
    return (item,) if isinstance(item, Entry) else item


def format_reason(error: BaseException) -> str:
    """Say why a file is unreadable, in at most 120 letters."""
    text = re.sub(r" <_io\.BytesIO [^>]*>", "", str(error))  # Pillow names the file's content so
    return " ".join(text.split())[:120] or type(error).__name__


def format_names(names: list[str]) -> str:
    """List the first ten, and count the others."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more


def require_readable(unreadable: list[str], files: ImageFiles, total: int, hint: str) -> None:
    """Raise UserError if any file is unreadable. `hint` says what to do about it."""
    if unreadable:
        if len(unreadable) == total:
            hint = f"None is left: correct {files.option}."
        raise UserError(
            f"{len(unreadable)} of {total} images in {files.root} are unreadable: "
            f"{format_names(unreadable)}. {hint}"
        )
