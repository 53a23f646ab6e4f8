"""Paths as people type them, and as a shell takes them back."""

import os
import shlex
from collections.abc import Iterable
from pathlib import Path

from crgan_cli.errors import UserError


def expand_home(text: str | os.PathLike[str]) -> Path:
    """Return a path with `~` or `~NAME` at its start replaced by that user's home folder.

    A shell does that at the start of a word only, not in 'out=~/x'. UserError: no such user.
    """
    path = os.path.expanduser(text)
    if path.startswith("~"):
        name = Path(path).parts[0]
        raise UserError(
            f"{path}: '{name}' stands for a home folder, and none of it is known here. If a "
            "folder has that name, type its whole path, from / on."
        )
    return Path(path)


def require_new_folder(path: Path, option: str = "--out") -> None:
    """Raise UserError for what exists and is not an empty folder, so that nothing is overwritten.

    `option`: how another one is given.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists and is not an empty folder. Give another {option}.")


def shell_quoted(text: str | Path) -> str:
    """Return a word as it can be typed in a shell. A byte that is no UTF-8 needs bash's $'...'."""
    text = str(text)
    if not any("\udc80" <= letter <= "\udcff" for letter in text):
        return shlex.quote(text)
    escaped = os.fsencode(text.replace("\\", r"\\").replace("'", r"\'"))
    letters = (chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}" for byte in escaped)
    return f"$'{''.join(letters)}'"


def shell_joined(words: Iterable[str]) -> str:
    """Return a command line that can be typed in a shell."""
    return " ".join(map(shell_quoted, words))
