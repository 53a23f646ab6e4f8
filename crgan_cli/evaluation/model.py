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
from crgan_cli.runs.checkpoint import LoadedCheckpoint
from crgan_cli.system.device import resolve_device
from crgan_cli.system.memory import explained_shortage
from crgan_cli.system.paths import expand_home


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
        another. Raises UserError for what this model cannot draw, RunFailed for images that are
        not finite.
        """
        if isinstance(classes, str):  # else each of its letters would be a class
            raise UserError(wrong_value("classes", "a list", repr(classes), f"Give [{classes!r}]."))
        require_numbers(n=n, interpolate=interpolate, batch_size=batch_size)
        if truncation is not None and not truncation > 0:
            raise UserError(wrong_value("truncation", "a number above 0", repr(truncation)))
        if not 0 <= seed < 2**63:
            raise UserError(wrong_value("seed", "a whole number from 0 on", repr(seed)))
        words = None if classes is None else list(map(str, classes))
        request = Request(n, words or None, truncation, interpolate, seed, batch_size)
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


def require_numbers(**values: int | None) -> None:
    """Raise UserError for a value that is neither None nor a whole number of at least 1."""
    for name, value in values.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise UserError(wrong_value(name, "a whole number of at least 1", repr(value)))


def load_model(
    path: str | Path,
    *,
    weights: Literal["ema", "raw"] | None = None,
    best: bool = False,
    device: str = "auto",
) -> Model:
    """Load the newest checkpoint of a run's folder, its best one, or a checkpoint file.

    `weights`: which generator (ema if there is one). `device`: auto, cpu, cuda, cuda:N or mps.
    Raises UserError if there is none, or it has no such weights.
    """
    with spelled_for_python():
        where = resolve_device(device)
        checkpoint = find_checkpoint(expand_home(str(path)), best=best)
        generator = load_generator(checkpoint, where, weights)
        return assemble_model(generator, checkpoint, where)


def assemble_model(
    generator: LoadedGenerator, checkpoint: LoadedCheckpoint, device: torch.device
) -> Model:
    """Join a generator with the discriminator of its checkpoint. The checkpoint is not kept: it is
    several times as large."""
    D = load_discriminator(checkpoint, device)
    return Model(generator, D, device, checkpoint.content["config"])
