"""The configuration that a run was started with."""

import logging

from omegaconf import DictConfig

from crgan_cli.config.stored import from_file, from_text
from crgan_cli.errors import UserError
from crgan_cli.runs.folder import RunDir

log = logging.getLogger(__name__)


def load_config(run: RunDir) -> DictConfig:
    """Load config.yaml, or if it is damaged the copy in the newest checkpoint.

    Raises UserError if neither can be read.
    """
    try:
        return from_file(run.config)
    except UserError as error:
        from crgan_cli.runs.checkpoint import load_latest  # torch takes seconds to import

        found = load_latest(run.checkpoints)
        if found is None:
            raise
        config = from_text(found.content["config"], str(found.path))
        log.warning("%s The settings are taken from %s", error, found.path)
        return config
