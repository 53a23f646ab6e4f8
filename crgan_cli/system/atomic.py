"""Files that are there whole or not at all, whatever happens while they are written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Where to write what is to be `path`: moved there if the body ends well, else removed.

    The name in between ends with .partial and holds the process, so that two can write one file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:  # a second link moved onto the first stays behind
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text, UTF-8."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")
