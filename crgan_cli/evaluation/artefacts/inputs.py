"""What all measurements take: a trained model, how much to measure, and reproducible draws."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from crgan_cli.data.images import Images, to_float, to_uint8
from crgan_cli.errors import UserError
from crgan_cli.evaluation.metrics.extractors import Extractor
from crgan_cli.evaluation.metrics.features import Progress, Side, require_finite_features
from crgan_cli.evaluation.sampler import Latents, Sampler, eval_mode, sample_latents
from crgan_cli.gan.tasks.generation import Prior

SIGMAS = (0.01, 0.03, 0.1, 0.2, 0.5, 1.0)
"""Standard deviations of the noise on z, by default."""

FeatureMap = Callable[[Tensor, Side], Tensor]
"""(N, C, H, W) uint8 -> (N, dims), the space in which images are compared. Says which they are."""


class TrainedModel(NamedTuple):
    """The networks of a checkpoint, and the images that they were and were not trained on."""

    G: nn.Module
    D: nn.Module
    prior: Prior
    train: Images
    held_out: Images
    device: torch.device  # of G and D


class MeasureOptions(NamedTuple):
    """How much to measure, and how."""

    n: int  # images of each kind
    seed: int
    batch_size: int = 100
    extractor: Extractor | None = None  # None: compare pixels only
    progress: Progress | None = None

    def as_json(self) -> dict[str, object]:
        """The settings that the numbers depend on."""
        return {"n": self.n, "seed": self.seed, "batch_size": self.batch_size}

    def describe_extractor(self) -> dict[str, object] | None:
        """What a reader has to know to compute the same features."""
        if self.extractor is None:
            return None
        names = ("name", "sha256", "dims", "resize", "precision")
        return {name: getattr(self.extractor, name) for name in names}


class ProgressCounter:
    """Adds up counts, and tells `progress`, if any, the sum and `total`."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress = progress
        self.total = total
        self.done = 0

    def add(self, count: int) -> None:
        self.done += count
        if self.progress:
            self.progress(self.done, self.total)


def part_of_progress(progress: Progress | None, part: int, parts: int) -> Progress | None:
    """The progress of one of several equal parts, in hundredths of a part."""
    if progress is None:
        return None
    return lambda done, total: progress(100 * part + 100 * done // total, 100 * parts)


def seeded_generator(seed: int, purpose: str) -> torch.Generator:
    """A CPU generator per purpose, so that no two kinds of draw share random numbers."""
    mixed = np.random.SeedSequence([seed, *purpose.encode()]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed[0]) >> 1)


def choose_images(images: Images, n: int, seed: int, split: str) -> Images:
    """n of the images, at random without repetition. Raise UserError if there are fewer."""
    require_available(n, len(images.x), split)
    chosen = torch.randperm(len(images.x), generator=seeded_generator(seed, split))[:n]
    return Images(images.x[chosen], images.y[chosen])


def require_available(n: int, available: int, split: str) -> None:
    """Raise UserError if a split has fewer than n images."""
    if n > available:
        raise UserError(
            f"{n} images are to be measured, but the {split} split has {available}. Give at "
            f"most --n {available}."
        )


def batch_ranges(n: int, batch_size: int) -> Iterator[tuple[int, int]]:
    """(start, count) of batches that hold n images together."""
    return ((start, min(batch_size, n - start)) for start in range(0, n, batch_size))


def draw_fakes(model: TrainedModel, options: MeasureOptions) -> Tensor:
    """n images of G, (n, C, H, W) uint8 on the CPU."""
    sampler = Sampler(sample_latents(model.prior, options.n, options.seed), model.device)
    with eval_mode(model.G):
        batches = [
            to_uint8(sampler.draw(model.G, start, count)).cpu()
            for start, count in batch_ranges(options.n, options.batch_size)
        ]
    return torch.cat(batches)


def perturbed_samplers(
    latents: Latents, sigmas: Sequence[float], seed: int, device: torch.device
) -> list[Sampler]:
    """Samplers of G(z + sigma * eps), one per sigma. eps ~ N(0, 1) is the same for all sigmas."""
    eps = torch.randn(latents.z.shape, generator=seeded_generator(seed, "eps"))
    return [Sampler(latents._replace(z=latents.z + sigma * eps), device) for sigma in sigmas]


def feature_maps(extractor: Extractor | None) -> dict[str, FeatureMap]:
    """The spaces in which images are compared: pixels, and features if there is an extractor."""
    maps: dict[str, FeatureMap] = {"pixels": lambda images, which: flatten_pixels(images)}
    if extractor is not None:
        maps["features"] = partial(extract_pool, extractor)
    return maps


def extract_pool(extractor: Extractor, images: Tensor, which: Side) -> Tensor:
    """(N, C, H, W) uint8 -> (N, dims). Raise UserError or RunFailed if they are not finite."""
    pool = extractor(images).pool
    require_finite_features([pool], extractor, which)
    return pool


def flatten_pixels(images: Tensor) -> Tensor:
    """(N, C, H, W) uint8 -> (N, C * H * W), where distance is the root mean square in [-1, 1]."""
    flat = to_float(images).flatten(1)
    return flat / flat.shape[1] ** 0.5


def require_count(n: int, batch_size: int, least: int = 2) -> None:
    """Raise UserError if n images give no standard error, or if a batch is empty."""
    if n < least:
        raise UserError(
            f"{n} images are too few for a mean with a standard error. Give at least {least}, "
            "better some hundreds."
        )
    if batch_size < 1:
        raise UserError(f"A batch of {batch_size} images is empty. Give at least 1.")


def require_sigmas(sigmas: Sequence[float]) -> None:
    """Raise UserError unless all sigmas are standard deviations, and there is one."""
    if not sigmas:
        raise UserError("No sigma was given. Give at least one, such as 0.03.")
    for sigma in sigmas:
        if not 0 <= sigma < float("inf"):  # NaN fails the comparison as well
            raise UserError(
                f"sigma = {sigma} is not a standard deviation of noise on z. Give numbers of at "
                "least 0, such as 0.01, 0.03, 0.1."
            )
