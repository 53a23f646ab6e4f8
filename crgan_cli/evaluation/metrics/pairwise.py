"""Distances between two images: L1, PSNR, SSIM and MS-SSIM.

Images are (N, C, H, W) with values 0..255. Every function returns one number per image, (N,)
float64.
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d

RANGE = 255.0
PSNR_LIMIT = 100.0  # dB, for images without a difference: their PSNR is infinite
SSIM_RADIUS = 5  # an 11 x 11 window
SSIM_SIGMA = 1.5
SSIM_K1, SSIM_K2 = 0.01, 0.03
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of MS-SSIM, the finest scale first

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
    luminance, structure = compare_windows(x, y, 2 * SSIM_RADIUS + 1)
    return (luminance * structure).flatten(1).mean(1)


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """Multi-scale structural similarity, Wang et al. 2003 (Asilomar, pp. 1398-1402) eq. 7.

    Each of five scales is half the size of the one before, by the mean of 2 x 2 pixels; a last odd
    row or column is left out. Where an image is smaller than the window, the window has its shorter
    side, and sigma shrinks with it. Negative means count as 0. Both as in the program of Karras et
    al. 2018 [code: tkarras/progressive_growing_of_gans metrics/ms_ssim.py]. Images need 16 pixels
    per side.
    """
    product = torch.ones(len(x), dtype=x.dtype, device=x.device)
    for scale, weight in enumerate(SCALE_WEIGHTS, start=1):
        size = min(2 * SSIM_RADIUS + 1, *x.shape[2:])
        luminance, structure = compare_windows(x, y, size)
        last = scale == len(SCALE_WEIGHTS)
        similarity = luminance * structure if last else structure
        product = product * similarity.flatten(1).mean(1).clamp(min=0) ** weight
        if not last:
            x, y = avg_pool2d(x, 2), avg_pool2d(y, 2)
    return product


def compare_windows(x: Tensor, y: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The luminance, and the product of contrast and structure, at each place of the window."""
    mean_x, mean_y = window_mean(x, size), window_mean(y, size)
    variance_x = window_mean(x * x, size) - mean_x**2
    variance_y = window_mean(y * y, size) - mean_y**2
    covariance = window_mean(x * y, size) - mean_x * mean_y
    c1, c2 = (SSIM_K1 * RANGE) ** 2, (SSIM_K2 * RANGE) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return luminance, structure


def window_mean(x: Tensor, size: int) -> Tensor:
    """The mean under a Gaussian window at each place where it fits: (N, C, H - size + 1, ...).

    sigma is 1.5 for 11 pixels, and in proportion for fewer.
    """
    positions = torch.arange(size, dtype=x.dtype, device=x.device) - (size - 1) / 2
    sigma = SSIM_SIGMA * size / (2 * SSIM_RADIUS + 1)
    window = torch.exp(-(positions**2) / (2 * sigma**2))
    window = window / window.sum()
    n, c, h, w = x.shape
    rows = conv2d(x.reshape(n * c, 1, h, w), window.view(1, 1, -1, 1))
    return conv2d(rows, window.view(1, 1, 1, -1)).unflatten(0, (n, c)).squeeze(2)
