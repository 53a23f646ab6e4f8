"""The base class of all metrics."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor

from crgan_cli.errors import RunFailed, UserError
from crgan_cli.evaluation.metrics.features import FeatureKind, FeatureSet
from crgan_cli.runs.metric_names import find_traits, higher_is_better, learn_measures, may_lead
from crgan_cli.system.numbers import name_nonfinite


class Metric(ABC):
    """A function of the features, or of the pixels, of real and generated images.

    To add one to crgan, write a subclass, add it to both lists of `registry`, and its numbers to
    `runs.metric_names`, where `higher_is_better` and `may_lead` (whether it may be the primary
    metric) come from. A measure of a user (`conf/measure`) sets `higher_is_better` and
    `of_features` itself, and leads no run; its numbers begin with `key`.

    The numbers have plain names: `fd` for the Frechet distance, whatever the features. The
    evaluator reports `fid` if they are the standard Inception's, and otherwise appends the
    extractor and the number of images.
    """

    name: ClassVar[str]  # in `metrics.measures`
    key: ClassVar[str]  # its main number
    required: ClassVar[Set[FeatureKind]] = frozenset()  # per image, besides the moments
    shows_real: ClassVar[bool] = False  # also reported of the real images, as `..._real`
    needs_labels: ClassVar[bool] = False  # needs the class of every image, on both sides
    higher_is_better: ClassVar[bool] = False
    may_lead: ClassVar[bool] = False
    of_features: ClassVar[bool] = True  # whether it needs an extractor

    def __init_subclass__(cls) -> None:
        if cls.is_own():
            if hasattr(cls, "key"):  # a base class of several measures may have none
                learn_measures({"own_measures": cls.describe_own()})
            return
        cls.higher_is_better, cls.may_lead = higher_is_better(cls.name), may_lead(cls.name)
        cls.of_features = find_traits(cls.name).of_features

    @classmethod
    def is_own(cls) -> bool:
        """Whether this is a measure of a user, outside of crgan."""
        return cls.__module__.partition(".")[0] != __name__.partition(".")[0]

    @classmethod
    def describe_own(cls) -> dict[str, dict[str, object]]:
        """Return what reports need to know of a measure of a user, for the record."""
        if not cls.is_own():
            return {}
        known = {"higher_is_better": cls.higher_is_better, "of_features": cls.of_features}
        return {cls.key: {"class": f"{cls.__module__}.{cls.__qualname__}", **known}}

    def require(self, real: int, fake: int, dims: int) -> None:  # noqa: B027 (optional)
        """Raise UserError if so many images of `dims` features cannot be compared."""

    def require_shape(self, shape: tuple[int, ...]) -> None:  # noqa: B027 (optional)
        """Raise UserError if images of this shape (channels, height, width) are too small."""

    def describe(self) -> dict[str, str | int | float]:
        """Return the settings that change the numbers. Keys are unique among all metrics."""
        return {}

    @abstractmethod
    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        """Return name -> finite number. Both sets are on one device and have all of `required`."""


def require_labels(images: FeatureSet, which: str, metric: str) -> Tensor:
    """Return the class ids. Raise UserError if there are none."""
    if images.y is None:
        raise UserError(
            f"The {which} images have no class labels, but the {metric} of metrics.measures "
            "compares class by class: evaluate a class-conditional model on a data set with "
            f"classes, or remove {metric} from metrics.measures."
        )
    return images.y


@contextmanager
def naming_failures(name: str) -> Iterator[None]:
    """Raise RunFailed with the name of a number whose linear algebra in the body fails."""
    try:
        yield
    except torch.linalg.LinAlgError as error:  # pyright: ignore[reportPrivateImportUsage]
        reason = str(error).partition("\n")[0]
        raise RunFailed(f"{name} cannot be computed from these features: {reason}") from error


def require_finite_numbers(values: Mapping[str, float]) -> None:
    """Raise RunFailed with the names of numbers that are not finite."""
    if broken := name_nonfinite(values):
        raise RunFailed(
            f"{', '.join(f'{name} is {values[name]}' for name in broken)}: the features are finite "
            "numbers, but too large to be compared. Choose another extractor=..., or other "
            "metrics.measures."
        )


def require_counts(metric: str, real: int, fake: int, *, least: int, why: str) -> None:
    """Raise UserError if one side has fewer than `least` images."""
    sides = (("real", real), ("generated", fake))
    if few := [f"{count} {side}" for side, count in sides if count < least]:
        raise too_few(f"{' and '.join(few)} images are too few: {why}", least, metric)


class TooFewImages(UserError):
    """A metric needs more images."""

    problem = ""  # without what to do about it
    metric = ""  # its name


def too_few(problem: str, least: int, metric: str) -> TooFewImages:
    """PROBLEM. How to have more images: a setting draws them, but adds no file to a folder."""
    error = TooFewImages(
        f"{problem}. Images of files: put at least {least} there. Of a generator: type "
        f"metrics.num_samples={least}, or remove {metric} from metrics.measures."
    )
    error.problem, error.metric = problem, metric
    return error


def require_side(metric: str, shape: tuple[int, ...], least: int) -> None:
    """Raise UserError if a side of images of `shape` has fewer than `least` pixels."""
    if min(shape[1:]) < least:
        raise UserError(
            f"{metric} needs images of at least {least} x {least} pixels, and these have "
            f"{shape[1]} x {shape[2]}. Remove it from metrics.measures, or type a larger "
            "dataset.resolution."
        )
