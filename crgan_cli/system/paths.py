"""Paths as people type them."""

import os
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
