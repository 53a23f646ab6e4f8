"""What is drawn from a generator for metrics and for sample grids, by the task of a run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from crgan_cli.config.resolve import Settings
from crgan_cli.data.dataset import Dataset
from crgan_cli.evaluation.evaluator import Evaluator
from crgan_cli.evaluation.fakes import Fakes
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
    InputImages,
    TranslationSampler,
    Translator,
    make_translation_painter,
)
from crgan_cli.gan.build import get_task_class
from crgan_cli.gan.labels import Labels
from crgan_cli.gan.tasks.base import GeneratedView
from crgan_cli.gan.tasks.generation import Prior

Draws = Mapping[str, GeneratedView]
"""Name -> what a run draws; "" is the only kind of images. See `Task.draws`."""

Painter = Callable[[nn.Module], Tensor]
"""From the player G to a picture, (3, H, W) uint8."""

PAIRED_MODE = Protocol(
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
"""How grids of pix2pix without metrics are translated: as in conf/metrics/pairs.yaml."""

UNPAIRED_MODE = PAIRED_MODE._replace(batch_norm="running", dropout="off")
"""Those of CycleGAN and StarGAN: as in conf/metrics/domains.yaml."""


def choose_translation_mode(draws: Draws) -> Protocol:
    """Return the modes of batch norm and dropout that a run without metrics is drawn with: those of
    the metrics that are made for it."""
    return PAIRED_MODE if any(view.paired for view in draws.values()) else UNPAIRED_MODE


def get_draws(config: Settings, class_names: Sequence[str] = ()) -> Draws:
    """Return what a run draws for grids and metrics. `class_names` are those of its data set."""
    return get_task_class(config).draws(config, class_names)


def get_labels(config: Settings, draws: Draws, class_names: Sequence[str] = ()) -> Labels | None:
    """Return the labels of a run's data set if it translates to labels, else None."""
    if all(view.choose is None for view in draws.values()):
        return None
    return Labels.from_settings(config["dataset"], class_names)


class DrawsSampler:
    """Draws all the kinds of images that are scored."""

    def __init__(self, samplers: Mapping[str, ProtocolSampler]) -> None:
        self.samplers = samplers

    @contextmanager
    def images(self, G: nn.Module) -> Iterator[dict[str, Fakes]]:
        """Provide G's images inside the block, by name; G is restored afterwards."""
        with ExitStack() as stack:
            yield {
                name: stack.enter_context(sampler.images(G))
                for name, sampler in self.samplers.items()
            }


def make_eval_sampler(
    draws: Draws,
    dataset: Dataset,
    evaluator: Evaluator,
    make_prior: Callable[[], Prior],
    seed: int,
    device: torch.device,
) -> DrawsSampler:
    """Return what draws the images that an evaluator, which is prepared, scores."""
    inputs = InputImages(dataset)

    def make_sampler(name: str, view: GeneratedView) -> ProtocolSampler:
        protocol = evaluator.protocol_for(name)
        if view.source == "z":
            return EvalSampler(protocol, make_prior(), seed, device)
        images = inputs.select(protocol.reference, view.source, protocol.num_samples)
        identity = evaluator.identity_images(dataset, name, images.x.shape[1])
        return TranslationSampler(
            protocol,
            Translator(images, view, device, seed),
            Translator(identity, view, device, seed) if identity else None,
        )

    return DrawsSampler({name: make_sampler(name, view) for name, view in draws.items()})


def make_painter(
    draws: Draws,
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
    if any(view.source != "z" for view in draws.values()):
        protocol = protocol or choose_translation_mode(draws)
        return make_translation_painter(dataset, draws, protocol, num, seed, device)
    prior, columns = make_prior(), grid_columns(num)
    labels = class_per_row(num, columns, prior.classes)
    sampler = Sampler(sample_latents(prior, num, seed, labels=labels), device)

    def paint(G: nn.Module) -> Tensor:
        with eval_mode(G):
            return make_grid(sampler.draw(G, 0, num), columns)

    return paint
