"""The settings outside the groups, as attributes. conf/train.yaml describes each of them."""

import shlex
from dataclasses import dataclass, fields, is_dataclass
from typing import Literal

from crgan_cli.config.bounds import Decay, NonNegative, NonNegativeInt, PositiveInt, Seed
from crgan_cli.config.build import build_from
from crgan_cli.config.resolve import Settings
from crgan_cli.errors import UserError, wrong_value


@dataclass(frozen=True)
class Ema:
    """Moving average of the generator's weights."""

    decay: Decay | None  # None: no average
    start: NonNegativeInt


@dataclass(frozen=True)
class Log:
    """Steps between two lines of the log."""

    every: PositiveInt


@dataclass(frozen=True)
class Samples:
    """Steps between two sample grids, and the number of images in each."""

    every: PositiveInt
    num: PositiveInt


@dataclass(frozen=True)
class Checkpoints:
    """Steps between two checkpoints, and how many of the newest are kept."""

    every: PositiveInt
    keep: PositiveInt


@dataclass(frozen=True)
class EarlyStopSettings:
    """After how many evaluations without a better one a run ends."""

    patience: PositiveInt | None  # None: never
    min_delta: NonNegative


@dataclass(frozen=True)
class SweepSettings:
    """What to do when a job of a sweep fails, and how jobs share a device."""

    on_error: Literal["continue", "stop"]
    per_device: PositiveInt
    mps: Literal["auto", "never"] = "auto"  # auto: NVIDIA's Multi-Process Service, if installed


@dataclass(frozen=True)
class Published:
    """The published number that an experiment reproduces, if any."""

    fid: NonNegative | None
    source: str | None
    protocol: str | None = None  # its short name, as `Protocol.label` makes it
    settings: str | None = None  # typed with the experiment, as in a shell

    def __post_init__(self) -> None:
        try:
            shlex.split(self.settings or "")
        except ValueError as error:
            expected = "settings as they are typed in a shell"
            said = wrong_value("published.settings", expected, repr(self.settings), f"{error}.")
            raise UserError(f"{said} Close the quote, or leave it out.") from None


@dataclass(frozen=True)
class Run:
    """All settings outside the groups."""

    seed: Seed
    steps: PositiveInt
    batch_size: PositiveInt
    device: str
    out: str | None
    resume: Literal["auto", "never", "force"]
    data_root: str
    ema: Ema
    log: Log
    samples: Samples
    checkpoint: Checkpoints
    published: Published
    sweep: SweepSettings = SweepSettings("continue", 1)
    accumulate: PositiveInt = 1
    early_stop: EarlyStopSettings = EarlyStopSettings(None, 0.0)
    init_from: str | None = None
    freeze_d: NonNegativeInt = 0

    @classmethod
    def from_config(cls, config: Settings) -> "Run":
        """The settings of a complete, checked configuration."""
        nested = {
            field.name: build_from(field.type, config[field.name])
            for field in fields(cls)
            if isinstance(field.type, type) and is_dataclass(field.type) and field.name in config
        }
        return build_from(cls, config, **nested)
