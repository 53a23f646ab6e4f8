"""Fake tasks that translate to several domains, and tiny data sets for them."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from crgan_cli.data.dataset import Dataset, Split
from crgan_cli.data.images import Images
from crgan_cli.errors import UserError
from crgan_cli.evaluation.domains import DomainsEvaluator
from crgan_cli.evaluation.drawing import Draws
from crgan_cli.evaluation.evaluator import Evaluator
from crgan_cli.evaluation.metrics.extractors import Extractor, Features
from crgan_cli.evaluation.reference_images import ReferenceImages
from crgan_cli.gan.labels import Labels
from crgan_cli.gan.tasks.base import GeneratedView
from crgan_cli.gan.types import Batch
from support.evaluators import make_evaluator


class Projected(Extractor):
    """Eight random directions of 8x8 images."""

    name = "projection"
    sha256 = "ab" * 32
    dims = 8
    resize = "none"

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            super().__init__(nn.Linear(3 * 8 * 8, self.dims))
        self.seen = 0

    def features(self, rgb: Tensor) -> Features:
        self.seen += len(rgb)
        return Features(self.net(rgb.flatten(1).float() / 255))


def evaluator(kind: type[Evaluator] = DomainsEvaluator, **changes: object) -> Evaluator:
    """metrics=domains, with a random projection as the extractor."""
    settings = {"measures": ["kid", "fid"], "num_samples": None, "batch_norm": "batch"}
    return make_evaluator(Projected(), kind, **({**settings, "batch_size": 4} | changes))


def noise(n: int, channels: int, seed: int, low: int = 60, high: int = 190) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (n, channels, 8, 8), generator=random).to(torch.uint8)


class TwoSets(Dataset):
    """Unpaired images a and b, of unlike counts and channels; b is darker on the left."""

    def __init__(self, a: int, b: int, channels_b: int = 1) -> None:
        super().__init__(resolution=8, channels=1, classes=0)
        self.counts, self.channels_b = {"a": a, "b": b}, channels_b

    def load(self, split: Split) -> Images:
        raise UserError("these are two sets")

    def load_views(self, split: Split) -> dict[str, Images]:
        found = {}
        for seed, (name, n) in enumerate(self.counts.items()):
            x = noise(n, self.channels_b if name == "b" else 1, 2 * seed + (split == "test"))
            if name == "b":
                x[..., :4] -= 40
            found[name] = Images(x, torch.zeros(n, dtype=torch.int64))
        return found


def inputs(data: Dataset, view: str, count: int | None = None) -> Tensor:
    """The images of a view that are chosen for grids and metrics."""
    count = len(data.load_views("test")[view].x) if count is None else count
    return ReferenceImages(data, "test", count, view).images.x


class Shifts(nn.Module):
    """Adds a number; to grey images of so many channels."""

    def __init__(self, by: float, channels: int | None = None) -> None:
        super().__init__()
        self.by, self.channels = by, channels

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        if self.channels:
            x = x.mean(1, keepdim=True).expand(-1, self.channels, -1, -1)
        return x + self.by


class Cycle(nn.ModuleDict):
    """The generators of a CycleGAN, with what they draw."""

    draws: Draws


def cycle(ab: nn.Module, ba: nn.Module) -> Cycle:
    """Two generators, there and back."""

    def apply(name: str) -> Callable[[nn.Module, Batch], Tensor]:
        return lambda G, batch: cast(nn.ModuleDict, G)[name](batch.x)

    G = Cycle({"ab": ab, "ba": ba})
    G.draws = {
        "b": GeneratedView(apply("ab"), source="a", target="b", back=apply("ba"), in_channels=1),
        "a": GeneratedView(apply("ba"), source="b", target="a", back=apply("ab"), in_channels=1),
    }
    return G


class Halves(Dataset):
    """Images whose upper or left half is dark. "attributes": each or both or none; "classes": none
    or both."""

    def __init__(self, kind: str) -> None:
        super().__init__(resolution=8, channels=1, classes=2 if kind == "classes" else 0)
        self.kind = kind

    def load(self, split: Split) -> Images:
        n = {"train": 400, "test": 40}[split]
        number = torch.arange(n)
        classes = number % 2
        known = torch.stack([number % 2, number // 2 % 2], 1)
        y = classes if self.kind == "classes" else known
        return Images(darken(noise(n, 1, 7 + (split == "test")), as_attributes(y), 4), y)


def as_attributes(y: Tensor) -> Tensor:
    """(N,) classes or (N, 2) attributes -> which halves are dark, (N, 2)."""
    return torch.stack([y, y], 1) if y.ndim == 1 else y


def darken(x: Tensor, halves: Tensor, times: int) -> Tensor:
    """Make the upper or the left half of images darker."""
    x = x.clone()
    top, left = halves.bool().unbind(1)
    x[top, :, :4] //= times
    x[left & ~top, :, :, :4] //= times
    x[left & top, :, 4:, :4] //= times
    return x


def by_labels(labels: Labels) -> Draws:
    """What a StarGAN draws: the inputs with each of the labels."""

    def make_view(column: int) -> GeneratedView:
        def get(y: Tensor) -> Tensor:
            return labels.encode(y)[:, column] > 0

        def set_label(y: Tensor) -> Tensor:
            encoded = labels.encode(y)
            if labels.groups[0].kind == "classes":
                encoded = torch.zeros_like(encoded)
            encoded[:, column] = 1
            return encoded

        return GeneratedView(
            lambda G, batch: G(batch.x, set_label(require(batch.y))),
            source="real",
            target="real",
            choose=get,
            back=lambda G, batch: G(batch.x, labels.encode(require(batch.y))),
            in_channels=1,
        )

    names = [name for group in labels.groups for name in group.names]
    return {name: make_view(column) for column, name in enumerate(names)}


def require(y: Tensor | None) -> Tensor:
    assert y is not None, "labels of the inputs are handed on"
    return y


class PaintHalves(nn.Module):
    """Draws images anew, with the halves dark that the labels say."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        halves = y if self.kind == "attributes" else y[:, 1:].expand(-1, 2)
        seed = int((x.sum() * 1000).abs()) % 1000
        drawn = darken(noise(len(x), 1, seed), halves, 4)
        return drawn.float() / 127.5 - 1


def paint_halves(kind: str) -> nn.Module:
    """A perfect generator for `Halves`."""
    return PaintHalves(kind)
