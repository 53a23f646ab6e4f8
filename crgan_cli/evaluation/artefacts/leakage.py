"""How much of T a generator has absorbed: the share of its images that look augmented.

Zhao et al. 2021, "Improved Consistency Regularization for GANs" (arXiv:2002.04724): where D calls
T(real) real, the generator learns to draw the traces of T, such as the holes of a strong cutout;
with the consistency term on generated images too it has no reason to. Here detectors that tell
T(x) from x count such images, and the count is corrected for their errors (Rogan & Gladen 1978).

The errors are measured on real images, so the correction holds for generated ones as far as the
detector looks at T alone. `distorted` shows how far: it is the reading on real images that were
blurred, warped, patched and so on, and it should be as low as the floor.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from crgan_cli.data.images import Images, fingerprint, format_shape, to_float
from crgan_cli.errors import UserError
from crgan_cli.evaluation.artefacts.detector import Detector, auc, distortions_for, fit, quantise
from crgan_cli.evaluation.artefacts.reader import CalibratedDetector, ErrorRates, Share, calibrate
from crgan_cli.evaluation.metrics.features import Progress, Stop
from crgan_cli.gan.augment import Augment, Chain, Cutout, FlipShift, GaussianNoise
from crgan_cli.report.plots import BLUE, GREY, MARKERS, ORANGE, PURPLE, make_panels, save_figure
from crgan_cli.system import cache

if TYPE_CHECKING:
    from matplotlib.axes import Axes

VERSION = 1  # of the detectors and of what they are trained on: a new number trains new ones
FEWEST = 100  # images behind any rate: their 95 % intervals are up to 20 points wide
MOST_HELD_OUT = 10_000  # more would narrow the intervals by less than a point
MIN_AUC = 0.8  # an AUC below which correcting for the detector's errors blows up every chance


class Leakage(NamedTuple):
    """How much of one T was found in generated images, and what the finding rests on."""

    name: str
    transform: dict[str, str | int | float]  # the class of T and its settings
    seed: int  # of the detectors
    auc: float  # on held-out images that were used for nothing else
    rates: ErrorRates
    by_detector: tuple[float, ...]  # raw shares of generated images: the spread of detectors
    generated: Share | None  # None where T cannot be told from real images
    floor: Share | None  # the same estimate on held-out real images
    distorted: Share | None  # on distorted ones: what unrealism alone comes to
    ceiling: Share | None  # on T(held-out)
    reason: str = ""  # why there is no share

    def as_json(self) -> dict[str, object]:
        """Plain values for the record."""
        read = {key: getattr(self, key) for key in ("generated", "floor", "distorted", "ceiling")}
        return {
            "transform": self.transform,
            "seed": self.seed,
            "auc": self.auc,
            **self.rates._asdict(),
            "by_detector": list(self.by_detector),
            **{key: each.as_json() if each else None for key, each in read.items()},
            "reason": self.reason,
        }


class LeakageEstimator(NamedTuple):
    """What reads leakage off generated images: built once for a T, for any number of runs."""

    reader: CalibratedDetector
    single: tuple[CalibratedDetector, ...]  # one a detector
    shape: tuple[int, ...]  # (C, H, W)
    blank: Leakage  # all but the generated images

    def read(self, fakes: Tensor) -> Leakage:
        """`fakes` (N, C, H, W) uint8. Raises UserError for too few, or of another shape."""
        require_fakes(fakes, self.shape)
        if self.blank.reason:
            return self.blank
        by_detector = tuple(each.read(fakes).raw for each in self.single)
        return self.blank._replace(generated=self.reader.read(fakes), by_detector=by_detector)


def fit_estimator(
    name: str,
    T: Augment,
    train: Tensor,
    held_out: Tensor,
    *,
    device: torch.device,
    seed: int,
    detectors: int = 3,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> LeakageEstimator:
    """Detectors of T trained on `train` and calibrated on half of `held_out`, both (N, C, H, W)
    uint8. The other half gives AUC, floor and ceiling. No random numbers of the caller are used up.

    Raises UserError for too few images, or a T that makes no sense for their size.
    """
    T.require(train.shape[2])
    require_real(train, held_out)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        torch.manual_seed(seed)
        real = held_out[torch.randperm(len(held_out))[:MOST_HELD_OUT]]
        calibration, rest = (to_float(half.to(device)) for half in real.tensor_split(2))
        trained = [
            load_or_fit(T, train, device, seed + i, progress=nth(i, detectors, progress), stop=stop)
            for i in range(detectors)
        ]
        torch.manual_seed(seed)  # whether or not detectors had to be trained
        known = (calibration, quantise(T.transform(calibration)))
        unused = (rest, quantise(T.transform(rest)), quantise(distortions_for(T)(rest)))
    reader = calibrate(trained, *known)
    single = tuple(calibrate([each], *known) for each in trained)
    blank = baseline(name, T, seed, reader, *unused)
    return LeakageEstimator(reader, single, tuple(train.shape[1:]), blank)


def load_or_fit(
    T: Augment,
    train: Tensor,
    device: torch.device,
    seed: int,
    *,
    progress: Progress | None,
    stop: Stop | None,
) -> Detector:
    """A detector of T in images like `train`: the cache's, or a new one that goes there.

    The cache knows T by its class and settings, and the images by their hash; it has none of a T
    from elsewhere, whose code may change. Draws from torch's default generators.
    """
    torch.manual_seed(seed)
    if type(T) not in (Cutout, FlipShift, GaussianNoise):
        return fit(T, train, device, progress=progress, stop=stop)
    about: dict[str, object] = {
        "version": VERSION,
        "images": fingerprint(Images(train, train.new_zeros(0))),
        "transform": settings(T),
        "seed": seed,
        "device": device.type,
    }
    place = cache.cache_path("detectors", type(T).__name__.lower(), cache.cache_key(about))
    found = cache.load_cached(place)
    if found is not None:
        detector = Detector(train.shape[1], train.shape[2]).to(device)
        detector.load_state_dict(found["weights"])
        if progress:
            progress(1, 1)
        return detector
    detector = fit(T, train, device, progress=progress, stop=stop)
    weights = {name: each.cpu() for name, each in detector.state_dict().items()}
    cache.save_cached(place, {"weights": weights})
    return detector


def baseline(
    name: str,
    T: Augment,
    seed: int,
    reader: CalibratedDetector,
    real: Tensor,
    augmented: Tensor,
    odd: Tensor,
) -> Leakage:
    """What a reader makes of held-out images: all of a Leakage but the generated ones."""
    reached = auc(reader.score(real), reader.score(augmented))
    nothing = Leakage(
        name, settings(T), seed, reached, reader.rates, (), None, None, None, None, ""
    )
    if reached < MIN_AUC:
        return nothing._replace(
            reason=f"not measurable: on held-out images the detector tells T(x) from x with an AUC "
            f"of {reached:.2f}, and below {MIN_AUC} a share would be chance"
        )
    floor, ceiling, distorted = (reader.read(each) for each in (real, augmented, odd))
    return nothing._replace(floor=floor, ceiling=ceiling, distorted=distorted)


def estimate_leakage(
    name: str,
    T: Augment,
    train: Tensor,
    held_out: Tensor,
    fakes: Tensor,
    *,
    device: torch.device,
    seed: int,
    progress: Progress | None = None,
) -> Leakage:
    """The share of `fakes` that look like T(real); all images are (N, C, H, W) uint8.

    Raises UserError for too few images, or generated ones of another shape.
    """
    require_fakes(fakes, tuple(train.shape[1:]))
    return fit_estimator(
        name, T, train, held_out, device=device, seed=seed, progress=progress
    ).read(fakes)


def nth(i: int, of: int, progress: Progress | None) -> Progress | None:
    """The progress of one detector as a part of that of all."""
    return None if progress is None else lambda done, total: progress(i * total + done, of * total)


def require_real(train: Tensor, held_out: Tensor) -> None:
    """Raises UserError where there are too few real images to train or to calibrate on."""
    for images, least, what in (
        (train, 4 * FEWEST, "training"),
        (held_out, 2 * FEWEST, "held-out real"),
    ):
        if len(images) < least:
            raise UserError(
                f"Leakage needs at least {least} {what} images, and there are {len(images)}: "
                "measure it on a larger data set, or with a larger dataset.fraction."
            )


def require_fakes(fakes: Tensor, shape: tuple[int, ...]) -> None:
    """Raises UserError where generated images cannot be compared with real ones of `shape`."""
    assert fakes.dtype == torch.uint8, "scored images are rounded"
    if tuple(fakes.shape[1:]) != shape:
        raise UserError(
            f"The generated images are {format_shape(tuple(fakes.shape[1:]))} and the real ones "
            f"{format_shape(shape)} (channels x height x width). Compare them with the data set "
            "that the generator was trained on."
        )
    if len(fakes) < FEWEST:
        raise UserError(
            f"{len(fakes)} generated images are too few for an interval of their share that looks "
            f"augmented. Give at least --n {FEWEST}; 1000 give it to within 3 points."
        )


def settings(T: Augment) -> dict[str, str | int | float]:
    """The class of a T and the settings it was made with."""
    plain = {
        key: value
        for key, value in vars(T).items()
        if isinstance(value, str | int | float) and key != "training" and key[0] != "_"
    }
    return {"T": type(T).__name__, **plain}


def default_transforms(side: int) -> dict[str, Augment]:
    """The T whose traces are looked for in images of `side` pixels, one at a time."""
    return {
        "cutout": Cutout(size=max(side // 2, 1)),
        "shift": FlipShift(shift=max(side // 8, 1), flip=0.0, padding="zero"),
        "noise": GaussianNoise(std=0.1),
    }


def transforms_for(side: int, own: Chain) -> dict[str, Augment]:
    """The default ones, each replaced by the run's own of the same kind, and any other it has."""
    chosen = default_transforms(side)
    names = {type(T): name for name, T in chosen.items()}
    return chosen | {
        names.get(type(T), name): T
        for name, T in own.transforms.items()
        if isinstance(T, Augment)  # a ModuleDict knows its values as modules only
    }


def plot_leakage(results: Sequence[Leakage], path: Path) -> None:
    """For each T the share of generated images with its interval, beside what bounds it."""
    counts = sorted({each.generated.n for each in results if each.generated})
    seeds = sorted({each.seed for each in results})
    title = f"Augmentation leakage: n = {listed(counts)} generated images, seed {listed(seeds)}"
    figure, (axes,) = make_panels(1, title, size=(7.5, 1.6 + 0.8 * len(results)))
    for row, result in enumerate(results):
        draw(axes, result, row)
    axes.set_yticks(range(len(results)), [result.name for result in results])
    axes.set_ylim(len(results) - 0.5, -0.5)
    axes.set_xlim(-3, 103)
    axes.set_xlabel("images that look augmented, with 95 % interval (% of images)")
    axes.set_ylabel("T looked for")
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    if once:  # nothing at all could be measured otherwise
        figure.legend(once.values(), once.keys(), loc="outside lower center", ncols=4, fontsize=8)
    save_figure(figure, path)


def draw(axes: "Axes", result: Leakage, row: int) -> None:
    """One T's row of dots, or the word that there is nothing to see."""
    if result.reason:
        axes.text(50, row, f"not measurable (AUC {result.auc:.2f})", ha="center", va="center")
        return
    dots = (
        ("generated", result.generated, BLUE),
        ("real, held out (floor)", result.floor, GREY),
        ("real, distorted", result.distorted, PURPLE),
        ("T(real) (ceiling)", result.ceiling, ORANGE),
    )
    for i, (label, read, colour) in enumerate(dots):
        if read is None:
            continue
        x, y = 100 * read.shown, row + 0.18 * (i - 1.5)
        # chance can leave an estimate just outside its interval, which rests on moved rates
        reach = [[max(x - 100 * read.low, 0.0)], [max(100 * read.high - x, 0.0)]]
        marker = MARKERS.get(colour, "v")
        axes.errorbar(
            x, y, xerr=reach, color=colour, fmt=marker, markersize=5, capsize=3, label=label
        )


def listed(numbers: Sequence[int]) -> str:
    """1 -> 1; 1, 2 -> 1, 2; nothing -> 0."""
    return ", ".join(map(str, numbers)) or "0"
