"""The plots of the measurements, and pictures of the closest pairs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from crgan_cli.data.images import to_float
from crgan_cli.evaluation.artefacts.consistency import Consistency
from crgan_cli.evaluation.artefacts.diversity import Diversity
from crgan_cli.evaluation.artefacts.leakage import Leakage
from crgan_cli.evaluation.artefacts.memorisation import Memorisation
from crgan_cli.evaluation.pictures import save_picture
from crgan_cli.evaluation.sampler import make_grid
from crgan_cli.report import plots
from crgan_cli.system.numbers import format_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STRENGTH_LABELS = {
    "cutout": "side of the hidden square (pixels)",
    "shift": "largest shift (pixels)",
    "noise": "standard deviation of the noise (pixels in [-1, 1])",
    "rotation": "largest angle (degrees)",
    "latent": "standard deviation of the noise on z",
}
DISTANCE_LABELS = {"pixels": "RMS of pixels in [-1, 1]", "features": "Euclidean, in features"}
SOURCES = {
    "train": ("training images", plots.BLUE),
    "held_out": ("held-out images", plots.ORANGE),
    "fake": ("generated images", plots.GREEN),
}

Scale = Callable[[ArrayLike], ArrayLike]


def plot_consistency(result: Consistency, path: Path) -> None:
    """One panel per family: relative gaps with two standard errors, raw gaps on the right axis."""
    note = "; D mixes the images of a batch" if result.mixes_samples else ""
    n = result.options.n
    title = f"How far D moves, {n} images of each kind (bands: 2 standard errors){note}"
    figure, panels = plots.make_panels(len(result.curves), title)
    unit = result.unit
    for axes, (family, sources) in zip(panels, result.curves.items(), strict=True):
        axes.set_xlabel(STRENGTH_LABELS[family])
        axes.set_xscale("log" if family in ("noise", "latent") else "linear")
        plots.set_log_y_if_positive(axes, [curve.means for curve in sources.values()])
        for source, curve in sources.items():
            label, colour = SOURCES[source]
            scaled = curve.scaled(unit or 1.0)
            plots.draw_curve(axes, scaled.at, scaled.means, scaled.ses, colour=colour, label=label)
        axes.set_title(family, fontsize=10)
        if unit is not None:
            raw = axes.secondary_yaxis("right", functions=axis_scales(unit))
            raw.tick_params(labelsize=7)
    relative = "E (D(x) - D(T(x)))² / (2 Var D(x))\n(right axes: without the variance, logits²)"
    panels[0].set_ylabel(relative if unit else "E (D(x) - D(T(x)))² (logits²)")
    panels[0].legend(fontsize=8)
    plots.save_figure(figure, path)


def axis_scales(unit: float) -> tuple[Scale, Scale]:
    """From relative gaps to raw ones and back, for an axis."""
    return (lambda relative: np.asarray(relative) / unit), (lambda raw: np.asarray(raw) * unit)


def plot_diversity(result: Diversity, path: Path) -> None:
    """How far images move over sigma, and how far apart pairs are, relative to real ones."""
    title = f"Diversity, {result.options.n} images (bands and bars: 2 standard errors)"
    figure, (left, right) = plots.make_panels(2, title)
    left.set_xscale("log")
    rms = result.rms
    plots.set_log_y_if_positive(left, [rms.means])
    plots.draw_curve(
        left, rms.at, rms.means, rms.ses, colour=plots.GREEN, label="G(z) and G(z + ε)"
    )
    pixels = result.spreads["pixels"]
    for estimate, colour, dashes, label in (
        (pixels.generated, plots.GREEN, "--", "two generated images"),
        (pixels.real, plots.BLUE, ":", "two real images"),
    ):
        left.axhline(estimate.mean, color=colour, linestyle=dashes, label=label)
    left.set_xlabel("σ, standard deviation of the noise ε on z")
    left.set_ylabel("mean distance\n(RMS per value, pixels in [-1, 1])")
    left.legend(fontsize=8)
    for place, spread in enumerate(result.spreads.values()):
        if spread.ratio is not None:
            mean, se = spread.ratio
            right.errorbar(place, mean, 2 * se, color=plots.GREEN, marker="^", capsize=5)
            right.annotate(f"  {format_number(mean, 3)}", (place, mean), fontsize=8, va="center")
    right.axhline(1.0, color=plots.BLUE, linestyle=":", label="as far apart as real images")
    right.set_xticks(range(len(result.spreads)), list(result.spreads))
    right.set_xlim(-0.5, len(result.spreads) - 0.5)
    right.set_ylabel("mean distance of pairs,\ngenerated relative to real (ratio)")
    right.set_ylim(bottom=0)
    right.legend(fontsize=8, loc="lower center")
    plots.save_figure(figure, path)


def plot_leakage(results: Sequence[Leakage], path: Path) -> None:
    """Per T: the share of generated images with its interval, next to floor and ceiling."""
    counts = sorted({each.generated.n for each in results if each.generated})
    seeds = sorted({each.seed for each in results})
    n, seed = (", ".join(map(str, numbers)) or "0" for numbers in (counts, seeds))
    title = f"Augmentation leakage: n = {n} generated images, seed {seed}"
    figure, (axes,) = plots.make_panels(1, title, size=(7.5, 1.6 + 0.8 * len(results)))
    for row, result in enumerate(results):
        draw_leakage_row(axes, result, row)
    axes.set_yticks(range(len(results)), [result.name for result in results])
    axes.set_ylim(len(results) - 0.5, -0.5)
    axes.set_xlim(-3, 103)
    axes.set_xlabel("images that look augmented, with 95 % interval (% of images)")
    axes.set_ylabel("T looked for")
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    if once:  # empty if nothing could be measured
        figure.legend(once.values(), once.keys(), loc="outside lower center", ncols=4, fontsize=8)
    plots.save_figure(figure, path)


def draw_leakage_row(axes: "Axes", result: Leakage, row: int) -> None:
    """The row of one T: dots with intervals, or the note that it is not measurable."""
    if result.reason:
        axes.text(50, row, f"not measurable (AUC {result.auc:.2f})", ha="center", va="center")
        return
    dots = (
        ("generated", result.generated, plots.BLUE),
        ("real, held out (floor)", result.floor, plots.GREY),
        ("real, distorted", result.distorted, plots.PURPLE),
        ("T(real) (ceiling)", result.ceiling, plots.ORANGE),
    )
    for i, (label, share, colour) in enumerate(dots):
        if share is None:
            continue
        x, y = 100 * share.clipped, row + 0.18 * (i - 1.5)
        # the interval rests on shifted rates, so an estimate can lie just outside of it
        bars = [[max(x - 100 * share.low, 0.0)], [max(100 * share.high - x, 0.0)]]
        marker = plots.MARKERS.get(colour, "v")
        axes.errorbar(
            x, y, xerr=bars, color=colour, fmt=marker, markersize=5, capsize=3, label=label
        )


def plot_memorisation(result: Memorisation, path: Path) -> None:
    """One panel per space: the distribution functions of both samples, with 95 % bands."""
    title = f"Nearest of {result.train} training images (n = {result.options.n}, 95 % bands)"
    figure, panels = plots.make_panels(len(result.spaces), title)
    for axes, (space, near) in zip(panels, result.spaces.items(), strict=True):
        for distances, colour, label in (
            (near.held_out, plots.BLUE, "held-out images"),
            (near.generated, plots.GREEN, "generated images"),
        ):
            plots.draw_distribution(axes, distances.tolist(), colour=colour, label=label)
        axes.axvline(
            near.threshold, color=plots.GREY, linestyle=":", label="1 % of held-out images"
        )
        p, low, high = near.auc
        axes.set_title(f"P(generated nearer) = {p:.3f} [{low:.3f}, {high:.3f}]", fontsize=9)
        axes.set_xlabel(f"distance ({DISTANCE_LABELS[space]})")
        axes.legend(fontsize=8, loc="lower right")
    panels[0].set_ylabel("share of images that lie nearer")
    plots.save_figure(figure, path)


def save_pairs(result: Memorisation, space: str, path: Path) -> None:
    """The closest pairs, nearest first, four per row: generated | training image."""
    images = to_float(result.spaces[space].pairs).flatten(0, 1)
    save_picture(make_grid(images, min(8, len(images))), path)
