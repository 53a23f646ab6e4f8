"""Cache results that are slow to compute, below $CRGAN_CACHE (~/.cache/crgan).

A file is a line with the SHA-256 of the rest, then a torch file of tensors and plain values, read
with `weights_only=True`. Everything there may be deleted at any time.
"""

import hashlib
import io
import json
import logging
import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch

from crgan_cli.system.atomic import atomic_path
from crgan_cli.system.paths import expand_home

log = logging.getLogger(__name__)


def cache_folder(kind: str) -> Path:
    """Return ${CRGAN_CACHE:-~/.cache/crgan}/`kind`."""
    return expand_home(os.environ.get("CRGAN_CACHE") or "~/.cache/crgan") / kind


def cache_key(facts: Mapping[str, object]) -> str:
    """Return the facts that identify a file as text: equal facts, equal text."""
    return json.dumps(facts, sort_keys=True, allow_nan=False)


def cache_path(kind: str, title: str, record: str) -> Path:
    """Return the path of the file with this `cache_key`. `title` is for people."""
    digest = hashlib.sha256(record.encode()).hexdigest()
    return cache_folder(kind) / f"{title}-{digest[:16]}.pt"


def load_cached(path: Path) -> dict | None:
    """Return what `save_cached` wrote. None if there is no file, or a damaged one (logged)."""
    try:
        file = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("Cannot read %s (%s): it will be computed again", path, error)
        return None
    digest, _, body = file.partition(b"\n")
    if digest.decode("ascii", "replace") != hashlib.sha256(body).hexdigest():
        log.warning("%s is damaged: it will be computed again", path)
        return None
    try:
        content = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError) as error:
        log.warning("%s cannot be read (%s): it will be computed again", path, error)
        return None
    return content if isinstance(content, dict) else None


def save_cached(path: Path, content: Mapping[str, object]) -> None:
    """Write tensors and plain values atomically. A failure is logged and costs only time."""
    body = io.BytesIO()
    torch.save(dict(content), body)
    try:
        with atomic_path(path) as partial, partial.open("wb") as file:
            file.write(hashlib.sha256(body.getbuffer()).hexdigest().encode() + b"\n")
            file.write(body.getbuffer())
    except OSError as error:
        log.warning("Cannot cache %s (%s)", path, error)
