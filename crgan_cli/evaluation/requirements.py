"""What an evaluation needs of its settings and images, checked before anything is computed."""

import logging
from collections.abc import Collection, Iterable, Mapping

from crgan_cli.config.resolve import Settings
from crgan_cli.data.dataset import Dataset, Split
from crgan_cli.errors import UserError
from crgan_cli.evaluation.metrics.base import Metric, TooFewImages
from crgan_cli.evaluation.metrics.extractors import Extractor
from crgan_cli.evaluation.metrics.features import FeatureKind
from crgan_cli.evaluation.metrics.protocol import Protocol
from crgan_cli.evaluation.reference_images import MORE_IMAGES, too_many
from crgan_cli.gan.tasks.base import GeneratedView
from crgan_cli.runs.metric_names import make_word

log = logging.getLogger(__name__)


def require_possible(
    metrics: Iterable[Metric], protocol: Protocol, extractor: Extractor, *, counted: str = ""
) -> None:
    """Raise UserError if the extractor or the counts of images do not do for a metric.

    `counted` names the images of a split that gave the counts, where no setting did.
    """
    for metric in metrics:
        if metric.of_features and not extractor.dims:
            raise UserError(
                f"{metric.name} compares features, and extractor={extractor.name} has none. Type "
                f"an extractor, for example extractor=efficientnet_lite0, or remove {metric.name} "
                "from metrics.measures."
            )
        if "logits" in metric.required and not extractor.has_logits:
            raise UserError(
                f"The extractor {extractor.name} has no classes, but 'is', the Inception "
                "score, needs them: remove it from metrics.measures, for example "
                "metrics.measures=[fid,kid]."
            )
    for metric in metrics:
        try:
            metric.require(protocol.num_real, protocol.num_samples, extractor.dims)
        except TooFewImages as error:
            if not counted:
                raise
            raise UserError(
                f"{counted}: {error.problem}. {MORE_IMAGES}, or remove {error.metric} from "
                "metrics.measures."
            ) from None


def require_enough_real(metrics: Settings, dataset: Dataset) -> None:
    """Raise UserError if the settings of metrics ask for more real images than a data set is known
    to have. Before it is read, and before an extractor is built."""
    setting = "num_real" if metrics.get("num_real") else "num_samples"
    count, split = metrics.get(setting), metrics.get("reference", "test")
    if count is None or not metrics["_target_"]:
        return
    names: tuple[Split, ...] = ("train", "test") if split == "all" else (split,)
    counts = [dataset.known_counts(name).values() for name in names]
    available = sum(max(each) for each in counts if each)
    if all(counts) and available < count:
        raise too_many(setting, count, available, split)


def require_one_kind(draws: Collection[str]) -> None:
    """Raise UserError if a run makes several kinds of images."""
    if len(draws) != 1:
        raise UserError(
            "This protocol scores one kind of images, and the run translates to "
            f"{', '.join(draws)}. Type metrics=domains, or metrics=none."
        )


def require_domains(
    draws: Mapping[str, GeneratedView], metrics: Iterable[Metric], *, with_file: bool
) -> None:
    """Raise UserError if metrics=domains is not for what a run draws, or for its other settings."""
    if any(view.source == "z" for view in draws.values()):
        raise UserError(
            "metrics=domains compares translated images with real ones, and this run draws images "
            "from latents. Type metrics=demo, or metrics=fid10k_test."
        )
    words = [make_word(name) for name in draws]
    if twice := sorted({word for word in words if words.count(word) > 1}):
        raise UserError(
            f"several domains are called {', '.join(twice)} in the names of numbers. Rename them."
        )
    if wrong := [each.name for each in metrics if each.needs_labels]:
        raise UserError(
            f"{' and '.join(wrong)} are for images drawn by class: remove them from "
            "metrics.measures. metrics=domains has a domain_accuracy of its own."
        )
    if with_file:
        raise UserError(
            "metrics.reference_file is one set of real images, and metrics=domains compares with "
            "several. Type metrics.reference_file=null; they are computed once and cached."
        )


def require_single_set(protocol: Protocol) -> None:
    """Raise UserError for a protocol of latents where images are translated."""
    settings = {
        "repeats=1": protocol.repeats > 1,
        "batch_norm=batch or running": protocol.batch_norm == "standing",
        "truncation=null": protocol.truncation is not None,
    }
    if wrong := [f"metrics.{setting}" for setting, applies in settings.items() if applies]:
        raise UserError(
            "This protocol is for images from latents, and here each input is translated once. "
            f"Type {' and '.join(wrong)}, or metrics=pairs for pairs, metrics=domains for others."
        )


def require_classes(metrics: Iterable[Metric], known: bool, which: str) -> None:
    """Raise UserError if a metric needs classes that are not known.

    `which` images have them not, with its verb.
    """
    if known:
        return
    for metric in metrics:
        if metric.needs_labels:
            raise UserError(
                f"{metric.name} compares class by class, but {which} no classes: remove it "
                "from metrics.measures, or evaluate a model that was trained with labels."
            )


def require_steps(required: Collection[FeatureKind], known: bool) -> None:
    """Raise UserError if a metric moves latents that the images do not have."""
    if "steps" in required and not known:
        raise UserError(
            "ppl moves the latents of a generator, and these images have none: remove it from "
            "metrics.measures."
        )


def warn_of_few_samples(protocol: Protocol, extractor: Extractor) -> None:
    """Say that a distance of fewer images than features is biased."""
    n = min(protocol.num_samples, protocol.num_real)
    if n >= extractor.dims:
        return
    # a name with the count, next to its real-vs-real distance, shows it; the name fid does not
    log.log(
        logging.WARNING if extractor.standard else logging.INFO,
        "%d samples are fewer than the %d features of %s: the distance is biased upwards, so "
        "compare it at this count only",
        n,
        extractor.dims,
        extractor.name,
    )
