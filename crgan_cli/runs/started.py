"""When a run was started, as its folder records it."""

import re
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from crgan_cli.runs.folder import RunDir

STAMP = re.compile(r"(\d{8}-\d{6}-\d{6})(-|$)")
"""What `new_folder` begins a run's name with."""


def read_start(folder: Path) -> datetime:
    """Return when a run was started, in local time.

    By its folder's name, else by the first line of its log. Only if neither tells is it the time of
    a file, which a copy of the folder changes.
    """
    run = RunDir(folder)
    if stamp := STAMP.match(folder.name):
        with suppress(ValueError):
            return datetime.strptime(stamp[1], "%Y%m%d-%H%M%S-%f")
    with suppress(OSError, ValueError), run.log.open(encoding="utf-8", errors="replace") as log:
        return datetime.strptime(log.readline()[:23], "%Y-%m-%d %H:%M:%S,%f")
    kept = run.overrides if run.overrides.exists() else run.config
    return datetime.fromtimestamp(kept.stat().st_mtime)
