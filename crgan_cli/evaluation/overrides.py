"""The settings of an evaluation: those of a run, or the defaults, changed by what is typed."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

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

Scored = Literal["a model", "a run", "images"]
"""What can be scored: a model in memory, checkpoints, or images that exist."""

GOES_WITH: Mapping[str, Scored] = {
    "all": "a run",
    "best": "a run",
    "weights": "a run",
    "export": "a run",
    "real": "images",
}
"""Options of `crgan eval` and `crgan.evaluate` -> the only thing to which each says something."""


def require_fitting(scored: Scored, **options: object) -> None:
    """Raise UserError for an option that was given (not None or False) and does not go with it."""
    for name, value in options.items():
        if value not in (None, False) and GOES_WITH[name] != scored:
            given = f"--{name}" if value is True else f"--{name} {value}"
            loads = (scored, GOES_WITH[name]) == ("a model", "a run")
            remedy = "Give it to crgan.load." if loads else "Leave it out."
            raise UserError(
                f"{given} does not go with {scored}: it is for {GOES_WITH[name]}. {remedy}"
            )


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
