"""Find a published weights file: option, environment variable, torch hub's cache, download.

torch-fidelity loads any file with the official name, unpickles it without restriction, and its
download has no time limit. Here the file is hashed, read safely and downloaded with a limit.
"""

import hashlib
import http.client
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import NamedTuple
from urllib.request import urlopen

import torch
from torch import Tensor, nn

from crgan_cli.errors import UserError
from crgan_cli.system.atomic import atomic_path
from crgan_cli.system.paths import expand_home

FOLDER = "CRGAN_WEIGHTS_DIR"
"""The environment variable that names a folder of weights files."""

TIMEOUT_SECONDS = 30.0  # without any answer; a slow download may take longer
CHUNK_BYTES = 1 << 20

State = dict[str, Tensor]
Reader = Callable[[bytes, Path], State]  # (content, where it came from) -> names and tensors

log = logging.getLogger(__name__)


class Source(NamedTuple):
    """A published weights file."""

    what: str  # name of the weights in messages
    url: str
    sha256: str  # hexadecimal digits, or the first of them
    file: str  # its name in torch hub's cache
    megabytes: int
    variable: str | None = None  # environment variable that names the file itself

    def cache(self) -> Path:
        """Return the absolute path at which torch hub and torch-fidelity cache the file."""
        return Path(torch.hub.get_dir()).absolute() / "checkpoints" / self.file


class Weights(NamedTuple):
    """The content of a weights file."""

    state: State
    sha256: str
    path: Path
    standard: bool  # whether it is the published file

    def tag(self, name: str) -> str:
        """Return `name`, with the hash if these are not the published weights."""
        return name if self.standard else f"{name}_{self.sha256[:8]}"

    @contextmanager
    def explain_mismatch(self, source: Source) -> Iterator[None]:
        """Name the weights that were expected if the block cannot load them into its network."""
        try:
            yield
        except (RuntimeError, KeyError, ValueError, IndexError) as error:
            raise UserError(
                f"{self.path} does not hold the weights of {source.what} "
                f"({shorten(str(error), 160, placeholder=' ...')}). Give another file as "
                "extractor.weights, or leave it out for the standard one."
            ) from error


def load_state_dict(content: bytes, path: Path) -> State:
    """Read the names and tensors of a file, without running any code in it.

    Raises UserError if it holds anything else.
    """
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


def load_torchscript_state(content: bytes, path: Path) -> State:
    """Read the names and tensors of a TorchScript archive, the format of OpenAI's CLIP.

    The only way to read one is to load its module; it is not run. Reads a plain state dict too.
    """
    try:
        return dict(load_torchscript(content).state_dict())
    except RuntimeError:
        return load_state_dict(content, path)


def load_torchscript(content: bytes) -> nn.Module:
    """Load a TorchScript module on the CPU. Raise RuntimeError if `content` is none."""
    with warnings.catch_warnings():
        # deprecated in favour of torch.export, whose programs cannot be put into eval mode
        warnings.filterwarnings("ignore", message="`torch.jit", category=FutureWarning)
        warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
        return torch.jit.load(io.BytesIO(content), map_location="cpu")


def find_weights(source: Source, option: str | None, read: Reader = load_state_dict) -> Weights:
    """Read the first available of `option`, the environment's file, torch hub's and the download.

    Only `option` may be a different file than the published one. Raises UserError, which says what
    file to put where, if there is none or it has another hash.
    """
    if option is not None:
        path = require_file(option, "extractor.weights", source)
        return load_weights(path, source, read, published=False)
    path = find_env_file(source) or source.cache()
    if path == source.cache() and not path.is_file():
        download(source)
    return load_weights(path, source, read, published=True)


def find_env_file(source: Source) -> Path | None:
    """Return the file that an environment variable names, directly or by its folder."""
    if source.variable and (name := os.environ.get(source.variable)):
        return require_file(name, f"the environment variable {source.variable}", source)
    if not (name := os.environ.get(FOLDER)):
        return None
    folder = expand_home(name).absolute()
    if not folder.is_dir():
        raise UserError(
            f"the environment variable {FOLDER} names {folder}, which is not a folder. It should "
            f"hold weights files such as {source.file}; without it, {source.cache()} is used."
        )
    path = folder / source.file
    return path if path.is_file() else None


def require_file(name: str, origin: str, source: Source) -> Path:
    """Return `name` as a path. Raise UserError if it is not a file."""
    path = expand_home(name).absolute()
    if not path.is_file():
        raise UserError(
            f"{origin} names {path}, which is not a file. It should be the weights of "
            f"{source.what} ({source.url}); without it, {source.cache()} is used."
        )
    return path


def load_weights(path: Path, source: Source, read: Reader, *, published: bool) -> Weights:
    """Hash a file, then read what was hashed. If `published`, any other hash is a UserError."""
    content = path.read_bytes()
    sha256 = sha256_hex(content)
    standard = sha256.startswith(source.sha256)
    if published and not standard:
        raise UserError(
            f"{path} is not {source.what}: its SHA-256 starts with {sha256[:8]} and not with "
            f"{source.sha256[:8]}. Delete it so that it is downloaded again, or give it as "
            f"extractor.weights={path}, which adds its hash to the names of the numbers."
        )
    return Weights(read(content, path), sha256, path, standard)


def download(source: Source) -> None:
    """Download a file to the cache, where it appears only complete and with the right hash."""
    path, expected = source.cache(), source.sha256
    log.info("Downloading %s (%d MB) from %s", source.what, source.megabytes, source.url)
    try:
        with atomic_path(path) as part:
            sha256 = fetch(source.url, part)
            if not sha256.startswith(expected):
                raise UserError(
                    f"The file at {source.url} is not {source.what}: its SHA-256 starts with "
                    f"{sha256[:8]} and not with {expected[:8]}. Try again, or "
                    f"{manual_instructions(source)}"
                )
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"The weights of {source.what} are not on this machine and could not be downloaded "
            f"from {source.url} ({error}). Without a network, {manual_instructions(source)}"
        ) from error


def fetch(url: str, part: Path) -> str:
    """Download a URL to the file `part`. Return its SHA-256."""
    digest = hashlib.sha256()
    with urlopen(url, timeout=TIMEOUT_SECONDS) as answer, part.open("wb") as file:
        while chunk := answer.read(CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def manual_instructions(source: Source) -> str:
    """Return what a user without a network can do, as the end of a sentence."""
    variable = f"set {source.variable} to its path, or " if source.variable else ""
    digits = "is" if len(source.sha256) == 64 else "starts with"
    return (
        f"put that file ({source.megabytes} MB; its SHA-256 {digits} {source.sha256}) at "
        f"{source.cache()}, or {variable}set {FOLDER} to the folder that has it under the name "
        f"{source.file}; or choose extractor=efficientnet_lite0, which needs no download "
        "(its numbers are not FID), or metrics=none."
    )


def sha256_hex(content: bytes) -> str:
    """Return the SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
