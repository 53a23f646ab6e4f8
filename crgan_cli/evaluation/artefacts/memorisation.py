"""Memorisation: whether generated images lie nearer to the training set than new images do.

The distance of each generated image to its nearest training image, against the same of as many
held-out ones (Meehan, Chaudhuri & Dasgupta 2020, arXiv:2004.05675, test a generator for copying
by the Mann-Whitney statistic of these two samples). G's images are often smoother than real ones,
and smooth images are near to everything. So a second number asks each generated image alone: how
often is the nearest of all real images a training image? As often as their share of all real
images, unless G has seen them: where the two splits are alike, smoothness prefers neither.

Distances are root mean squares of pixels in [-1, 1], or Euclidean in an extractor's features.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from crgan_cli.data.images import Images, to_float, to_uint8
from crgan_cli.errors import UserError
from crgan_cli.evaluation.artefacts.diversity import FeatureMap, described, spaces
from crgan_cli.evaluation.artefacts.estimates import draw_indices, require_count, wilson
from crgan_cli.evaluation.metrics.extractors import Extractor
from crgan_cli.evaluation.metrics.features import Progress
from crgan_cli.evaluation.pictures import save_picture
from crgan_cli.evaluation.sampler import Sampler, eval_mode, make_grid, sample_latents
from crgan_cli.gan.tasks.generation import Prior
from crgan_cli.report import plots

LEVELS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
QUERIES = 1024
"""Rows of the table of distances that is in memory at a time; its columns are a batch."""

UNITS = {"pixels": "RMS of pixels in [-1, 1]", "features": "Euclidean, in features"}


class Nearest(NamedTuple):
    """What lies closest to each of N queries."""

    distance: Tensor  # (N,) float64
    row: Tensor  # (N,) int64, into the blocks one after the other


class Share(NamedTuple):
    """A share of the generated images with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class NeighbourDistances:
    """The two samples of distances in one space, and what they come to."""

    generated: Tensor  # (n,) float64, to the nearest training image
    held_out: Tensor  # (n,) float64
    to_held_out: Tensor  # (n,) float64, from generated images to the nearest of all held-out ones
    independent: float  # 1 / sum w^2, w the share of each real image that is nearest to some
    pairs: Tensor  # (k, 2, C, H, W) uint8: the closest, generated | nearest training image

    @property
    def auc(self) -> Share:
        """P(a generated image is nearer than a held-out one): 0.5 no nearer, towards 1 copied.

        The interval is that of a share of n, whatever the distributions: the variance of this
        statistic is at most p (1 - p) / n (Birnbaum & Klose 1957).
        """
        p = nearer(self.generated, self.held_out)
        return Share(p, *wilson(p, len(self.generated)))

    @property
    def threshold(self) -> float:
        """The distance that 1 % of held-out images fall below."""
        return float(self.held_out.quantile(0.01))

    @property
    def suspicious(self) -> Share:
        """The share of generated images nearer than `threshold`: about 0.01 for a good generator.

        The interval takes the threshold as known, which it is not below some thousand images.
        """
        p = float((self.generated < self.threshold).double().mean())
        return Share(p, *wilson(p, len(self.generated)))

    @property
    def prefers_train(self) -> Share:
        """The share of generated images whose nearest real image is a training image.

        Ties count half. To be compared with `Memorisation.train_share`. Where a few real images are
        the nearest of many, they are what was drawn: if the splits are alike, the variance is
        p (1 - p) times the sum of the squared shares w of each, so that the interval is that of
        1 / sum w^2 draws.
        """
        nearest_is_train = (self.generated < self.to_held_out).double()
        p = float((nearest_is_train + (self.generated == self.to_held_out) / 2).mean())
        return Share(p, *wilson(p, self.independent))

    def as_json(self) -> dict[str, object]:
        return {
            "auc": list(self.auc),
            "share_below_held_out_1_percent": list(self.suspicious),
            "held_out_1_percent": self.threshold,
            "nearest_is_train": list(self.prefers_train),
            "nearest_independent": self.independent,
            "quantiles": {
                "level": list(LEVELS),
                "generated": quantiles(self.generated),
                "held_out": quantiles(self.held_out),
            },
            "median": {
                "generated": float(self.generated.quantile(0.5)),
                "held_out": float(self.held_out.quantile(0.5)),
            },
        }


@dataclass(frozen=True)
class Memorisation:
    """How near generated images come to the training set, in every space."""

    spaces: dict[str, NeighbourDistances]
    train: int  # images
    held_out: int
    extractor: dict[str, object] | None
    n: int
    seed: int
    batch_size: int

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
            "extractor": self.extractor,
            "n": self.n,
            "seed": self.seed,
            "batch_size": self.batch_size,
        }


def measure_memorisation(
    G: nn.Module,
    prior: Prior,
    train: Images,
    held_out: Images,
    *,
    extractor: Extractor | None,
    n: int,
    seed: int,
    device: torch.device,
    batch_size: int = 250,
    closest: int = 16,
    progress: Progress | None = None,
) -> Memorisation:
    """n generated and n held-out images against all training images; keeps the `closest` pairs.

    G is on `device`, in eval mode meanwhile; the extractor computes where it is. Generated images
    are rounded to uint8 first, as the real ones are. Each image passes the extractor once, and
    memory grows with n alone: real images come by in batches and are forgotten.
    """
    require_count(n, batch_size)
    if not 1 <= closest <= n:
        raise UserError(f"{closest} closest pairs of {n} images cannot be shown: give 1 to {n}.")
    chosen = draw_indices(held_out, n, seed, "held-out").x
    looks = spaces(extractor)
    total = len(looks) * (2 * n + len(train.x) + len(held_out.x))
    done = 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(done, total)

    with eval_mode(G):
        sampler = Sampler(sample_latents(prior, n, seed), device)
        starts = range(0, n, batch_size)
        fakes = torch.cat(
            [to_uint8(sampler.draw(G, i, min(batch_size, n - i))).cpu() for i in starts]
        )
        found = {
            space: compare(
                fakes, chosen, train.x, held_out.x, map_images(look, batch_size, device, tell)
            )
            for space, look in looks.items()
        }
    return Memorisation(
        {space: closeness(fakes, train.x, *each, closest) for space, each in found.items()},
        len(train.x),
        len(held_out.x),
        described(extractor),
        n,
        seed,
        batch_size,
    )


MappedImages = Callable[[Tensor], Iterator[Tensor]]  # uint8 images -> blocks of rows, on the device


def map_images(
    look: FeatureMap, batch_size: int, device: torch.device, tell: Callable[[int], None]
) -> MappedImages:
    """Images on their way into a space, a batch at a time."""

    def blocks(images: Tensor) -> Iterator[Tensor]:
        for batch in images.split(batch_size):
            yield look(batch.to(device)).to(device)
            tell(len(batch))

    return blocks


def compare(
    fakes: Tensor, chosen: Tensor, train: Tensor, held_out: Tensor, blocks: MappedImages
) -> tuple[Nearest, Nearest]:
    """The nearest training image of every generated and every chosen held-out image, one after the
    other, and the nearest held-out image of every generated one."""
    queries = torch.cat([*blocks(fakes), *blocks(chosen)])
    return nearest(queries, blocks(train)), nearest(queries[: len(fakes)], blocks(held_out))


def nearest(queries: Tensor, blocks: Iterable[Tensor]) -> Nearest:
    """The nearest of all rows of the blocks to each query, (N, dims), in a table of
    QUERIES x a block at a time.

    Candidates are found through a matrix product, which is fast and rounds; their distances are
    computed from the differences, so that a copy is at distance 0.
    """
    squared = torch.full((len(queries),), torch.inf, dtype=torch.float64, device=queries.device)
    index = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
    before = 0
    for block in blocks:
        half_norms = block.square().sum(1) / 2
        for start in range(0, len(queries), QUERIES):
            rows = slice(start, start + QUERIES)
            q = queries[rows]
            # ||q - b||^2 / 2 but for the norm of q, which does not change which b is nearest
            candidate = (half_norms - q @ block.T).argmin(1)
            apart = (q - block[candidate]).double().square().sum(1)
            index[rows] = torch.where(apart < squared[rows], before + candidate, index[rows])
            squared[rows] = torch.minimum(apart, squared[rows])
        before += len(block)
    return Nearest(squared.sqrt().cpu(), index.cpu())


def closeness(
    fakes: Tensor, train: Tensor, to_train: Nearest, to_held_out: Nearest, closest: int
) -> NeighbourDistances:
    """One space's distances, and the pictures of the closest pairs, nearest first."""
    n = len(fakes)
    near = to_train.distance[:n]
    first = near.argsort(stable=True)[:closest]
    pairs = torch.stack([fakes[first], train[to_train.row[first]].cpu()], dim=1)
    in_train = near <= to_held_out.distance
    real = torch.where(in_train, to_train.row[:n], len(train) + to_held_out.row)
    shares = real.unique(return_counts=True)[1].double() / n
    return NeighbourDistances(
        near,
        to_train.distance[n:],
        to_held_out.distance,
        float(1 / shares.square().sum()),
        pairs,
    )


def nearer(a: Tensor, b: Tensor) -> float:
    """P(a < b) + P(a = b) / 2 over all pairs, (N,) and (M,): U / NM of Mann & Whitney 1947."""
    ordered = b.sort().values
    below = torch.searchsorted(ordered, a, right=False)
    up_to = torch.searchsorted(ordered, a, right=True)
    return float(1 - (below + up_to).double().mean() / (2 * len(b)))


def quantiles(distances: Tensor) -> list[float]:
    """At LEVELS, interpolated."""
    return distances.quantile(torch.tensor(LEVELS, dtype=distances.dtype)).tolist()


def plot_memorisation(result: Memorisation, path: Path) -> None:
    """One panel a space: the distribution functions of both samples, with 95 % bands."""
    title = f"Nearest of {result.train} training images (n = {result.n}, 95 % bands)"
    figure, axes = plots.make_panels(len(result.spaces), title)
    for each, (space, close) in zip(axes, result.spaces.items(), strict=True):
        for distances, colour, label in (
            (close.held_out, plots.BLUE, "held-out images"),
            (close.generated, plots.GREEN, "generated images"),
        ):
            plots.draw_distribution(each, distances.tolist(), colour=colour, label=label)
        each.axvline(
            close.threshold, color=plots.GREY, linestyle=":", label="1 % of held-out images"
        )
        p, low, high = close.auc
        each.set_title(f"P(generated nearer) = {p:.3f} [{low:.3f}, {high:.3f}]", fontsize=9)
        each.set_xlabel(f"distance ({UNITS[space]})")
        each.legend(fontsize=8, loc="lower right")
    axes[0].set_ylabel("share of images that lie nearer")
    plots.save_figure(figure, path)


def save_pairs(result: Memorisation, space: str, path: Path) -> None:
    """A picture of the closest pairs, nearest first, four to a row: generated | training image."""
    images = to_float(result.spaces[space].pairs).flatten(0, 1)
    save_picture(make_grid(images, min(8, len(images))), path)
