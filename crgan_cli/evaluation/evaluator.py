"""How far generated images are from real ones, measured by a stated protocol.

The names fid, is and kid belong to the standard Inception (the hash of its file is verified). The
numbers of any other extractor carry its name and the sample count. With n samples a perfect
generator does not score 0, but about the real-vs-real distance: that of two sets of real images.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from crgan_cli.config.bounds import DataPath, Positive, PositiveInt
from crgan_cli.data.dataset import Dataset
from crgan_cli.data.images import Images
from crgan_cli.evaluation.comparison import ImageComparison
from crgan_cli.evaluation.fakes import Fakes
from crgan_cli.evaluation.metrics.base import Metric, require_finite_numbers
from crgan_cli.evaluation.metrics.class_accuracy import ClassAccuracy
from crgan_cli.evaluation.metrics.extractors import Extractor
from crgan_cli.evaluation.metrics.features import (
    FeatureKind,
    Progress,
    Stop,
)
from crgan_cli.evaluation.metrics.protocol import Protocol, describe_evaluation
from crgan_cli.evaluation.metrics.reference import (
    PreparedReference,
    RealImages,
    prepare_reference,
)
from crgan_cli.evaluation.metrics.registry import MetricChoice, build_metrics, choose_primary
from crgan_cli.evaluation.reference_images import ReferenceImages, resolve_split
from crgan_cli.evaluation.requirements import (
    require_classes,
    require_one_kind,
    require_possible,
    require_single_set,
    require_steps,
    warn_of_few_samples,
)
from crgan_cli.gan.labels import Labels
from crgan_cli.gan.tasks.base import GeneratedView
from crgan_cli.system.paths import expand_home


class Evaluator(ImageComparison):
    """Scores generated images against real ones of the `reference` split.

    `conf/metrics` explains the settings. It changes no global random state (torch, NumPy, Python)
    and starts no workers: a run with evaluations trains exactly like one without. `own`: measures
    of the user, from `conf/measure`.
    """

    def __init__(
        self,
        extractor: Extractor,
        *,
        measures: list[MetricChoice],
        reference: Literal["train", "test", "all"],
        num_samples: PositiveInt | None,
        num_real: PositiveInt | None,
        repeats: PositiveInt,
        rounding: Literal["uint8", "none"],
        weights: Literal["auto", "ema", "raw"],
        batch_norm: Literal["running", "standing", "batch"],
        truncation: Positive | None,
        floor: bool,
        reference_file: DataPath | None,
        batch_size: PositiveInt,
        every: PositiveInt,
        dropout: Literal["on", "off"] = "off",
        is_splits: PositiveInt = 10,
        kid_subsets: PositiveInt = 100,
        kid_subset_size: PositiveInt | None = None,
        swd_directions: PositiveInt = 512,
        ms_ssim_pairs: PositiveInt = 10000,
        own: Mapping[str, Metric] | None = None,
    ) -> None:
        self.extractor = extractor
        self.protocol = Protocol(
            reference=reference,
            num_real=num_real or num_samples or 0,
            num_samples=num_samples or 0,  # 0: all of the split, counted by `prepare`
            repeats=repeats,
            rounding=rounding,
            weights=weights,
            batch_norm=batch_norm,
            truncation=truncation,
            batch_size=batch_size,
            dropout=dropout,
        )
        self.all_real = num_real is None
        self.metrics: list[Metric] = build_metrics(
            measures,
            is_splits=is_splits,
            kid_subsets=kid_subsets,
            kid_subset_size=kid_subset_size,
            swd_directions=swd_directions,
            ms_ssim_pairs=ms_ssim_pairs,
        )
        self.metrics += (own or {}).values()
        self.required: frozenset[FeatureKind] = frozenset().union(
            *(metric.required for metric in self.metrics)
        )
        self.classifying = next((m for m in self.metrics if isinstance(m, ClassAccuracy)), None)
        self.floor = floor
        self.reference_file = None if reference_file is None else expand_home(reference_file)
        self.every = every  # training steps between evaluations
        self.primary = choose_primary(self.metrics)
        if num_samples is not None:
            require_possible(self.metrics, self.protocol, self.extractor)
        self.reference = PreparedReference()
        self.constants = {}
        self.target = "real"
        self.warns = True  # of few images
        self.choose: Callable[[Tensor], Tensor] | None = None  # see `GeneratedView`

    @property
    def headline(self) -> str:
        """The name of the primary metric."""
        return self.name(self.primary.key)

    def name(self, key: str) -> str:
        """Return a number's name in reports; see `Protocol.metric_name`."""
        return self.protocol.metric_name(key, self.extractor)

    @property
    def label(self) -> str:
        """The protocol's short name."""
        return self.protocol.label(self.reference.dataset)

    @property
    def compares_classes(self) -> bool:
        """Whether a metric needs the class of every image."""
        return any(metric.needs_labels for metric in self.metrics)

    def tag(self, name: str) -> str:
        """Return a number's tag in the loggers: with the protocol, the extractor, its weights."""
        return f"{name}/{self.label}/{self.extractor.name}-{self.extractor.sha256[:8]}"

    def describe(self) -> dict[str, object]:
        """Return the record of the protocol, complete after `prepare`."""
        record = describe_evaluation(
            self.protocol, self.extractor, self.reference, self.metrics, self.headline
        )
        if self.target != "real":  # images are translated one by one, whatever the batch
            record.pop("batch_size", None)
        return record

    def to(self, device: torch.device | str) -> None:
        """Move the extractor to `device`, before `prepare`."""
        assert self.reference.statistics is None, "call to() before prepare()"
        self.extractor.to(device)

    def prepare_draws(
        self,
        dataset: Dataset,
        draws: Mapping[str, GeneratedView],
        labels: Labels | None = None,
        *,
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> None:
        """Prepare the real images for all that a run draws. `labels` are those of the data set.

        Raises UserError if there are several kinds of images, or what `prepare` raises.
        """
        self.require_draws(draws)
        (view,) = draws.values()
        self.choose = view.choose
        self.prepare(dataset, view.target, progress=progress, stop=stop)

    def require_draws(self, draws: Mapping[str, GeneratedView]) -> None:
        """Raise UserError if there are several kinds of images, or if the protocol is of latents
        and images are translated."""
        require_one_kind(draws)
        self._require_source(draws)

    def _require_source(self, draws: Mapping[str, GeneratedView]) -> None:
        if any(view.source != "z" for view in draws.values()):
            require_single_set(self.protocol)
            require_steps(self.required, False)

    def require_dataset(self, dataset: Dataset) -> None:
        """Raise UserError for metrics that are not for a data set, before its images are read."""
        require_classes(self.metrics, bool(dataset.classes), f"{dataset.described} has")

    def protocol_for(self, name: str) -> Protocol:
        """Return the protocol of one of the draws, with its own counts."""
        return self.protocol

    def require_images_of_one_kind(self) -> None:
        """Raise UserError if images of another program cannot be scored."""

    def identity_images(self, dataset: Dataset, name: str, channels: int) -> Images | None:
        """Return real images of the target of a draw if the identity error is measured on them."""
        return None

    def real_images(self, dataset: Dataset) -> dict[str, Images]:
        """Return the real images of each draw; "" is the only one."""
        return {"": self.reference_images(dataset).images}

    def score_draws(
        self,
        drawn: Mapping[str, Fakes],
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> dict[str, float]:
        """Return the numbers of all that a run draws, as `__call__` does for one kind of images."""
        (fakes,) = drawn.values()
        return self(fakes, progress, stop)

    def prepare(
        self,
        dataset: Dataset,
        target: str = "real",
        *,
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> None:
        """Extract the features of the real images, or load them from the cache.

        `target` is the view of the data set that generated images are compared with. Raises
        UserError if the reference split has fewer than `num_real` images.
        """
        self.target = target
        self.count_samples(dataset)
        chosen = self.reference_images(dataset)
        others = chosen.other_images(self.protocol.num_samples) if self.floor else None
        training = dataset.load_views("train")[target] if self.classifying else None
        self.prepare_images(
            dataset.described,
            chosen.images,
            others,
            bool(dataset.classes),
            training,
            progress=progress,
            stop=stop,
        )

    def count_samples(self, dataset: Dataset) -> None:
        """Replace metrics.num_samples=null by the number of images in the reference split."""
        if not self.protocol.num_samples:
            split = self.protocol.reference
            count = len(resolve_split(dataset, split, self.target).x)
            self.set_count(count, counted=f"the split {split}" if self.all_real else "")

    def set_count(self, count: int, *, counted: str = "") -> None:
        """Replace metrics.num_samples=null by a number of images. `counted`: their split."""
        if self.protocol.num_samples:
            return
        real = self.protocol.num_real or count
        self.protocol = self.protocol._replace(num_samples=count, num_real=real)
        require_possible(self.metrics, self.protocol, self.extractor, counted=counted)

    def reference_images(self, dataset: Dataset) -> ReferenceImages:
        """Return the real images with which the generated ones are compared."""
        protocol = self.protocol
        setting = "num_samples" if protocol.num_real == protocol.num_samples else "num_real"
        return ReferenceImages(
            dataset,
            protocol.reference,
            protocol.num_real,
            self.target,
            self.choose,
            setting=setting,
        )

    def prepare_images(
        self,
        name: str,
        images: Images,
        others: Images | None = None,
        labelled: bool = False,
        training: Images | None = None,
        *,
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> None:
        """Do the same as `prepare` for given images.

        `others` are for the real-vs-real distance; `labelled` tells whether `images.y` are classes.
        class_accuracy learns from `training`; without, from the given images.
        """
        require_classes(self.metrics, labelled, f"{name} has")
        for metric in self.metrics:
            metric.require_shape(tuple(images.x.shape[1:]))
        if self.warns:
            warn_of_few_samples(self.protocol, self.extractor)
        self.reference = prepare_reference(
            self.extractor,
            RealImages(name, self.protocol.reference, images, others, labelled),
            self.reference_file,
            self.protocol.batch_size,
            self.required & {"pool", "images"},  # no metric needs more of real images
            progress,
            stop,
        )
        self.constants = self.compare_real(others)
        if self.classifying:
            learnt_from = images if training is None else training
            self.classifying.fit(learnt_from, progress, stop)

    def __call__(
        self, fakes: Fakes, progress: Progress | None = None, stop: Stop | None = None
    ) -> dict[str, float]:
        """Return name -> number: the mean over the sets, and the primary metric's spread.

        `stop` is called between batches and may raise. Raises RunFailed if images, features or
        numbers are not finite.
        """
        numbers = self.measure(fakes, progress, stop)
        values = {self.name(key) + end: value for (key, end), value in numbers.items()}
        require_finite_numbers(values)
        return values
