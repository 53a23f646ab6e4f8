"""The settings outside the groups, as attributes; what each is stands in conf/train.yaml."""

from typing import Literal

from crgan_cli.config.bounds import Decay, NonNegative, NonNegativeInt, PositiveInt, Seed
from crgan_cli.config.build import build_from
from crgan_cli.config.resolve import Settings


class Ema:
    """Moving average of the generator's weights; `decay` None means none is kept."""

    def __init__(self, decay: Decay | None, start: NonNegativeInt) -> None:
        self.decay = decay
        self.start = start


class Log:
    """Steps between two lines of the log."""

    def __init__(self, every: PositiveInt) -> None:
        self.every = every


class Samples:
    """Steps between two sample grids, and the images in each."""

    def __init__(self, every: PositiveInt, num: PositiveInt) -> None:
        self.every = every
        self.num = num


class Checkpoints:
    """Steps between two checkpoints, and how many of the last are kept."""

    def __init__(self, every: PositiveInt, keep: PositiveInt) -> None:
        self.every = every
        self.keep = keep


class SweepSettings:
    """What a sweep does when a job fails, and how many jobs share a device side by side, and how.

    `mps` "auto" is NVIDIA's Multi-Process Service where it can be had.
    """

    def __init__(
        self,
        on_error: Literal["continue", "stop"],
        per_device: PositiveInt,
        mps: Literal["auto", "never"] = "auto",  # older configurations have none
    ) -> None:
        self.on_error = on_error
        self.per_device = per_device
        self.mps = mps


ALONE = SweepSettings("continue", 1)


class Published:
    """The number that an experiment is to reproduce; None where there is none."""

    def __init__(self, fid: NonNegative | None, source: str | None) -> None:
        self.fid = fid
        self.source = source


class Run:
    """The settings outside the groups; `conf/train.yaml` says what each is."""

    def __init__(
        self,
        seed: Seed,
        steps: PositiveInt,
        batch_size: PositiveInt,
        device: str,
        out: str | None,
        resume: Literal["auto", "never", "force"],
        data_root: str,
        ema: Ema,
        log: Log,
        samples: Samples,
        checkpoint: Checkpoints,
        published: Published,
        sweep: SweepSettings = ALONE,  # older configurations have none
    ) -> None:
        self.seed = seed
        self.steps = steps
        self.batch_size = batch_size
        self.device = device
        self.out = out
        self.resume = resume
        self.data_root = data_root
        self.ema = ema
        self.log = log
        self.samples = samples
        self.checkpoint = checkpoint
        self.published = published
        self.sweep = sweep

    @classmethod
    def of(cls, config: Settings) -> "Run":
        """The settings in a whole, checked configuration, as attributes."""
        nested = {
            "ema": Ema,
            "log": Log,
            "samples": Samples,
            "checkpoint": Checkpoints,
            "published": Published,
            "sweep": SweepSettings,
        }
        made = {key: build_from(of, config[key]) for key, of in nested.items() if key in config}
        return build_from(cls, config, **made)
