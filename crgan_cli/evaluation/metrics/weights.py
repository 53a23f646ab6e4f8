"""Where a published weights file is: option, environment, torch hub cache, download.

torch-fidelity loads any file under the official name, unpickles it without restriction, and its
download has no time limit; here the file is hashed, read safely and fetched with a limit.
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

FOLDER = "CRGAN_WEIGHTS_DIR"
"""The environment variable that names a folder of weights files, looked into by their names."""

TIMEOUT_SECONDS = 30.0  # without an answer; a slow download may take longer
CHUNK_BYTES = 1 << 20

State = dict[str, Tensor]
Reader = Callable[[bytes, Path], State]  # (content, where it came from) -> names and tensors

log = logging.getLogger(__name__)


class Source(NamedTuple):
    """A weights file that somebody publishes."""

    what: str  # whose weights, in words
    url: str
    sha256: str  # in hexadecimal digits, or its beginning
    file: str  # its name in torch hub's cache
    megabytes: int
    variable: str | None = None  # of the environment, naming the file itself

    def cache(self) -> Path:
        """Where torch hub, and so torch-fidelity, keeps the file; absolute."""
        return Path(torch.hub.get_dir()).absolute() / "checkpoints" / self.file


class Weights(NamedTuple):
    """A weights file that was read."""

    state: State
    sha256: str
    path: Path
    standard: bool  # whether it is the published file

    def tag(self, name: str) -> str:
        """`name`, with the hash where these are somebody's own weights."""
        return name if self.standard else f"{name}_{self.sha256[:8]}"

    @contextmanager
    def explain_mismatch(self, source: Source) -> Iterator[None]:
        """Says whose weights were expected where the body cannot load them into its network."""
        try:
            yield
        except (RuntimeError, KeyError, ValueError, IndexError) as error:
            raise UserError(
                f"{self.path} does not hold the weights of {source.what} "
                f"({shorten(str(error), 160, placeholder=' ...')}). Give another file as "
                "extractor.weights, or leave it out for the standard one."
            ) from error


def load_state_dict(content: bytes, path: Path) -> State:
    """The names and tensors of a file, read without running any code that it may carry.

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
    """The names and tensors of a TorchScript archive, as which OpenAI publishes CLIP.

    There is no other way to read one than to load its module, which is not run. A plain state dict
    is taken too.
    """
    try:
        return dict(load_torchscript(content).state_dict())
    except RuntimeError:
        return load_state_dict(content, path)


def load_torchscript(content: bytes) -> nn.Module:
    """A TorchScript module on the CPU; raises RuntimeError where `content` is none."""
    with warnings.catch_warnings():
        # deprecated in favour of torch.export, whose programs cannot be put into eval mode
        warnings.filterwarnings("ignore", message="`torch.jit", category=FutureWarning)
        warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
        return torch.jit.load(io.BytesIO(content), map_location="cpu")


def find_weights(source: Source, option: str | None, read: Reader = load_state_dict) -> Weights:
    """Reads the first there is of `option`, the environment's, torch hub's and the download.

    Only `option` may be another file than the published one. Raises UserError, with what to put
    where, if there is none or it is not what it should be.
    """
    if option is not None:
        path = require_file(option, "extractor.weights", source)
        return load_weights(path, source, read, published=False)
    path = find_env_file(source) or source.cache()
    if path == source.cache() and not path.is_file():
        download(source)
    return load_weights(path, source, read, published=True)


def find_env_file(source: Source) -> Path | None:
    """The file that the environment names, by itself or by its folder."""
    if source.variable and (name := os.environ.get(source.variable)):
        return require_file(name, f"the environment variable {source.variable}", source)
    if not (name := os.environ.get(FOLDER)):
        return None
    folder = Path(name).expanduser().absolute()
    if not folder.is_dir():
        raise UserError(
            f"the environment variable {FOLDER} names {folder}, which is not a folder. It should "
            f"hold weights files such as {source.file}; without it, {source.cache()} is used."
        )
    path = folder / source.file
    return path if path.is_file() else None


def require_file(name: str, origin: str, source: Source) -> Path:
    """`name` as a path; raises UserError if it is not a file."""
    path = Path(name).expanduser().absolute()
    if not path.is_file():
        raise UserError(
            f"{origin} names {path}, which is not a file. It should be the weights of "
            f"{source.what} ({source.url}); without it, {source.cache()} is used."
        )
    return path


def load_weights(path: Path, source: Source, read: Reader, *, published: bool) -> Weights:
    """Hashes a file, then reads what was hashed. UserError if not `published` where it must be."""
    content = path.read_bytes()
    sha256 = sha256_hex(content)
    standard = sha256.startswith(source.sha256)
    if published and not standard:
        raise UserError(
            f"{path} is not {source.what}: its SHA-256 starts with {sha256[:8]} and not with "
            f"{source.sha256[:8]}. Delete it so that it is downloaded again, or give it as "
            f"extractor.weights={path}, which tags the numbers with its hash."
        )
    return Weights(read(content, path), sha256, path, standard)


def download(source: Source) -> None:
    """Fetches a file to the cache, where it appears whole and with the right hash or not."""
    path, expected = source.cache(), source.sha256
    log.info("Downloading %s (%d MB) from %s", source.what, source.megabytes, source.url)
    try:
        with atomic_path(path) as part:
            sha256 = fetch(source.url, part)
            if not sha256.startswith(expected):
                raise UserError(
                    f"What {source.url} gave is not {source.what}: its SHA-256 starts with "
                    f"{sha256[:8]} and not with {expected[:8]}. Try again, or "
                    f"{manual_instructions(source)}"
                )
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"The weights of {source.what} are not on this machine and could not be downloaded "
            f"from {source.url} ({error}). Without a network, {manual_instructions(source)}"
        ) from error


def fetch(url: str, part: Path) -> str:
    """Writes what the URL gives to `part`; returns its SHA-256."""
    digest = hashlib.sha256()
    with urlopen(url, timeout=TIMEOUT_SECONDS) as answer, part.open("wb") as file:
        while chunk := answer.read(CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def manual_instructions(source: Source) -> str:
    """What a user without a network can do, as the end of a sentence."""
    pointed = f"set {source.variable} to where it is, or " if source.variable else ""
    digits = "is" if len(source.sha256) == 64 else "starts with"
    return (
        f"put that file ({source.megabytes} MB; its SHA-256 {digits} {source.sha256}) at "
        f"{source.cache()}, or {pointed}set {FOLDER} to the folder that has it under the name "
        f"{source.file}; or choose metrics=demo or extractor=efficientnet_lite0, which needs no "
        "download (its numbers are not FID), or metrics=none."
    )


def sha256_hex(content: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
