"""What is drawn from a generator for metrics and for sample grids, by the task of a run."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from crgan_cli.config.resolve import Settings
from crgan_cli.data.images import Dataset
from crgan_cli.evaluation.metrics.protocol import Protocol
from crgan_cli.evaluation.sampler import (
    EvalSampler,
    ProtocolSampler,
    Sampler,
    class_per_row,
    eval_mode,
    grid_columns,
    make_grid,
    sample_latents,
)
from crgan_cli.evaluation.translation import (
    make_translation_painter,
    make_translation_sampler,
)
from crgan_cli.gan.build import get_task_class
from crgan_cli.gan.tasks.base import GeneratedView
from crgan_cli.gan.tasks.generation import Prior

Painter = Callable[[nn.Module], Tensor]
"""From the player G to a picture, (3, H, W) uint8."""

TRANSLATION_MODE = Protocol(
    reference="test",
    num_real=1,
    num_samples=1,
    repeats=1,
    rounding="uint8",
    weights="auto",
    batch_norm="batch",
    truncation=None,
    batch_size=1,
    dropout="on",
)
"""How grids of a run without metrics are translated: as in conf/metrics/pairs.yaml."""


def get_drawing(config: Settings) -> GeneratedView:
    """Return what a run draws for grids and metrics."""
    (drawing,) = get_task_class(config).draws(config).values()
    return drawing


def make_eval_sampler(
    drawing: GeneratedView,
    dataset: Dataset,
    protocol: Protocol,
    make_prior: Callable[[], Prior],
    seed: int,
    device: torch.device,
) -> ProtocolSampler:
    """Return what draws the images that a protocol scores."""
    if drawing.source != "z":
        return make_translation_sampler(dataset, drawing, protocol, seed, device)
    return EvalSampler(protocol, make_prior(), seed, device)


def make_painter(
    drawing: GeneratedView,
    dataset: Dataset,
    protocol: Protocol | None,
    make_prior: Callable[[], Prior],
    num: int,
    seed: int,
    device: torch.device,
) -> Painter:
    """Return what paints a grid of `num` images, always the same ones.

    From latents: with one class per row. Translations: as `protocol` scores them.
    """
    if drawing.source != "z":
        protocol = protocol or TRANSLATION_MODE
        return make_translation_painter(dataset, drawing, protocol, num, seed, device)
    prior, columns = make_prior(), grid_columns(num)
    labels = class_per_row(num, columns, prior.classes)
    sampler = Sampler(sample_latents(prior, num, seed, labels=labels), device)

    def paint(G: nn.Module) -> Tensor:
        with eval_mode(G):
            return make_grid(sampler.draw(G, 0, num), columns)

    return paint
