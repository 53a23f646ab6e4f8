"""Diversity: how far images move with z, and how far apart unrelated images are.

E ||G(z) - G(z + eps)||, eps ~ N(0, sigma^2), over sigma: zCR's generator term maximises its mean
square (Zhao et al. 2021, arXiv:2002.04724, L_gen), which is given as well, with lambda_gen = 1. The
mean distance of pairs of generated images, next to that of real ones, tells whether G uses this
freedom to cover more: in pixels, and in an extractor's features. eps is Gaussian whatever the
prior, as in zCR, so a large sigma leaves the range of a uniform one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crgan_cli.data.images import to_uint8
from crgan_cli.evaluation.artefacts.estimates import Curve, MeanEstimate, estimate, ratio
from crgan_cli.evaluation.artefacts.inputs import (
    SIGMAS,
    FeatureMap,
    MeasureOptions,
    ProgressCounter,
    TrainedModel,
    batch_ranges,
    choose_images,
    feature_maps,
    perturbed_samplers,
    require_count,
    require_sigmas,
)
from crgan_cli.evaluation.metrics.features import Side
from crgan_cli.evaluation.sampler import Latents, Sampler, eval_mode, sample_latents

TWO_PAIRS = 4
"""The fewest images: the mean of two distances has a standard error."""


@dataclass(frozen=True)
class PairDistances:
    """Mean distances of disjoint pairs of images, in one space."""

    generated: MeanEstimate
    real: MeanEstimate

    @property
    def ratio(self) -> MeanEstimate | None:
        """Below 1, generated images are more alike than real ones. None if all real ones are
        equal."""
        return ratio(self.generated, self.real) if self.real.mean > 0 else None


@dataclass(frozen=True)
class Diversity:
    """How far images move with z, and how far apart they are."""

    l2: Curve  # E ||G(z) - G(z + eps)|| over sigma, pixels in [-1, 1]
    mean_square: Curve  # E of the mean over pixels of (G(z) - G(z + eps))^2
    spreads: dict[str, PairDistances]  # "pixels": root mean square; "features": Euclidean
    values: int  # numbers in an image, C * H * W
    options: MeasureOptions

    @property
    def rms(self) -> Curve:
        """The l2 distance per value of an image, on the scale of [-1, 1]."""
        return self.l2.scaled(self.values**-0.5)

    def as_json(self) -> dict[str, object]:
        """Plain numbers."""
        curves = {"l2": self.l2, "rms": self.rms, "mean_square": self.mean_square}
        return {
            "sigma": list(self.l2.at),
            **{name: curve.means for name, curve in curves.items()},
            **{f"{name}_se": curve.ses for name, curve in curves.items()},
            "pairs": {
                space: {
                    "generated": list(spread.generated),
                    "real": list(spread.real),
                    "ratio": spread.ratio and list(spread.ratio),
                }
                for space, spread in self.spreads.items()
            },
            "pairs_are": "[mean, standard error]",
            "extractor": self.options.describe_extractor(),
            **self.options.as_json(),
        }


def measure_diversity(
    model: TrainedModel, options: MeasureOptions, *, sigmas: Sequence[float] = SIGMAS
) -> Diversity:
    """Compare n generated and n held-out images: n // 2 pairs each, n >= 4.

    G is in eval mode. Pairs are compared after rounding to uint8, G(z) and G(z + eps) before. eps
    has the same direction for all sigmas. Two generators with the same prior and seed get the same
    z and eps.
    """
    n, seed, batch_size = options.n, options.seed, options.batch_size
    require_count(n, batch_size, least=TWO_PAIRS)
    require_sigmas(sigmas)
    latents = sample_latents(model.prior, n, seed)
    real = choose_images(model.held_out, n, seed, "real").x
    maps = feature_maps(options.extractor)
    counter = ProgressCounter(options.progress, n * (len(sigmas) + 2 * len(maps)))
    sampler = Sampler(latents, model.device)

    def draw_fake(start: int, count: int) -> Tensor:
        return to_uint8(sampler.draw(model.G, start, count))

    def draw_real(start: int, count: int) -> Tensor:
        return real[start : start + count].to(model.device)

    sources: list[tuple[Callable[[int, int], Tensor], Side]] = [
        (draw_fake, "generated"),
        (draw_real, "real"),
    ]
    with eval_mode(model.G):
        moves = measure_moves(model, latents, sigmas, options, counter)
        spreads = {
            space: PairDistances(
                *(
                    estimate(pair_distances(draw, which, features, n, batch_size, counter))
                    for draw, which in sources
                )
            )
            for space, features in maps.items()
        }
    values = real[0].numel()
    return Diversity(
        Curve(tuple(sigmas), tuple(estimate(each) for each in moves)),
        Curve(tuple(sigmas), tuple(estimate(each.square() / values) for each in moves)),
        spreads,
        values,
        options,
    )


def measure_moves(
    model: TrainedModel,
    latents: Latents,
    sigmas: Sequence[float],
    options: MeasureOptions,
    counter: ProgressCounter,
) -> list[Tensor]:
    """||G(z) - G(z + eps)|| per image, (n,) float64, for each sigma."""
    here = Sampler(latents, model.device)
    there = perturbed_samplers(latents, sigmas, options.seed, model.device)
    moves: list[list[Tensor]] = [[] for _ in sigmas]
    for start, count in batch_ranges(options.n, options.batch_size):
        images = here.draw(model.G, start, count)
        for parts, sampler in zip(moves, there, strict=True):
            difference = (sampler.draw(model.G, start, count) - images).flatten(1)
            parts.append(difference.double().norm(dim=1).cpu())
            counter.add(count)
    return [torch.cat(parts) for parts in moves]


def pair_distances(
    draw: Callable[[int, int], Tensor],
    which: Side,
    features: FeatureMap,
    n: int,
    batch_size: int,
    counter: ProgressCounter,
) -> Tensor:
    """(n // 2,) float64: of images 0 and 1, 2 and 3, and so on. Independent, as the images are."""
    distances = []
    even = max(batch_size // 2 * 2, 2)  # no batch ends within a pair
    for start, count in batch_ranges(n - n % 2, even):
        rows = features(draw(start, count), which).double()
        distances.append((rows[0::2] - rows[1::2]).norm(dim=1).cpu())
        counter.add(count)
    counter.add(n % 2)
    return torch.cat(distances)
