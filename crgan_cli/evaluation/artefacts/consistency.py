"""Consistency curves: how far D's score moves as an image, or its code, is moved further.

E (D(x) - D(T_s(x)))^2 over the strength s of T, for training, held-out and generated images: what
CR (Zhang et al. 2020, arXiv:1910.12027) asks of the first, and bCR (Zhao et al. 2021,
arXiv:2002.04724) of the first and the last. E (D(G(z)) - D(G(z + eps)))^2, eps ~ N(0, sigma^2),
over sigma: what zCR (same paper) asks of D. Any D can be measured, whatever it was trained with.

The scale of D is free, so the gaps are also given relative to 2 Var D(x) over training images, the
mean squared gap between two unrelated ones: 1 means that D takes T(x) for another image.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from crgan_cli.data.images import Images, to_float
from crgan_cli.errors import UserError
from crgan_cli.evaluation.artefacts.estimates import (
    Curve,
    Estimate,
    draw_indices,
    estimate,
    require_count,
    require_sigmas,
    stream,
)
from crgan_cli.evaluation.metrics.features import Progress
from crgan_cli.evaluation.sampler import Latents, Sampler, eval_mode, sample_latents
from crgan_cli.gan.augment import Augment, Cutout, FlipShift, GaussianNoise
from crgan_cli.gan.scoring import at_least_fp32, mixes_samples
from crgan_cli.gan.tasks.generation import Prior
from crgan_cli.gan.types import Batch
from crgan_cli.report import plots

SIGMAS = (0.01, 0.03, 0.1, 0.2, 0.5, 1.0)
NOISES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
UNITS = {
    "cutout": "side of the hidden square (pixels)",
    "shift": "largest shift (pixels)",
    "noise": "standard deviation of the noise (pixels in [-1, 1])",
    "latent": "standard deviation of the noise on z",
}
SOURCES = {
    "train": ("training images", plots.BLUE),
    "held_out": ("held-out images", plots.ORANGE),
    "fake": ("generated images", plots.GREEN),
}

Draw = Callable[[int, int], Batch]  # (start, n) -> images start .. start + n
View = Callable[[int, Batch], Batch]  # (start, those images) -> the same images, moved
Scale = Callable[[ArrayLike], ArrayLike]


def strengths_for(side: int) -> dict[str, tuple[float, ...]]:
    """Family -> growing strengths that make sense for images of `side` pixels."""
    sixteenths = {"cutout": (1, 2, 4, 6, 8, 12, 16), "shift": (0.5, 1, 2, 3, 4, 6)}
    pixels = {
        family: tuple(sorted({float(max(1, round(part * side / 16))) for part in parts}))
        for family, parts in sixteenths.items()
    }
    return pixels | {"noise": NOISES}


def transform(family: str, strength: float, side: int) -> Augment:
    """T_s. Strength 0 leaves every image as it is. Raises UserError for what T cannot do."""
    if family not in ("cutout", "shift", "noise"):
        raise UserError(f"There is no transform '{family}' to vary: choose cutout, shift or noise.")
    most = {"cutout": side, "shift": side - 1, "noise": float("inf")}[family]
    if not 0 <= strength <= most or strength == float("inf"):
        raise UserError(
            f"A strength of {strength} is none that {family} has on images of {side} pixels: give "
            + (f"numbers from 0 to {most}." if family != "noise" else "numbers of at least 0.")
        )
    if family == "noise":
        return GaussianNoise(strength)
    if strength != int(strength):
        raise UserError(f"A strength of {strength} for {family} is not a whole number of pixels.")
    if family == "cutout":
        return Cutout(int(strength))
    return FlipShift(int(strength), flip=0.0, padding="reflect")


class Scores(NamedTuple):
    """D's logits of one kind of image."""

    mean: Estimate
    variance: float


class LogitGaps(NamedTuple):
    """D's logits of n images and how far each moved with each view."""

    plain: Tensor  # (n,) float64
    gaps: dict[tuple[str, float], Tensor]  # (family, strength) -> (n,) squared differences


@dataclass(frozen=True)
class Consistency:
    """The curves of one D, with what one needs to know to compare them with another's."""

    curves: dict[str, dict[str, Curve]]  # family -> "train", "held_out", "fake" -> raw gaps
    scores: dict[str, Scores]  # of the images as they are
    mixes_samples: bool  # whether D's score of an image depends on the batch around it
    n: int
    seed: int
    batch_size: int

    @property
    def unit(self) -> float | None:
        """1 / (2 Var D(x)) over training images; None for a D that gives all the same score."""
        variance = self.scores["train"].variance
        return 1 / (2 * variance) if variance > 0 else None

    def as_json(self) -> dict[str, object]:
        """Plain numbers; `relative` is null where D gives all training images the same score."""
        return {
            "curves": {
                family: {source: self._row(curve) for source, curve in sources.items()}
                for family, sources in self.curves.items()
            },
            "scores": {
                source: {"mean": each.mean.mean, "mean_se": each.mean.se, "variance": each.variance}
                for source, each in self.scores.items()
            },
            "relative_to": "2 * variance of D over training images",
            "d_mixes_samples": self.mixes_samples,
            "n": self.n,
            "seed": self.seed,
            "batch_size": self.batch_size,
        }

    def _row(self, curve: Curve) -> dict[str, list[float] | None]:
        relative = None if self.unit is None else curve.scaled(self.unit)
        return {
            "strength": list(curve.at),
            "gap": curve.means,
            "gap_se": curve.ses,
            "relative": relative and relative.means,
            "relative_se": relative and relative.ses,
        }


def measure_consistency(
    G: nn.Module,
    D: nn.Module,
    prior: Prior,
    train: Images,
    held_out: Images,
    *,
    n: int,
    seed: int,
    device: torch.device,
    batch_size: int = 100,
    strengths: Mapping[str, Sequence[float]] | None = None,
    sigmas: Sequence[float] = SIGMAS,
    progress: Progress | None = None,
) -> Consistency:
    """The curves of D over n images of each kind; strengths are those of `strengths_for` if None.

    G and D are on `device`, and are used in eval mode: spectral norm stands still, and batch norm
    takes its running statistics. Every view is a call of its own on the same images, so that a D
    that mixes the images of a batch compares like with like; its curves depend on `batch_size`.
    The draws of T are common to all strengths, kinds of images and networks with the same seed and
    batch size: curves are smoother for it, and differences between them more certain.
    """
    require_count(n, batch_size)
    require_sigmas(sigmas)
    side = train.x.shape[-1]
    wanted = strengths_for(side) if strengths is None else strengths
    views = augmented(wanted, side, seed)
    codes = sample_latents(prior, n, seed)
    fakes, near = Sampler(codes, device), around(G, codes, sigmas, seed, device)
    draws: dict[str, tuple[Draw, dict[tuple[str, float], View]]] = {
        "train": (stored_batches(draw_indices(train, n, seed, "training"), prior), views),
        "held_out": (stored_batches(draw_indices(held_out, n, seed, "held-out"), prior), views),
        "fake": (lambda start, count: draw_batches(G, fakes, start, count), views | near),
    }
    scored: dict[str, LogitGaps] = {}
    with eval_mode(G, D):
        for i, (source, (draw, moves)) in enumerate(draws.items()):
            tell = progress and scaled_progress(progress, i * n, 3 * n)
            scored[source] = follow_strengths(D, draw, moves, n, batch_size, device, tell)
    families = {**wanted, "latent": sigmas}
    return Consistency(
        {family: curves_of(family, tuple(at), scored) for family, at in families.items()},
        {
            source: Scores(estimate(each.plain), float(each.plain.var()))
            for source, each in scored.items()
        },
        mixes_samples(D),
        n,
        seed,
        batch_size,
    )


def scaled_progress(progress: Progress, before: int, total: int) -> Callable[[int], None]:
    """Progress of one part of a whole."""
    return lambda done: progress(before + done, total)


def augmented(
    strengths: Mapping[str, Sequence[float]], side: int, seed: int
) -> dict[tuple[str, float], View]:
    """A view for every family and strength, with the same draws for all at the same images."""
    for family, each in strengths.items():
        if not each:
            raise UserError(
                f"No strength was given for {family}: name at least one, or leave it out."
            )

    def view(T: Augment) -> View:
        def moved(start: int, batch: Batch) -> Batch:
            # T draws from the CPU's default generator, which `eval_mode` puts back
            torch.default_generator.manual_seed(stream(seed, f"T from {start}").initial_seed())
            return T(batch)

        return moved

    return {
        (family, strength): view(transform(family, strength, side))
        for family, each in strengths.items()
        for strength in each
    }


def around(
    G: nn.Module, codes: Latents, sigmas: Sequence[float], seed: int, device: torch.device
) -> dict[tuple[str, float], View]:
    """A view for every sigma: G's images of codes that are moved, all in the same direction."""
    eps = torch.randn(codes.z.shape, generator=stream(seed, "eps"))

    def view(sigma: float) -> View:
        sampler = Sampler(codes._replace(z=codes.z + sigma * eps), device)
        return lambda start, batch: draw_batches(G, sampler, start, len(batch.x))

    return {("latent", sigma): view(sigma) for sigma in sigmas}


def stored_batches(images: Images, prior: Prior) -> Draw:
    """Real images, with their labels where the players take any."""

    def draw(start: int, count: int) -> Batch:
        x, y = (part[start : start + count] for part in images)
        return Batch(to_float(x), y if prior.classes else None)

    return draw


def draw_batches(G: nn.Module, sampler: Sampler, start: int, count: int) -> Batch:
    """Generated images with the labels they were made for, on the CPU, where T draws."""
    y = sampler.latents.y
    x = sampler.draw(G, start, count).cpu()
    return Batch(x, None if y is None else y[start : start + count])


def logits(D: nn.Module, batch: Batch, device: torch.device) -> Tensor:
    """(N,) float64, on the CPU."""
    y = None if batch.y is None else batch.y.to(device)
    return at_least_fp32(D(batch.x.to(device), y)).double().cpu()


def follow_strengths(
    D: nn.Module,
    draw: Draw,
    views: Mapping[tuple[str, float], View],
    n: int,
    batch_size: int,
    device: torch.device,
    tell: Callable[[int], None] | None,
) -> LogitGaps:
    """D's scores of n images, and of the same images in every view."""
    plain: list[Tensor] = []
    gaps: dict[tuple[str, float], list[Tensor]] = {key: [] for key in views}
    for start in range(0, n, batch_size):
        batch = draw(start, min(batch_size, n - start))
        before = logits(D, batch, device)
        plain.append(before)
        for key, view in views.items():
            gaps[key].append((logits(D, view(start, batch), device) - before).square())
        if tell:
            tell(start + len(before))
    return LogitGaps(torch.cat(plain), {key: torch.cat(parts) for key, parts in gaps.items()})


def curves_of(
    family: str, at: tuple[float, ...], scored: Mapping[str, LogitGaps]
) -> dict[str, Curve]:
    """The curves of a family, for every kind of image that it moves."""
    return {
        source: Curve(at, tuple(estimate(each.gaps[family, strength]) for strength in at))
        for source, each in scored.items()
        if (family, at[0]) in each.gaps
    }


def plot_consistency(result: Consistency, path: Path) -> None:
    """One panel a family: relative gaps with two standard errors, raw ones on the right axis."""
    note = "; D mixes the images of a batch" if result.mixes_samples else ""
    title = f"How far D moves, {result.n} images of each kind (bands: 2 standard errors){note}"
    figure, axes = plots.make_panels(len(result.curves), title)
    unit = result.unit
    for each, (family, sources) in zip(axes, result.curves.items(), strict=True):
        each.set_xlabel(UNITS[family])
        each.set_xscale("log" if family in ("noise", "latent") else "linear")
        plots.set_log_y_if_positive(each, [curve.means for curve in sources.values()])
        for source, curve in sources.items():
            label, colour = SOURCES[source]
            scaled = curve.scaled(unit or 1.0)
            plots.draw_curve(each, scaled.at, scaled.means, scaled.ses, colour=colour, label=label)
        each.set_title(family, fontsize=10)
        if unit is not None:
            raw = each.secondary_yaxis("right", functions=scales(unit))
            raw.tick_params(labelsize=7)
    relative = "E (D(x) - D(T(x)))² / (2 Var D(x))\n(right axes: without the variance, logits²)"
    axes[0].set_ylabel(relative if unit else "E (D(x) - D(T(x)))² (logits²)")
    axes[0].legend(fontsize=8)
    plots.save_figure(figure, path)


def scales(unit: float) -> tuple[Scale, Scale]:
    """From relative gaps to raw ones and back, for an axis."""
    return (lambda relative: np.asarray(relative) / unit), (lambda raw: np.asarray(raw) * unit)
