"""Where the standard Inception's weights are: option, environment, torch hub cache, download.

torch-fidelity loads any file under the official name, unpickles it without restriction, and its
download has no time limit; here the file is hashed, read safely and fetched with a limit.
"""

import hashlib
import http.client
import io
import logging
import os
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import torch
from torch import Tensor

from crgan_cli.atomic import whole
from crgan_cli.errors import UserError

URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
SHA256_PREFIX = "6726825d"  # torch hub's convention: the end of the name starts the SHA-256
VARIABLE = "CRGAN_INCEPTION"
TIMEOUT_SECONDS = 30.0  # without an answer; a slow download may take longer
CHUNK_BYTES = 1 << 20

log = logging.getLogger(__name__)


class Weights(NamedTuple):
    """A weights file that was read."""

    state: dict[str, Tensor]
    sha256: str
    path: Path
    standard: bool  # whether it is the file that FID and IS are defined by


def find(option: str | None) -> Weights:
    """Reads the first there is of `option`, $CRGAN_INCEPTION, torch hub's cache and a download.

    Only `option` may be another file than the standard one. Raises UserError, with what to put
    where, if there is none or it is not what it should be.
    """
    if option is not None:
        return read(existing(option, "metrics.weights"), must_be_standard=False)
    if named := os.environ.get(VARIABLE):
        return read(existing(named, f"the environment variable {VARIABLE}"), must_be_standard=True)
    path = cache_path()
    if not path.is_file():
        download(path)
    return read(path, must_be_standard=True)


def cache_path() -> Path:
    """Where torch hub, and so torch-fidelity, keeps the file; absolute."""
    return Path(torch.hub.get_dir()).absolute() / "checkpoints" / URL.rsplit("/", 1)[1]


def existing(name: str, source: str) -> Path:
    """`name` as a path; raises UserError if it is not a file."""
    path = Path(name).expanduser().absolute()
    if not path.is_file():
        raise UserError(
            f"{source} names {path}, which is not a file. It should be the weights of "
            f"torch-fidelity's Inception-v3 ({URL}); without it, {cache_path()} is used."
        )
    return path


def read(path: Path, *, must_be_standard: bool) -> Weights:
    """Hashes and loads a state dict without running any code that it may carry."""
    content = path.read_bytes()
    sha256 = sha256_of(content)
    standard = sha256.startswith(SHA256_PREFIX)
    if must_be_standard and not standard:
        raise UserError(
            f"{path} is not the standard Inception: its SHA-256 starts with {sha256[:8]} and not "
            f"with {SHA256_PREFIX}. Delete it so that it is downloaded again, or give it as "
            f"metrics.weights={path}, which tags the numbers with its hash and does not call them "
            "FID."
        )
    return Weights(plain_state(content, path), sha256, path, standard)


def plain_state(content: bytes, path: Path) -> dict[str, Tensor]:
    """The names and tensors of a file; raises UserError if it holds anything else."""
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises almost anything
        raise UserError(
            f"{path} cannot be read as a file of weights ({type(error).__name__}). It should be a "
            "state dict saved with torch.save."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(
            f"{path} holds a {type(state).__name__}, not a state dict: a dictionary of names and "
            "tensors saved with torch.save."
        )
    return state


def download(path: Path) -> None:
    """Fetches the standard file to `path`, which appears whole and with the right hash or not."""
    log.info("Downloading Inception's weights (96 MB) from %s to %s", URL, path)
    try:
        with whole(path) as part:
            sha256 = fetch(part)
            if not sha256.startswith(SHA256_PREFIX):
                raise UserError(
                    f"What {URL} gave is not the standard Inception: its SHA-256 starts with "
                    f"{sha256[:8]} and not with {SHA256_PREFIX}. Try again, or {by_hand(path)}"
                )
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"FID and IS need Inception's weights, which could not be downloaded from {URL} "
            f"({error}). Without a network, {by_hand(path)}"
        ) from error


def fetch(part: Path) -> str:
    """Writes what the URL gives to `part`; returns its SHA-256."""
    digest = hashlib.sha256()
    with urlopen(URL, timeout=TIMEOUT_SECONDS) as answer, part.open("wb") as file:
        while chunk := answer.read(CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def by_hand(path: Path) -> str:
    """What a user without a network can do, as the end of a sentence."""
    return (
        f"put that file (its SHA-256 starts with {SHA256_PREFIX}) at {path}, or set {VARIABLE} to "
        "where it is; or choose metrics=demo, an extractor that needs no download (its numbers "
        "are not FID), or metrics=none."
    )


def sha256_of(content: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
