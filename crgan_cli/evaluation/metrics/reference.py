"""Features and moments of real images, computed once and kept in a cache.

torch-fidelity keys its cache by the name of the data set only and so returns stale statistics.
Here the key is the content: the images' hash, the extractor and its weights' hash.
"""

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from crgan_cli.errors import UserError
from crgan_cli.evaluation.metrics.features import FeatureSet
from crgan_cli.evaluation.metrics.statistics import Moments
from crgan_cli.system import cache
from crgan_cli.system.distributed.objects import any_rank
from crgan_cli.system.distributed.world import world

VERSION = 2  # of the preprocessing and of this file's layout: a new number leaves old files unread
FOLDER = "reference"  # of the cache

Provenance = Mapping[str, str | int]

log = logging.getLogger(__name__)


class Reference(NamedTuple):
    """What the measures need of the real images."""

    real: FeatureSet
    floor: float | None  # Frechet distance to as many other real images

    def to(self, device: torch.device | str) -> "Reference":
        """The same on `device`; moments stay on the CPU where it has no float64."""
        moments, pool, logits, y = self.real
        moments = moments.to("cpu" if torch.device(device).type == "mps" else device)
        pool, logits = (None if part is None else part.to(device) for part in (pool, logits))
        return Reference(FeatureSet(moments, pool, logits, y), self.floor)


def format_provenance(provenance: Provenance) -> str:
    """A provenance as text, the same for the same content."""
    return cache.cache_key({"version": VERSION, **provenance})


def load_or_compute(
    provenance: Provenance, compute: Callable[[], Reference], *, with_features: bool
) -> Reference:
    """The reference that `provenance` describes: from the cache, or computed and put there.

    A file without the features of every image serves only where they are not needed. Where one of
    several processes finds none, all compute it, as they do that together.
    """
    record = format_provenance(provenance)
    path = cache.cache_path(FOLDER, f"{provenance['dataset']}-{provenance['extractor']}", record)
    found = load_reference(path)
    if found and not (found.record == record and found.has_features(with_features)):
        found = None
    if not any_rank(found is None) and found:
        return found.reference
    reference = compute()
    if world().local_rank == 0:  # the machines of a run may have a cache each
        save_reference(path, record, reference)
    return reference


def load_given_file(path: Path, provenance: Provenance, *, with_features: bool) -> Reference:
    """The reference in a file that the user names; UserError where it is of anything else."""
    found = load_reference(path)
    if found is None:
        raise UserError(
            f"metrics.reference_file={path} is not a whole file of reference statistics. Give one "
            f"that crgan has written (they are in {cache.cache_folder(FOLDER)}), or leave it out."
        )
    stated, wanted = json.loads(found.record), json.loads(format_provenance(provenance))
    differing = [
        f"\n  {key}: {stated.get(key, '(not recorded)')} in the file, {value} here"
        for key, value in wanted.items()
        if stated.get(key) != value
    ]
    if differing:
        raise UserError(
            f"metrics.reference_file={path} holds the statistics of another protocol:"
            f"{''.join(differing)}\nLeave it out, and they are computed from the images."
        )
    if not found.has_features(with_features):
        raise UserError(
            f"metrics.reference_file={path} holds moments only, and metrics.measures asks for one "
            "that needs the features of every image. Leave the file out, or ask for fid alone."
        )
    return found.reference


class LoadedReference(NamedTuple):
    """What is in a file."""

    record: str  # `cache_key` provenance
    reference: Reference

    def has_features(self, with_features: bool) -> bool:
        """Whether the features are there, if they are needed."""
        return self.reference.real.pool is not None or not with_features


def load_reference(path: Path) -> LoadedReference | None:
    """The statistics in a file, None where there are none that are whole."""
    content = cache.load_cached(path)
    if content is None:
        return None
    try:
        moments = Moments.from_covariance(content["count"], content["mean"], content["covariance"])
        real = FeatureSet(moments, content["pool"], None, content["y"])
        return LoadedReference(content["record"], Reference(real, content["floor"]))
    except (KeyError, TypeError, AttributeError) as error:
        log.warning("%s holds no reference (%s): it will be computed again", path, error)
        return None


def save_reference(path: Path, record: str, reference: Reference) -> None:
    """Keeps a reference for the next time."""
    moments, pool, _, y = reference.real
    content = {
        "record": record,
        "count": moments.count,
        "mean": moments.mean.cpu(),
        "covariance": moments.covariance.cpu(),
        "pool": None if pool is None else pool.cpu(),
        "y": y,
        "floor": reference.floor,
    }
    cache.save_cached(path, content)
