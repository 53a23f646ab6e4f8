"""How near translated images are to the real ones of several domains: CycleGAN, StarGAN."""

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from crgan_cli.data.dataset import Dataset
from crgan_cli.data.images import Images
from crgan_cli.errors import UserError
from crgan_cli.evaluation.direction import Direction, Numbers
from crgan_cli.evaluation.evaluator import Evaluator
from crgan_cli.evaluation.fakes import Fakes
from crgan_cli.evaluation.metrics import classifier
from crgan_cli.evaluation.metrics.base import require_finite_numbers
from crgan_cli.evaluation.metrics.classifier import Classifier, load_or_train_classifier
from crgan_cli.evaluation.metrics.features import FeatureSet, Progress, ProgressParts, Stop
from crgan_cli.evaluation.metrics.protocol import Protocol
from crgan_cli.evaluation.metrics.reference import RealImages, prepare_reference
from crgan_cli.evaluation.reference_images import (
    ReferenceImages,
    choose_rows,
    resolve_split,
    select_rows,
)
from crgan_cli.evaluation.requirements import (
    require_domains,
    require_possible,
    warn_of_few_samples,
)
from crgan_cli.gan.labels import Labels
from crgan_cli.gan.tasks.base import GeneratedView
from crgan_cli.runs.metric_names import TO, make_word


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
    found: Classifier | None = None  # of the domains

    def prepare_draws(
        self,
        dataset: Dataset,
        draws: Mapping[str, GeneratedView],
        labels: Labels | None = None,
        *,
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> None:
        self.require_draws(draws)
        self.directions = {
            name: Direction(view, self._evaluator_for(dataset, name, view))
            for name, view in draws.items()
        }
        directions, groups = list(self.directions.values()), list(self._by_source())
        images = sum(each.count_of_real for each in directions)
        images += sum(group[0].count for group in groups) + bool(labels) * classifier.STEPS
        parts = ProgressParts(progress, images)
        for direction in directions:
            shown = parts.next(direction.count_of_real)
            direction.evaluator.prepare(dataset, direction.view.target, progress=shown, stop=stop)
        found = held_out = None
        if labels:
            training = dataset.load_whole("train")
            found = load_or_train_classifier(
                training, parts.next(classifier.STEPS), stop, labels=labels
            )
            held_out = select_rows(training, classifier.split_rows(len(training.x))[0])
        for group in groups:
            first = group[0].evaluator.protocol
            source = group[0].view.source
            inputs = ReferenceImages(dataset, first.reference, first.num_samples, source).images
            if inputs.x.shape[1] in (1, 3):  # what extractors take
                shown = parts.next(first.num_samples)
                features = self._extract_inputs(dataset.name, inputs, shown, stop)
                for direction in group:
                    direction.measure_inputs(features)
            if found and held_out:
                for direction in group:
                    direction.use_classifier(found, inputs, held_out)
        parts.end()
        smallest = min(directions, key=lambda each: each.count)
        self.protocol = smallest.evaluator.protocol
        warn_of_few_samples(self.protocol, self.extractor)
        self.reference = self.reference._replace(
            dataset=dataset.name,
            images_sha256=self._join_hashes("images_sha256"),
            floor_sha256=self._join_hashes("floor_sha256"),
        )
        self.found = found

    def require_draws(self, draws: Mapping[str, GeneratedView]) -> None:
        require_domains(draws, self.metrics, with_file=self.reference_file is not None)
        self._require_source(draws)

    def _evaluator_for(self, dataset: Dataset, name: str, view: GeneratedView) -> Evaluator:
        """Return an evaluator by the same settings, with the counts of one direction."""
        one = copy.copy(self)
        one.directions = {}
        one.warns = False  # once for all
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
        counted = f"the split {split}, translations to {name}" if self.all_real else ""
        require_possible(one.metrics, one.protocol, one.extractor, counted=counted)
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
        parts = ProgressParts(progress, sum(each.count for each in self.directions.values()))
        found = {
            name: direction.measure(drawn[name], parts.next(direction.count), stop)
            for name, direction in self.directions.items()
        }
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
        protocols = [each.evaluator.protocol for each in self.directions.values()]
        found = self.found
        return {
            **record,
            "protocol": self.label,
            "num_samples": format_range([each.num_samples for each in protocols]),
            "num_real": format_range([each.num_real for each in protocols]),
            "headline_is": f"the mean over the translations to {names}",
            "translations": {f"to {name}": d.describe() for name, d in self.directions.items()},
            **(
                {"domain_classifier": f"{classifier.VERSION}, {found.images_sha256}"}
                if found
                else {}
            ),
        }


def format_range(counts: Sequence[int]) -> int | str:
    """Return the one count, or text from the smallest to the largest."""
    low, high = min(counts), max(counts)
    return low if low == high else f"{low} to {high}"


def find_common(found: Sequence[Numbers]) -> list[tuple[str, str]]:
    """Return the keys that all have, in the order of the first."""
    return [key for key in found[0] if all(key in each for each in found)]
