"""Features and moments of real images, computed once and kept in a cache.

torch-fidelity keys its cache by the name of the data set only and so returns stale statistics.
Here the key is the content: the images' hash, the extractor and its weights' hash.
"""

import hashlib
import io
import json
import logging
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from crgan_cli.atomic import whole
from crgan_cli.errors import UserError
from crgan_cli.metrics.features import FeatureSet
from crgan_cli.metrics.statistics import Moments

VERSION = 2  # of the preprocessing and of this file's layout: a new number leaves old files unread
SELECTION_SEED = 0  # which images are taken where a split has more than are asked for

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


def choose(count: int, rows: Tensor) -> Tensor:
    """`count` of the indices `rows`, in ascending order: the same at every call.

    Random and not the first, since a folder of images is sorted by class.
    """
    generator = torch.Generator().manual_seed(SELECTION_SEED)  # leaves torch's own untouched
    return rows[torch.randperm(len(rows), generator=generator)[:count]].sort().values


def cache_folder() -> Path:
    """${CRGAN_CACHE:-~/.cache/crgan}/reference."""
    root = os.environ.get("CRGAN_CACHE") or Path.home() / ".cache" / "crgan"
    return Path(root).expanduser() / "reference"


def written(provenance: Provenance) -> str:
    """A provenance as text, the same for the same content."""
    return json.dumps({"version": VERSION, **provenance}, sort_keys=True)


def cached(
    provenance: Provenance, compute: Callable[[], Reference], *, with_features: bool
) -> Reference:
    """The reference that `provenance` describes: from the cache, or computed and put there.

    A file without the features of every image serves only where they are not needed.
    """
    record = written(provenance)
    digest = hashlib.sha256(record.encode()).hexdigest()
    path = cache_folder() / f"{provenance['dataset']}-{provenance['extractor']}-{digest[:16]}.pt"
    kept = load(path, record)
    if kept is not None and not (with_features and kept.real.pool is None):
        return kept
    reference = compute()
    save(path, record, reference)
    return reference


def given(path: Path, provenance: Provenance, *, with_features: bool) -> Reference:
    """The reference in a file that the user names; UserError where it is of anything else."""
    body = readable(path)
    kept = None if body is None else parsed(body, path)
    if kept is None:
        raise UserError(
            f"metrics.reference_file={path} is not a whole file of reference statistics. Give one "
            f"that crgan has written (they are in {cache_folder()}), or leave it out."
        )
    found, reference = kept
    stated, wanted = json.loads(found), json.loads(written(provenance))
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
    if with_features and reference.real.pool is None:
        raise UserError(
            f"metrics.reference_file={path} holds moments only, and metrics.measures asks for one "
            "that needs the features of every image. Leave the file out, or ask for frechet alone."
        )
    return reference


def load(path: Path, record: str) -> Reference | None:
    """The reference in `path`, or None if there is none that is whole and described by `record`."""
    body = readable(path)
    kept = None if body is None else parsed(body, path)
    if kept is None:
        return None
    if kept[0] != record:
        log.warning("%s describes other images: computing the reference again", path)
        return None
    return kept[1]


def readable(path: Path) -> bytes | None:
    """The content of a file after its digest line, or None where it is absent or damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("Cannot read %s (%s): computing the reference again", path, error)
        return None
    digest, _, body = content.partition(b"\n")
    if digest.decode("ascii", "replace") != hashlib.sha256(body).hexdigest():
        log.warning("%s is damaged: computing the reference again", path)
        return None
    return body


def parsed(body: bytes, path: Path) -> tuple[str, Reference] | None:
    """The provenance and the statistics in a file's body; None where it holds anything else."""
    try:
        found = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
        moments = Moments.stored(found["count"], found["mean"], found["covariance"])
        real = FeatureSet(moments, found["pool"], None, found["y"])
        return found["record"], Reference(real, found["floor"])
    except (pickle.UnpicklingError, RuntimeError, KeyError, TypeError, ValueError) as error:
        log.warning("%s is no reference (%s): computing it again", path, error)
        return None


def save(path: Path, record: str, reference: Reference) -> None:
    """Writes a digest line and the tensors, whole or not at all.

    A cache that cannot be written costs time, not the run: it is logged.
    """
    body = io.BytesIO()
    moments, pool, _, y = reference.real
    torch.save(
        {
            "record": record,
            "count": moments.count,
            "mean": moments.mean.cpu(),
            "covariance": moments.covariance.cpu(),
            "pool": None if pool is None else pool.cpu(),
            "y": y,
            "floor": reference.floor,
        },
        body,
    )
    try:
        with whole(path) as partial, partial.open("wb") as file:
            file.write(hashlib.sha256(body.getbuffer()).hexdigest().encode() + b"\n")
            file.write(body.getbuffer())
    except OSError as error:
        log.warning("Cannot keep the reference in %s (%s)", path, error)
