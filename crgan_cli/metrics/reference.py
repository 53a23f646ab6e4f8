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
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from crgan_cli.atomic import whole
from crgan_cli.metrics.statistics import Moments

VERSION = 1  # of the preprocessing and of this file's layout: a new number leaves old files unread
SELECTION_SEED = 0  # which images are taken where a split has more than are asked for

Provenance = dict[str, str | int]

log = logging.getLogger(__name__)


class Reference(NamedTuple):
    """What the metrics need of the real images."""

    moments: Moments
    pool: Tensor  # (N, dims) float32, for KID
    floor: float | None  # Frechet distance to as many other real images

    def to(self, device: torch.device | str) -> "Reference":
        """The same on `device`; moments stay on the CPU where it has no float64."""
        moments = self.moments.to("cpu" if torch.device(device).type == "mps" else device)
        return self._replace(moments=moments, pool=self.pool.to(device))


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


def cached(provenance: Provenance, compute: Callable[[], Reference]) -> Reference:
    """The reference that `provenance` describes: from the cache, or computed and put there."""
    record = json.dumps({"version": VERSION, **provenance}, sort_keys=True)
    path = cache_folder() / f"{hashlib.sha256(record.encode()).hexdigest()}.pt"
    if (kept := load(path, record)) is not None:
        return kept
    reference = compute()
    save(path, record, reference)
    return reference


def load(path: Path, record: str) -> Reference | None:
    """The reference in `path`, or None if there is none that is whole and described by `record`."""
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
    try:
        found = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
        if found["record"] != record:
            raise ValueError("it describes other images")
        moments = Moments.stored(found["count"], found["mean"], found["covariance"])
        return Reference(moments, found["pool"], found["floor"])
    except (pickle.UnpicklingError, RuntimeError, KeyError, TypeError, ValueError) as error:
        log.warning("%s is no reference (%s): computing it again", path, error)
        return None


def save(path: Path, record: str, reference: Reference) -> None:
    """Writes a digest line and the tensors, whole or not at all.

    A cache that cannot be written costs time, not the run: it is logged.
    """
    body = io.BytesIO()
    moments = reference.moments
    torch.save(
        {
            "record": record,
            "count": moments.count,
            "mean": moments.mean.cpu(),
            "covariance": moments.covariance.cpu(),
            "pool": reference.pool.cpu(),
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
