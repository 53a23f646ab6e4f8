"""The sliced Wasserstein distance by hand, and against its definition in plain loops."""

import numpy as np
import pytest
import torch
from torch import Tensor

from crgan_cli.evaluation.metrics.sliced_wasserstein import list_sides, sliced_wasserstein


def smooth_images(n: int, *shape: int, seed: int) -> Tensor:
    """uint8 noise on top of slow waves."""
    random = np.random.default_rng(seed)
    waves = np.sin(np.arange(np.prod(shape)).reshape(shape) / 9 + random.normal(size=(n, 1, 1, 1)))
    return torch.from_numpy((128 + 70 * waves + random.normal(0, 20, (n, *shape))).astype(np.uint8))


def mirror(i: int, size: int) -> int:
    return -i if i < 0 else 2 * (size - 1) - i if i >= size else i


def blur(x: np.ndarray) -> np.ndarray:
    """Sum over a window of 5 x 5, with mirrored edges, pixel by pixel."""
    taps = np.array([1, 4, 6, 4, 1]) / 16
    h, w = x.shape[2:]
    out = np.zeros_like(x)
    for i in range(h):
        for j in range(w):
            for a in range(5):
                for b in range(5):
                    pixel = x[:, :, mirror(i + a - 2, h), mirror(j + b - 2, w)]
                    out[:, :, i, j] += taps[a] * taps[b] * pixel
    return out


def pyramid(x: np.ndarray, levels: int) -> list[np.ndarray]:
    bands = []
    for _ in range(levels - 1):
        half = blur(x)[:, :, ::2, ::2]
        spread = np.zeros_like(x)
        spread[:, :, ::2, ::2] = half
        bands.append(x - 4 * blur(spread))
        x = half
    return [*bands, x]


def describe(band: np.ndarray, top: Tensor, left: Tensor) -> np.ndarray:
    patches = np.array(
        [
            band[image, :, i : i + 7, j : j + 7]
            for image in range(len(band))
            for i, j in zip(top[image].tolist(), left[image].tolist(), strict=True)
        ]
    )
    for channel in range(patches.shape[1]):
        values = patches[:, channel]
        patches[:, channel] = (values - values.mean()) / values.std()
    return patches.reshape(len(patches), -1)


@pytest.mark.parametrize(
    ("shape", "sides"), [((3, 32, 32), [32, 16]), ((1, 36, 40), [36, 18]), ((1, 21, 18), [18])]
)
def test_the_distances_are_those_of_the_definition_in_float64(
    shape: tuple[int, ...], sides: list[int]
) -> None:
    n, patches, directions = 3, 5, 8
    images = [smooth_images(n, *shape, seed=seed) for seed in (1, 2)]
    bands = [pyramid(each.double().numpy(), len(sides)) for each in images]
    generator = torch.Generator().manual_seed(0)
    expected = {}
    for level, side in enumerate(sides):
        described = []
        for each in bands:
            h, w = each[level].shape[2:]
            top = torch.randint(0, h - 6, (n, patches), generator=generator)
            left = torch.randint(0, w - 6, (n, patches), generator=generator)
            described.append(describe(each[level], top, left))
        drawn = torch.randn(directions, 49 * shape[0], generator=generator).double().numpy()
        total = 0.0
        for direction in drawn:
            unit = direction / np.sqrt((direction**2).sum())
            real, fake = (np.sort(each @ unit) for each in described)
            total += np.abs(real - fake).mean()
        expected[side] = total / directions
    real, fake = images
    found = sliced_wasserstein(real, fake, patches=patches, directions=directions)
    assert found == pytest.approx(expected, rel=1e-4)


def test_shares_of_black_and_white_images_by_hand() -> None:
    """Half of the patches -1 and half 1, against a quarter -sqrt(3) and the rest 1 / sqrt(3)."""
    shades = torch.zeros(2, 4, dtype=torch.uint8)
    shades[0, 2:], shades[1, 1:] = 255, 255
    black_and_white = shades[:, :, None, None, None].expand(-1, -1, 1, 16, 16)
    found = sliced_wasserstein(*black_and_white, patches=8, directions=20_000)
    moved = (3**0.5 - 1) / 4 + (1 + 3**-0.5) / 4 + (1 - 3**-0.5) / 2
    # a unit vector in 49 dimensions has |sum| = sqrt(2 / pi) (1 + 1 / 196) on average
    assert found == pytest.approx({16: moved * (2 / np.pi) ** 0.5 * 197 / 196}, rel=0.02)


def test_images_without_any_difference_are_at_no_distance_from_each_other() -> None:
    one, other = torch.full((2, 3, 32, 32), 7), torch.full((2, 3, 32, 32), 200)
    assert sliced_wasserstein(one, other, patches=4, directions=4) == {32: 0, 16: 0}


def test_of_more_images_on_one_side_as_many_are_chosen() -> None:
    few, many = smooth_images(2, 1, 16, 16, seed=1), smooth_images(300, 1, 16, 16, seed=2)
    one, other = sliced_wasserstein(few, many), sliced_wasserstein(many, few)
    assert one[16] > 0 < other[16]
    assert one == sliced_wasserstein(few, many)


def test_blocks_of_images_and_directions_do_not_change_the_distance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = [smooth_images(30, 3, 32, 32, seed=seed) for seed in (1, 2)]
    whole = sliced_wasserstein(*images, patches=4, directions=20)
    module = "crgan_cli.evaluation.metrics.sliced_wasserstein"
    monkeypatch.setattr(f"{module}.IMAGES_AT_ONCE", 7)
    monkeypatch.setattr(f"{module}.DIRECTIONS_AT_ONCE", 3)
    assert sliced_wasserstein(*images, patches=4, directions=20) == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize(
    ("shape", "sides"),
    [
        ((16, 16), [16]),
        ((28, 28), [28]),
        ((128, 128), [128, 64, 32, 16]),
        ((48, 96), [48, 24]),
        ((96, 40), [40, 20]),
        ((100, 100), [100, 50, 25]),
    ],
)
def test_the_levels_are_halves_of_even_sides_down_to_16(
    shape: tuple[int, int], sides: list[int]
) -> None:
    assert list_sides(*shape) == sides
