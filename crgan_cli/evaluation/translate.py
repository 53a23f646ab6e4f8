"""Translate image files of any size with a trained generator."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from crgan_cli.data.decode import convert_colour, open_picture
from crgan_cli.data.files import Entry, ImageFiles
from crgan_cli.data.images import to_float, to_uint8
from crgan_cli.errors import RunFailed, UserError
from crgan_cli.evaluation.drawing import TRANSLATION_MODE
from crgan_cli.evaluation.load import LoadedGenerator
from crgan_cli.evaluation.metrics.protocol import Protocol
from crgan_cli.evaluation.sampler import protocol_mode
from crgan_cli.evaluation.translation import seed_noise
from crgan_cli.gan.tasks.base import GeneratedView
from crgan_cli.gan.types import Batch

OVERLAP = 8  # neighbouring tiles share 1/8 of their side on each edge


class Options(NamedTuple):
    """How files are translated."""

    to: str | None = None  # which of the task's translations; None: its only one
    size: int | None = None  # pixels of the shorter side; None: as the file has
    tile: int | None = None  # side of the tiles; None: the whole image at once
    dropout: Literal["on", "off"] | None = None  # None: as the run's metrics
    seed: int = 0  # of the noise
    half: Literal["a", "b"] | None = None  # of side-by-side files, the half that is translated


class FileTranslator:
    """Translates one file after another. The same file gives the same image, whatever is next to
    it: batch statistics are its own, and noise has the seed of the options."""

    def __init__(self, model: LoadedGenerator, device: torch.device, options: Options) -> None:
        """Raise UserError if the generator draws from latents, or for impossible options."""
        self.G = model.G
        self.device = device
        self.options = options
        self.drawing = choose_translation(model, options.to)
        self.channels = int(model.config.dataset.channels_in)
        self.multiple = int(getattr(model.G, "multiple", 1))
        if options.tile is not None and options.tile % self.multiple:
            nearest = max(1, round(options.tile / self.multiple)) * self.multiple
            raise UserError(
                f"--tile {options.tile}: this generator takes sides that are multiples of "
                f"{self.multiple}. Type --tile {nearest}"
            )
        self.protocol = run_mode(model)
        if options.dropout:
            self.protocol = self.protocol._replace(dropout=options.dropout)

    def __call__(self, image: Tensor) -> Tensor:
        """Translate an image, (C, H, W) uint8 of any size, to (C', H, W) uint8. Raises RunFailed if
        memory is short."""
        x = to_float(image)[None].to(self.device)
        with protocol_mode(self.G, self.protocol), explain_shortage(x):
            seed_noise(self.options.seed, 0)
            return to_uint8(self.translate(x))[0].cpu()

    def describe_mode(self) -> str:
        """Say how the network is run."""
        return f"batch norm {self.protocol.batch_norm}, dropout {self.protocol.dropout}"

    def read(self, content: bytes) -> Tensor:
        """Decode the content of a file as in training, (C, H, W) uint8, in the size of the options.

        Raises one of DECODE_ERRORS.
        """
        picture = open_picture(content)
        if self.options.half:
            picture = cut_half(picture, self.options.half)
        picture = convert_colour(picture, self.channels)
        if self.options.size:
            scale = self.options.size / min(picture.size)
            size = (round(picture.width * scale), round(picture.height * scale))
            picture = picture.resize(size, Image.Resampling.BICUBIC)
        pixels = np.array(picture).reshape(picture.height, picture.width, self.channels)
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def translate(self, x: Tensor) -> Tensor:
        """(1, C, H, W) in [-1, 1] -> (1, C', H, W), padded to what G takes and cropped back."""
        height, width = x.shape[2:]
        tile = self.options.tile
        if tile is None or max(height, width) <= tile:
            return self.apply(pad_to_multiple(x, self.multiple))[..., :height, :width]
        return blend_tiles(self.apply, x, tile)

    def apply(self, x: Tensor) -> Tensor:
        """Translate an image of a size that G takes."""
        return self.drawing.draw(self.G, Batch(x)).float()


def choose_translation(model: LoadedGenerator, to: str | None) -> GeneratedView:
    """Return the translation named `to`. Raise UserError if there is none, or none was named."""
    draws = model.task.draws()
    if model.task.has_latents():
        raise UserError(
            f"{model.path} draws images from latents, so there is nothing to translate. Type "
            "crgan sample RUN --out samples.png"
        )
    names = [name for name in draws if name]
    if to is None and len(draws) == 1:
        return next(iter(draws.values()))
    if to not in names:
        choice = f"Type one of --to {', --to '.join(names)}" if names else "Leave out --to."
        raise UserError(f"--to {to}: {model.path} has no translation of this name. {choice}")
    return draws[to]


def run_mode(model: LoadedGenerator) -> Protocol:
    """Return the modes of batch norm and dropout of a run's metrics."""
    metrics = model.config.metrics
    if (
        metrics.get("batch_norm", "standing") == "standing"
    ):  # metrics=none, or statistics of latents
        return TRANSLATION_MODE
    return TRANSLATION_MODE._replace(
        batch_norm=metrics.batch_norm, dropout=metrics.get("dropout", "off")
    )


def cut_half(picture: Image.Image, half: Literal["a", "b"]) -> Image.Image:
    """Return the left half (a) or the right one (b). Raise ValueError for an odd width."""
    if picture.width % 2:
        raise ValueError(f"its width of {picture.width} pixels has no half")
    middle = picture.width // 2
    left = 0 if half == "a" else middle
    return picture.crop((left, 0, left + middle, picture.height))


@contextmanager
def explain_shortage(x: Tensor) -> Iterator[None]:
    """Turn an error for lack of memory into one that names --tile."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        short = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not short and "memory" not in str(error):  # the CPU's allocator has no type of its own
            raise
        raise RunFailed(
            f"an image of {x.shape[3]}x{x.shape[2]} pixels needs more memory than there is. Type "
            "--tile 512, or a smaller --size."
        ) from error


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Reflect an image at its right and lower edge until its sides are multiples."""
    height, width = (math.ceil(size / multiple) * multiple for size in x.shape[2:])
    return reflect_to(x, height, width)


def reflect_to(x: Tensor, height: int, width: int) -> Tensor:
    """Reflect an image at its right and lower edge up to this size."""
    rows = reflected_positions(x.shape[2], height).to(x.device)
    columns = reflected_positions(x.shape[3], width).to(x.device)
    return x[..., rows, :][..., columns]


def reflected_positions(size: int, total: int) -> Tensor:
    """Return the source of each of `total` positions: 0 .. size - 1, then back and forth."""
    period = max(1, 2 * (size - 1))
    position = torch.arange(total) % period
    return torch.where(position < size, position, period - position)


def blend_tiles(apply: Callable[[Tensor], Tensor], x: Tensor, tile: int) -> Tensor:
    """Translate an image tile by tile, (1, C, H, W) -> (1, C', H, W).

    Neighbours overlap by a quarter of the side. Over the overlap, the weight of one falls linearly
    to 0 while that of the other rises: where both agree, there is no seam.
    """
    height, width = x.shape[2:]
    x = reflect_to(x, max(height, tile), max(width, tile))
    window = tile_window(tile, x.device)
    weight = torch.zeros(1, 1, *x.shape[2:], device=x.device)
    total: Tensor | float = 0.0
    tops, lefts = (tile_starts(size, tile) for size in x.shape[2:])
    for top, left in itertools.product(tops, lefts):
        place = (..., slice(top, top + tile), slice(left, left + tile))
        image = apply(x[place])
        if not isinstance(total, Tensor):
            total = x.new_zeros(1, image.shape[1], *x.shape[2:])
        total[place] += window * image
        weight[place] += window
    return (total / weight)[..., :height, :width]


def tile_starts(size: int, tile: int) -> list[int]:
    """Return where tiles start, evenly spaced, so that neighbours share at least a quarter."""
    step = tile - 2 * (tile // OVERLAP)
    count = max(1, math.ceil((size - tile) / step) + 1)
    return [round(i * (size - tile) / max(1, count - 1)) for i in range(count)]


def tile_window(tile: int, device: torch.device) -> Tensor:
    """Weights of a tile's pixels, (tile, tile): they fall linearly over a quarter at each edge."""
    edge = torch.arange(1, tile + 1, device=device)
    ramp = torch.minimum(edge, edge.flip(0)).clamp(max=2 * (tile // OVERLAP)).float()
    return ramp[:, None] * ramp


# --- files ----------------------------------------------------------------------------------------


class NamedFile(NamedTuple):
    """An input file and the name of its output."""

    entry: Entry
    name: str  # below the output folder, with .png


def list_inputs(path: Path) -> tuple[ImageFiles, list[NamedFile]]:
    """List the files to translate at a path: one image, or those in a folder or a zip.

    Raise UserError if two would get one name, or there are none.
    """
    if path.is_file() and path.suffix.lower() != ".zip":
        files = ImageFiles(str(path.parent), "INPUT")
        entries = [entry for entry in files.entries if entry.name == path.name]
        if not entries:
            raise UserError(f"{path} is no image file that crgan reads. Give a PNG or a JPEG.")
    else:
        files = ImageFiles(str(path), "INPUT")
        entries = files.entries
    # an absolute name in a zip must not lead out of the output folder
    named = [
        NamedFile(entry, str(PurePosixPath(entry.name.lstrip("/")).with_suffix(".png")))
        for entry in entries
    ]
    counts = Counter(each.name for each in named)
    if double := [each.entry.name for each in named if counts[each.name] > 1]:
        raise UserError(
            f"{', '.join(double[:4])} would be written under one name. Rename them, or translate "
            "them one by one."
        )
    return files, named
