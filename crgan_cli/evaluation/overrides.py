"""The settings of an evaluation: those of a run, or the defaults, changed by what is typed."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from crgan_cli.errors import UserError, conflict

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from crgan_cli.runs.checkpoint import LoadedCheckpoint

CHANGEABLE = ("metrics", "measure", "extractor", "device", "data_root", "dataset.root")
"""What may be changed for a checkpoint; everything else is the run's."""

BUILT = ("metrics", "measure", "extractor", "dataset", "task")
"""The groups that a score is built from; the task draws. The networks are read from each
checkpoint."""

CHANGEABLE_WITHOUT_RUN = ("metrics", "measure", "extractor", "device", "data_root", "dataset")
"""What may be set if there is no run to take it from."""


def config_with_overrides(checkpoint: "LoadedCheckpoint", overrides: list[str]) -> "DictConfig":
    """Return the configuration of a checkpoint, changed by the overrides."""
    return change_settings(checkpoint.content["config"], str(checkpoint.path), overrides)


def change_settings(text: str, source: str, overrides: list[str]) -> "DictConfig":
    """Return a stored configuration, from a checkpoint at `source`, changed by the overrides."""
    from crgan_cli.config import stored  # here: it imports Hydra

    typed = stored.Typed(overrides, CHANGEABLE, "crgan eval")
    return stored.from_text(text, source, builds=BUILT, typed=typed)


def metrics_config(overrides: list[str]) -> "DictConfig":
    """Return a configuration of which only the metrics and the data matter."""
    from crgan_cli.config import stored

    return stored.compose_partial(overrides, CHANGEABLE_WITHOUT_RUN, "crgan eval without a run")


def require_agreement(
    config: "DictConfig",
    overrides: Sequence[str],
    key: str,
    agreeing: Collection[str],
    *,
    other: tuple[str, str, str],
) -> None:
    """Raise UserError if `key` is typed, and its value in `config` is none of those `agreeing`.

    `other`: what else says the same, why both cannot hold, and what to do.
    """
    from omegaconf import OmegaConf

    from crgan_cli.config.messages import override_key

    typed = [word for word in overrides if override_key(word) == key]
    if typed and str(OmegaConf.select(config, key)) not in agreeing:
        raise UserError(conflict(f"'{typed[-1]}'", *other))
