"""Multi-scale SSIM against its definition in plain loops, and the pairs it is the mean of."""

import numpy as np
import pytest
import torch
from torch import Tensor

from crgan_cli.evaluation.metrics.ms_ssim import choose_image_pairs, mean_similarity
from crgan_cli.evaluation.metrics.pairwise import ms_ssim

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def noise(n: int, *shape: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    slow = torch.randint(0, 200, (n, shape[0], 1, 1), generator=random)
    return slow + torch.randint(0, 50, (n, *shape), generator=random)


def gaussian(size: int) -> np.ndarray:
    sigma = 1.5 * size / 11
    at = [i - (size - 1) / 2 for i in range(size)]
    window = np.array([[np.exp(-(a * a + b * b) / (2 * sigma**2)) for a in at] for b in at])
    return window / window.sum()


def by_definition(x: np.ndarray, y: np.ndarray) -> float:
    """Of one pair of (C, H, W) images."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    product = 1.0
    for scale, weight in enumerate(WEIGHTS):
        channels, h, w = x.shape
        size = min(11, h, w)
        window, whole, part = gaussian(size), [], []
        for c in range(channels):
            for i in range(h - size + 1):
                for j in range(w - size + 1):
                    a, b = (each[c, i : i + size, j : j + size] for each in (x, y))
                    mean_a, mean_b = (window * a).sum(), (window * b).sum()
                    vary_a = (window * a * a).sum() - mean_a**2
                    vary_b = (window * b * b).sum() - mean_b**2
                    together = (window * a * b).sum() - mean_a * mean_b
                    structure = (2 * together + c2) / (vary_a + vary_b + c2)
                    part.append(structure)
                    whole.append(
                        structure * (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
                    )
        last = scale == len(WEIGHTS) - 1
        product *= max(float(np.mean(whole if last else part)), 0.0) ** weight
        x, y = (
            np.array(
                [
                    [
                        [
                            each[c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean()
                            for j in range(w // 2)
                        ]
                        for i in range(h // 2)
                    ]
                    for c in range(channels)
                ]
            )
            for each in (x, y)
        )
    return product


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 28, 28), (1, 32, 19)])
def test_the_numbers_are_those_of_the_definition_in_float64(shape: tuple[int, ...]) -> None:
    x = noise(2, *shape, seed=1).double()
    y = 0.7 * x + 0.3 * noise(2, *shape, seed=2)
    expected = [by_definition(a.numpy(), b.numpy()) for a, b in zip(x, y, strict=True)]
    assert min(expected) > 0.1  # no scale was cut off at 0
    assert ms_ssim(x, y).tolist() == pytest.approx(expected, rel=1e-9)


def test_opposite_images_are_not_alike_at_all() -> None:
    x = noise(1, 1, 16, 16, seed=1).double()
    assert ms_ssim(x, 255 - x).tolist() == [0]
    assert ms_ssim(x, x).tolist() == [1]


def test_two_images_have_one_pair_and_equal_images_score_1() -> None:
    images = noise(2, 3, 16, 16, seed=3).to(torch.uint8)
    both = ms_ssim(images[:1].double(), images[1:].double()).item()
    assert mean_similarity(images, 20) == pytest.approx(both)
    assert mean_similarity(images[:1].expand(5, -1, -1, -1), 20) == pytest.approx(1)


def test_a_pair_is_of_two_images_and_all_are_as_likely() -> None:
    first, second = choose_image_pairs(4, 12_000)
    assert not (first == second).any()
    counts = torch.zeros(4, 4).index_put((first, second), torch.ones(12_000), accumulate=True)
    assert counts[~torch.eye(4, dtype=torch.bool)].sub(1000).abs().max() < 150
