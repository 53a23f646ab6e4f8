"""The configuration that a run was started with."""

import logging
from typing import NamedTuple

from crgan_cli.config.stored import read_stored
from crgan_cli.errors import UserError
from crgan_cli.runs.folder import RunDir

log = logging.getLogger(__name__)


class StoredText(NamedTuple):
    """A configuration as text, and where it was read."""

    text: str
    source: str


def load_text(run: RunDir) -> StoredText:
    """Load config.yaml, or if it cannot be read the copy in the newest checkpoint.

    Raises UserError if neither can be read.
    """
    try:
        stored = StoredText(run.config.read_text(encoding="utf-8"), str(run.config))
        read_stored(*stored)
    except (OSError, UnicodeDecodeError, UserError) as error:
        from crgan_cli.runs.checkpoint import load_latest  # torch takes seconds to import

        reason = error if isinstance(error, UserError) else f"{run.config} is damaged ({error})."
        found = load_latest(run.checkpoints)
        if found is None:
            raise UserError(str(reason)) from error
        log.warning("%s The settings are taken from %s", reason, found.path)
        return StoredText(found.content["config"], str(found.path))
    return stored
