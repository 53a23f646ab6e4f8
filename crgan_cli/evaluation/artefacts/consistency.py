"""Consistency curves: how far D's logit moves with the strength of a change to an image or to z.

E (D(x) - D(T_s(x)))^2 over the strength s of T, for training, held-out and generated images. CR
(Zhang et al. 2020, arXiv:1910.12027) minimises it for the first, bCR (Zhao et al. 2021,
arXiv:2002.04724) for the first and the last. E (D(G(z)) - D(G(z + eps)))^2, eps ~ N(0, sigma^2),
over sigma: zCR (same paper) minimises it in D. Any D can be measured, however it was trained.

D's scale is free, so gaps are also given relative to 2 Var D(x) over training images, the mean
squared gap between two unrelated ones. At 1, D takes T(x) for another image.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from crgan_cli.data.images import Images, to_float
from crgan_cli.errors import RunFailed, UserError
from crgan_cli.evaluation.artefacts.estimates import Curve, estimate
from crgan_cli.evaluation.artefacts.inputs import (
    SIGMAS,
    MeasureOptions,
    ProgressCounter,
    TrainedModel,
    batch_ranges,
    choose_images,
    perturbed_samplers,
    require_count,
    require_sigmas,
    seeded_generator,
)
from crgan_cli.evaluation.sampler import Sampler, eval_mode, sample_latents
from crgan_cli.gan.augment import Augment, Cutout, FlipShift, GaussianNoise
from crgan_cli.gan.scoring import as_verdict, mixes_samples
from crgan_cli.gan.tasks.generation import Prior
from crgan_cli.gan.types import Batch
from crgan_cli.gan.warp import Rotation

NOISES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
DEGREES = (2.0, 5.0, 10.0, 20.0, 45.0)

Draw = Callable[[int, int], Batch]  # (start, count) -> images start .. start + count
View = Callable[[int, Batch], Batch]  # (start, those images) -> the same images, changed
Views = Mapping[tuple[str, float], View]  # by (family, strength)


def strengths_for(side: int) -> dict[str, tuple[float, ...]]:
    """Family -> growing strengths that make sense for images of `side` pixels."""
    sixteenths = {"cutout": (1, 2, 4, 6, 8, 12, 16), "shift": (0.5, 1, 2, 3, 4, 6)}
    pixels = {
        family: tuple(sorted({float(max(1, round(part * side / 16))) for part in parts}))
        for family, parts in sixteenths.items()
    }
    return pixels | {"noise": NOISES, "rotation": DEGREES}


def build_transform(family: str, strength: float, side: int) -> Augment:
    """T_s. Strength 0 changes no image. Raise UserError for an unknown or impossible T."""
    most = {"cutout": side, "shift": side - 1, "noise": float("inf"), "rotation": 180}.get(family)
    if most is None:
        raise UserError(
            f"There is no transform '{family}' to vary. Choose cutout, shift, noise or rotation."
        )
    if not 0 <= strength <= most or strength == float("inf"):
        allowed = "of at least 0" if family == "noise" else f"from 0 to {most}"
        raise UserError(
            f"{family} on images of {side} pixels cannot have the strength {strength}. Give "
            f"numbers {allowed}."
        )
    if family == "noise":
        return GaussianNoise(strength)
    if family == "rotation":
        return Rotation(strength)
    if strength != int(strength):
        raise UserError(f"A strength of {strength} for {family} is not a whole number of pixels.")
    if family == "cutout":
        return Cutout(int(strength))
    return FlipShift(int(strength), flip=0.0, padding="reflect")


class LogitGaps(NamedTuple):
    """D's logits of n images, and how far each moved in each view."""

    plain: Tensor  # (n,) float64
    gaps: dict[tuple[str, float], Tensor]  # (family, strength) -> (n,) squared differences


@dataclass(frozen=True)
class Consistency:
    """The curves of one D, with the settings that matter when comparing with another D."""

    curves: dict[str, dict[str, Curve]]  # family -> "train", "held_out", "fake" -> raw gaps
    logits: dict[str, Tensor]  # source -> (n,) float64, of the unchanged images
    mixes_samples: bool  # whether D's score of an image depends on its batch
    options: MeasureOptions

    @property
    def unit(self) -> float | None:
        """1 / (2 Var D(x)) over training images. None if D gives all of them the same score."""
        variance = float(self.logits["train"].var())
        return 1 / (2 * variance) if variance > 0 else None

    def as_json(self) -> dict[str, object]:
        """Plain numbers. `relative` is null if D gives all training images the same score."""
        return {
            "curves": {
                family: {source: self._row(curve) for source, curve in sources.items()}
                for family, sources in self.curves.items()
            },
            "scores": {
                source: {
                    "mean": estimate(logits).mean,
                    "mean_se": estimate(logits).se,
                    "variance": float(logits.var()),
                }
                for source, logits in self.logits.items()
            },
            "relative_to": "2 * variance of D over training images",
            "d_mixes_samples": self.mixes_samples,
            **self.options.as_json(),
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
    model: TrainedModel,
    options: MeasureOptions,
    *,
    strengths: Mapping[str, Sequence[float]] | None = None,
    sigmas: Sequence[float] = SIGMAS,
) -> Consistency:
    """The curves of D over n images of each kind. Without `strengths`, those of `strengths_for`.

    G and D are in eval mode: spectral norm does not advance, and batch norm uses its running
    statistics. Every view is a call of its own on the same images, so that also a D that mixes the
    images of a batch compares like with like; its curves then depend on the batch size. The random
    numbers of T are common to all strengths, kinds of images, and networks with the same seed and
    batch size. This makes curves smoother, and their differences more certain.
    """
    n, seed = options.n, options.seed
    require_count(n, options.batch_size)
    require_sigmas(sigmas)
    side = min(model.train.x.shape[2:])
    wanted = strengths_for(side) if strengths is None else strengths
    views = transform_views(wanted, side, seed)
    latents = sample_latents(model.prior, n, seed)
    near: Views = {
        ("latent", sigma): latent_view(model.G, sampler)
        for sigma, sampler in zip(
            sigmas, perturbed_samplers(latents, sigmas, seed, model.device), strict=True
        )
    }
    train = choose_images(model.train, n, seed, "training")
    held_out = choose_images(model.held_out, n, seed, "held-out")
    fakes = Sampler(latents, model.device)
    sources: dict[str, tuple[Draw, Views]] = {
        "train": (stored_batches(train, model.prior), views),
        "held_out": (stored_batches(held_out, model.prior), views),
        "fake": (partial(draw_batch, model.G, fakes), {**views, **near}),
    }
    counter = ProgressCounter(options.progress, 3 * n)
    with eval_mode(model.G, model.D):
        gaps = {
            source: measure_gaps(model, draw, moves, options, counter)
            for source, (draw, moves) in sources.items()
        }
    families = {**wanted, "latent": sigmas}
    return Consistency(
        {family: build_curves(family, tuple(at), gaps) for family, at in families.items()},
        {source: each.plain for source, each in gaps.items()},
        mixes_samples(model.D),
        options,
    )


def transform_views(strengths: Mapping[str, Sequence[float]], side: int, seed: int) -> Views:
    """A view per family and strength, all with the same random numbers at the same images."""
    for family, each in strengths.items():
        if not each:
            raise UserError(
                f"No strength was given for {family}. Give at least one, or leave {family} out."
            )

    def view(T: Augment) -> View:
        def apply(start: int, batch: Batch) -> Batch:
            # T draws from the CPU's default generator, which `eval_mode` restores
            generator = seeded_generator(seed, f"T from {start}")
            torch.default_generator.manual_seed(generator.initial_seed())
            return T(batch)

        return apply

    return {
        (family, strength): view(build_transform(family, strength, side))
        for family, each in strengths.items()
        for strength in each
    }


def latent_view(G: nn.Module, sampler: Sampler) -> View:
    """The images of other latents in place of the batch."""
    return lambda start, batch: draw_batch(G, sampler, start, len(batch.x))


def stored_batches(images: Images, prior: Prior) -> Draw:
    """Batches of real images, with labels if the networks take any."""

    def draw(start: int, count: int) -> Batch:
        x, y = (part[start : start + count] for part in images)
        return Batch(to_float(x), y if prior.classes else None)

    return draw


def draw_batch(G: nn.Module, sampler: Sampler, start: int, count: int) -> Batch:
    """Generated images with their labels, on the CPU, where T draws its random numbers."""
    y = sampler.latents.y
    x = sampler.draw(G, start, count).cpu()
    return Batch(x, None if y is None else y[start : start + count])


def compute_logits(D: nn.Module, batch: Batch, device: torch.device) -> Tensor:
    """(N,) float64, on the CPU. Raise RunFailed if one is not finite."""
    y = None if batch.y is None else batch.y.to(device)
    logits = as_verdict(D(batch.x.to(device), y)).logits.double().cpu()
    if broken := int((~logits.isfinite()).sum()):
        raise RunFailed(
            f"The discriminator's scores are not finite numbers for {broken} of {len(logits)} "
            "images, so there is nothing to measure. Give an earlier checkpoint."
        )
    return logits


def measure_gaps(
    model: TrainedModel, draw: Draw, views: Views, options: MeasureOptions, counter: ProgressCounter
) -> LogitGaps:
    """D's logits of n images, and of the same images in every view."""
    plain: list[Tensor] = []
    gaps: dict[tuple[str, float], list[Tensor]] = {key: [] for key in views}
    for start, count in batch_ranges(options.n, options.batch_size):
        batch = draw(start, count)
        before = compute_logits(model.D, batch, model.device)
        plain.append(before)
        for key, view in views.items():
            after = compute_logits(model.D, view(start, batch), model.device)
            gaps[key].append((after - before).square())
        counter.add(count)
    return LogitGaps(torch.cat(plain), {key: torch.cat(parts) for key, parts in gaps.items()})


def build_curves(
    family: str, at: tuple[float, ...], gaps: Mapping[str, LogitGaps]
) -> dict[str, Curve]:
    """The curves of a family, per kind of image that it changes."""
    return {
        source: Curve(at, tuple(estimate(each.gaps[family, strength]) for strength in at))
        for source, each in gaps.items()
        if (family, at[0]) in each.gaps
    }
