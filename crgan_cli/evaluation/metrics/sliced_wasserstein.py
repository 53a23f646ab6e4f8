"""The sliced Wasserstein distance of small patches, scale by scale.

Karras et al. 2018, "Progressive Growing of GANs for Improved Quality, Stability, and Variation"
(arXiv:1710.10196), section 5. Coarse scales tell whether large structures are right, the finest one
whether pixels are as sharp and as noisy as real ones. It compares pixels, so it needs no network.

Details from the authors' program [code: tkarras/progressive_growing_of_gans
metrics/sliced_wasserstein.py]: the filter, the normalisation and the counts.
"""

from statistics import fmean

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from crgan_cli.evaluation.metrics.base import Metric, require_side
from crgan_cli.evaluation.metrics.extractors import tf32_convolutions
from crgan_cli.evaluation.metrics.features import FeatureSet

PATCH = 7  # pixels per side
PATCHES = 128  # per image and level
DIRECTIONS = 512  # the paper's 4 repeats of 128, of which the mean is taken anyway
SMALLEST = 16  # pixels of the shorter side at the coarsest level
SEED = 0
BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)  # the filter of Burt and Adelson 1983
IMAGES_AT_ONCE = 256
DIRECTIONS_AT_ONCE = 16


class SlicedWasserstein(Metric):
    """`swd_<side>`: 1000 times the sliced Wasserstein distance of the patches at the level of the
    Laplacian pyramid with that side, and `swd`: their mean, Karras et al. 2018 (arXiv:1710.10196).

    The patches of N RGB images of both kinds take 2 * N * 128 * 147 * 4 bytes, and almost half as
    much comes on top to sort: 3.5 GB for the paper's 16,384. Levels come one after another.
    """

    name = key = "swd"
    required = frozenset({"images"})

    def __init__(self, directions: int = DIRECTIONS) -> None:
        self.directions = directions

    def require_shape(self, shape: tuple[int, ...]) -> None:
        require_side(self.name, shape, SMALLEST)

    def describe(self) -> dict[str, str | int | float]:
        return {
            "swd_patches": PATCHES,
            "swd_directions": self.directions,
            "swd_images": "min(real, generated)",
            "swd_seed": SEED,
        }

    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        distances = sliced_wasserstein(
            real.require_images(),
            fake.require_images(),
            directions=self.directions,
            device=real.moments.mean.device,
        )
        levels = {f"swd_{side}": 1000 * distance for side, distance in distances.items()}
        return {"swd": fmean(levels.values()), **levels}


def list_sides(height: int, width: int) -> list[int]:
    """Return the shorter side at each level, the full size first.

    A level is half the size of the one before. The last one has an odd side, or less than 32 pixels
    at the shorter side: half of them would be fewer than 16.
    """
    sides = [min(height, width)]
    while height % 2 == width % 2 == 0 and sides[-1] // 2 >= SMALLEST:
        height, width = height // 2, width // 2
        sides.append(min(height, width))
    return sides


@torch.no_grad()
def sliced_wasserstein(
    real: Tensor,
    fake: Tensor,
    *,
    patches: int = PATCHES,
    directions: int = DIRECTIONS,
    device: torch.device | str = "cpu",
) -> dict[int, float]:
    """Return side -> distance of the patches at that level of the pyramid.

    Images are (N, C, H, W) and (M, C, H, W), uint8 or float in [0, 255]. If there are more of one
    kind, as many of them are chosen at random. Computes on `device`, in float32.
    """
    generator = torch.Generator().manual_seed(SEED)  # torch's own stays untouched
    n = min(len(real), len(fake))
    real, fake = (
        each if len(each) == n else each[torch.randperm(len(each), generator=generator)[:n]]
        for each in (real, fake)
    )
    sides = list_sides(*real.shape[2:])
    distances = {}
    with tf32_convolutions(False):
        for level, side in enumerate(sides):
            last = level == len(sides) - 1
            a, b = (
                normalise(sample_patches(each, level, last, patches, generator, device))
                for each in (real, fake)
            )
            drawn = torch.randn(directions, a.shape[1], generator=generator)
            distances[side] = compare_projections(a, b, drawn.to(device))
            del a, b  # before the next level has its own
    return distances


def sample_patches(
    images: Tensor,
    level: int,
    last: bool,
    patches: int,
    generator: torch.Generator,
    device: torch.device | str,
) -> Tensor:
    """Return patches at random places of a level of the pyramid: (N * patches, C, 49) float32."""
    n, c, h, w = images.shape
    places = (
        torch.randint(0, (side >> level) - PATCH + 1, (n, patches), generator=generator)
        for side in (h, w)
    )
    top, left = (each.to(device) for each in places)
    found = torch.empty(n, patches, c, PATCH, PATCH, device=device)
    for start in range(0, n, IMAGES_AT_ONCE):
        part = slice(start, start + IMAGES_AT_ONCE)
        band = laplacian_band(images[part].to(device).float(), level, last)
        windows = band.unfold(2, PATCH, 1).unfold(3, PATCH, 1)
        which = torch.arange(len(band), device=band.device)[:, None]
        found[part] = windows[which, :, top[part], left[part]]
    return found.flatten(0, 1).flatten(2)


def laplacian_band(x: Tensor, level: int, last: bool) -> Tensor:
    """Return a level of the Laplacian pyramid of (N, C, H, W) images, 0 the finest.

    The last one is the image at that size, the others are what is lost by halving it.
    """
    for _ in range(level):
        x = reduce_level(x)
    return x if last else x - expand_level(reduce_level(x))


def reduce_level(x: Tensor) -> Tensor:
    """Smooth (N, C, H, W) and keep every second row and column."""
    return blur_binomial(x)[:, :, ::2, ::2]


def expand_level(x: Tensor) -> Tensor:
    """Put zeros between rows and columns of (N, C, H, W), and smooth."""
    n, c, h, w = x.shape
    spread = x.new_zeros(n, c, 2 * h, 2 * w)
    spread[:, :, ::2, ::2] = x
    return 4 * blur_binomial(spread)


def blur_binomial(x: Tensor) -> Tensor:
    """Filter rows and columns, mirrored at the edge without repeating it."""
    for dim in (2, 3):  # sums of slices: several times as fast on a CPU as convolutions
        around = pad(x, (0, 0, 2, 2) if dim == 2 else (2, 2, 0, 0), "reflect")
        taps = [around.narrow(dim, at, x.shape[dim]) for at in range(len(BINOMIAL))]
        x = sum((weight * tap for weight, tap in zip(BINOMIAL, taps, strict=True)), x.new_zeros(()))
    return x


def normalise(patches: Tensor) -> Tensor:
    """Give every channel of (M, C, 49) patches mean 0 and variance 1, in place: (M, C * 49).

    A channel that is the same everywhere becomes 0.
    """
    variance, mean = torch.var_mean(patches, (0, 2), correction=0, keepdim=True)
    deviation = variance.sqrt()
    patches.sub_(mean).div_(torch.where(deviation > 0, deviation, 1))
    return patches.flatten(1)


def compare_projections(a: Tensor, b: Tensor, directions: Tensor) -> float:
    """Return the mean over directions of the distance in one dimension of (M, dims) rows.

    That distance, Wasserstein-1, is the mean difference of the sorted projections.
    """
    directions = directions / directions.norm(dim=1, keepdim=True)
    distances = [
        (sort_rows(part @ a.T) - sort_rows(part @ b.T)).abs_().mean(1)
        for part in directions.split(DIRECTIONS_AT_ONCE)
    ]
    return float(torch.cat(distances).double().mean())


def sort_rows(x: Tensor) -> Tensor:
    """Sort each row. On a CPU by NumPy, which is twice as fast."""
    return torch.from_numpy(np.sort(x.numpy())) if x.device.type == "cpu" else x.sort().values
