"""Translate image files of any size with a trained generator."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from crgan_cli.data.decode import (
    DECODE_ERRORS,
    make_reading,
    open_picture,
    to_planes,
)
from crgan_cli.data.decoding import format_reason
from crgan_cli.data.files import ImageFiles
from crgan_cli.data.images import to_float, to_uint8
from crgan_cli.data.pairs import cut_in_half
from crgan_cli.errors import UserError
from crgan_cli.evaluation.drawing import choose_translation_mode, get_draws
from crgan_cli.evaluation.load import LoadedGenerator, find_checkpoint, load_discriminator
from crgan_cli.evaluation.metrics.protocol import Protocol
from crgan_cli.evaluation.sampler import protocol_mode
from crgan_cli.evaluation.tiles import apply_padded
from crgan_cli.evaluation.translation import seed_noise
from crgan_cli.gan.labels import Labels
from crgan_cli.gan.tasks.base import GeneratedView
from crgan_cli.gan.types import Batch, Verdict
from crgan_cli.system.memory import is_shortage, total_memory

BYTES_A_VALUE = 1 + 4 + 4
"""Of an image, at least: as it is decoded, as G gets it, and what G makes of it."""

LARGEST_TILE = 1024
"""Pixels; half of it is what is advised first, for a large image."""


class Options(NamedTuple):
    """How files are translated."""

    to: str | None = None  # which of the task's translations; None: its only one
    size: int | None = None  # pixels of the shorter side; None: as the file has
    tile: int | None = None  # side of the tiles; None: the whole image at once
    dropout: Literal["on", "off"] | None = None  # None: as the run's metrics
    seed: int | None = None  # of the noise; None: the run's
    half: Literal["a", "b"] | None = None  # of side-by-side files, the half that is translated


class Untranslatable(Exception):
    """A file that cannot be read, or that is too large for the memory; its text is the reason."""


class FileTranslator:
    """Translates one file after another. The same file gives the same image, whatever is next to
    it: batch statistics are its own, and its noise comes from the seed and its pixels."""

    def __init__(self, model: LoadedGenerator, device: torch.device, options: Options) -> None:
        """Raise UserError if the generator draws from latents, or for impossible options."""
        self.G = model.G
        self.device = device
        self.drawing = choose_translation(model, options.to)
        self.size, self.tile, self.half = options.size, options.tile, options.half
        self.seed = model.seed if options.seed is None else options.seed
        self.channels = self.drawing.in_channels
        values = model.config.dataset.get("range")
        self.reading = make_reading(values, "first")
        self.estimate = LabelEstimate(model, device) if self.drawing.needs_labels else None
        self.y: Tensor | None = None  # labels of the image that is being translated
        network = model.G.get_submodule(self.drawing.network)
        # a network of the user's own may take any side
        self.multiple = int(getattr(network, "multiple", 1))
        self.least = int(getattr(network, "shortest", self.multiple))
        if self.tile is not None and (self.tile % self.multiple or self.tile < self.least):
            nearest = max(self.least, round(self.tile / self.multiple) * self.multiple)
            least = f", and at least {self.least}" if self.least > self.multiple else ""
            raise UserError(
                f"--tile {self.tile}: this generator takes sides that are multiples of "
                f"{self.multiple}{least}. Type --tile {nearest}"
            )
        self.protocol = run_mode(model)
        if options.dropout:
            self.protocol = self.protocol._replace(dropout=options.dropout)

    def translate_file(self, file: "InputFile") -> Tensor:
        """Translate a file, to (C', H, W) uint8. Raises Untranslatable."""
        try:
            image = self.decode(file.read())
        except DECODE_ERRORS as error:
            raise Untranslatable(format_reason(error)) from error
        try:
            return self(image)
        except UserError as error:  # of a network: the other files may suit it
            raise Untranslatable(str(error).rstrip(".")) from error

    def decode(self, content: bytes) -> Tensor:
        """Decode an image as in training, (C, H, W) uint8, in the size of the options.

        Raises one of DECODE_ERRORS, or Untranslatable if memory is short.
        """
        picture = open_picture(content)
        if self.half:
            picture = cut_in_half(picture)["ab".index(self.half)]
        scale = self.size / min(picture.size) if self.size else 1
        size = (round(picture.width * scale), round(picture.height * scale))
        with self.explain_shortage(*size, tiles=False):
            pixels = self.channels * size[0] * size[1]
            memory = total_memory(torch.device("cpu"))
            if memory is not None and pixels * BYTES_A_VALUE > memory:
                raise MemoryError
            return torch.from_numpy(to_planes(picture, self.channels, size, self.reading))

    def __call__(self, image: Tensor) -> Tensor:
        """Translate an image, (C, H, W) uint8 of any size, to (C', H, W) uint8.

        Raises Untranslatable if memory is short.
        """
        with protocol_mode(self.G, self.protocol), self.explain_shortage(*image.shape[:0:-1]):
            seed_noise(self.seed, image[None])
            x = to_float(image)[None].to(self.device)
            self.y = self.estimate(x) if self.estimate else None
            image = apply_padded(self.apply, x, self.multiple, self.tile, least=self.least)
            return to_uint8(image)[0].cpu()

    def apply(self, x: Tensor) -> Tensor:
        """Translate an image of a size that G takes."""
        return self.drawing.draw(self.G, Batch(x, self.y)).float()

    @contextmanager
    def explain_shortage(self, width: int, height: int, *, tiles: bool = True) -> Iterator[None]:
        """Turn an error for lack of memory into one that says what to type: `tiles`, if smaller
        ones help."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not is_shortage(error):
                raise
        else:
            return
        side = min(self.tile or LARGEST_TILE, max(width, height)) if tiles else 0
        half = max(self.least, side // 2 // self.multiple * self.multiple)
        advice = f"--tile {half}, or a smaller --size" if half < side else "a smaller --size"
        raise Untranslatable(
            f"{width}x{height} pixels need more memory than there is: type {advice}"
        )

    def describe_mode(self) -> str:
        """Say how the network is run."""
        noise = f"on, seed {self.seed}" if self.protocol.dropout == "on" else "off"
        mode = f"batch norm {self.protocol.batch_norm}, dropout {noise}"
        return mode + (", labels of the inputs estimated by D" if self.estimate else "")


class LabelEstimate:
    """Estimates the labels of images by the class head of a run's discriminator."""

    def __init__(self, model: LoadedGenerator, device: torch.device) -> None:
        # read again: without this a checkpoint is not kept
        self.D = load_discriminator(find_checkpoint(model.path), device)
        self.labels = Labels.from_settings(model.config.dataset, model.class_names)
        self.side = int(model.config.architecture.resolution)

    def __call__(self, x: Tensor) -> Tensor:
        """Estimate the label of an image, (1, C, H, W) in [-1, 1], as a data set stores it.

        D is made for squares of one size: it gets the central square of the image.
        """
        height, width = x.shape[2:]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = x[:, :, top : top + side, left : left + side]
        seen = self.D(resize(square, self.side), None)
        assert isinstance(seen, Verdict), "the labels of inputs are needed, so D classifies"
        assert seen.classes is not None, "likewise"
        return self.labels.decide(seen.classes)


def resize(x: Tensor, side: int) -> Tensor:
    """(N, C, H, W) -> (N, C, side, side), bicubic like the files of data sets."""
    if x.shape[2:] == (side, side):
        return x
    size = (side, side)
    return interpolate(x, size, mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)


def choose_translation(model: LoadedGenerator, to: str | None) -> GeneratedView:
    """Return the translation that `to` asks for. Raise UserError if there is none."""
    if model.task.has_latents:
        raise UserError(
            f"{model.path} draws images from latents, so there is nothing to translate. Type "
            "crgan sample RUN --out samples.png, or in Python model.sample()"
        )
    try:
        return model.task.choose_translation(model.config, to, model.class_names)
    except UserError as error:
        raise UserError(f"{model.path}: {error}") from None


def run_mode(model: LoadedGenerator) -> Protocol:
    """Return the modes of batch norm and dropout of a run's grids and metrics."""
    draws = get_draws(model.config, model.class_names)
    mode, metrics = choose_translation_mode(draws), model.config.get("metrics", {})
    if "batch_norm" not in metrics:  # metrics=none
        return mode
    dropout = metrics.get("dropout", "off")
    return mode._replace(batch_norm=metrics.batch_norm, dropout=dropout)


# --- files ----------------------------------------------------------------------------------------


class InputFile(NamedTuple):
    """A file to translate."""

    name: str  # as the user knows it
    output: str  # below the output folder, with .png
    read: Callable[[], bytes]  # raises one of DECODE_ERRORS


def list_inputs(path: Path) -> list[InputFile]:
    """List the files to translate at a path: one image, or those in a folder or a zip.

    Raise UserError if two would get one name, or there are none.
    """
    if path.is_file() and path.suffix.lower() != ".zip":
        return [InputFile(path.name, f"{path.stem}.png", path.read_bytes)]
    files = ImageFiles(str(path), "INPUT", "an image, a folder of images or a zip of images")
    files.log_left_out()
    # an absolute name in a zip must not lead out of the output folder
    outputs = [str(PurePosixPath(e.name.lstrip("/")).with_suffix(".png")) for e in files.entries]
    found = [
        InputFile(entry.name, output, partial(files.read, entry))
        for entry, output in zip(files.entries, outputs, strict=True)
    ]
    counts = Counter(each.output for each in found)
    if double := [each.name for each in found if counts[each.output] > 1]:
        raise UserError(
            f"{', '.join(double[:4])} would be written under one name. Rename them, or translate "
            "them one by one."
        )
    return found


def require_other_place(path: Path, out: Path) -> None:
    """Raise UserError if the output would replace the input."""
    if out.exists() and path.exists() and out.samefile(path):
        raise UserError(f"--out {out} is the input itself. Give another --out.")
