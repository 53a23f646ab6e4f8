"""Augmentation leakage: the share of generated images that look as if T had been applied to them.

Zhao et al. 2021, "Improved Consistency Regularization for GANs" (arXiv:2002.04724): if D calls
T(real) real, the generator learns to draw the traces of T, such as the holes of a strong cutout.
With the consistency term on generated images too, it has no reason to. Here detectors that tell
T(x) from x count such images, and the count is corrected for their errors (Rogan & Gladen 1978).

The errors are measured on real images. For generated ones the correction holds as far as the
detectors look at T only. `distorted` shows how far: it is the share found in real images that were
blurred, warped, patched and so on, and should be as low as the floor.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from crgan_cli.data.images import Images, fingerprint, format_shape, to_float
from crgan_cli.errors import UserError
from crgan_cli.evaluation.artefacts.calibration import (
    CalibratedDetector,
    CorrectedShare,
    ErrorRates,
    calibrate,
)
from crgan_cli.evaluation.artefacts.detector import (
    Detector,
    distortions_for,
    quantise,
    train_detector,
)
from crgan_cli.evaluation.artefacts.estimates import auc
from crgan_cli.evaluation.artefacts.inputs import part_of_progress
from crgan_cli.evaluation.metrics.features import Progress, Stop
from crgan_cli.gan.augment import Augment, Chain, Cutout, FlipShift, GaussianNoise
from crgan_cli.system import cache

VERSION = 1  # of the detectors and their training data; a new number trains new ones
FEWEST = 100  # images behind any rate: 95 % intervals are then up to 20 points wide
MOST_HELD_OUT = 10_000  # more would narrow the intervals by less than a point
MIN_AUC = 0.8  # below this AUC, the correction for a detector's errors amplifies chance too much


class Leakage(NamedTuple):
    """How much of one T was found in generated images, and the evidence for it."""

    name: str
    transform: dict[str, str | int | float]  # the class of T and its settings
    seed: int  # of the detectors
    auc: float  # on held-out images that were used for nothing else
    rates: ErrorRates
    by_detector: tuple[float, ...] = ()  # raw shares of generated images, per detector
    generated: CorrectedShare | None = None  # None if T(real) cannot be told from real
    floor: CorrectedShare | None = None  # the same estimate on held-out real images
    distorted: CorrectedShare | None = None  # on distorted real images: unrealism without T
    ceiling: CorrectedShare | None = None  # on T(held-out)
    reason: str = ""  # why there is no share

    def as_json(self) -> dict[str, object]:
        """Plain values."""
        shares = {key: getattr(self, key) for key in ("generated", "floor", "distorted", "ceiling")}
        return {
            "transform": self.transform,
            "seed": self.seed,
            "auc": self.auc,
            **self.rates._asdict(),
            "by_detector": list(self.by_detector),
            **{key: each.as_json() if each else None for key, each in shares.items()},
            "reason": self.reason,
        }


class LeakageEstimator(NamedTuple):
    """Measures the leakage of one T, in the images of any number of generators."""

    combined: CalibratedDetector
    single: tuple[CalibratedDetector, ...]  # one per detector
    shape: tuple[int, ...]  # (C, H, W)
    baseline: Leakage  # without generated images

    def measure(self, fakes: Tensor) -> Leakage:
        """`fakes` (N, C, H, W) uint8. Raise UserError for too few, or for another shape."""
        require_fakes(fakes, self.shape)
        if self.baseline.reason:
            return self.baseline
        by_detector = tuple(each.measure_share(fakes).raw for each in self.single)
        generated = self.combined.measure_share(fakes)
        return self.baseline._replace(generated=generated, by_detector=by_detector)


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
    """Train detectors of T on `train`, calibrate them on half of `held_out`.

    Both are (N, C, H, W) uint8. The other half gives AUC, floor and ceiling. torch's random state
    is restored. Raise UserError for too few images, or a T that makes no sense for their size.
    """
    T.set_full_side(min(train.shape[2:]))
    require_real(len(train), len(held_out))
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        torch.manual_seed(seed)
        real = held_out[torch.randperm(len(held_out))[:MOST_HELD_OUT]]
        calibration, rest = (to_float(half.to(device)) for half in real.tensor_split(2))
        trained = [
            load_or_train(
                T, train, device, seed + i, part_of_progress(progress, i, detectors), stop
            )
            for i in range(detectors)
        ]
        torch.manual_seed(seed)  # the same whether detectors were trained or loaded
        known = (calibration, quantise(T.transform(calibration)))
        unused = (rest, quantise(T.transform(rest)), quantise(distortions_for(T)(rest)))
    combined = calibrate(trained, *known)
    single = tuple(calibrate([each], *known) for each in trained)
    baseline = measure_baseline(name, T, seed, combined, *unused)
    return LeakageEstimator(combined, single, tuple(train.shape[1:]), baseline)


def load_or_train(
    T: Augment,
    train: Tensor,
    device: torch.device,
    seed: int,
    progress: Progress | None,
    stop: Stop | None,
) -> Detector:
    """A detector of T in images like `train`: from the cache, or trained and then cached.

    The cache key holds the class and settings of T, and the hash of the images. A T from outside
    of crgan is not cached, since its code may change. Draws from torch's default generators.
    """
    torch.manual_seed(seed)
    if type(T) not in (Cutout, FlipShift, GaussianNoise):
        return train_detector(T, train, device, progress=progress, stop=stop)
    key: dict[str, object] = {
        "version": VERSION,
        "images": fingerprint(Images(train, train.new_zeros(0))),
        "transform": describe_transform(T),
        "seed": seed,
        "device": device.type,
    }
    path = cache.cache_path("detectors", type(T).__name__.lower(), cache.cache_key(key))
    cached = cache.load_cached(path)
    if cached is not None:
        detector = Detector(train.shape[1], min(train.shape[2:])).to(device)
        detector.load_state_dict(cached["weights"])
        if progress:
            progress(1, 1)
        return detector
    detector = train_detector(T, train, device, progress=progress, stop=stop)
    weights = {name: each.cpu() for name, each in detector.state_dict().items()}
    cache.save_cached(path, {"weights": weights})
    return detector


def measure_baseline(
    name: str,
    T: Augment,
    seed: int,
    detector: CalibratedDetector,
    real: Tensor,
    augmented: Tensor,
    distorted: Tensor,
) -> Leakage:
    """All of a Leakage but the generated images: the shares found in held-out images."""
    reached = auc(detector.score(real), detector.score(augmented))
    baseline = Leakage(name, describe_transform(T), seed, reached, detector.rates)
    if reached < MIN_AUC:
        return baseline._replace(
            reason=f"not measurable: on held-out images the detector tells T(x) from x with an AUC "
            f"of {reached:.2f}, and below {MIN_AUC} a share would be chance"
        )
    return baseline._replace(
        floor=detector.measure_share(real),
        ceiling=detector.measure_share(augmented),
        distorted=detector.measure_share(distorted),
    )


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
    """The share of `fakes` that look like T(real). All images are (N, C, H, W) uint8.

    Raise UserError for too few images, or generated ones of another shape.
    """
    require_fakes(fakes, tuple(train.shape[1:]))
    return fit_estimator(
        name, T, train, held_out, device=device, seed=seed, progress=progress
    ).measure(fakes)


def require_real(train: int | None = None, test: int | None = None) -> None:
    """Raise UserError if there are too few real images to train or to calibrate on.

    None if their number is not known yet.
    """
    for count, least, what in (
        (train, 4 * FEWEST, "training"),
        (test, 2 * FEWEST, "held-out real"),
    ):
        if count is not None and count < least:
            raise UserError(
                f"Leakage needs at least {least} {what} images, and there are {count}. Use a "
                "larger data set, or a larger dataset.fraction."
            )


def require_fakes(fakes: Tensor, shape: tuple[int, ...]) -> None:
    """Raise UserError unless generated images can be compared with real ones of `shape`."""
    assert fakes.dtype == torch.uint8, "scored images are rounded"
    if tuple(fakes.shape[1:]) != shape:
        raise UserError(
            f"The generated images are {format_shape(tuple(fakes.shape[1:]))} and the real ones "
            f"{format_shape(shape)} (channels x height x width). Use the data set that the "
            "generator was trained on."
        )
    require_generated(len(fakes))


def require_generated(n: int) -> None:
    """Raise UserError if n generated images are too few."""
    if n < FEWEST:
        raise UserError(
            f"{n} generated images are too few to estimate the share that looks "
            f"augmented. Give at least --n {FEWEST}; 1000 give it to within 3 points."
        )


def describe_transform(T: Augment) -> dict[str, str | int | float]:
    """The class of a T and its settings."""
    plain = {
        key: value
        for key, value in vars(T).items()
        if isinstance(value, str | int | float) and key != "training" and key[0] != "_"
    }
    return {"T": type(T).__name__, **plain}


def default_transforms(side: int) -> dict[str, Augment]:
    """The T that are looked for by default in images of `side` pixels, one at a time."""
    return {
        "cutout": Cutout(size=max(side // 2, 1)),
        "shift": FlipShift(shift=max(side // 8, 1), flip=0.0, padding="zero"),
        "noise": GaussianNoise(std=0.1),
    }


def transforms_for(side: int, used: Chain) -> dict[str, Augment]:
    """The default T, each replaced by the run's own of the same class, and the run's others."""
    chosen = default_transforms(side)
    names = {type(T): name for name, T in chosen.items()}
    return chosen | {names.get(type(T), name): T for name, T in used.members.items()}
