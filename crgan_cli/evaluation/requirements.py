"""What an evaluation needs of its settings and images, checked before anything is computed."""

import logging
from collections.abc import Collection, Iterable

from crgan_cli.errors import UserError
from crgan_cli.evaluation.metrics.base import Metric
from crgan_cli.evaluation.metrics.extractors import Extractor
from crgan_cli.evaluation.metrics.features import FeatureKind
from crgan_cli.evaluation.metrics.protocol import Protocol

log = logging.getLogger(__name__)


def require_possible(metrics: Iterable[Metric], protocol: Protocol, extractor: Extractor) -> None:
    """Raise UserError if the extractor or the counts of images do not do for a metric."""
    for metric in metrics:
        if "logits" in metric.required and not extractor.has_logits:
            raise UserError(
                f"The extractor {extractor.name} has no classes, but 'is', the Inception "
                "score, needs them: remove it from metrics.measures, for example "
                "metrics.measures=[fid,kid]."
            )
    for metric in metrics:
        metric.require(protocol.num_real, protocol.num_samples, extractor.dims)


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
            f"Type {' and '.join(wrong)}, or metrics=pairs."
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
