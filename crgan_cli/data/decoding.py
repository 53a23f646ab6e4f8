"""Decode many files, in threads and in bounded memory."""

import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
from PIL import ImageFile
from rich.console import Console
from rich.progress import track

from crgan_cli.config.sides import Sides
from crgan_cli.data.decode import (
    DECODE_ERRORS,
    ONLY_FIRST,
    Reading,
    decode,
    estimate_bytes,
    least_side,
    open_image,
)
from crgan_cli.data.file_facts import FileFacts, SetFacts, inspect_file
from crgan_cli.data.file_listing import Entry
from crgan_cli.data.files import MAX_FILE_BYTES, ImageFiles, require_damage
from crgan_cli.data.memory import MemoryBudget
from crgan_cli.errors import UserError

CHUNK = 256  # files decoded at a time: limits the memory, keeps all threads busy

PIXEL_BYTES = MemoryBudget(2**30)
"""What all threads together hold of images while they decode them; a larger one is alone."""

FILE_BYTES = MemoryBudget(MAX_FILE_BYTES)
"""What they hold of files."""

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
    def least_side(self) -> int | None:
        """The shorter side that a large JPEG keeps while it is decoded; None: all of it."""
        ...

    @property
    def hint(self) -> str:
        """What the user can do about unreadable files, as a sentence."""
        ...

    def decode(self, *pictures: ImageFile.ImageFile) -> np.ndarray:
        """Return the pixels of one item, (C, H, W) uint8, or (frames, C, H, W) if all are read.

        Raises one of DECODE_ERRORS.
        """
        ...


class CentreDecoder(NamedTuple):
    """Any image to one size, a square or [height, width], in grey or RGB; see `decode`."""

    resolution: int | tuple[int, int]
    channels: int
    crop: int | None
    skip_unreadable: bool
    reading: Reading = ONLY_FIRST

    @property
    def shape(self) -> tuple[int, int, int]:
        height, width = Sides.read(self.resolution)
        return (self.channels, height, width)

    @property
    def least_side(self) -> int | None:
        return least_side(self.resolution, self.crop)

    @property
    def hint(self) -> str:
        return "Repair or remove them, or leave them out with dataset.skip_unreadable=true."

    def decode(self, *pictures: ImageFile.ImageFile) -> np.ndarray:
        (picture,) = pictures
        return decode(
            picture,
            resolution=self.resolution,
            channels=self.channels,
            crop=self.crop,
            reading=self.reading,
        )


def decode_content(content: bytes, decoder: Decoder) -> np.ndarray:
    """Decode one file, within what all threads may hold. Raises one of DECODE_ERRORS."""
    with (
        open_image(content) as picture,
        PIXEL_BYTES.hold(estimate_bytes(picture, decoder.least_side)),
    ):
        return decoder.decode(picture)


def decode_readable(
    files: ImageFiles, entries: Sequence[Item], decoder: Decoder, facts: SetFacts
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the position and pixels of each readable file, in order. Use within `quiet_pillow`.

    `facts` learns of them. At the end, raise UserError for unreadable files, or log them with
    `skip_unreadable`; raise it for pixels of another range than their type's. Raise RunFailed at
    once for a file of which nothing is known, as its disk failed.
    """
    unreadable = []
    for position, result in enumerate(_decode_all(files, entries, decoder)):
        if isinstance(result, str):
            unreadable.append(f"{format_item(entries[position])} ({result})")
        else:
            pixels, found = result
            facts.add(found)
            yield position, pixels
    if decoder.skip_unreadable and len(unreadable) < len(entries):
        log_skipped(unreadable, len(entries))
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
    entries = _files_in(item)
    try:
        with ExitStack() as held:
            held.enter_context(FILE_BYTES.hold(sum(entry.size for entry in entries)))
            pictures = [held.enter_context(open_image(files.read(entry))) for entry in entries]
            size = sum(estimate_bytes(each, decoder.least_side) for each in pictures)
            held.enter_context(PIXEL_BYTES.hold(size))
            facts = [inspect_file(each) for each in pictures]
            return decoder.decode(*pictures), facts
    except DECODE_ERRORS as error:
        require_damage(error, format_item(item), files.root)
        return format_reason(error)


def _files_in(item: Item) -> tuple[Entry, ...]:
    return (item,) if isinstance(item, Entry) else item


def format_item(item: Item) -> str:
    """Name the file of an item, or its files."""
    return " with ".join(entry.name for entry in _files_in(item))


def log_skipped(unreadable: list[str], total: int) -> None:
    """Log the files that are left out."""
    if unreadable:
        names = format_names(unreadable)
        log.warning("skipped %d unreadable images of %d: %s", len(unreadable), total, names)


def format_reason(error: BaseException) -> str:
    """Say why a file is unreadable, in at most 120 letters."""
    # Pillow and zipfile name an open file or content so, and Python an address
    text = re.sub(r" <[\w.]+ [^>]*>| <[\w.]+ object at 0x\w+>", "", str(error))
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
