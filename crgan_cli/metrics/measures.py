"""The numbers that compare generated images with real ones, each a function of two feature sets."""

from abc import ABC, abstractmethod
from collections.abc import Set

from crgan_cli.metrics.features import Column, FeatureSet


class Measure(ABC):
    """A function of real and generated features, with the settings that a reader has to know.

    Keys are plain: `fd` for the Frechet distance, whatever the features. The evaluator calls it
    `fid` where they are the standard Inception's, and adds the extractor and the count elsewhere.
    """

    keeps: Set[Column] = frozenset()  # what it needs of every image, beside the moments

    def require(self, real: int, fake: int, dims: int) -> None:
        """Raises UserError where so many images of `dims` features cannot be compared."""

    def describe(self) -> dict[str, str | int | float]:
        """The settings that change the number, for the record; keys carry the measure's name."""
        return {}

    @abstractmethod
    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        """Name -> finite number. Both sets are on one device and hold the columns in `keeps`."""
