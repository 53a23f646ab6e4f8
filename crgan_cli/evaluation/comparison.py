"""Compare generated images with real ones whose features are known."""

from collections.abc import Sequence
from statistics import fmean, stdev

import torch
from torch import Tensor

from crgan_cli.data.images import Images, to_uint8, to_unrounded
from crgan_cli.errors import UserError
from crgan_cli.evaluation.fakes import Fakes
from crgan_cli.evaluation.metrics.base import Metric, naming_failures
from crgan_cli.evaluation.metrics.class_accuracy import ClassAccuracy
from crgan_cli.evaluation.metrics.extractors import Extractor, tf32_convolutions
from crgan_cli.evaluation.metrics.features import (
    Draw,
    FeatureKind,
    FeatureSet,
    Progress,
    ProgressParts,
    Stop,
    extract,
    require_finite_images,
)
from crgan_cli.evaluation.metrics.protocol import Protocol
from crgan_cli.evaluation.metrics.reference import PreparedReference
from crgan_cli.evaluation.requirements import require_classes, require_steps
from crgan_cli.system.distributed.objects import broadcast_from_main


class ImageComparison:
    """Generated images against one reference, by one protocol. `Evaluator` sets it up."""

    extractor: Extractor
    protocol: Protocol
    metrics: list[Metric]
    required: frozenset[FeatureKind]
    classifying: ClassAccuracy | None
    reference: PreparedReference
    constants: dict[tuple[str, str], float]  # see `compare_real`
    primary: Metric

    @torch.no_grad()
    def measure(
        self, fakes: Fakes, progress: Progress | None = None, stop: Stop | None = None
    ) -> dict[tuple[str, str], float]:
        """Return (key, end of the name) -> number. A number's name is `name(key) + end`."""
        reference = self.reference.statistics
        assert reference is not None, "call prepare(dataset) first"
        require_classes(self.metrics, fakes.y is not None, "the generated images have")
        require_steps(self.required, bool(fakes.steps))
        count, repeats = self.protocol.num_samples, self.protocol.repeats
        parts = ProgressParts(progress, count * repeats)
        sets = [self._score(fakes, number, parts.next(count), stop) for number in range(repeats)]
        values = {(key, ""): fmean(each[key] for each in sets) for key in sets[0]}
        if len(sets) > 1:
            key = self.primary.key
            values[key, "_sd"] = stdev(each[key] for each in sets)
        if reference.floor is not None:
            values["fd", "_floor"] = reference.floor
        values |= self.constants
        if self.classifying and self.classifying.classifier:
            values["class_accuracy", "_real"] = self.classifying.classifier.accuracy
        return values

    def _score(
        self,
        fakes: Fakes,
        number: int,
        progress: Progress | None,
        stop: Stop | None,
    ) -> dict[str, float]:
        """Return the numbers of one set of generated images."""
        n = self.protocol.num_samples
        first = number * n

        def draw(start: int, count: int) -> Tensor:
            return self.to_pixels(fakes.draw(first + start, count), count)

        fake = extract(
            self.extractor,
            draw,
            n,
            self.protocol.batch_size,
            which="generated",
            required=self.required - {"steps"},
            y=None if fakes.y is None else fakes.y[first : first + n],
            classify=self.classifying.predict if self.classifying else None,
            progress=progress,
            stop=stop,
        )

        if "steps" in self.required:
            before, after = (self._extract_step(each, first, stop) for each in fakes.steps)
            fake = fake._replace(steps=(before, after))

        return self.compare(fake, self.metrics)

    def compare(self, fake: FeatureSet, metrics: Sequence[Metric]) -> dict[str, float]:
        """Return the numbers of images whose features are known."""
        reference = self.reference.statistics
        assert reference is not None, "call prepare(dataset) first"

        def compute() -> dict[str, float]:
            numbers: dict[str, float] = {}
            for metric in metrics:
                with naming_failures(metric.name):
                    numbers |= metric(reference.real, fake)
            return numbers

        return broadcast_from_main(compute)

    def compare_real(self, others: Images | None) -> dict[tuple[str, str], float]:
        """Return (key, end of the name) -> number, of pixels, that do not depend on G.

        These are the numbers of the real images themselves, and the distance to `others`.
        """
        reference = self.reference.statistics
        assert reference is not None, "call prepare(dataset) first"
        compared = {"_real": (reference.real, [each for each in self.metrics if each.shows_real])}
        if others:
            distances = [each for each in self.metrics if each.may_lead and not each.of_features]
            compared["_floor"] = reference.real._replace(images=others.x), distances
        return {
            (key, end): value
            for end, (images, metrics) in compared.items()
            for key, value in self.compare(images, metrics).items()
        }

    def _extract_step(self, drawn: Draw, first: int, stop: Stop | None) -> Tensor:
        """Return the features of images that are not rounded, (N, dims)."""

        def draw(start: int, count: int) -> Tensor:
            return to_unrounded(drawn(first + start, count))

        count, size = self.protocol.num_samples, self.protocol.batch_size
        self.extractor.tf32 = False  # it rounds more than a step changes, in G as well
        try:
            with tf32_convolutions(False):
                found = extract(
                    self.extractor,
                    draw,
                    count,
                    size,
                    which="generated",
                    required={"pool"},
                    stop=stop,
                )
        finally:
            self.extractor.tf32 = True
        return found.require_pool()

    def to_pixels(self, images: Tensor, n: int) -> Tensor:
        """Check floats in [-1, 1] and convert them to pixels, rounded if the protocol says so."""
        assert len(images) == n, f"draw returned {len(images)} images instead of {n}"
        if tuple(images.shape[1:]) != self.reference.shape:
            raise UserError(
                f"The generated images are {tuple(images.shape[1:])} (channels, height, width) and "
                f"the real ones {self.reference.shape}: evaluate with the data set that the model "
                "was trained on."
            )
        require_finite_images(images)
        if self.protocol.rounding == "uint8":
            return to_uint8(images)
        return to_unrounded(images)
