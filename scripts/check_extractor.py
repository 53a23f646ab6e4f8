"""Check whether the demo's distance grows with distortions. Prints a Markdown table.

Takes training images of the demo set, distorts them, and measures each set against test images
with EfficientNet-Lite0, as metrics=demo does: the Frechet distance (with its ratio to that of
undistorted images, the real-vs-real distance) and KID. About 13 * COUNT images pass through the
extractor.

    python scripts/check_extractor.py --resolution 224 --counts 500 1000
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from crgan_cli.data.embedded import Demo
from crgan_cli.data.images import Images
from crgan_cli.evaluation.metrics.efficientnet import EfficientNetLite0
from crgan_cli.evaluation.metrics.frechet import frechet_distance
from crgan_cli.evaluation.metrics.kid import kernel_distance
from crgan_cli.evaluation.metrics.statistics import Moments
from crgan_cli.evaluation.reference_images import random_subset

Distortion = Callable[[Tensor], Tensor]


def blur(sigma: float) -> Distortion:
    """Return a Gaussian blur, `sigma` in pixels."""
    return lambda x: gaussian_blur(x, kernel_size=[13, 13], sigma=[sigma, sigma])


def noise(deviation: float) -> Distortion:
    """Return white noise, `deviation` in grey levels of 255."""

    def distort(x: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        noisy = x + deviation * torch.randn(x.shape, generator=generator)
        return noisy.round().clamp(0, 255).to(torch.uint8)

    return distort


def shift(pixels: int) -> Distortion:
    """Shift to the lower right and fill with black."""

    def distort(x: Tensor) -> Tensor:
        moved = torch.zeros_like(x)
        moved[:, :, pixels:, pixels:] = x[:, :, :-pixels, :-pixels]
        return moved

    return distort


def distort_images(train: Images, count: int) -> dict[str, Tensor]:
    """Return name -> (count, 1, 32, 32) uint8."""
    x = train.x[random_subset(count, torch.arange(len(train.x)))]
    halves = train.x[random_subset(count, (train.y < 5).nonzero().flatten())]
    pixelwise: dict[str, Distortion] = {
        **{f"blur sigma {s}": blur(s) for s in (0.5, 1.0, 2.0)},
        **{f"noise sd {s}": noise(s) for s in (4, 10, 25)},
        **{f"shift {p} px, black seam": shift(p) for p in (2, 4)},
        "inverted": lambda x: 255 - x,
    }
    return {
        "undistorted (real vs real)": x,
        **{name: distort(x) for name, distort in pixelwise.items()},
        "5 of 10 classes": halves[
            torch.randperm(count, generator=torch.Generator().manual_seed(2))
        ],
        "50 images, repeated": x[torch.arange(count) % 50],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--counts", type=int, nargs="+", default=[500, 1000])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    counts, most = arguments.counts, max(arguments.counts)

    extractor = EfficientNetLite0(arguments.resolution)
    test = Demo(resolution=32, channels=1, classes=10).load("test")
    train = Demo(resolution=32, channels=1, classes=10).load("train")
    shuffled = torch.randperm(most, generator=torch.Generator().manual_seed(3))
    real = extractor(test.x[random_subset(most, torch.arange(len(test.x)))][shuffled]).pool
    moments = {n: Moments.from_features(real[:n]) for n in counts}
    floors: dict[int, float] = {}

    print(f"Demo set, {extractor.name}: distance to test images (ratio to real vs real), 1000 KID")
    print("| training images | " + " | ".join(f"FD n={n} | KID n={n}" for n in counts) + " |")
    print("|---|" + "---|---|" * len(counts))
    start, images = time.perf_counter(), 0
    for name, x in distort_images(train, most).items():
        pool = extractor(x).pool
        images += len(x)
        cells = []
        for n in counts:
            distance = frechet_distance(moments[n], Moments.from_features(pool[:n]))
            kid, _ = kernel_distance(pool[:n], real[:n])
            floors.setdefault(n, distance)
            cells += [f"{distance:.1f} ({distance / floors[n]:.2f})", f"{1000 * kid:.2f}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    speed = images / (time.perf_counter() - start)
    print(f"\n{speed:.0f} images/s with {arguments.threads} threads, distances included")


if __name__ == "__main__":
    main()
