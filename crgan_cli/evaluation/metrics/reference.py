"""Features and moments of the real images, computed once and cached.

torch-fidelity's cache key is the name of the data set only, so it may return outdated statistics.
Here the key is the content: the hash of the images, the extractor and the hash of its weights.
"""

import json
import logging
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple

import torch

from crgan_cli.data.images import Images, fingerprint
from crgan_cli.errors import UserError
from crgan_cli.evaluation.metrics.base import naming_failures
from crgan_cli.evaluation.metrics.extractors import Extractor
from crgan_cli.evaluation.metrics.features import (
    FeatureKind,
    FeatureSet,
    Progress,
    ProgressParts,
    Stop,
    extract,
)
from crgan_cli.evaluation.metrics.frechet import frechet_distance
from crgan_cli.evaluation.metrics.statistics import Moments
from crgan_cli.system import cache
from crgan_cli.system.distributed.objects import any_rank
from crgan_cli.system.distributed.world import world

VERSION = 2  # of the preprocessing and the file layout: a new number makes old files invalid
FOLDER = "reference"  # of the cache

Provenance = Mapping[str, str | int]

log = logging.getLogger(__name__)


class RealImages(NamedTuple):
    """The real images of an evaluation."""

    dataset: str
    split: str
    images: Images
    others: Images | None = None  # for the real-vs-real distance
    labelled: bool = False  # whether `images.y` are classes

    def describe(self, extractor: Extractor) -> dict[str, str | int]:
        """Return everything that their statistics depend on: the cache key."""
        return {
            "dataset": self.dataset,
            "images": fingerprint(self.images),
            "split": self.split,
            "count": len(self.images.x),
            "shape": "x".join(map(str, self.images.x.shape[1:])),
            "floor_images": fingerprint(self.others) if self.others else "none",
            "extractor": extractor.name,
            "weights": extractor.sha256,
            "resize": extractor.resize,
            "precision": extractor.precision,
        }


class Reference(NamedTuple):
    """What the metrics need to know about the real images."""

    real: FeatureSet
    floor: float | None  # real-vs-real distance: Frechet distance to as many other real images

    def to(self, device: torch.device | str) -> "Reference":
        """Return a copy on `device`. Moments stay on the CPU if the device has no float64."""
        moments, pool = self.real.moments, self.real.pool
        moments = moments.to("cpu" if torch.device(device).type == "mps" else device)
        pool = None if pool is None else pool.to(device)
        return Reference(self.real._replace(moments=moments, pool=pool), self.floor)


class PreparedReference(NamedTuple):
    """A reference with the names and hashes for the record of the protocol."""

    dataset: str = ""
    images_sha256: str = ""  # of the images
    floor_sha256: str = ""  # of the other real images; "none" without a real-vs-real distance
    shape: tuple[int, ...] = ()  # of an image
    statistics: Reference | None = None


def prepare_reference(
    extractor: Extractor,
    real: RealImages,
    file: Path | None,
    batch_size: int,
    required: Set[FeatureKind],
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> PreparedReference:
    """Load the reference from a file of the user or the cache, or compute it."""

    total = len(real.images.x) + (len(real.others.x) if real.others else 0)
    parts = ProgressParts(progress, total)

    def extract_images(images: Images) -> FeatureSet:
        return extract(
            extractor,
            lambda start, n: images.x[start : start + n],
            len(images.x),
            batch_size,
            which="real",
            required=required - {"images"},  # these are there, and are not cached
            y=images.y if real.labelled else None,
            progress=parts.next(len(images.x)),
            stop=stop,
        )

    def compute() -> Reference:
        log.info("features of %d real images: once, then from the cache", total)
        features = extract_images(real.images)
        if real.others is None or not extractor.dims:
            return Reference(features, None)
        with naming_failures("the real-vs-real distance"):
            floor = frechet_distance(features.moments, extract_images(real.others).moments)
        return Reference(features, floor)

    provenance = real.describe(extractor)
    with_features = "pool" in required
    if file:
        statistics = load_given_file(file, provenance, with_features=with_features)
    else:
        statistics = load_or_compute(provenance, compute, with_features=with_features)
    statistics = statistics.to(extractor.device)
    if "images" in required:
        statistics = statistics._replace(real=statistics.real._replace(images=real.images.x))
    return PreparedReference(
        real.dataset,
        str(provenance["images"]),
        str(provenance["floor_images"]),
        tuple(real.images.x.shape[1:]),
        statistics,
    )


def load_or_compute(
    provenance: Provenance, compute: Callable[[], Reference], *, with_features: bool
) -> Reference:
    """Load the reference that `provenance` describes from the cache, or compute and cache it.

    A file without the features of every image is used only if they are not needed. If one process
    of several finds no file, all of them compute, as they do that together.
    """
    record = format_provenance(provenance)
    path = cache.cache_path(FOLDER, f"{provenance['dataset']}-{provenance['extractor']}", record)
    loaded = load_reference(path)
    if loaded and not (loaded.record == record and loaded.is_enough(with_features)):
        loaded = None
    if not any_rank(loaded is None) and loaded:
        return loaded.reference
    content = to_content(record, compute())
    if world().local_rank == 0:  # each machine of a run may have a cache of its own
        cache.save_cached(path, content)
    # what the file holds, so that all runs after this one get the same bits: on CUDA a covariance
    # is not what its scatter, read back, is divided to
    return from_content(content).reference


def load_given_file(path: Path, provenance: Provenance, *, with_features: bool) -> Reference:
    """Load `metrics.reference_file`. Raise UserError if it holds other statistics."""
    loaded = load_reference(path)
    if loaded is None:
        raise UserError(
            f"metrics.reference_file={path} is not a file of reference statistics, or is damaged. "
            f"Give one that crgan has written (they are in {cache.cache_folder(FOLDER)}), or leave "
            "it out."
        )
    stored, wanted = json.loads(loaded.record), json.loads(format_provenance(provenance))
    differing = [
        f"\n  {key}: {stored.get(key, '(not recorded)')} in the file, {value} here"
        for key, value in wanted.items()
        if stored.get(key) != value
    ]
    if differing:
        raise UserError(
            f"metrics.reference_file={path} holds the statistics of another protocol:"
            f"{''.join(differing)}\nLeave it out to compute them from the images."
        )
    if not loaded.is_enough(with_features):
        raise UserError(
            f"metrics.reference_file={path} holds moments only, but one of metrics.measures "
            "needs the features of every image. Leave the file out, or choose fid alone."
        )
    return loaded.reference


def format_provenance(provenance: Provenance) -> str:
    """Return a provenance as text, the same for the same content."""
    return cache.cache_key({"version": VERSION, **provenance})


class LoadedReference(NamedTuple):
    """The content of a file."""

    record: str  # `format_provenance`
    reference: Reference

    def is_enough(self, with_features: bool) -> bool:
        """Return whether the features are there, or not needed."""
        return self.reference.real.pool is not None or not with_features


def load_reference(path: Path) -> LoadedReference | None:
    """Load the statistics in a file. Return None if there are none, or if it is damaged."""
    content = cache.load_cached(path)
    if content is None:
        return None
    try:
        if not all(content[key].isfinite().all() for key in ("mean", "covariance")):
            raise TypeError("its numbers are not finite")
        return from_content(content)
    except (KeyError, TypeError, AttributeError) as error:
        log.warning("%s holds no reference (%s): it will be computed again", path, error)
        return None


def from_content(content: Mapping[str, Any]) -> LoadedReference:
    """Restore what `to_content` returned."""
    moments = Moments.from_covariance(content["count"], content["mean"], content["covariance"])
    real = FeatureSet(moments, content["pool"], y=content["y"])
    return LoadedReference(content["record"], Reference(real, content["floor"]))


def to_content(record: str, reference: Reference) -> dict[str, Any]:
    """Return what a file of the cache holds."""
    moments, pool = reference.real.moments, reference.real.pool
    return {
        "record": record,
        "count": moments.count,
        "mean": moments.mean.cpu(),
        "covariance": moments.covariance.cpu(),
        "pool": None if pool is None else pool.cpu(),
        "y": reference.real.y,
        "floor": reference.floor,
    }
