"""Pixel conversion and fingerprints."""

import pytest
import torch

from crgan_cli.data.images import Images, fingerprint, to_float, to_uint8


def test_black_is_minus_one_and_white_is_one():
    x = to_float(torch.tensor([0, 51, 255], dtype=torch.uint8))
    assert x.dtype == torch.float32
    assert x.tolist() == pytest.approx([-1.0, -0.6, 1.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_pixel_value_survives_the_round_trip(dtype: torch.dtype):
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(every).to(dtype)), every)


def test_to_uint8_rounds_and_clamps():
    x = torch.tensor([-1.2, -0.9999, 0.0, 0.997, 1.5])
    assert to_uint8(x).tolist() == [0, 0, 128, 255, 255]


def test_to_uint8_leaves_its_argument_alone():
    x = torch.zeros(3)
    to_uint8(x)
    assert torch.equal(x, torch.zeros(3))


def test_a_fingerprint_changes_with_one_pixel_one_label_and_the_shape():
    images = Images(torch.zeros(5, 1, 4, 4, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64))
    other_pixel, other_label = images.x.clone(), images.y.clone()
    other_pixel[4, 0, 3, 3] = 1
    other_label[2] = 1
    prints = {
        fingerprint(images),
        fingerprint(Images(other_pixel, images.y)),
        fingerprint(Images(images.x, other_label)),
        fingerprint(Images(images.x.view(5, 1, 2, 8), images.y)),
    }
    assert len(prints) == 4
    assert fingerprint(Images(images.x.clone(), images.y.clone())) == fingerprint(images)
    assert len(fingerprint(images)) == 64


def test_a_fingerprint_ignores_memory_layout():
    x = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4)
    y = torch.tensor([0, 1])
    strided = x.contiguous(memory_format=torch.channels_last)
    assert fingerprint(Images(strided, y)) == fingerprint(Images(x, y))
