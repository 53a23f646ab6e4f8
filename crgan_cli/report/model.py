"""The records of a report, between reading run folders and writing the report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from crgan_cli.gan.stages import Stages
from crgan_cli.runs.status import Status

Value = str | int | float | bool | None

Line = Mapping[str, float]
"""One line of metrics.jsonl: the step and the numbers at it."""

ChosenStep = Literal["last", "best"] | int
"""Which evaluation of each run counts: its last or best one, or the one at this step."""


class RunFiles(NamedTuple):
    """What was read from one run's folder. A run that has not finished has less."""

    path: Path
    status: Status
    error: str  # of a failed run, else ""
    config: Mapping[str, Value]  # dotted key -> value: the whole configuration
    choices: Mapping[str, str]  # group -> choice, if known
    step: int  # steps done
    steps: int  # steps asked for
    seed: int
    train: tuple[Line, ...]  # of kind "train", by step
    evals: tuple[Line, ...]  # of kind "eval", by step
    protocol: Mapping[str, object]  # record of the protocol of `evals`; empty without metrics
    headline: str  # the primary metric, which chooses the best step; "" without metrics
    published: Mapping[str, Value]  # see `find_published`; empty if there is none
    seconds: float  # of training, over all sessions
    device: str
    images_per_second: float  # median over the log; 0 if unknown
    peak_memory_bytes: int  # 0 if unknown
    samples: Path | None  # the newest sample grid
    artefacts: Mapping[str, dict]  # measurement -> its newest JSON
    not_finite: tuple[str, ...] = ()  # which numbers of its files are not finite
    stages: Stages | None = None  # of a run that grows
    retuned: bool = False  # its optimizer was changed when it was resumed
    stopped_early: bool = False  # finished before its last step, by `early_stop`
    commit: str = ""  # of crgan, "+" at its end if files differed; "" if not known


class Spread(NamedTuple):
    """A number over seeds."""

    values: tuple[float, ...]  # one per run
    mean: float
    deviation: float | None  # sample standard deviation; None for one value


class Row(NamedTuple):
    """The runs that differ only in their seed."""

    label: str  # the settings as text: "regularizer=icr lambda_cr=10"
    settings: Mapping[str, Value]  # of the keys in which rows differ
    runs: tuple[RunFiles, ...]
    numbers: Mapping[str, Spread]  # metric at the chosen step -> spread, primary metric first
    cost_hours: float  # over all its runs
    note: str  # failed or unfinished runs, n=1, noise
    steps: tuple[int, ...] = ()  # of the numbers, ascending
    published: str = ""  # the published number next to ours; its source is in runs[0]
    comparable: float | None = None  # the published number if it has our protocol
    counted: tuple[RunFiles, ...] = ()  # the runs that `numbers` are of

    @property
    def shown(self) -> tuple[RunFiles, ...]:
        """The runs that figures show: those of the numbers, or all of a row without numbers."""
        return self.counted or self.runs


class Comparison(NamedTuple):
    """Whether two rows differ by more than chance (Welch 1947)."""

    best: str  # label
    other: str  # label
    p_value: float | None  # None if there is no test, as `words` says
    words: str


class Report(NamedTuple):
    """The whole content of a report, best row first."""

    title: str
    headline: str  # the metric that ranks the rows
    step: ChosenStep  # of the numbers
    rows: tuple[Row, ...]
    varied: tuple[str, ...]  # the keys in which rows differ
    swept: str  # the one numeric key in which rows differ; "" if none
    comparisons: tuple[Comparison, ...]
    protocols: tuple[Mapping[str, object], ...]  # more than one only with --force
    warnings: tuple[str, ...]

    @property
    def at_step(self) -> str:
        """The step of the numbers, in words."""
        return f"at step {self.step}" if isinstance(self.step, int) else f"at the {self.step} step"
