"""Draw the translations of fixed images, and show them next to their inputs and targets."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from crgan_cli.data.dataset import Dataset
from crgan_cli.data.images import Images, to_float
from crgan_cli.evaluation.fakes import Fakes
from crgan_cli.evaluation.metrics.protocol import Protocol
from crgan_cli.evaluation.reference_images import ReferenceImages
from crgan_cli.evaluation.sampler import MARGIN, ProtocolSampler, make_grid
from crgan_cli.gan.tasks.base import GeneratedView
from crgan_cli.gan.types import Batch
from crgan_cli.system.distributed.world import as_single_process

Apply = Callable[[nn.Module, Batch], Tensor]


class Translator:
    """Translates the images start to start + n of a fixed list, one by one.

    So batch statistics are those of one image, and an image never depends on its batch.
    """

    def __init__(
        self, inputs: Images, drawing: GeneratedView, device: torch.device, seed: int
    ) -> None:
        """`seed` is that of G's noise."""
        self.inputs = inputs
        self.drawing = drawing
        self.device = device
        self.seed = seed

    def draw(self, G: nn.Module, start: int, n: int) -> Tensor:
        """Return the translations, (n, C, H, W) in [-1, 1], fp32."""
        rows = range(start, min(start + n, len(self.inputs.x)))
        return torch.cat([self._apply(self.drawing.draw, G, row) for row in rows])

    def draw_back(self, G: nn.Module, start: int, images: Tensor) -> Tensor:
        """Return the inputs again, (n, C, H, W), from the translations of `start` and those after
        it."""
        back = self.drawing.back
        assert back, "this task has no way back"
        return torch.cat(
            [self._apply(back, G, start + i, image) for i, image in enumerate(images.split(1))]
        )

    def cycle_error(self, G: nn.Module, start: int, images: Tensor) -> Tensor:
        """Return mean |way back - input| of each translated image, (n,), in units of [-1, 1]."""
        again = self.draw_back(G, start, images)
        return self._difference(again, start)

    def identity_error(self, G: nn.Module, start: int, n: int) -> Tensor:
        """Return mean |translation - input| of each image, (n,), in units of [-1, 1]."""
        return self._difference(self.draw(G, start, n), start)

    def _difference(self, images: Tensor, start: int) -> Tensor:
        inputs = to_float(self.inputs.x[start : start + len(images)].to(images.device))
        return (images - inputs).double().abs().mean((1, 2, 3)).cpu()

    def _apply(self, apply: Apply, G: nn.Module, row: int, image: Tensor | None = None) -> Tensor:
        """Give an image, or input number `row`, to G with the labels of that input."""
        pixels = self.inputs.x[row : row + 1]
        seed_noise(self.seed, pixels)
        with as_single_process():
            x = to_float(pixels.to(self.device)) if image is None else image
            return apply(G, Batch(x, self.inputs.y[row : row + 1].to(self.device))).float()


def seed_noise(seed: int, pixels: Tensor) -> None:
    """Seed the generators of all devices with (seed, the pixels of the input), (1, C, H, W) uint8.

    So an image has the same noise in a grid, among all test images and in a file.
    """
    digest = hashlib.sha256(repr((seed, tuple(pixels.shape))).encode())
    digest.update(pixels.numpy().tobytes())
    torch.manual_seed(int.from_bytes(digest.digest()[:8]) >> 1)  # 63 bits


class TranslationSampler(ProtocolSampler):
    """Draws the translations that a protocol scores, and measures the way back if there is one."""

    def __init__(
        self, protocol: Protocol, translator: Translator, identity: Translator | None = None
    ) -> None:
        """`identity` translates real images of the target to what they are."""
        super().__init__(protocol, translator)
        self.translator = translator
        self.identity = identity

    @contextmanager
    def images(self, G: nn.Module) -> Iterator[Fakes]:
        translator, identity = self.translator, self.identity
        with super().images(G) as fakes:
            yield fakes._replace(
                cycle=partial(translator.cycle_error, G) if translator.drawing.back else None,
                identity=partial(identity.identity_error, G) if identity else None,
            )


class InputImages:
    """The inputs of translations, each selection read once: several draws may have the same."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.found: dict[tuple[str, str, int], Images] = {}

    def select(self, split: str, view: str, count: int) -> Images:
        """Return `count` images of a view, always the same."""
        key = (split, view, count)
        if key not in self.found:
            self.found[key] = ReferenceImages(self.dataset, split, count, view).images
        return self.found[key]


def make_translation_painter(
    dataset: Dataset,
    draws: Mapping[str, GeneratedView],
    protocol: Protocol,
    num: int,
    seed: int,
    device: torch.device,
) -> Callable[[nn.Module], Tensor]:
    """Return a function that paints the translations of each source, side by side.

    A row is an input and its translations. After a single one: its target if there are pairs, else
    the way back if there is one. The rows are always the same `num` test images, or all if there
    are fewer, drawn in the modes of the protocol. Wide grids have several inputs per row.
    """
    sources = dict.fromkeys(view.source for view in draws.values())
    views = {source: [v for v in draws.values() if v.source == source] for source in sources}
    groups = [GridGroup(dataset, each, protocol, num, seed, device) for each in views.values()]
    most, columns = max(len(each.inputs.x) for each in groups), sum(each.columns for each in groups)
    repeat = inputs_per_row(most, columns)

    def paint(G: nn.Module) -> Tensor:
        return join_pictures([make_grid(g.draw(G), g.columns * repeat) for g in groups])

    return paint


class GridGroup:
    """The columns of a grid that begin with the same inputs."""

    def __init__(
        self,
        dataset: Dataset,
        views: list[GeneratedView],
        protocol: Protocol,
        num: int,
        seed: int,
        device: torch.device,
    ) -> None:
        """`views`: what the inputs are translated to."""
        source, first = views[0].source, views[0]
        count = min(num, len(dataset.load_views("test")[source].x))
        self.inputs = ReferenceImages(dataset, "test", count, source).images
        translators = [Translator(self.inputs, view, device, seed) for view in views]
        self.samplers = [ProtocolSampler(protocol, each) for each in translators]
        self.targets = self.back = None
        if len(views) == 1 and first.paired:
            self.targets = ReferenceImages(dataset, "test", count, first.target).images.x
        elif len(views) == 1 and first.back:
            self.back = translators[0].draw_back

    @property
    def columns(self) -> int:
        """Images of one input."""
        return 1 + len(self.samplers) + (self.targets is not None or self.back is not None)

    def draw(self, G: nn.Module) -> Tensor:
        """Return the images row by row, (inputs x columns, 3, H, W) in [-1, 1]."""
        columns = [to_float(self.inputs.x)]
        for sampler in self.samplers:
            with sampler.images(G) as fakes:
                columns.append(fakes.draw(0, len(self.inputs.x)))
                if self.back:
                    columns.append(self.back(G, 0, columns[-1]))
        if self.targets is not None:
            columns.append(to_float(self.targets))
        return torch.stack([as_rgb(each) for each in columns], 1).flatten(0, 1)


def as_rgb(images: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, 3, H, W) on the CPU: the first three channels, or the first as grey."""
    return images.cpu()[:, : 3 if images.shape[1] >= 3 else 1].expand(-1, 3, -1, -1)


def inputs_per_row(count: int, columns: int) -> int:
    """Return how many inputs, each with its columns, stand next to each other, for a grid about as
    wide as high."""
    return max(1, round((count / columns) ** 0.5))


def join_pictures(pictures: list[Tensor]) -> Tensor:
    """Put pictures, (3, H, W) uint8 of any height, next to each other. Black fills the rest."""
    height = max(each.shape[1] for each in pictures)
    filled = [pad(each, (0, 0, 0, height - each.shape[1])) for each in pictures]
    return torch.cat([filled[0], *(each[:, :, MARGIN:] for each in filled[1:])], 2)
