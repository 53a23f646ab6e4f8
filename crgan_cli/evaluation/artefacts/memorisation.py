"""Memorisation: whether generated images are nearer to the training set than new images are.

The distance of each generated image to its nearest training image is compared with that of as many
held-out images (Meehan, Chaudhuri & Dasgupta 2020, arXiv:2004.05675, test a generator for copying
by the Mann-Whitney statistic of these two samples). G's images are often smoother than real ones,
and smooth images are near to everything. So a second number looks at generated images only: how
often is the nearest of all real images a training image? As often as their share of all real
images, unless G has memorised them: if the two splits are alike, smoothness prefers neither.

Distances are root mean squares of pixels in [-1, 1], or Euclidean in an extractor's features.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from crgan_cli.errors import UserError
from crgan_cli.evaluation.artefacts.estimates import (
    Proportion,
    auc,
    share_below_quantile,
    wilson,
)
from crgan_cli.evaluation.artefacts.inputs import (
    FeatureMap,
    MeasureOptions,
    ProgressCounter,
    TrainedModel,
    choose_images,
    draw_fakes,
    feature_maps,
    require_count,
)
from crgan_cli.evaluation.metrics.features import Side

LEVELS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
QUERIES = 1024
"""Rows of the table of distances that is in memory at a time; its columns are a batch."""


class Neighbours(NamedTuple):
    """The nearest row to each of N queries."""

    distance: Tensor  # (N,) float64
    row: Tensor  # (N,) int64, counted over all blocks


@dataclass(frozen=True)
class NeighbourDistances:
    """Distances to the nearest real images in one space."""

    generated: Tensor  # (n,) float64, to the nearest training image
    held_out: Tensor  # (n,) float64, to the nearest training image
    to_held_out: Tensor  # (n,) float64, from generated images to the nearest held-out image
    independent: float  # 1 / sum w^2, w the share of each real image that is nearest to some
    pairs: Tensor  # (k, 2, C, H, W) uint8: the closest, generated | nearest training image

    @property
    def auc(self) -> Proportion:
        """P(a generated image is nearer than a held-out one): 0.5 no nearer, towards 1 copied.

        The interval is that of a share of n. This is safe for all distributions: the variance of
        this statistic is at most p (1 - p) / n (Birnbaum & Klose 1957).
        """
        return wilson(1 - auc(self.held_out, self.generated), len(self.generated))

    @property
    def threshold(self) -> float:
        """The distance that 1 % of held-out images fall below."""
        return float(self.held_out.quantile(0.01))

    @property
    def suspicious(self) -> float:
        """The share of generated images nearer than `threshold`; compare it with `unsuspicious`."""
        return float((self.generated < self.threshold).double().mean())

    @property
    def unsuspicious(self) -> Proportion:
        """The expected `suspicious` if images are as near as held-out ones, and its 95 % range."""
        return share_below_quantile(0.01, len(self.held_out), len(self.generated))

    @property
    def prefers_train(self) -> Proportion:
        """The share of generated images whose nearest real image is a training image.

        Ties count half. Compare it with `Memorisation.train_share`. If few real images are the
        nearest of many, these few are the sample: with splits that are alike, the variance is
        p (1 - p) times the sum of their squared shares w, so the interval is that of 1 / sum w^2
        draws.
        """
        nearest_is_train = (self.generated < self.to_held_out).double()
        p = float((nearest_is_train + (self.generated == self.to_held_out) / 2).mean())
        return wilson(p, self.independent)

    def as_json(self) -> dict[str, object]:
        """Plain numbers."""
        samples = {"generated": self.generated, "held_out": self.held_out}
        return {
            "auc": list(self.auc),
            "share_below_held_out_1_percent": self.suspicious,
            "share_below_held_out_1_percent_expected": list(self.unsuspicious),
            "held_out_1_percent": self.threshold,
            "nearest_is_train": list(self.prefers_train),
            "nearest_independent": self.independent,
            "quantiles": {
                "level": list(LEVELS),
                **{name: quantiles(each) for name, each in samples.items()},
            },
            "median": {name: float(each.quantile(0.5)) for name, each in samples.items()},
        }


@dataclass(frozen=True)
class Memorisation:
    """How near generated images come to the training set, in every space."""

    spaces: dict[str, NeighbourDistances]
    train: int  # images
    held_out: int
    options: MeasureOptions

    @property
    def train_share(self) -> float:
        """The share of training images among all real ones."""
        return self.train / (self.train + self.held_out)

    def as_json(self) -> dict[str, object]:
        """Plain numbers."""
        return {
            "spaces": {name: each.as_json() for name, each in self.spaces.items()},
            "shares_are": "[value, low, high], 95 % interval",
            "nearest_is_train_expected": self.train_share,
            "train_images": self.train,
            "held_out_images": self.held_out,
            "extractor": self.options.describe_extractor(),
            **self.options.as_json(),
        }


def measure_memorisation(
    model: TrainedModel, options: MeasureOptions, *, closest: int = 16
) -> Memorisation:
    """Compare n generated and n held-out images with all training images.

    Keep the `closest` pairs. G is in eval mode. Generated images are rounded to uint8, as the real
    ones are. Each image passes the extractor once. Memory grows with n only: real images are
    compared batch by batch.
    """
    n = options.n
    require_count(n, options.batch_size)
    if not 1 <= closest <= n:
        raise UserError(f"{closest} closest pairs of {n} images cannot be shown. Give 1 to {n}.")
    train, held_out = model.train.x, model.held_out.x
    chosen = choose_images(model.held_out, n, options.seed, "held-out").x
    maps = feature_maps(options.extractor)
    counter = ProgressCounter(options.progress, len(maps) * (2 * n + len(train) + len(held_out)))
    fakes = draw_fakes(model, options)
    spaces = {}
    for space, features in maps.items():
        blocks = partial(map_images, features, options.batch_size, model.device, counter)
        with torch.no_grad():
            queries = torch.cat([*blocks(fakes, "generated"), *blocks(chosen, "real")])
            to_train = find_nearest(queries, blocks(train, "real"))
            to_held_out = find_nearest(queries[:n], blocks(held_out, "real"))
        spaces[space] = neighbour_distances(fakes, train, to_train, to_held_out, closest)
    return Memorisation(spaces, len(train), len(held_out), options)


def map_images(
    features: FeatureMap,
    batch_size: int,
    device: torch.device,
    counter: ProgressCounter,
    images: Tensor,
    which: Side,
) -> Iterator[Tensor]:
    """Blocks of rows in a space, on the device, of (N, C, H, W) uint8 images."""
    for batch in images.split(batch_size):
        yield features(batch.to(device), which).to(device)
        counter.add(len(batch))


def find_nearest(queries: Tensor, blocks: Iterable[Tensor]) -> Neighbours:
    """The nearest row of all blocks to each query, (N, dims).

    The table of distances is computed in parts of QUERIES x a block. A matrix product finds the
    candidates: it is fast, but rounds. Their distances are computed from differences, so that a
    copy has the distance 0.
    """
    squared = torch.full((len(queries),), torch.inf, dtype=torch.float64, device=queries.device)
    index = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
    before = 0
    for block in blocks:
        half_norms = block.square().sum(1) / 2
        for start in range(0, len(queries), QUERIES):
            rows = slice(start, start + QUERIES)
            q = queries[rows]
            # ||q - b||^2 / 2 without the norm of q, which does not change which b is nearest
            candidate = (half_norms - q @ block.T).argmin(1)
            distance = (q - block[candidate]).double().square().sum(1)
            index[rows] = torch.where(distance < squared[rows], before + candidate, index[rows])
            squared[rows] = torch.minimum(distance, squared[rows])
        before += len(block)
    return Neighbours(squared.sqrt().cpu(), index.cpu())


def neighbour_distances(
    fakes: Tensor, train: Tensor, to_train: Neighbours, to_held_out: Neighbours, closest: int
) -> NeighbourDistances:
    """The distances of one space, and the closest pairs, nearest first.

    `to_train` are the neighbours of n generated images, then those of n held-out ones.
    """
    n = len(fakes)
    generated = to_train.distance[:n]
    first = generated.argsort(stable=True)[:closest]
    pairs = torch.stack([fakes[first], train[to_train.row[first]].cpu()], dim=1)
    in_train = generated <= to_held_out.distance
    real = torch.where(in_train, to_train.row[:n], len(train) + to_held_out.row)
    shares = real.unique(return_counts=True)[1].double() / n
    return NeighbourDistances(
        generated,
        to_train.distance[n:],
        to_held_out.distance,
        float(1 / shares.square().sum()),
        pairs,
    )


def quantiles(distances: Tensor) -> list[float]:
    """At LEVELS, interpolated."""
    return distances.quantile(torch.tensor(LEVELS, dtype=distances.dtype)).tolist()
