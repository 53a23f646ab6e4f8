"""How far generated images are from real ones, by a stated protocol.

The names fid, is and kid belong to the standard Inception (its file's hash is verified). Any other
extractor's numbers carry its name and the sample count, beside the same distance between two sets
of real images: with n samples a perfect generator does not score 0 but about that floor.
"""

import logging
from typing import Literal

import torch
from torch import Tensor

from crgan_cli.bounds import Count
from crgan_cli.data.images import Dataset, Images, fingerprint, to_uint8
from crgan_cli.errors import RunFailed, UserError
from crgan_cli.metrics.extractors import Extractor
from crgan_cli.metrics.features import Draw, FeatureSet, Progress, Stop, extract
from crgan_cli.metrics.frechet import frechet_distance
from crgan_cli.metrics.inception_score import inception_score
from crgan_cli.metrics.kid import SUBSETS, kernel_distance, subset_size
from crgan_cli.metrics.reference import Provenance, Reference, cached, choose

log = logging.getLogger(__name__)


class Evaluator:
    """Scores `num_samples` generated images against as many real ones of the `reference` split.

    Touches no global random state, neither torch's nor NumPy's nor Python's, and starts no workers:
    a run that is evaluated goes on as one that is not.
    """

    def __init__(
        self,
        extractor: Extractor,
        *,
        reference: Literal["train", "test"],
        num_samples: Count,
        batch_size: Count,
        every: Count,
        splits: Count = 10,
    ) -> None:
        if num_samples < 2:
            raise UserError("metrics.num_samples=1: a covariance needs 2 images, give more.")
        if extractor.standard and splits > num_samples:
            raise UserError(
                f"metrics.splits={splits} parts of metrics.num_samples={num_samples} images leave "
                f"empty parts: give at most metrics.splits={num_samples}."
            )
        self.extractor = extractor
        self.split: Literal["train", "test"] = reference
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.every = every  # training steps between evaluations
        self.splits = splits
        self.headline = "fid" if extractor.standard else self._tag("fd")
        self._reference: Reference | None = None
        self._images_sha256 = ""
        self._shape: tuple[int, ...] = ()

    def _tag(self, metric: str) -> str:
        return f"{metric}_{self.extractor.name}_n{self.num_samples}"

    def to(self, device: torch.device | str) -> None:
        """Moves the extractor, and what is known of the reference, to `device`."""
        self.extractor.to(device)
        if self._reference is not None:
            self._reference = self._reference.to(device)

    def describe(self) -> dict[str, str | int | float]:
        """The protocol: all that a reader needs to compare the numbers with others."""
        e, n = self.extractor, self.num_samples
        return {
            "protocol": f"{e.name}_n{n}_{self.split}",
            "headline": self.headline,
            "extractor": e.name,
            "extractor_sha256": e.sha256,
            "reference_split": self.split,
            "reference_sha256": self._images_sha256,  # of the images; empty before `prepare`
            "num_real": n,
            "num_samples": n,
            "repeats": 1,
            "rounding": "uint8, to nearest",
            "resize": e.resize,
            "precision": f"{e.precision} features, float64 statistics",
            "is_splits": self.splits if e.standard else 0,
            "kid_subset_size": subset_size(n),
            "kid_subsets": SUBSETS if n > subset_size(n) else 1,
        }

    def prepare(
        self, dataset: Dataset, progress: Progress | None = None, stop: Stop | None = None
    ) -> None:
        """Measures the real images, or takes what the cache has of the very same ones.

        Raises UserError where the reference split has fewer than `num_samples` images.
        """
        if self.num_samples < self.extractor.dims:
            self._warn_of_few_samples()
        whole = dataset.load(self.split)
        rows = self._reference_rows(len(whole.x))
        real = take(whole, rows)
        others = None if self.extractor.standard else self._other_real(dataset, rows)
        provenance: Provenance = {
            "images": fingerprint(real),
            "floor_images": fingerprint(others) if others else "none",
            "extractor": self.extractor.name,
            "weights": self.extractor.sha256,
            "resize": self.extractor.resize,
            "precision": self.extractor.precision,
        }

        def measure(images: Images) -> FeatureSet:
            def draw(start: int, n: int) -> Tensor:
                return images.x[start : start + n]

            return extract(self.extractor, draw, len(images.x), self.batch_size, progress, stop)

        def compute() -> Reference:
            found = measure(real)
            floor = frechet_distance(found.moments, measure(others).moments) if others else None
            return Reference(found.moments, found.pool, floor)

        self._reference = cached(provenance, compute).to(self.extractor.device)
        self._images_sha256 = str(provenance["images"])
        self._shape = tuple(real.x.shape[1:])

    def _warn_of_few_samples(self) -> None:
        # a tag with the count, beside its floor, says it already; the name fid does not
        level = logging.WARNING if self.extractor.standard else logging.INFO
        log.log(
            level,
            "%d samples are fewer than the %d features of %s: the distance is biased upwards, so "
            "compare it at this count only",
            self.num_samples,
            self.extractor.dims,
            self.extractor.name,
        )

    def _reference_rows(self, available: int) -> Tensor:
        if available < self.num_samples:
            raise UserError(
                f"metrics.num_samples={self.num_samples} needs as many real images, and the "
                f"{self.split} split has {available}. Give metrics.num_samples={available} or "
                "less, or the other metrics.reference (train or test): the numbers are then of "
                "another protocol."
            )
        return choose(self.num_samples, torch.arange(available))

    def _other_real(self, dataset: Dataset, rows: Tensor) -> Images | None:
        """As many real images again, none of them in the reference: from training if it has them,
        since those are what a perfect generator would reproduce."""
        for split in ("train", "test"):
            try:
                images = dataset.load(split)
            except UserError:  # a folder may have no test split
                continue
            free = torch.ones(len(images.x), dtype=torch.bool)
            if split == self.split:
                free[rows] = False
            if free.sum() >= self.num_samples:
                return take(images, choose(self.num_samples, free.nonzero().flatten()))
        log.warning(
            "No %d further real images: %s_floor is not reported", self.num_samples, self.headline
        )
        return None

    @torch.no_grad()
    def __call__(
        self, draw: Draw, progress: Progress | None = None, stop: Stop | None = None
    ) -> dict[str, float]:
        """Name -> number for the images `draw(start, n)`, floats in [-1, 1].

        `draw` must give the same images for the same indices at every call. `stop` is called
        between batches and may raise. Raises RunFailed for images that are not finite.
        """
        reference = self._reference
        assert reference is not None, "prepare(dataset) comes first"

        def quantised(start: int, n: int) -> Tensor:
            return to_uint8(self._checked(draw(start, n), n))

        fake = extract(self.extractor, quantised, self.num_samples, self.batch_size, progress, stop)
        distance = frechet_distance(reference.moments, fake.moments)
        kid = kernel_distance(fake.pool, reference.pool)
        if self.extractor.standard:
            mean, deviation = inception_score(fake.logits, self.splits)
            return {"fid": distance, "is": mean, "is_std": deviation, "kid": kid}
        floor = {} if reference.floor is None else {f"{self.headline}_floor": reference.floor}
        return {self.headline: distance, **floor, self._tag("kid"): kid}

    def _checked(self, images: Tensor, n: int) -> Tensor:
        assert len(images) == n, f"draw gave {len(images)} images for {n}"
        if tuple(images.shape[1:]) != self._shape:
            raise UserError(
                f"The generated images are {tuple(images.shape[1:])} (channels, height, width) and "
                f"the real ones {self._shape}: evaluate with the data set that the model was "
                "trained on."
            )
        if not images.isfinite().all():
            raise RunFailed("The generator's images are not finite numbers: there is no score.")
        return images


def take(images: Images, rows: Tensor) -> Images:
    """The images at the indices `rows`."""
    return Images(images.x[rows], images.y[rows])
