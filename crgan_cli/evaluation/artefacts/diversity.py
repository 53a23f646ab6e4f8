"""Diversity: how far images move with their codes, and how far apart unrelated images lie.

E ||G(z) - G(z + eps)||, eps ~ N(0, sigma^2), over sigma is what the generator's part of zCR pays
for (Zhao et al. 2021, arXiv:2002.04724, L_gen: its mean square is given as well, the term itself
with lambda_gen = 1). The mean distance of pairs of generated images, beside the same of real ones,
says whether G uses that freedom to cover more: in pixels, and in an extractor's features. Eps is
Gaussian whatever the prior, as in zCR, so a large sigma leads out of a uniform one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from crgan_cli.data.images import Images, to_float, to_uint8
from crgan_cli.evaluation.artefacts.estimates import (
    Curve,
    Estimate,
    draw_indices,
    estimate,
    ratio,
    require_count,
    require_sigmas,
    stream,
)
from crgan_cli.evaluation.metrics.extractors import Extractor
from crgan_cli.evaluation.metrics.features import Progress
from crgan_cli.evaluation.sampler import Latents, Sampler, eval_mode, sample_latents
from crgan_cli.gan.tasks.generation import Prior
from crgan_cli.report import plots

SIGMAS = (0.01, 0.03, 0.1, 0.2, 0.5, 1.0)

FeatureMap = Callable[
    [Tensor], Tensor
]  # (N, C, H, W) uint8 -> (N, dims), whose distances are compared


@dataclass(frozen=True)
class PairDistances:
    """Mean distances of pairs of images, all pairs disjoint, in one space."""

    generated: Estimate
    real: Estimate

    @property
    def ratio(self) -> Estimate | None:
        """Below 1: generated images are more alike than real ones. None where real ones are one."""
        return ratio(self.generated, self.real) if self.real.mean > 0 else None


@dataclass(frozen=True)
class Diversity:
    """What moving a code does, and how far apart images lie."""

    l2: Curve  # E ||G(z) - G(z + eps)|| over sigma, pixels in [-1, 1]
    mean_square: Curve  # E of the mean over pixels of (G(z) - G(z + eps))^2
    spreads: dict[str, PairDistances]  # "pixels": root mean square; "features": Euclidean
    values: int  # numbers in an image, C * H * W
    extractor: dict[str, object] | None
    n: int
    seed: int
    batch_size: int

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
            "extractor": self.extractor,
            "n": self.n,
            "seed": self.seed,
            "batch_size": self.batch_size,
        }


def measure_diversity(
    G: nn.Module,
    prior: Prior,
    real: Images,
    *,
    extractor: Extractor | None,
    n: int,
    seed: int,
    device: torch.device,
    batch_size: int = 100,
    sigmas: Sequence[float] = SIGMAS,
    progress: Progress | None = None,
) -> Diversity:
    """Over n generated and n real images, which make n // 2 pairs; n >= 4.

    G is on `device`, in eval mode meanwhile; the extractor computes where it is. Pairs are compared
    after rounding to uint8, codes that were moved before. The direction of eps is common to all
    sigmas, and so are the codes of any two generators with the same prior and seed.
    """
    require_count(n, batch_size, least=4)
    require_sigmas(sigmas)
    codes = sample_latents(prior, n, seed)
    chosen = draw_indices(real, n, seed, "real").x
    looks = spaces(extractor)
    total = n * (len(sigmas) + 2 * len(looks))
    done = 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(done, total)

    with eval_mode(G):
        moved = shifts(G, codes, sigmas, seed, device, batch_size, tell)
        sampler = Sampler(codes, device)
        spreads = {}
        for space, look in looks.items():
            generated = distances(
                lambda i, k: to_uint8(sampler.draw(G, i, k)), look, n, batch_size, tell
            )
            apart = distances(lambda i, k: chosen[i : i + k].to(device), look, n, batch_size, tell)
            spreads[space] = PairDistances(estimate(generated), estimate(apart))
    values = chosen[0].numel()
    return Diversity(
        Curve(tuple(sigmas), tuple(estimate(each) for each in moved)),
        Curve(tuple(sigmas), tuple(estimate(each.square() / values) for each in moved)),
        spreads,
        values,
        described(extractor),
        n,
        seed,
        batch_size,
    )


def spaces(extractor: Extractor | None) -> dict[str, FeatureMap]:
    """The spaces in which images are compared: pixels, and features if there is an extractor."""
    looks: dict[str, FeatureMap] = {"pixels": as_values}
    if extractor is not None:
        looks["features"] = lambda images: extractor(images).pool
    return looks


def as_values(images: Tensor) -> Tensor:
    """(N, C, H, W) uint8 -> (N, C * H * W), where distance is the root mean square in [-1, 1]."""
    flat = to_float(images).flatten(1)
    return flat / flat.shape[1] ** 0.5


def described(extractor: Extractor | None) -> dict[str, object] | None:
    """What a reader has to know to measure the same."""
    if extractor is None:
        return None
    return {
        "name": extractor.name,
        "sha256": extractor.sha256,
        "dims": extractor.dims,
        "resize": extractor.resize,
        "precision": extractor.precision,
    }


def shifts(
    G: nn.Module,
    codes: Latents,
    sigmas: Sequence[float],
    seed: int,
    device: torch.device,
    batch_size: int,
    tell: Callable[[int], None],
) -> list[Tensor]:
    """||G(z) - G(z + eps)|| of every image, (n,) float64, for every sigma."""
    eps = torch.randn(codes.z.shape, generator=stream(seed, "eps"))
    here = Sampler(codes, device)
    there = [Sampler(codes._replace(z=codes.z + sigma * eps), device) for sigma in sigmas]
    moved: list[list[Tensor]] = [[] for _ in sigmas]
    n = len(codes.z)
    for start in range(0, n, batch_size):
        count = min(batch_size, n - start)
        images = here.draw(G, start, count)
        for parts, sampler in zip(moved, there, strict=True):
            difference = (sampler.draw(G, start, count) - images).flatten(1)
            parts.append(difference.double().norm(dim=1).cpu())
            tell(count)
    return [torch.cat(parts) for parts in moved]


def distances(
    draw: Callable[[int, int], Tensor],
    look: FeatureMap,
    n: int,
    batch_size: int,
    tell: Callable[[int], None],
) -> Tensor:
    """(n // 2,) float64: images 0 and 1, 2 and 3, and so on. Independent, as the images are."""
    apart = []
    even = max(batch_size // 2 * 2, 2)  # no pair is cut in two
    for start in range(0, n - n % 2, even):
        count = min(even, n - n % 2 - start)
        seen = look(draw(start, count)).double()
        apart.append((seen[0::2] - seen[1::2]).norm(dim=1).cpu())
        tell(count)
    tell(n % 2)
    return torch.cat(apart)


def plot_diversity(result: Diversity, path: Path) -> None:
    """How far images move over sigma, and how far apart pairs lie, relative to real ones."""
    title = f"Diversity, {result.n} images (bands and bars: 2 standard errors)"
    figure, (left, right) = plots.make_panels(2, title)
    left.set_xscale("log")
    rms = result.rms
    plots.set_log_y_if_positive(left, [rms.means])
    plots.draw_curve(
        left, rms.at, rms.means, rms.ses, colour=plots.GREEN, label="G(z) and G(z + ε)"
    )
    pixels = result.spreads["pixels"]
    for each, colour, dashes, label in (
        (pixels.generated, plots.GREEN, "--", "two generated images"),
        (pixels.real, plots.BLUE, ":", "two real images"),
    ):
        left.axhline(each.mean, color=colour, linestyle=dashes, label=label)
    left.set_xlabel("σ, standard deviation of the noise ε on z")
    left.set_ylabel("mean distance\n(RMS per value, pixels in [-1, 1])")
    left.legend(fontsize=8)
    for place, spread in enumerate(result.spreads.values()):
        if spread.ratio is not None:
            mean, se = spread.ratio
            right.errorbar(place, mean, 2 * se, color=plots.GREEN, marker="^", capsize=5)
            right.annotate(f"  {mean:.3f}", (place, mean), fontsize=8, va="center")
    right.axhline(1.0, color=plots.BLUE, linestyle=":", label="as far apart as real images")
    right.set_xticks(range(len(result.spreads)), list(result.spreads))
    right.set_xlim(-0.5, len(result.spreads) - 0.5)
    right.set_ylabel("mean distance of pairs,\ngenerated relative to real (ratio)")
    right.set_ylim(bottom=0)
    right.legend(fontsize=8, loc="lower center")
    plots.save_figure(figure, path)
