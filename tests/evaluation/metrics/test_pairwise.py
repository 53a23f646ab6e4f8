"""L1, PSNR and SSIM against scikit-image's numbers, and by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor

from crgan_cli.evaluation.metrics.pairwise import PSNR_LIMIT, compare_pairs


def picture(k: int, channels: int) -> np.ndarray:
    i = np.arange(channels * 24 * 20).reshape(channels, 24, 20)
    return ((i * 7 + (i // 20) * k * 13 + 40 * np.sin(i / (3 + k))) % 256).astype(np.uint8)


def pair(channels: int, *, near: bool) -> Tensor:
    a, b = picture(1, channels).astype(int), picture(2, channels).astype(int)
    return torch.from_numpy(np.stack([a, np.clip(a + b % 31 - 15, 0, 255) if near else b]))[:, None]


@pytest.mark.parametrize(
    ("channels", "near", "ssim", "psnr"),
    # scikit-image 0.26.0: structural_similarity(gaussian_weights=True, sigma=1.5,
    # use_sample_covariance=False, data_range=255) and peak_signal_noise_ratio(data_range=255)
    [
        (1, False, -0.04278939471112192, 8.729235504388512),
        (1, True, 0.9922093451400855, 29.1158798383705),
        (3, False, 0.06297602242974774, 7.576802069983415),
        (3, True, 0.9929489379980162, 28.99240763470079),
    ],
)
def test_the_numbers_are_those_of_scikit_image(
    channels: int, near: bool, ssim: float, psnr: float
) -> None:
    x, y = pair(channels, near=near)
    (found,) = compare_pairs(x, y)
    l1 = (x.double() - y).abs().mean().item() / 255
    assert found.tolist() == pytest.approx([l1, psnr, ssim], abs=1e-4)


def test_equal_images_and_black_against_white_by_hand() -> None:
    black, white = torch.zeros(1, 3, 11, 11), torch.full((1, 3, 11, 11), 255)
    (same,), (apart,) = compare_pairs(black, black), compare_pairs(black, white)
    assert same.tolist() == [0, PSNR_LIMIT, 1]
    c1 = (0.01 * 255) ** 2
    assert apart.tolist() == pytest.approx([1, 0, c1 / (255**2 + c1)], abs=1e-9)
