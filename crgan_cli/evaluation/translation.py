"""Draw the translations of fixed images, and show them next to their inputs and targets."""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from crgan_cli.data.images import Dataset, to_float
from crgan_cli.evaluation.metrics.protocol import Protocol
from crgan_cli.evaluation.reference_images import ReferenceImages
from crgan_cli.evaluation.sampler import ProtocolSampler, make_grid
from crgan_cli.gan.tasks.base import GeneratedView
from crgan_cli.gan.types import Batch
from crgan_cli.system.distributed.world import as_single_process


class Translator:
    """Translates the images start to start + n of a fixed list, one by one.

    So batch statistics are those of one image, and an image never depends on its batch.
    """

    def __init__(
        self, inputs: Tensor, drawing: GeneratedView, device: torch.device, seed: int
    ) -> None:
        """`inputs`: (N, C, H, W) uint8. `seed` is that of G's noise."""
        self.inputs = inputs
        self.drawing = drawing
        self.device = device
        self.seed = seed

    def draw(self, G: nn.Module, start: int, n: int) -> Tensor:
        """Return the translations, (n, C, H, W) in [-1, 1], fp32."""
        images = []
        for pixels in self.inputs[start : start + n].split(1):
            seed_noise(self.seed, pixels)
            with as_single_process():
                x = to_float(pixels.to(self.device))
                images.append(self.drawing.draw(G, Batch(x)).float())
        return torch.cat(images)


def seed_noise(seed: int, pixels: Tensor) -> None:
    """Seed the generators of all devices with (seed, the pixels of the input), (1, C, H, W) uint8.

    So an image has the same noise in a grid, among all test images and in a file.
    """
    digest = hashlib.sha256(repr((seed, tuple(pixels.shape))).encode())
    digest.update(pixels.numpy().tobytes())
    torch.manual_seed(int.from_bytes(digest.digest()[:8]) >> 1)  # 63 bits


def make_translation_sampler(
    dataset: Dataset, drawing: GeneratedView, protocol: Protocol, seed: int, device: torch.device
) -> ProtocolSampler:
    """Return what draws the translations that a protocol scores: those of the inputs whose targets
    are the reference."""
    chosen = ReferenceImages(dataset, protocol.reference, protocol.num_samples, drawing.source)
    return ProtocolSampler(protocol, Translator(chosen.images.x, drawing, device, seed))


def make_translation_painter(
    dataset: Dataset,
    drawing: GeneratedView,
    protocol: Protocol,
    num: int,
    seed: int,
    device: torch.device,
) -> Callable[[nn.Module], Tensor]:
    """Return a function that paints a grid, one pair per row: input, translation, target.

    The rows are always the same `num` test images, or all if there are fewer, drawn in the modes of
    the protocol. Wide grids have several pairs per row.
    """
    count = min(num, len(dataset.load_views("test")[drawing.target].x))
    protocol = protocol._replace(reference="test", num_samples=count)
    sampler = make_translation_sampler(dataset, drawing, protocol, seed, device)
    inputs, targets = (
        to_float(ReferenceImages(dataset, "test", count, view).images.x)
        for view in (drawing.source, drawing.target)
    )

    def paint(G: nn.Module) -> Tensor:
        with sampler.images(G) as fakes:
            columns = [as_rgb(each) for each in (inputs, fakes.draw(0, count), targets)]
        return make_grid(torch.stack(columns, 1).flatten(0, 1), 3 * pairs_per_row(count))

    return paint


def as_rgb(images: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, 3, H, W) on the CPU: the first three channels, or the first as grey."""
    return images.cpu()[:, : 3 if images.shape[1] >= 3 else 1].expand(-1, 3, -1, -1)


def pairs_per_row(count: int) -> int:
    """Return how many pairs stand next to each other, for a grid about as wide as high."""
    return max(1, round((count / 3) ** 0.5))
