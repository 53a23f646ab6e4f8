"""How near translated images are to the real ones of several domains: CycleGAN, StarGAN."""

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean

import torch
from torch import Tensor

from crgan_cli.data.images import Dataset, Images
from crgan_cli.errors import UserError
from crgan_cli.evaluation.evaluator import Evaluator, Fakes
from crgan_cli.evaluation.metrics import classifier
from crgan_cli.evaluation.metrics.base import require_finite_numbers
from crgan_cli.evaluation.metrics.classifier import Classifier, load_or_train_classifier
from crgan_cli.evaluation.metrics.features import FeatureSet, Progress, Stop
from crgan_cli.evaluation.metrics.protocol import Protocol
from crgan_cli.evaluation.metrics.reference import RealImages, prepare_reference
from crgan_cli.evaluation.reference_images import (
    ReferenceImages,
    choose_rows,
    random_subset,
    resolve_split,
    select_rows,
)
from crgan_cli.evaluation.requirements import require_domains, require_possible
from crgan_cli.gan.labels import Labels
from crgan_cli.gan.tasks.base import GeneratedView
from crgan_cli.runs.metric_names import TO, make_word
from crgan_cli.system.distributed.objects import all_gather_objects
from crgan_cli.system.distributed.world import world

Numbers = dict[tuple[str, str], float]
"""(key, end of the name) -> number, as `Evaluator.measure` returns them."""

Show = Callable[[int], None]
"""Gets the number of images done."""

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

    def measure(self, fakes: Fakes, show: Show, stop: Stop | None) -> Numbers:
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

        values = self.evaluator.measure(
            fakes._replace(draw=draw), lambda done, total: show(done), stop
        )
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
            errors.put(start, identity(start, min(size, count - start)))
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


class DomainsEvaluator(Evaluator):
    """Scores each translation against the real images of its domain, and the mean over all.

    Each number of `Evaluator` stands there per domain, as `NAME_to_DOMAIN`, and as the plain mean
    over them, which is the headline. Besides: `cycle_error`, how far the way back ends from the
    input, mean |difference| of images in [-1, 1]; `identity_error`, the same for real images of the
    domain and their translations to it (section 5.2 of Zhu et al. 2017, arXiv:1703.10593);
    `domain_accuracy`, the share of translations in which a classifier sees the domain. `_of_input`
    is what the untranslated inputs score, `_real` the classifier on real images of the domain.
    """

    directions: Mapping[str, Direction] = {}

    def prepare_draws(
        self,
        dataset: Dataset,
        draws: Mapping[str, GeneratedView],
        labels: Labels | None = None,
        *,
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> None:
        require_domains(draws, self.metrics, with_file=self.reference_file is not None)
        self.directions = {
            name: Direction(view, self._evaluator_for(dataset, view))
            for name, view in draws.items()
        }
        for direction in self.directions.values():
            target = direction.view.target
            direction.evaluator.prepare(dataset, target, progress=progress, stop=stop)
        found = held_out = None
        if labels:
            training = dataset.load_cropped("train")
            found = load_or_train_classifier(training, progress, stop, labels=labels)
            held_out = select_rows(training, classifier.split_rows(len(training.x))[0])
        for group in self._by_source():
            first = group[0].evaluator.protocol
            source = group[0].view.source
            inputs = ReferenceImages(dataset, first.reference, first.num_samples, source).images
            if inputs.x.shape[1] in (1, 3):  # what extractors take
                features = self._extract_inputs(dataset.name, inputs, progress, stop)
                for direction in group:
                    direction.measure_inputs(features)
            if found and held_out:
                for direction in group:
                    direction.use_classifier(found, inputs, held_out)
        smallest = min(self.directions.values(), key=lambda each: each.count)
        self.protocol = smallest.evaluator.protocol
        self.reference = self.reference._replace(
            dataset=dataset.name,
            images_sha256=self._join_hashes("images_sha256"),
            floor_sha256=self._join_hashes("floor_sha256"),
        )
        self.found = found

    found: Classifier | None = None

    def _evaluator_for(self, dataset: Dataset, view: GeneratedView) -> Evaluator:
        """Return an evaluator by the same settings, with the counts of one direction."""
        one = copy.copy(self)
        one.directions = {}
        one.metrics = copy.deepcopy(self.metrics)  # they keep what they computed of real images
        one.choose = view.choose
        split, samples = self.protocol.reference, self.protocol.num_samples
        real = self.protocol.num_real
        if self.all_real:
            real = len(choose_rows(resolve_split(dataset, split, view.target), view.choose))
        one.protocol = self.protocol._replace(
            num_samples=samples or len(resolve_split(dataset, split, view.source).x),
            num_real=real,
        )
        require_possible(one.metrics, one.protocol, one.extractor)
        return one

    def _by_source(self) -> Iterator[list[Direction]]:
        """Yield the directions that translate the same images."""
        everyone = self.directions.values()
        for source in dict.fromkeys(each.view.source for each in everyone):
            yield [each for each in everyone if each.view.source == source]

    def _extract_inputs(
        self, name: str, inputs: Images, progress: Progress | None, stop: Stop | None
    ) -> FeatureSet:
        """Return the features of inputs, from the cache if they are the reals of a direction."""
        statistics = prepare_reference(
            self.extractor,
            RealImages(name, self.protocol.reference, inputs),
            None,
            self.protocol.batch_size,
            self.required & {"pool"},
            progress,
            stop,
        ).statistics
        assert statistics is not None, "they were just computed"
        return statistics.real

    def _join_hashes(self, which: str) -> str:
        """Return one hash of those of all directions, or theirs if they are equal."""
        found = [getattr(each.evaluator.reference, which) for each in self.directions.values()]
        if len(set(found)) == 1:
            return found[0]
        return hashlib.sha256(" ".join(found).encode()).hexdigest()

    def protocol_for(self, name: str) -> Protocol:
        return self.directions[name].evaluator.protocol

    def require_images_of_one_kind(self) -> None:
        raise UserError(
            "metrics=domains scores several kinds of images, and files are of one kind. Compare "
            "them with a folder of real ones: crgan eval GENERATED REAL"
        )

    def identity_images(self, dataset: Dataset, name: str, channels: int) -> Images | None:
        direction = self.directions[name]
        if direction.view.source == direction.view.target:
            return None  # they are among the inputs
        images = direction.evaluator.reference_images(dataset).images
        return images if images.x.shape[1] == channels else None

    def real_images(self, dataset: Dataset) -> dict[str, Images]:
        return {
            name: each.evaluator.reference_images(dataset).images
            for name, each in self.directions.items()
        }

    def score_draws(
        self,
        drawn: Mapping[str, Fakes],
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> dict[str, float]:
        """Return name -> number: first the means over the directions, then those of each."""
        total, found, before = sum(each.count for each in self.directions.values()), {}, 0
        for name, direction in self.directions.items():

            def show(done: int, before: int = before) -> None:
                if progress:
                    progress(before + done, total)

            found[name] = direction.measure(drawn[name], show, stop)
            before += direction.count
        values = {
            self.name(key) + end: fmean(each[key, end] for each in found.values())
            for key, end in find_common(list(found.values()))
            if not key.endswith("_std")
        }
        for name, numbers in found.items():
            name_key = self.directions[name].evaluator.name
            for (key, end), value in numbers.items() if name else ():
                values[f"{name_key(key)}{end}{TO}{make_word(name)}"] = value
        require_finite_numbers(values)
        return values

    def name(self, key: str) -> str:
        """Return the name of a mean: with the smallest and the largest count of images."""
        name = super().name(key)
        largest = max((each.count for each in self.directions.values()), default=0)
        if not name.endswith(f"_n{self.protocol.num_samples}") or not self.directions:
            return name
        return name if largest == self.protocol.num_samples else f"{name}-{largest}"

    @property
    def label(self) -> str:
        """The protocol's short name: that of the smallest direction, and how many there are."""
        count = len(self.directions)
        return f"{super().label}_mean-of-{count}" if count > 1 else super().label

    def describe(self) -> dict[str, object]:
        """Return the record of the protocol: the headline is a mean, and of what."""
        record = super().describe()
        if not self.directions:
            return record
        names = ", ".join(self.directions)
        found = self.found
        return {
            **record,
            "protocol": self.label,
            "headline_is": f"the mean over the translations to {names}",
            "translations": {f"to {name}": d.describe() for name, d in self.directions.items()},
            **(
                {"domain_classifier": f"{classifier.VERSION}, {found.images_sha256}"}
                if found
                else {}
            ),
        }


def find_common(found: Sequence[Numbers]) -> list[tuple[str, str]]:
    """Return the keys that all have, in the order of the first."""
    return [key for key in found[0] if all(key in each for each in found)]
