"""What is translated to one domain, compared with the real images of that domain."""

from collections.abc import Callable

import torch
from torch import Tensor

from crgan_cli.data.images import Images
from crgan_cli.evaluation.evaluator import Evaluator
from crgan_cli.evaluation.fakes import Fakes
from crgan_cli.evaluation.metrics.classifier import Classifier
from crgan_cli.evaluation.metrics.features import FeatureSet, Progress, Stop
from crgan_cli.evaluation.reference_images import choose_rows, random_subset, select_rows
from crgan_cli.gan.tasks.base import GeneratedView
from crgan_cli.system.distributed.objects import all_gather_objects, on_every_rank
from crgan_cli.system.distributed.world import world

Numbers = dict[tuple[str, str], float]
"""(key, end of the name) -> number, as `Evaluator.measure` returns them."""

MOST_SEEN = 1000
"""Held-out real images of a domain on which the classifier is tested."""


class Direction:
    """What is translated to one domain, and the real images that it is compared with."""

    def __init__(self, view: GeneratedView, evaluator: Evaluator) -> None:
        """`evaluator` has the counts of this direction."""
        self.view = view
        self.evaluator = evaluator
        self.classifier: Classifier | None = None
        self.constants: Numbers = {}  # what does not depend on G

    @property
    def count(self) -> int:
        """The number of images that are translated."""
        return self.evaluator.protocol.num_samples

    @property
    def count_of_real(self) -> int:
        """How many real images are looked at, with those of the real-vs-real distance."""
        return self.evaluator.protocol.num_real + self.evaluator.floor * self.count

    def describe(self) -> str:
        """Say how many images are compared."""
        return f"{self.count} translated, {self.evaluator.protocol.num_real} real"

    def measure_inputs(self, features: FeatureSet) -> None:
        """Keep the distances of the untranslated inputs, a baseline, from their features."""
        metrics = [each for each in self.evaluator.metrics if each.required <= {"pool"}]
        for key, value in self.evaluator.compare(features, metrics).items():
            if not key.endswith("_std"):
                self.constants[key, "_of_input"] = value

    def use_classifier(self, found: Classifier, inputs: Images, held_out: Images) -> None:
        """Keep a classifier, with how often it sees the domain in inputs and in its real images."""
        choose = self.view.choose
        if choose is None:
            return
        self.classifier = found
        rows = choose_rows(held_out, choose)
        real = select_rows(held_out, random_subset(MOST_SEEN, rows))
        for end, images in (("_real", real), ("_of_input", inputs)):
            if len(images.x):
                seen = [choose(found.predict(part)).double() for part in images.x.split(256)]
                self.constants["domain_accuracy", end] = float(torch.cat(seen).mean())

    def measure(self, fakes: Fakes, progress: Progress | None, stop: Stop | None) -> Numbers:
        """Return the numbers of the translations."""
        errors, seen = Means(self.count), Means(self.count)

        def draw(start: int, n: int) -> Tensor:
            images = fakes.draw(start, n)
            if fakes.cycle:
                errors.put(start, fakes.cycle(start, images))
            if self.classifier and self.view.choose:
                pixels = self.evaluator.to_pixels(images, n)
                seen.put(start, self.view.choose(self.classifier.predict(pixels)))
            return images

        values = self.evaluator.measure(fakes._replace(draw=draw), progress, stop)
        if fakes.cycle:
            values["cycle_error", ""] = errors.mean()
        if fakes.identity:
            values["identity_error", ""] = self._measure_identity(fakes.identity, stop)
        if self.classifier:
            values["domain_accuracy", ""] = seen.mean()
        return values | self.constants

    def _measure_identity(self, identity: Callable[[int, int], Tensor], stop: Stop | None) -> float:
        """Return the mean error of real images; several processes take turns with the batches."""
        count, size = self.evaluator.protocol.num_real, self.evaluator.protocol.batch_size
        errors, starts = Means(count), range(0, count, size)
        rank, processes, _ = world()
        for batch in range(0, len(starts), processes):
            if stop:
                stop()
            start = starts[min(batch + rank, len(starts) - 1)]
            n = min(size, count - start)
            errors.put(start, on_every_rank(lambda start=start, n=n: identity(start, n)))
        return errors.mean()


class Means:
    """Numbers of images, each from one or more processes, and their mean over all images."""

    def __init__(self, count: int) -> None:
        self.sums = torch.zeros(count, 2, dtype=torch.float64)

    def put(self, start: int, numbers: Tensor) -> None:
        """Keep the numbers, (n,), of the images from `start` on."""
        rows = self.sums[start : start + len(numbers)]
        rows[:, 0] = numbers.double().cpu()
        rows[:, 1] = 1

    def mean(self) -> float:
        """Return the mean. All processes call this."""
        total, times = torch.stack(all_gather_objects(self.sums)).sum(0).unbind(1)
        return float((total / times).mean())
