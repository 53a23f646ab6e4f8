"""Annotations for constructor parameters that come from YAML.

`signatures.py` reads them from the source of the class that a YAML file names. So a value out of
range is refused before torch is imported, and a range is written once: where the value is used.
"""

from dataclasses import dataclass
from math import isfinite
from typing import Annotated


@dataclass(frozen=True)
class Bound:
    """The interval [low, high]. `above` excludes the lower end, `below` the upper one."""

    words: str
    low: float = float("-inf")
    high: float = float("inf")
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """Whether `value` lies in the interval. NaN and infinities never do."""
        if not isfinite(value):
            return False
        over = value > self.low if self.above else value >= self.low
        return over and (value < self.high if self.below else value <= self.high)


@dataclass(frozen=True)
class Words:
    """What the value is, for users, where its type alone would tell them less."""

    words: str


@dataclass(frozen=True)
class PathMark:
    """The value is the path of a file or folder that crgan opens. See `trust.py`."""

    runs_code: bool  # reading the file can run code in it


@dataclass(frozen=True)
class GroupsMark:
    """The value maps names to groups: each has a `_target_` and its settings."""


NamedGroups = Annotated[dict, GroupsMark()]
CodePath = Annotated[str, PathMark(runs_code=True)]
DataPath = Annotated[str, PathMark(runs_code=False)]  # read as images, tensors or plain values
Positive = Annotated[float, Bound("a number above 0", low=0.0, above=True)]
AtLeastOne = Annotated[float, Bound("a number of at least 1", low=1.0)]
NonNegative = Annotated[float, Bound("a number of at least 0", low=0.0)]
Probability = Annotated[float, Bound("a number between 0 and 1", low=0.0, high=1.0)]
Decay = Annotated[float, Bound("a number of at least 0 and below 1", low=0.0, high=1.0, below=True)]
DropoutRate = Annotated[
    float, Bound("a number of at least 0 and below 1", low=0.0, high=1.0, below=True)
]
PositiveFraction = Annotated[
    float, Bound("a number above 0 and up to 1", low=0.0, high=1.0, above=True)
]
PositiveInt = Annotated[int, Bound("a whole number of at least 1", low=1)]
ImageSize = Annotated[
    PositiveInt | tuple[PositiveInt, PositiveInt],
    Words("a whole number of at least 1, or [HEIGHT,WIDTH]"),
]
"""Read it with `Sides.read`."""
DataSide = Annotated[
    int, Bound("a whole number of at least 1 ([HEIGHT,WIDTH] is for dataset=folder)", low=1)
]
NetworkSide = Annotated[
    int,
    Bound(
        "a whole number of at least 1, from dataset.resolution ([HEIGHT,WIDTH] is for "
        "architecture=sndcgan, dcgan, mlp, mlp_maxout, resnet, resnet_sngan, resnet5, biggan_lite "
        "and biggan)",
        low=1,
    ),
]
UpTo1000 = Annotated[int, Bound("a whole number from 1 to 1000", low=1, high=1000)]
"""Of what a list has one of each: a million would fill the memory before anything is checked."""
Seed = Annotated[int, Bound("a whole number from 0 to 2^63 - 1", low=0, high=2**63 - 1)]
NonNegativeInt = Annotated[int, Bound("a whole number of at least 0", low=0)]
