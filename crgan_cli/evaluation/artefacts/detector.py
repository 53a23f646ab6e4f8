"""A small network that tells T(x) from x, and not fakes from photographs.

Generated images differ from real ones in more than T: they are blurred, noisy, warped, patched
together. A detector that saw real images alone could take any of that for T. So both classes are
distorted at random before T is applied, and mildly after it, where that does not undo T; what is
left as a cue is T. The distortions are of our own choosing, in the manner of blind detection of
generated images (Wang et al. 2020, arXiv:1912.11035, who blur and compress to the same end).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
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
from crgan_cli.evaluation.metrics.features import Progress, Stop
from crgan_cli.gan.augment import Augment, GaussianNoise

PAIRS = 64  # images a step, each with and without T
STEPS_A_ROUND = 30
ROUNDS = 12  # at most; about 25 s on one CPU thread for 32x32 grey images
CHECKED = 512  # training images kept back to tell when to stop
ENOUGH = 0.9995  # AUC on distorted images at which more training buys nothing
PATIENCE = 3  # rounds without an AUC better by
GAIN = 2e-4
LEARNING_RATE = 2e-3
SCORED = 256  # images a batch
DETAIL_GAIN = 4.0  # brings what a 3x3 mean takes away to about the scale of the image

Distortion = Callable[[Tensor], Tensor]  # (N, C, H, W) in [-1, 1] -> the same, drawn per image


class Detector(nn.Module):
    """Convolutions that halve the side to 4, then the mean and the maximum over positions.

    They see the image and its fine detail, in which noise is far easier to learn. No layer joins
    the images of a batch, so that a score does not depend on its company.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(2 * channels, 16, 3, padding=1), nn.LeakyReLU(0.1)]
        width = 16
        while side > 4:
            wider = min(2 * width, 64)
            layers += [nn.Conv2d(width, wider, 3, stride=2, padding=1), nn.LeakyReLU(0.1)]
            width, side = wider, (side + 1) // 2
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(2 * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> (N,) logits, high where T was seen."""
        h = self.body(torch.cat([x, DETAIL_GAIN * (x - smooth(x))], dim=1))
        return self.head(torch.cat([h.mean((2, 3)), h.amax((2, 3))], dim=1)).squeeze(1)


class Distortions(NamedTuple):
    """What both classes go through."""

    before: tuple[Distortion, ...]  # T is applied
    after: tuple[Distortion, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """All of them without T: images that are less real, and have nothing of T."""
        return apply_to_some(self.after, apply_to_some(self.before, x))


def distortions_for(T: Augment) -> Distortions:
    """All distortions but for those that look like T or would hide it."""
    # faded last: a splice of a faded image would be the very hole that cutout makes
    shapes = (stretch_contrast, warp, paste_patch, cover_patch, fade)
    if any(isinstance(part, GaussianNoise) for part in T.modules()):
        return Distortions((*shapes, blur, coarse_noise), ())
    return Distortions((*shapes, blur, coarse_noise, grain), (soften, faint_noise))


def apply_to_some(distortions: tuple[Distortion, ...], x: Tensor) -> Tensor:
    """Each distortion on about a quarter of the images, so that some go through unchanged."""
    for distortion in distortions:
        x = torch.where(uniform(x) < 0.25, distortion(x), x)
    return x.clamp(-1, 1)


def uniform(x: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """(N, 1, 1, 1), one number an image."""
    return low + (high - low) * torch.rand(len(x), 1, 1, 1, device=x.device)


def stretch_contrast(x: Tensor) -> Tensor:
    """Contrast, about a random grey that stays."""
    pivot = uniform(x, -1, 1)
    return (pivot + uniform(x, 0.5, 1.5) * (x - pivot)).clamp(-1, 1)


def fade(x: Tensor) -> Tensor:
    """Pale, all over or in soft clouds, towards the mid-grey that an untrained tanh puts out.

    T fills with the same grey, and a generator that has learned little is not one that leaks.
    """
    n, _, h, w = x.shape
    clouds = interpolate(torch.randn(n, 1, 4, 4, device=x.device), size=(h, w), mode="bilinear")
    return x * (uniform(x, -0.3, 1) + uniform(x) * clouds).clamp(0.04, 1)


def blur(x: Tensor) -> Tensor:
    """Up to the fine detail of an image a quarter as large."""
    side = x.shape[-1]
    coarse = interpolate(adaptive_avg_pool2d(x, max(side // 4, 1)), size=side, mode="bilinear")
    weight = uniform(x)
    return weight * coarse + (1 - weight) * smooth(x)


def soften(x: Tensor) -> Tensor:
    """A blur of one pixel."""
    return torch.lerp(x, smooth(x), uniform(x))


def smooth(x: Tensor) -> Tensor:
    """Means of 3x3 pixels."""
    return avg_pool2d(pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def grain(x: Tensor) -> Tensor:
    """Independent noise."""
    return x + uniform(x, 0, 0.15) * torch.randn_like(x)


def faint_noise(x: Tensor) -> Tensor:
    """A little independent noise."""
    return x + uniform(x, 0, 0.05) * torch.randn_like(x)


def coarse_noise(x: Tensor) -> Tensor:
    """Noise of 2 to 4 pixels' grain, as transposed convolutions leave it."""
    n, c, h, w = x.shape
    noise = sum(
        interpolate(
            torch.randn(n, c, -(-h // grain), -(-w // grain), device=x.device),
            size=(h, w),
            mode=mode,
        )
        for grain, mode in ((2, "nearest"), (4, "bilinear"))
    )
    return x + uniform(x, 0, 0.15) * noise


def warp(x: Tensor) -> Tensor:
    """Rubber sheet: pixels move by about a sixteenth of the side."""
    n, _, h, w = x.shape
    still = torch.eye(2, 3, device=x.device).expand(n, 2, 3)
    moves = interpolate(torch.randn(n, 2, 4, 4, device=x.device), size=(h, w), mode="bilinear")
    where = affine_grid(still, list(x.shape), align_corners=False)
    where = where + uniform(x, 0, 0.12) * moves.permute(0, 2, 3, 1)
    return grid_sample(x, where, padding_mode="border", align_corners=False)


def paste_patch(x: Tensor) -> Tensor:
    """A rectangle of another image, so that a straight edge alone is no trace of T."""
    return torch.where(rectangle(x), x.roll(1, 0), x)


def cover_patch(x: Tensor) -> Tensor:
    """A flat rectangle of a colour that is far from the mid-grey of T."""
    n, c = x.shape[:2]
    sign = torch.rand(n, c, 1, 1, device=x.device).sub(0.5).sign()
    colour = sign * (0.2 + 0.8 * torch.rand(n, c, 1, 1, device=x.device))
    return torch.where(rectangle(x), colour, x)


def rectangle(x: Tensor) -> Tensor:
    """(N, 1, H, W) booleans, true in a rectangle with sides of 1/8 to 3/4 of the image's."""
    n, _, h, w = x.shape
    return extent(n, h, x.device)[:, None, :, None] & extent(n, w, x.device)[:, None, None, :]


def extent(n: int, length: int, device: torch.device) -> Tensor:
    """(n, length) booleans: a run of positions, which may reach over an end."""
    half = length * (1 / 16 + torch.rand(n, 1, device=device) * 5 / 16)
    centre = torch.rand(n, 1, device=device) * length
    return (torch.arange(length, device=device) + 0.5 - centre).abs() < half


def quantise(x: Tensor) -> Tensor:
    """Rounded as everything that is scored, so that T cannot be told by finer greys."""
    return to_float(to_uint8(x))


def fit(
    T: Augment,
    train: Tensor,
    device: torch.device,
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Detector:
    """A detector trained on `train` (N, C, H, W) uint8, until it has learned or tires of trying.

    Draws from torch's default generators. `progress` counts rounds.
    """
    detector = Detector(train.shape[1], train.shape[2]).to(device)
    optimizer = torch.optim.Adam(detector.parameters(), lr=LEARNING_RATE)
    kept = min(CHECKED, len(train) // 4)
    distortions = distortions_for(T)
    check, _ = pairs(T, distortions, to_float(train[:kept].to(device)))
    best, tired = 0.0, 0
    for done in range(ROUNDS):
        for _ in range(STEPS_A_ROUND):
            if stop:
                stop()
            picked = kept + torch.randint(len(train) - kept, (PAIRS,))
            step(detector, optimizer, *pairs(T, distortions, to_float(train[picked].to(device))))
        scores = scores_of(detector, check)
        reached = auc(scores[:kept], scores[kept:])
        tired = 0 if reached > best + GAIN else tired + 1
        best = max(best, reached)
        ended = reached >= ENOUGH or tired == PATIENCE
        if progress:
            progress(ROUNDS if ended else done + 1, ROUNDS)
        if ended:
            break
    return detector


def pairs(T: Augment, distortions: Distortions, x: Tensor) -> tuple[Tensor, Tensor]:
    """(N, ...) images -> (2N, ...) without and then with T, and (2N,) which is which."""
    x = apply_to_some(distortions.before, x)
    both = apply_to_some(distortions.after, torch.cat([x, T.transform(x).clamp(-1, 1)]))
    return quantise(both), torch.arange(2, device=x.device).repeat_interleave(len(x)).float()


def step(detector: Detector, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    """One step on a batch."""
    loss = binary_cross_entropy_with_logits(detector(x), y)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


@torch.no_grad()
def scores_of(detector: Detector, x: Tensor) -> Tensor:
    """(N, C, H, W) uint8, or float in [-1, 1] -> (N,) logits on the CPU."""
    device = detector.head.weight.device
    floats = (to_float(part) if part.dtype == torch.uint8 else part for part in x.split(SCORED))
    return torch.cat([detector(part.to(device)).cpu() for part in floats])


def auc(negative: Tensor, positive: Tensor) -> float:
    """The probability that a positive scores above a negative; ties count half (Mann-Whitney)."""
    negative = negative.sort().values
    below = torch.searchsorted(negative, positive)
    up_to = torch.searchsorted(negative, positive, right=True)
    return float((below + up_to).double().mean() / (2 * len(negative)))
