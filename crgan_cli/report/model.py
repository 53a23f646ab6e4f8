"""What a report is made of, between reading run folders and rendering them."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

Value = str | int | float | bool | None


class RunFiles(NamedTuple):
    """What was read from one run's folder; half-finished runs have less."""

    path: Path
    status: str  # finished, running, interrupted, failed
    error: str  # of a failed run, else ""
    config: Mapping[str, Value]  # dotted key -> value: the whole configuration
    choices: Mapping[str, str]  # group -> choice, as far as they are known
    step: int  # steps done
    steps: int  # steps asked for
    seed: int
    train: tuple[Mapping[str, float], ...]  # lines of metrics.jsonl of kind "train", by step
    evals: tuple[Mapping[str, float], ...]  # of kind "eval", by step
    protocol: Mapping[str, object]  # record of the protocol of `evals`; empty without metrics
    headline: str  # the number that picks the best step; "" without metrics
    published: Mapping[str, Value]  # fid and source, empty where the experiment has none
    seconds: float  # of training, over all sessions
    device: str
    images_per_second: float  # median over the log; 0 where it is not known
    peak_memory_bytes: int  # 0 where it is not known
    samples: Path | None  # the newest sample grid
    artefacts: Mapping[str, Mapping[str, object]]  # measurement -> its newest JSON


class Spread(NamedTuple):
    """A number over seeds."""

    values: tuple[float, ...]  # one a run
    mean: float
    deviation: float | None  # sample standard deviation; None for one value


class Row(NamedTuple):
    """The runs that differ in nothing but their seed."""

    label: str  # the differing settings, in words: "regularizer=icr lambda_cr=10"
    settings: Mapping[str, Value]  # the differing keys only -> value in this row
    runs: tuple[RunFiles, ...]
    numbers: Mapping[str, Spread]  # headline and other metrics at the chosen step -> spread
    cost_hours: float  # over all its runs
    note: (
        str  # what a reader must know: jobs failed or unfinished, n=1, within the noise of the best
    )
    steps: tuple[int, ...] = ()  # the steps that the numbers are of, ascending
    published: str = ""  # the published number beside ours, in words; its source is in runs[0]
    comparable: float | None = None  # the published number where its protocol is ours


class Comparison(NamedTuple):
    """Whether two rows differ by more than chance (Welch 1947)."""

    best: str  # label
    other: str  # label
    p_value: float | None  # None where a row has one seed
    words: str


class Report(NamedTuple):
    """All that a report says, best row first."""

    title: str
    headline: str
    step: str  # which step the numbers are of: "last" or "best"
    rows: tuple[Row, ...]
    varied: tuple[str, ...]  # the keys in which rows differ
    swept: str  # the one numeric key that was swept, for the plot over a log axis; "" if none
    comparisons: tuple[Comparison, ...]
    protocols: tuple[Mapping[str, object], ...]  # different ones; more than one only if forced
    warnings: tuple[str, ...]
