"""The Frechet distance within each class, and its mean over the classes.

The intra-FID of Miyato and Koyama 2018 (arXiv:1802.05637, section 4). It sees a conditional
generator whose classes are right together but wrong one by one; FID does not.
"""

import logging
from collections.abc import Mapping

from torch import Tensor

from crgan_cli.errors import UserError
from crgan_cli.evaluation.metrics.base import Metric, require_counts, require_labels
from crgan_cli.evaluation.metrics.features import FeatureSet
from crgan_cli.evaluation.metrics.frechet import covariance_factor_thin, frechet_distance
from crgan_cli.evaluation.metrics.statistics import Moments

log = logging.getLogger(__name__)


class ClassFrechet(Metric):
    """`class_fd_<label>`: the Frechet distance within a class, and `class_fd`: their mean, Miyato
    and Koyama 2018 (arXiv:1802.05637). Small classes bias it upwards more than all images do."""

    name, key = "class_fid", "class_fd"
    required = frozenset({"pool"})
    needs_labels = True

    def __init__(self) -> None:
        self._warned = False

    def require(self, real: int, fake: int, dims: int) -> None:
        require_counts(self.name, real, fake, least=2, why="a covariance needs 2 of each class")

    def describe(self) -> dict[str, str | int | float]:
        return {"class_fd_mean": "over classes, each with the same weight"}

    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        real_pool, fake_pool = real.require_pool(), fake.require_pool()
        real_y = require_labels(real, "real", self.name).to(real_pool.device)
        fake_y = require_labels(fake, "generated", self.name).to(fake_pool.device)
        self._check_counts(count_per_class(real_y), count_per_class(fake_y), real_pool.shape[1])
        distances = class_distances(real_pool, real_y, fake_pool, fake_y)
        mean = sum(distances.values()) / len(distances)
        return {"class_fd": mean, **{f"class_fd_{label}": fd for label, fd in distances.items()}}

    def _check_counts(self, real: Mapping[int, int], fake: Mapping[int, int], dims: int) -> None:
        classes = sorted({*real, *fake})
        for label in classes:
            r, f = real.get(label, 0), fake.get(label, 0)
            if min(r, f) < 2:
                raise UserError(
                    f"Class {label} has {r} real and {f} generated images, but the class_fid of "
                    "metrics.measures needs 2 of every class on both sides. Give more "
                    "images (of a generator: metrics.num_samples), or remove class_fid from "
                    "metrics.measures."
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


def class_distances(real: Tensor, real_y: Tensor, fake: Tensor, fake_y: Tensor) -> dict[int, float]:
    """Return label -> Frechet distance, for (N, dims) and (M, dims) features with int64 labels.

    Every class of either set needs two rows on both sides.
    """
    distances = {}
    for label in sorted({*real_y.tolist(), *fake_y.tolist()}):
        a, b = real[real_y == label], fake[fake_y == label]
        # the eigenvalue problem then has min(N, dims) rows
        factor = covariance_factor_thin(a) if len(a) < a.shape[1] else None
        distances[label] = frechet_distance(
            Moments.from_features(a), Moments.from_features(b), factor
        )
    return distances


def count_per_class(y: Tensor) -> dict[int, int]:
    """Return label -> number of images."""
    labels, counts = y.unique(return_counts=True)
    return dict(zip(labels.tolist(), counts.tolist(), strict=True))
