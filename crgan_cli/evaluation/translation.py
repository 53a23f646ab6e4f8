"""Draw the translations of fixed images, and show them next to their inputs and targets."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from crgan_cli.data.images import Dataset, Split, to_float
from crgan_cli.evaluation.metrics.protocol import Protocol
from crgan_cli.evaluation.reference_images import ReferenceImages
from crgan_cli.evaluation.sampler import ProtocolSampler, make_grid
from crgan_cli.gan.tasks.base import GeneratedView
from crgan_cli.gan.types import Batch
from crgan_cli.system.distributed.world import as_single_process


class Translator:
    """Translates the images start to start + n of a fixed list.

    With `dropout` they are translated one by one, each with the noise of (seed, its number): an
    image does not depend on those before it, nor on the size of a batch.
    """

    def __init__(
        self,
        inputs: Tensor,
        drawing: GeneratedView,
        device: torch.device,
        *,
        seed: int,
        dropout: bool,
    ) -> None:
        """`inputs`: (N, C, H, W) uint8."""
        self.inputs = inputs
        self.drawing = drawing
        self.device = device
        self.seed = seed
        self.dropout = dropout

    def draw(self, G: nn.Module, start: int, n: int) -> Tensor:
        """Return the translations, (n, C, H, W) in [-1, 1], fp32."""
        if not self.dropout:
            return self.translate(G, self.inputs[start : start + n])
        images = []
        for number in range(start, min(start + n, len(self.inputs))):
            seed_noise(self.seed, number)
            images.append(self.translate(G, self.inputs[number : number + 1]))
        return torch.cat(images)

    def translate(self, G: nn.Module, inputs: Tensor) -> Tensor:
        """Translate a batch, (n, C, H, W) uint8."""
        with as_single_process():
            return self.drawing.draw(G, Batch(to_float(inputs.to(self.device)))).float()


def seed_noise(seed: int, number: int) -> None:
    """Seed the generators of all devices with (seed, number of the image)."""
    (word,) = np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)
    torch.manual_seed(int(word >> np.uint64(1)))


def make_translation_sampler(
    dataset: Dataset, drawing: GeneratedView, protocol: Protocol, seed: int, device: torch.device
) -> ProtocolSampler:
    """Return what draws the translations that a protocol scores: those of the inputs whose targets
    are the reference."""
    chosen = ReferenceImages(dataset, protocol.reference, protocol.num_samples, drawing.source)
    dropout = protocol.dropout == "on"
    source = Translator(chosen.images.x, drawing, device, seed=seed, dropout=dropout)
    return ProtocolSampler(protocol, source)


def make_translation_painter(
    dataset: Dataset,
    drawing: GeneratedView,
    protocol: Protocol,
    num: int,
    seed: int,
    device: torch.device,
) -> Callable[[nn.Module], Tensor]:
    """Return a function that paints a grid, one pair per row: input, translation, target.

    The rows are always the same `num` images of the protocol's split, or all if it has fewer. Wide
    grids have several pairs per row.
    """
    available = len(dataset.load_views(split_name(protocol.reference))[drawing.target].x)
    protocol = protocol._replace(num_samples=min(num, available))
    sampler = make_translation_sampler(dataset, drawing, protocol, seed, device)
    count = protocol.num_samples
    inputs, targets = (
        to_float(ReferenceImages(dataset, protocol.reference, count, view).images.x)
        for view in (drawing.source, drawing.target)
    )

    def paint(G: nn.Module) -> Tensor:
        size = protocol.batch_size
        with sampler.images(G) as fakes:
            drawn = torch.cat([fakes.draw(i, min(size, count - i)) for i in range(0, count, size)])
        columns = [each.cpu()[:, :3].expand(-1, 3, -1, -1) for each in (inputs, drawn, targets)]
        return make_grid(torch.stack(columns, 1).flatten(0, 1), 3 * pairs_per_row(count))

    return paint


def split_name(reference: str) -> Split:
    """Return the split whose images a grid shows."""
    return "train" if reference == "train" else "test"


def pairs_per_row(count: int) -> int:
    """Return how many pairs stand next to each other, for a grid about as wide as high."""
    return max(1, round((count / 3) ** 0.5))
