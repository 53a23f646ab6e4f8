"""How far generated images are from real ones, by a stated protocol.

The names fid, is and kid belong to the standard Inception (its file's hash is verified). Any other
extractor's numbers carry its name and the sample count. With n samples a perfect generator does
not score 0 but about the floor: the same distance between two sets of real images.
"""

import logging
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from crgan_cli.config.bounds import Positive, PositiveInt
from crgan_cli.data.images import Dataset, Images, fingerprint, to_uint8
from crgan_cli.errors import RunFailed, UserError
from crgan_cli.evaluation.metrics.extractors import Extractor
from crgan_cli.evaluation.metrics.features import (
    Draw,
    FeatureKind,
    FeatureSet,
    Progress,
    Stop,
    extract,
)
from crgan_cli.evaluation.metrics.frechet import frechet_distance
from crgan_cli.evaluation.metrics.measures import MEASURES, Metric
from crgan_cli.evaluation.metrics.protocol import Protocol
from crgan_cli.evaluation.metrics.reference import Reference, load_given_file, load_or_compute
from crgan_cli.evaluation.reference_images import ReferenceImages
from crgan_cli.system.distributed.objects import broadcast_from_main

log = logging.getLogger(__name__)

HEADLINES = {
    "fid": "fd",
    "kid": "kid",
    "fid_infinity": "fd_infinity",
    "class_fid": "class_fd",
}
"""Measure -> a number of it that is better when lower: a protocol's first picks the best step."""


class Fakes(NamedTuple):
    """Images to be scored, all sets of a protocol one after another."""

    draw: Draw  # (start, n) -> floats in [-1, 1]; the same images for the same indices
    y: Tensor | None = None  # (N,) class ids of the data set; None where they are not known


class Evaluator:
    """Scores generated images against real ones of the `reference` split; `conf/metrics` has all.

    Touches no global random state, neither torch's nor NumPy's nor Python's, and starts no workers:
    a run that is evaluated goes on as one that is not.
    """

    def __init__(
        self,
        extractor: Extractor,
        *,
        measures: list[
            Literal[
                "fid",
                "is",
                "kid",
                "precision_recall",
                "density_coverage",
                "class_fid",
                "fid_infinity",
            ]
        ],
        reference: Literal["train", "test", "all"],
        num_samples: PositiveInt,
        num_real: PositiveInt | None,
        repeats: PositiveInt,
        rounding: Literal["uint8", "none"],
        weights: Literal["auto", "ema", "raw"],
        batch_norm: Literal["running", "standing", "batch"],
        truncation: Positive | None,
        floor: bool,
        reference_file: str | None,
        batch_size: PositiveInt,
        every: PositiveInt,
        is_splits: PositiveInt = 10,
        kid_subsets: PositiveInt = 100,
        kid_subset_size: PositiveInt | None = None,
    ) -> None:
        self.extractor = extractor
        self.protocol = Protocol(
            reference=reference,
            num_real=num_real or num_samples,
            num_samples=num_samples,
            repeats=repeats,
            rounding=rounding,
            weights=weights,
            batch_norm=batch_norm,
            truncation=truncation,
            batch_size=batch_size,
        )
        given_settings: dict[str, dict[str, int | None]] = {
            "is": {"splits": is_splits},
            "kid": {"subsets": kid_subsets, "subset_size": kid_subset_size},
        }
        self.measures: dict[str, Metric] = {
            name: MEASURES[name](**given_settings.get(name, {})) for name in measures
        }
        self.keep: frozenset[FeatureKind] = frozenset().union(
            *(measure.keeps for measure in self.measures.values())
        )
        self.floor = floor
        self.reference_file = None if reference_file is None else Path(reference_file).expanduser()
        self.every = every  # training steps between evaluations
        self.headline = self._headline()
        self._require_possible()
        self.dataset = ""  # its name, known once `prepare` was called
        self._reference: Reference | None = None
        self._images_sha256 = self._floor_sha256 = ""
        self._shape: tuple[int, ...] = ()

    def _headline(self) -> str:
        for name in self.measures:
            if name in HEADLINES:
                return self.name(HEADLINES[name])
        raise UserError(
            f"metrics.measures=[{','.join(self.measures)}] has no distance by which to tell the "
            f"best checkpoint: add one of {', '.join(HEADLINES)}."
        )

    def _require_possible(self) -> None:
        """What can be said before any image was seen."""
        if "logits" in self.keep and not self.extractor.has_logits:
            raise UserError(
                f"The extractor {self.extractor.name} has no classes, and 'is', the Inception "
                "score, needs them: leave it out of metrics.measures, as in "
                "metrics.measures=[fid,kid]."
            )
        real, fake = self.protocol.num_real, self.protocol.num_samples
        for measure in self.measures.values():
            measure.require(real, fake, self.extractor.dims)

    def name(self, key: str) -> str:
        """A measure's key as reported: fid for the standard Inception, or with what made it."""
        if self.extractor.standard:
            return key.replace("fd", "fid")
        return f"{key}_{self.extractor.name}_n{self.protocol.num_samples}"

    @property
    def label(self) -> str:
        """The protocol's short name."""
        return self.protocol.label(self.dataset)

    def tag(self, name: str) -> str:
        """A number's name in TensorBoard, with the protocol, the extractor and its weights."""
        return f"{name}/{self.label}/{self.extractor.name}-{self.extractor.sha256[:8]}"

    def to(self, device: torch.device | str) -> None:
        """Moves the extractor, and what is known of the reference, to `device`."""
        self.extractor.to(device)
        if self._reference is not None:
            self._reference = self._reference.to(device)

    def describe(self) -> dict[str, object]:
        """The record of the protocol: all that one needs to compare the numbers with others."""
        e = self.extractor
        return {
            "protocol": self.label,
            "headline": self.headline,
            "extractor": e.name,
            "extractor_sha256": e.sha256,
            "dataset": self.dataset,
            "reference_sha256": self._images_sha256,  # of the images; empty before `prepare`
            "floor_sha256": self._floor_sha256,  # of the other real images; "none" without a floor
            **self.protocol.record(),
            "resize": e.resize,
            "precision": f"{e.precision} features, float64 statistics",
            "measures": {
                key: value
                for measure in self.measures.values()
                for key, value in measure.describe().items()
            },
        }

    def prepare(
        self, dataset: Dataset, progress: Progress | None = None, stop: Stop | None = None
    ) -> None:
        """Measures the real images, or takes what the cache has of the very same ones.

        Raises UserError where the reference split has fewer than `num_real` images.
        """
        chosen = self.reference_images(dataset)
        others = chosen.other_images(self.protocol.num_samples) if self.floor else None
        labelled = bool(dataset.classes)
        self.prepare_images(
            dataset.name, chosen.images, others, labelled, progress=progress, stop=stop
        )

    def reference_images(self, dataset: Dataset) -> ReferenceImages:
        """The real images that the generated ones are compared with."""
        return ReferenceImages(dataset, self.protocol.reference, self.protocol.num_real)

    def prepare_images(
        self,
        name: str,
        real: Images,
        others: Images | None = None,
        labelled: bool = False,
        *,
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> None:
        """`prepare` with the images themselves: `others` give the floor, `labelled` is for `y`."""
        e = self.extractor
        self._require_labels(labelled, f"{name} has")
        self._warn_of_few_samples()
        provenance: dict[str, str | int] = {
            "dataset": name,
            "images": fingerprint(real),
            "split": self.protocol.reference,
            "count": len(real.x),
            "shape": "x".join(map(str, real.x.shape[1:])),
            "floor_images": fingerprint(others) if others else "none",
            "extractor": e.name,
            "weights": e.sha256,
            "resize": e.resize,
            "precision": e.precision,
        }
        keep: frozenset[FeatureKind] = self.keep - {
            "logits"
        }  # no measure asks what real images are

        def measure(images: Images) -> FeatureSet:
            def draw(start: int, n: int) -> Tensor:
                return images.x[start : start + n]

            return extract(
                e,
                draw,
                len(images.x),
                self.protocol.batch_size,
                keep=keep,
                y=images.y if labelled else None,
                progress=progress,
                stop=stop,
            )

        def compute() -> Reference:
            found = measure(real)
            return Reference(
                found, frechet_distance(found.moments, measure(others).moments) if others else None
            )

        features = "pool" in keep
        if self.reference_file:
            found = load_given_file(self.reference_file, provenance, with_features=features)
        else:
            found = load_or_compute(provenance, compute, with_features=features)
        self._reference = found.to(e.device)
        self.dataset = name
        self._images_sha256 = str(provenance["images"])
        self._floor_sha256 = str(provenance["floor_images"])
        self._shape = tuple(real.x.shape[1:])

    def _require_labels(self, known: bool, whose: str) -> None:
        asking = [name for name, measure in self.measures.items() if measure.needs_labels]
        if asking and not known:
            raise UserError(
                f"{asking[0]} compares class by class, and {whose} no classes: leave it out of "
                "metrics.measures, or evaluate a model that was trained with labels."
            )

    def _warn_of_few_samples(self) -> None:
        n, e = min(self.protocol.num_samples, self.protocol.num_real), self.extractor
        if n >= e.dims:
            return
        # a tag with the count, beside its floor, says it already; the name fid does not
        level = logging.WARNING if e.standard else logging.INFO
        log.log(
            level,
            "%d samples are fewer than the %d features of %s: the distance is biased upwards, so "
            "compare it at this count only",
            n,
            e.dims,
            e.name,
        )

    @torch.no_grad()
    def __call__(
        self, fakes: Fakes, progress: Progress | None = None, stop: Stop | None = None
    ) -> dict[str, float]:
        """Name -> number: the mean over the protocol's sets, and the headline's spread over them.

        `stop` is called between batches and may raise. Raises RunFailed for images that are not
        finite.
        """
        assert self._reference is not None, "prepare(dataset) comes first"
        self._require_labels(fakes.y is not None, "the generated images have")
        sets = [
            self._score(fakes, number, progress, stop) for number in range(self.protocol.repeats)
        ]
        values = {self.name(key): fmean(each[key] for each in sets) for key in sets[0]}
        if len(sets) > 1:
            key = next(key for key in sets[0] if self.name(key) == self.headline)
            values[f"{self.headline}_sd"] = stdev(each[key] for each in sets)
        if self._reference.floor is not None:
            values[f"{self.name('fd')}_floor"] = self._reference.floor
        return values

    def _score(
        self, fakes: Fakes, number: int, progress: Progress | None, stop: Stop | None
    ) -> dict[str, float]:
        """The numbers of one set of generated images."""
        assert self._reference is not None
        n = self.protocol.num_samples
        first = number * n

        def draw(start: int, count: int) -> Tensor:
            return self._as_scored(fakes.draw(first + start, count), count)

        def shown(done: int, total: int) -> None:
            if progress:
                progress(first + done, n * self.protocol.repeats)

        y = None if fakes.y is None else fakes.y[first : first + n]
        found = extract(
            self.extractor,
            draw,
            n,
            self.protocol.batch_size,
            keep=self.keep,
            y=y,
            progress=shown,
            stop=stop,
        )
        return broadcast_from_main(lambda: self._compared(found))

    def _compared(self, found: FeatureSet) -> dict[str, float]:
        """The numbers of all measures."""
        assert self._reference is not None
        values: dict[str, float] = {}
        for measure in self.measures.values():
            values |= measure(self._reference.real, found)
        return values

    def _as_scored(self, images: Tensor, n: int) -> Tensor:
        """Floats in [-1, 1] -> what the extractor takes, rounded if the protocol says so."""
        checked = self._checked(images, n)
        if self.protocol.rounding == "uint8":
            return to_uint8(checked)
        return checked.float().add(1).mul(127.5).clamp(0, 255)

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
