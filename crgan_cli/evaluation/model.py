"""A trained model in Python: `crgan.load(RUN)`, then `sample` or `translate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from crgan_cli.config.stored import read_stored
from crgan_cli.data.images import to_uint8
from crgan_cli.errors import RunFailed, UserError, spelled_for_python, wrong_value
from crgan_cli.evaluation.load import (
    LoadedGenerator,
    find_checkpoint,
    load_discriminator,
    load_generator,
)
from crgan_cli.evaluation.samples import Request, draw_request
from crgan_cli.evaluation.translate import FileTranslator, Options, Untranslatable
from crgan_cli.report.latest import resolve_run
from crgan_cli.runs.checkpoint import LoadedCheckpoint
from crgan_cli.system.arguments import (
    require_choice,
    require_numbers,
    require_path,
    require_positive,
    require_seed,
    require_text,
    require_words,
)
from crgan_cli.system.device import resolve_device
from crgan_cli.system.memory import explained_shortage


class Model:
    """The networks of a checkpoint, in evaluation mode and frozen.

    `G` and `D` are the networks, or an nn.ModuleDict of a task with several. D has raw weights,
    also beside an average of G.
    """

    def __init__(
        self, generator: LoadedGenerator, D: nn.Module, device: torch.device, settings: str
    ) -> None:
        """`settings`: the YAML text of the run's whole configuration."""
        self.generator = generator
        self.D = D
        self.device = device
        self.settings = settings

    @property
    def G(self) -> nn.Module:
        """The generator: (z, y) -> images in [-1, 1], or images -> images."""
        return self.generator.G

    @property
    def config(self) -> DictConfig:
        """The settings of the run, as they are stored."""
        return OmegaConf.create(read_stored(self.settings, str(self.path)))

    @property
    def step(self) -> int:
        """The steps that the networks were trained for."""
        return self.generator.step

    @property
    def weights(self) -> str:
        """Which weights G has: "ema" or "raw"."""
        return self.generator.weights

    @property
    def path(self) -> Path:
        """The file of the checkpoint."""
        return self.generator.path

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes; () if there are none, or they are not known."""
        return self.generator.class_names

    def sample(
        self,
        n: int = 64,
        *,
        seed: int = 0,
        classes: Sequence[str | int] | None = None,
        truncation: float | None = None,
        interpolate: int | None = None,
        batch_size: int = 100,
    ) -> Tensor:
        """Draw what `crgan sample` with these options draws, to the last bit.

        Returns (n, C, H, W) uint8 on the CPU. `classes`: numbers or names, in turn for the rows of
        a grid that is round(sqrt(n)) images wide; None for all. `truncation`: |z| <= T of a normal
        prior, T z of a uniform one. `interpolate`: rows of so many images, each from one latent to
        another. Every row is whole, so `sample(10, interpolate=4)` returns 12 images. Raises
        UserError for what this model cannot draw, RunFailed for images that are not finite.
        """
        words = None if classes is None else require_words("classes", classes)
        if words == []:
            raise UserError("classes=[] names none: give at least one, or leave it out for all.")
        require_numbers(n=n, batch_size=batch_size)
        if interpolate is not None:
            require_numbers(interpolate=interpolate)
        if truncation is not None:
            require_positive("truncation", truncation)
        seed = require_seed(seed)
        request = Request(n, words, truncation, interpolate, seed, batch_size)
        with spelled_for_python(), explained_shortage("Lower n, or batch_size."):
            drawing = draw_request(self.generator, request, self.device, whole=False)
            return torch.cat([to_uint8(images).cpu() for images in drawing.batches])

    def translate(
        self,
        images: Tensor,
        *,
        to: str | None = None,
        seed: int | None = None,
        dropout: Literal["on", "off"] | None = None,
        tile: int | None = None,
    ) -> Tensor:
        """Translate what `crgan translate` with these options translates, to the last bit.

        (N, C, H, W) uint8 of any size -> (N, C', H, W) uint8 on the CPU. `to`: which translation,
        if there are several. `seed`: of G's noise (the run's). `dropout`: G's noise (as in the
        run's metrics). `tile`: side of the tiles, in pixels (the whole image at once). Raises
        UserError for a model that draws from latents, and for images of another kind.
        """
        if not isinstance(images, Tensor):
            kind = "an image tensor, (N, C, H, W) uint8"
            remedy = "Read files with PIL or torchvision, or type crgan translate RUN INPUT."
            raise UserError(wrong_value("images", kind, describe_given(images), remedy))
        require_choice("dropout", dropout, ("on", "off", None))
        if tile is not None:
            require_numbers(tile=tile)
        seed = None if seed is None else require_seed(seed)
        options = Options(to=to, seed=seed, dropout=dropout, tile=tile)
        with spelled_for_python(), torch.no_grad():
            translate = FileTranslator(self.generator, self.device, options)
            if images.ndim != 4 or images.dtype != torch.uint8 or not len(images):
                given = f"{images.dtype}, {tuple(images.shape)}"
                raise UserError(wrong_value("images", "(N, C, H, W) uint8, N >= 1", given))
            if images.shape[1] != translate.channels:
                channels = f"images of {translate.channels} channels"
                raise UserError(wrong_value("images", channels, f"of {images.shape[1]}"))
            try:
                return torch.stack([translate(image) for image in images.cpu()])
            except Untranslatable as error:
                raise RunFailed(str(error)) from None


def describe_given(value: object) -> str:
    """Return a short value as it is written, and another one's type."""
    return repr(value) if isinstance(value, str | Path | None) else f"a {type(value).__name__}"


def load_model(
    path: str | Path,
    *,
    weights: Literal["ema", "raw"] | None = None,
    best: bool = False,
    device: str = "auto",
) -> Model:
    """Load the newest checkpoint of a run's folder, its best one, or a checkpoint file.

    "latest" is the newest run, as in the commands. `weights`: which generator (ema if there is
    one). `device`: auto, cpu, cuda, cuda:N or mps.
    Raises UserError if there is none, or it has no such weights.
    """
    require_choice("weights", weights, ("ema", "raw", None))
    with spelled_for_python():
        where = resolve_device(require_text("device", device))
        checkpoint = find_checkpoint(resolve_run(require_path("path", path)), best=best)
        generator = load_generator(checkpoint, where, weights)
        return assemble_model(generator, checkpoint, where)


def assemble_model(
    generator: LoadedGenerator, checkpoint: LoadedCheckpoint, device: torch.device
) -> Model:
    """Join a generator with the discriminator of its checkpoint. The checkpoint is not kept: it is
    several times as large."""
    D = load_discriminator(checkpoint, device)
    return Model(generator, D, device, checkpoint.content["config"])
