"""The numbers that compare generated images with real ones, each a function of two feature sets.

The formulas are in modules of their own; here is what each asks for, and says of itself.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Set

from torch import Tensor

from crgan_cli.config.bounds import PositiveInt
from crgan_cli.errors import UserError
from crgan_cli.evaluation.metrics import density_coverage, infinity, kid, precision_recall
from crgan_cli.evaluation.metrics.class_frechet import class_distances, count_per_class
from crgan_cli.evaluation.metrics.features import FeatureKind, FeatureSet
from crgan_cli.evaluation.metrics.frechet import CachedFactor, frechet_distance
from crgan_cli.evaluation.metrics.inception_score import inception_score

log = logging.getLogger(__name__)


class Metric(ABC):
    """A function of real and generated features, with the settings that a reader has to know.

    Keys are plain: `fd` for the Frechet distance, whatever the features. The evaluator calls it
    `fid` where they are the standard Inception's, and adds the extractor and the count elsewhere.
    """

    keeps: Set[FeatureKind] = frozenset()  # what it needs of every image, beside the moments
    needs_labels = False  # whether both sides must say which class each image is of

    def require(self, real: int, fake: int, dims: int) -> None:  # noqa: B027 (it may be left so)
        """Raises UserError where so many images of `dims` features cannot be compared."""

    def describe(self) -> dict[str, str | int | float]:
        """The settings that change the number, for the record; keys carry the measure's name."""
        return {}

    @abstractmethod
    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        """Name -> finite number. Both sets are on one device and hold the columns in `keeps`."""


class FrechetDistance(Metric):
    """`fd`: the distance of the Gaussians with the features' moments, Heusel et al. 2017
    (arXiv:1706.08500) eq. 6."""

    def __init__(self) -> None:
        self._factor = CachedFactor()

    def require(self, real: int, fake: int, dims: int) -> None:
        require_each(real, fake, least=2, why="a covariance needs 2")

    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        root = self._factor.get(real.moments)
        return {"fd": frechet_distance(real.moments, fake.moments, root)}


class InceptionScore(Metric):
    """`is` and `is_std`, mean and deviation over `splits` parts, and `is_single` of all images at
    once: exp(E KL(p(y|x) || p(y))), Salimans et al. 2016 (arXiv:1606.03498). Of fakes alone."""

    keeps = frozenset({"logits"})

    def __init__(self, splits: PositiveInt = 10) -> None:
        self.splits = splits

    def require(self, real: int, fake: int, dims: int) -> None:
        if fake < self.splits:
            raise UserError(
                f"metrics.is_splits={self.splits} parts of {fake} generated images leave empty "
                f"parts: give at most metrics.is_splits={fake}, or more metrics.num_samples."
            )

    def describe(self) -> dict[str, str | int | float]:
        return {"is_splits": self.splits}

    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        assert fake.logits is not None, "`keeps` asked for the logits"
        mean, deviation = inception_score(fake.logits, self.splits)
        single, _ = inception_score(fake.logits, splits=1)
        return {"is": mean, "is_std": deviation, "is_single": single}


class KID(Metric):
    """`kid`: unbiased squared MMD with the kernel (x . y / dims + 1)^3, and `kid_std` over its
    subsets where there are several, Binkowski et al. 2018 (arXiv:1801.01401) section 4."""

    keeps = frozenset({"pool"})

    def __init__(
        self, subsets: PositiveInt = kid.SUBSETS, subset_size: PositiveInt | None = None
    ) -> None:
        if subset_size == 1:
            raise UserError(
                "metrics.kid_subset_size=1 has no pairs of images: give 2 or more, or null for the "
                f"paper's {kid.SUBSET_SIZE}."
            )
        self.subsets = subsets
        self.subset_size = subset_size

    def require(self, real: int, fake: int, dims: int) -> None:
        require_each(real, fake, least=2, why="the kernel distance needs 2, a pair")
        n = min(real, fake)
        if self.subset_size is not None and self.subset_size > n:
            raise UserError(
                f"metrics.kid_subset_size={self.subset_size} images are more than there are "
                f"({real} real, {fake} generated): give at most metrics.kid_subset_size={n}, or "
                f"null for the smaller of {kid.SUBSET_SIZE} and all."
            )

    def describe(self) -> dict[str, str | int | float]:
        whole = f"min({kid.SUBSET_SIZE}, images)"
        return {"kid_subsets": self.subsets, "kid_subset_size": self.subset_size or whole}

    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        found = kid.kernel_distance(
            fake.require_pool(), real.require_pool(), subsets=self.subsets, size=self.subset_size
        )
        spread = {} if found.deviation is None else {"kid_std": found.deviation}
        return {"kid": found.mean, **spread}


class PrecisionRecall(Metric):
    """`precision` and `recall`: shares of one set within the other's k-nearest-neighbour balls,
    Kynkaanniemi et al. 2019 (arXiv:1904.06991) eqs. 1 and 2."""

    keeps = frozenset({"pool"})

    def __init__(self, neighbours: PositiveInt = precision_recall.NEIGHBOURS) -> None:
        self.neighbours = neighbours

    def require(self, real: int, fake: int, dims: int) -> None:
        k = self.neighbours
        require_each(real, fake, least=k + 1, why=f"precision and recall need {k} others each")

    def describe(self) -> dict[str, str | int | float]:
        return {"precision_recall_neighbours": self.neighbours}

    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        found = precision_recall.precision_recall(
            real.require_pool(), fake.require_pool(), self.neighbours
        )
        return found._asdict()


class DensityCoverage(Metric):
    """`density` and `coverage`: how many generated features the real k-nearest-neighbour balls
    hold, and how many balls hold any, Naeem et al. 2020 (arXiv:2002.09797) section 3."""

    keeps = frozenset({"pool"})

    def __init__(self, neighbours: PositiveInt = density_coverage.NEIGHBOURS) -> None:
        self.neighbours = neighbours

    def require(self, real: int, fake: int, dims: int) -> None:
        k = self.neighbours
        require_each(real, fake, least=k + 1, why=f"density and coverage need {k} others each")

    def describe(self) -> dict[str, str | int | float]:
        return {"density_coverage_neighbours": self.neighbours}

    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        found = density_coverage.density_coverage(
            real.require_pool(), fake.require_pool(), self.neighbours
        )
        return found._asdict()


class ClassFrechet(Metric):
    """`class_fd_<label>`: the Frechet distance within a class, and `class_fd`: their mean, Miyato
    and Koyama 2018 (arXiv:1802.05637). Small classes bias it upwards more than all images do."""

    keeps = frozenset({"pool"})
    needs_labels = True

    def __init__(self) -> None:
        self._warned = False

    def require(self, real: int, fake: int, dims: int) -> None:
        require_each(real, fake, least=2, why="a covariance needs 2 of each class")

    def describe(self) -> dict[str, str | int | float]:
        return {"class_fd_mean": "over classes, each with the same weight"}

    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        real_pool, fake_pool = real.require_pool(), fake.require_pool()
        real_y = labels_of(real, "real").to(real_pool.device)
        fake_y = labels_of(fake, "generated").to(fake_pool.device)
        self._check_sizes(count_per_class(real_y), count_per_class(fake_y), real_pool.shape[1])
        found = class_distances(real_pool, real_y, fake_pool, fake_y)
        mean = sum(found.values()) / len(found)
        return {"class_fd": mean, **{f"class_fd_{label}": fd for label, fd in found.items()}}

    def _check_sizes(self, real: Mapping[int, int], fake: Mapping[int, int], dims: int) -> None:
        classes = sorted({*real, *fake})
        for label in classes:
            r, f = real.get(label, 0), fake.get(label, 0)
            if min(r, f) < 2:
                raise UserError(
                    f"Class {label} has {r} real and {f} generated images, and the class_fid "
                    "of metrics.measures needs 2 of every class on both sides. Give more "
                    "metrics.num_samples, or leave class_fid out of metrics.measures."
                )
        small = [label for label in classes if min(real[label], fake[label]) < dims]
        if small and not self._warned:
            self._warned = True
            log.warning(
                "%d of %d classes have fewer images than the %d features: class_fd is biased "
                "upwards, so compare it at these counts only",
                len(small),
                len(classes),
                dims,
            )


class FrechetInfinity(Metric):
    """`fd_infinity`: the Frechet distance for infinitely many fakes, by regression on 1 / their
    number, Chong and Forsyth 2020 (arXiv:1911.07023) section 3."""

    keeps = frozenset({"pool"})

    def __init__(self) -> None:
        self._factor = CachedFactor()

    def require(self, real: int, fake: int, dims: int) -> None:
        require_each(real, fake, least=2, why="a covariance needs 2")
        # full rank in every subset, and as many different sizes as points on the line
        least = max(2 * (dims + 1), 2 * infinity.POINTS)
        if fake < least:
            raise UserError(
                f"{fake} generated images are too few for the fid_infinity of "
                "metrics.measures: half of them, its smallest subset, must be more than the "
                f"{dims} features of the extractor. Give at least metrics.num_samples={least}, or "
                "leave fid_infinity out of metrics.measures."
            )

    def describe(self) -> dict[str, str | int | float]:
        return {
            "fd_infinity_points": infinity.POINTS,
            "fd_infinity_smallest": f"min(max({infinity.LEAST}, features + 1), images // 2)",
            "fd_infinity_seed": infinity.SEED,
        }

    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        root = self._factor.get(real.moments)
        return {"fd_infinity": infinity.frechet_infinity(real.moments, fake.require_pool(), root)}


def require_each(real: int, fake: int, *, least: int, why: str) -> None:
    """Raises UserError where either side has fewer than `least` images."""
    if min(real, fake) < least:
        raise UserError(
            f"{real} real and {fake} generated images are too few: {why}. Give at least "
            f"metrics.num_samples={least}, and as many real images."
        )


def labels_of(images: FeatureSet, which: str) -> Tensor:
    """The class ids; raises UserError where there are none."""
    if images.y is None:
        raise UserError(
            f"The {which} images have no class labels, and the class_fid of metrics.measures "
            "compares class by class: evaluate a class-conditional model on a data set with "
            "classes, or leave class_fid out of metrics.measures."
        )
    return images.y


MEASURES: dict[str, type[Metric]] = {
    "fid": FrechetDistance,
    "is": InceptionScore,
    "kid": KID,
    "precision_recall": PrecisionRecall,
    "density_coverage": DensityCoverage,
    "class_fid": ClassFrechet,
    "fid_infinity": FrechetInfinity,
}
"""What a user writes in `metrics.measures`."""
