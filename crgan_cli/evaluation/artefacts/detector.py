"""A small network that tells T(x) from x, and not generated from real images.

Generated images differ from real ones in more than T: they are blurred, noisy, warped, patched
together. A detector trained on real images only could take any of that for T. So both classes are
distorted at random before T is applied, and mildly after it, where that does not undo T. The only
cue left is T. The distortions are our choice, in the manner of Wang et al. 2020 (arXiv:1912.11035),
who blur and compress for the same reason to detect generated images.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import (
    adaptive_avg_pool2d,
    affine_grid,
    avg_pool2d,
    binary_cross_entropy_with_logits,
    grid_sample,
    interpolate,
    pad,
)

from crgan_cli.data.images import to_float, to_uint8
from crgan_cli.evaluation.artefacts.estimates import auc
from crgan_cli.evaluation.metrics.features import Progress, Stop
from crgan_cli.evaluation.metrics.small_network import SmallNetwork, compute_outputs
from crgan_cli.gan.augment import Augment, GaussianNoise

PAIRS = 64  # images per step, each with and without T
STEPS_PER_ROUND = 30
ROUNDS = 12  # at most; about 25 s on one CPU thread for 32x32 grey images
VALIDATION = 512  # training images held back to decide when to stop
TARGET_AUC = 0.9995  # on distorted validation images; more training gains nothing
PATIENCE = 3  # rounds without an AUC better by MIN_GAIN
MIN_GAIN = 2e-4
LEARNING_RATE = 2e-3
DETAIL_GAIN = 4.0  # scales what a 3x3 mean removes to about the range of the image

Distortion = Callable[[Tensor], Tensor]  # (N, C, H, W) in [-1, 1] -> the same, drawn per image


class Detector(SmallNetwork):
    """A small network whose input is the image and its fine detail, where noise is far easier to
    learn."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__(2 * channels, side, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> (N,) logits, high if T was seen."""
        return super().forward(torch.cat([x, DETAIL_GAIN * (x - smooth(x))], dim=1)).squeeze(1)


class Distortions(NamedTuple):
    """The distortions of both classes."""

    before: tuple[Distortion, ...]  # before T
    after: tuple[Distortion, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """All of them without T: images that look less real, without a trace of T."""
        return apply_to_some(self.after, apply_to_some(self.before, x))


def distortions_for(T: Augment) -> Distortions:
    """All distortions except those that look like T or would hide it."""
    # fade last: a pasted patch of a faded image would look like the hole of a cutout
    shapes = (stretch_contrast, warp, paste_patch, cover_patch, fade)
    if any(isinstance(part, GaussianNoise) for part in T.modules()):
        return Distortions((*shapes, blur, coarse_noise), ())
    return Distortions((*shapes, blur, coarse_noise, grain), (soften, faint_noise))


def apply_to_some(distortions: tuple[Distortion, ...], x: Tensor) -> Tensor:
    """Apply each distortion to about a quarter of the images, so that some stay unchanged."""
    for distortion in distortions:
        x = torch.where(uniform(x) < 0.25, distortion(x), x)
    return x.clamp(-1, 1)


def uniform(x: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """(N, 1, 1, 1), one random number per image."""
    return low + (high - low) * torch.rand(len(x), 1, 1, 1, device=x.device)


def stretch_contrast(x: Tensor) -> Tensor:
    """Scale the contrast around a random grey."""
    pivot = uniform(x, -1, 1)
    return (pivot + uniform(x, 0.5, 1.5) * (x - pivot)).clamp(-1, 1)


def fade(x: Tensor) -> Tensor:
    """Fade towards mid-grey, everywhere or in soft clouds.

    An untrained tanh outputs this grey, and T fills with it. A generator that has learned little
    must not count as one that leaks T.
    """
    n, _, h, w = x.shape
    clouds = interpolate(torch.randn(n, 1, 4, 4, device=x.device), size=(h, w), mode="bilinear")
    return x * (uniform(x, -0.3, 1) + uniform(x) * clouds).clamp(0.04, 1)


def blur(x: Tensor) -> Tensor:
    """Blur, at most down to the detail of an image a quarter as large."""
    h, w = x.shape[2:]
    few = adaptive_avg_pool2d(x, (max(h // 4, 1), max(w // 4, 1)))
    coarse = interpolate(few, size=(h, w), mode="bilinear")
    weight = uniform(x)
    return weight * coarse + (1 - weight) * smooth(x)


def soften(x: Tensor) -> Tensor:
    """Blur by up to a 3x3 mean."""
    return torch.lerp(x, smooth(x), uniform(x))


def smooth(x: Tensor) -> Tensor:
    """Means of 3x3 pixels."""
    return avg_pool2d(pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def grain(x: Tensor) -> Tensor:
    """Add independent noise."""
    return x + uniform(x, 0, 0.15) * torch.randn_like(x)


def faint_noise(x: Tensor) -> Tensor:
    """Add a little independent noise."""
    return x + uniform(x, 0, 0.05) * torch.randn_like(x)


def coarse_noise(x: Tensor) -> Tensor:
    """Add noise with a grain of 2 to 4 pixels, such as transposed convolutions leave."""
    n, c, h, w = x.shape
    noise = sum(
        interpolate(
            torch.randn(n, c, -(-h // size), -(-w // size), device=x.device),
            size=(h, w),
            mode=mode,
        )
        for size, mode in ((2, "nearest"), (4, "bilinear"))
    )
    return x + uniform(x, 0, 0.15) * noise


def warp(x: Tensor) -> Tensor:
    """Warp smoothly: pixels move by about a sixteenth of the side."""
    n, _, h, w = x.shape
    identity = torch.eye(2, 3, device=x.device).expand(n, 2, 3)
    moves = interpolate(torch.randn(n, 2, 4, 4, device=x.device), size=(h, w), mode="bilinear")
    grid = affine_grid(identity, list(x.shape), align_corners=False)
    grid = grid + uniform(x, 0, 0.12) * moves.permute(0, 2, 3, 1)
    return grid_sample(x, grid, padding_mode="border", align_corners=False)


def paste_patch(x: Tensor) -> Tensor:
    """Paste a rectangle of another image, so that a straight edge alone is no trace of T."""
    return torch.where(random_rectangle(x), x.roll(1, 0), x)


def cover_patch(x: Tensor) -> Tensor:
    """Cover a rectangle with a colour that is far from the mid-grey of T."""
    n, c = x.shape[:2]
    sign = torch.rand(n, c, 1, 1, device=x.device).sub(0.5).sign()
    colour = sign * (0.2 + 0.8 * torch.rand(n, c, 1, 1, device=x.device))
    return torch.where(random_rectangle(x), colour, x)


def random_rectangle(x: Tensor) -> Tensor:
    """(N, 1, H, W) booleans, true in a rectangle with sides of 1/8 to 3/4 of the image's."""
    n, _, h, w = x.shape
    rows, columns = (random_interval(n, length, x.device) for length in (h, w))
    return rows[:, None, :, None] & columns[:, None, None, :]


def random_interval(n: int, length: int, device: torch.device) -> Tensor:
    """(n, length) booleans: one interval per row, which may reach over an end."""
    half = length * (1 / 16 + torch.rand(n, 1, device=device) * 5 / 16)
    centre = torch.rand(n, 1, device=device) * length
    return (torch.arange(length, device=device) + 0.5 - centre).abs() < half


def quantise(x: Tensor) -> Tensor:
    """Round to 8 bits, as all scored images are, so that finer greys do not give T away."""
    return to_float(to_uint8(x))


def train_detector(
    T: Augment,
    train: Tensor,
    device: torch.device,
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Detector:
    """Train a detector on `train`, (N, C, H, W) uint8, until its AUC is high or stops rising.

    Draws from torch's default generators. `progress` counts rounds.
    """
    detector = Detector(train.shape[1], min(train.shape[2:])).to(device)
    optimizer = torch.optim.Adam(detector.parameters(), lr=LEARNING_RATE)
    held_back = min(VALIDATION, len(train) // 4)
    distortions = distortions_for(T)
    validation, _ = make_pairs(T, distortions, to_float(train[:held_back].to(device)))
    best, without_gain = 0.0, 0
    for number in range(1, ROUNDS + 1):
        for _ in range(STEPS_PER_ROUND):
            if stop:
                stop()
            chosen = held_back + torch.randint(len(train) - held_back, (PAIRS,))
            x, y = make_pairs(T, distortions, to_float(train[chosen].to(device)))
            loss = binary_cross_entropy_with_logits(detector(x), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        scores = compute_outputs(detector, validation)
        reached = auc(scores[:held_back], scores[held_back:])
        without_gain = 0 if reached > best + MIN_GAIN else without_gain + 1
        best = max(best, reached)
        finished = reached >= TARGET_AUC or without_gain == PATIENCE
        if progress:
            progress(ROUNDS if finished else number, ROUNDS)
        if finished:
            break
    return detector


def make_pairs(T: Augment, distortions: Distortions, x: Tensor) -> tuple[Tensor, Tensor]:
    """(N, ...) images -> (2N, ...) images, first without T and then with it, and (2N,) targets."""
    x = apply_to_some(distortions.before, x)
    both = apply_to_some(distortions.after, torch.cat([x, T.transform(x).clamp(-1, 1)]))
    return quantise(both), torch.arange(2, device=x.device).repeat_interleave(len(x)).float()
