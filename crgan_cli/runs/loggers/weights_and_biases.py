"""Weights & Biases."""

import logging
from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor

from crgan_cli.errors import RunFailed
from crgan_cli.runs.folder import RunDir
from crgan_cli.runs.loggers.base import Logger, keep_id, plain_settings, read_id, to_pixels
from crgan_cli.system.paths import shell_quoted

log = logging.getLogger(__name__)


class WandB(Logger):
    """A run of a project of Weights & Biases; its files are in wandb/.

    The axis is "step", a value of its own: wandb's step could not go back to a checkpoint. What was
    logged after the checkpoint is logged again by a resumed run, with equal values.
    """

    package = "wandb"

    def __init__(
        self,
        project: str,
        entity: str | None = None,
        mode: Literal["online", "offline"] | None = None,
    ) -> None:
        self.project = project
        self.entity = entity
        self.mode: Literal["online", "offline"] | None = mode

    def open(self, run: RunDir, *, step: int) -> None:
        import wandb  # pyright: ignore[reportMissingImports] - takes a second

        if (run.path / "wandb").is_symlink():
            raise RunFailed(f"{run.path / 'wandb'} is a symbolic link, and crgan writes to none.")
        self.pictures = wandb.Image
        self.run = wandb.init(
            project=self.project,
            entity=self.entity,
            mode=self.mode,
            id=read_id(run, "wandb"),
            name=run.path.name,
            resume="allow",
            dir=str(run.path),
            reinit="create_new",  # a sweep has a run for each job in one process
            settings=wandb.Settings(console="off", silent=True),
        )
        keep_id(run, "wandb", self.run.id)
        self.run.define_metric("*", step_metric="step")
        later = f"to send it later: wandb sync {shell_quoted(run.path / 'wandb')}/offline-run-*"
        log.info("W&B run %s, %s", self.run.id, later if self.run.offline else self.run.url)

    def write(self, line: Mapping[str, object], scalars: Mapping[str, float], step: int) -> None:
        self.run.log({"step": step, **scalars})

    def image(self, name: str, image: Tensor, step: int) -> None:
        self.run.log({"step": step, name: self.pictures(to_pixels(image))})

    def hparams(
        self, settings: Mapping[str, object], swept: Sequence[str], metric: str | None
    ) -> None:
        if metric:
            self.run.define_metric(f"metrics/{metric}", step_metric="step", summary="min")
        self.run.config.update(plain_settings(settings), allow_val_change=True)

    def finish(self) -> None:
        self.run.finish(exit_code=0)

    def close(self) -> None:
        self.run.finish(exit_code=1)  # does nothing if it has finished
