"""Distances between a translated image and its own target: L1, PSNR and SSIM.

Images are (N, C, H, W) with values 0..255. Every function returns one number per image, (N,)
float64.
"""

import torch
from torch import Tensor
from torch.nn.functional import conv2d

RANGE = 255.0
PSNR_LIMIT = 100.0  # dB, for images without a difference: their PSNR is infinite
SSIM_RADIUS = 5  # an 11 x 11 window
SSIM_SIGMA = 1.5
SSIM_K1, SSIM_K2 = 0.01, 0.03

NAMES = ("l1", "psnr", "ssim")


def compare_pairs(images: Tensor, targets: Tensor) -> Tensor:
    """Return l1, psnr and ssim of each pair, (N, 3)."""
    x, y = images.double(), targets.double()
    return torch.stack([l1(x, y), psnr(x, y), ssim(x, y)], 1)


def l1(x: Tensor, y: Tensor) -> Tensor:
    """The mean absolute difference, on a scale of 0 to 1."""
    return (x - y).abs().flatten(1).mean(1) / RANGE


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """10 log10(255^2 / MSE) in dB, at most 100."""
    mse = (x - y).square().flatten(1).mean(1)
    return (10 * torch.log10(RANGE**2 / mse)).clamp(max=PSNR_LIMIT)


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity, Wang et al. 2004 (IEEE TIP 13, pp. 600-612) eq. 13.

    With their Gaussian window of 11 x 11, sigma = 1.5, K1 = 0.01 and K2 = 0.03; the mean over
    channels and over all places where the window fits. Images need at least 11 pixels per side.
    """
    mean_x, mean_y = window_mean(x), window_mean(y)
    variance_x, variance_y = window_mean(x * x) - mean_x**2, window_mean(y * y) - mean_y**2
    covariance = window_mean(x * y) - mean_x * mean_y
    c1, c2 = (SSIM_K1 * RANGE) ** 2, (SSIM_K2 * RANGE) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (luminance * structure).flatten(1).mean(1)


def window_mean(x: Tensor) -> Tensor:
    """The mean under the window at each place where it fits: (N, C, H - 10, W - 10)."""
    positions = torch.arange(-SSIM_RADIUS, SSIM_RADIUS + 1, dtype=x.dtype, device=x.device)
    window = torch.exp(-(positions**2) / (2 * SSIM_SIGMA**2))
    window = window / window.sum()
    n, c, h, w = x.shape
    rows = conv2d(x.reshape(n * c, 1, h, w), window.view(1, 1, -1, 1))
    return conv2d(rows, window.view(1, 1, 1, -1)).unflatten(0, (n, c)).squeeze(2)
