"""Write files atomically: after a crash, a file is complete or absent."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from crgan_cli.errors import RunFailed


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to. Move it to `path` after the body; remove it on an error.

    Its name is random, so that threads, processes and machines can write the same file: process ids
    are not enough, as in each container the first is 1.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:  # os.replace keeps the source if both are links to one file
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def explain_write_failure(path: Path) -> Iterator[None]:
    """Raise RunFailed with the path if the body cannot write."""
    try:
        yield
    except OSError as error:
        raise RunFailed(f"writing to {path} failed: {error.strerror or error}") from error


def write_text(path: Path, text: str) -> None:
    """Write a text atomically, as UTF-8. Of names that are not, bytes become escape sequences."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, content: object, indent: int | None = None) -> None:
    """Write JSON atomically. NaN and infinity, which JSON does not have, raise ValueError."""
    write_text(path, json.dumps(content, indent=indent, allow_nan=False) + "\n")
