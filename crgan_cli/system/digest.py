"""Files that end with the SHA-256 of all that is before it, so that any damage is noticed.

The end is one line of fixed length. Formats that are read from their start, or that find their end
by a search as zip does, need not know of it: torch.load and unzip read such a file unchanged.
"""

import hashlib
import re
from typing import BinaryIO

END = re.compile(rb"\nsha256 ([0-9a-f]{64})\n")
LENGTH = len("\nsha256 \n") + 64


class DigestWriter:
    """A file to write to, one piece after the other; `finish` adds the digest of them all."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.digest = hashlib.sha256()

    def write(self, piece: bytes) -> int:
        """Write a piece, and return its length."""
        self.digest.update(piece)
        return self.file.write(piece)

    def flush(self) -> None:
        """Hand what is still in memory to the operating system, as torch.save asks."""
        self.file.flush()

    def finish(self) -> None:
        """Write the digest. Nothing may follow it."""
        self.file.write(f"\nsha256 {self.digest.hexdigest()}\n".encode())


def check_digest(file: BinaryIO) -> tuple[bool | None, str]:
    """Return whether a file is as it was written, and the SHA-256 of all of it. None instead of
    whether, if it does not end with a digest. Afterwards the file is where it begins."""
    size = file.seek(0, 2)
    file.seek(max(size - LENGTH, 0))
    tail = file.read()
    end = END.fullmatch(tail)
    file.seek(0)
    digest, left = hashlib.sha256(), size - len(tail)
    while left and (piece := file.read(min(left, 1 << 20))):
        digest.update(piece)
        left -= len(piece)
    undamaged = None if end is None else digest.hexdigest().encode() == end[1]
    digest.update(tail)
    file.seek(0)
    return undamaged, digest.hexdigest()
