"""Images moved by affine maps."""

import math

import pytest
import torch

from crgan_cli.gan.types import Batch
from crgan_cli.gan.warp import Rotation, rotations, warp_images


def pictures(n: int = 3, side: int = 9) -> torch.Tensor:
    return torch.rand(n, 2, side, side, generator=torch.manual_seed(0), dtype=torch.float64)


def test_no_motion_changes_nothing_and_a_quarter_turn_is_exact() -> None:
    x = pictures()
    still = warp_images(x, rotations(torch.zeros(3, dtype=torch.float64)))
    assert torch.equal(still, x)
    turned = warp_images(x, rotations(torch.full((3,), math.pi / 2, dtype=torch.float64)))
    torch.testing.assert_close(turned, x.rot90(1, (2, 3)))


def test_a_shift_by_half_a_pixel_is_the_mean_of_two_and_the_edge_is_reflected() -> None:
    x = torch.tensor([[[[0.0, 2.0, 6.0]]]])
    source = torch.tensor([[[1.0, 0, 0.5], [0, 1, 0]]])
    assert warp_images(x, source).flatten().tolist() == [1, 4, 4]  # beyond 6 comes 2 again
    far = torch.tensor([[[1.0, 0, 4.0], [0, 1, 0]]])
    assert warp_images(x, far).flatten().tolist() == [0, 2, 6]  # a period of 4 pixels


def test_it_is_grid_sample_where_both_have_one_meaning() -> None:
    x = pictures(2, 8)
    source = torch.tensor(
        [[[0.8, -0.3, 0.7], [0.4, 1.1, -0.2]], [[-1.0, 0.1, 0], [0.2, 0.9, 0.4]]],
        dtype=torch.float64,
    )
    at = torch.arange(8, dtype=torch.float64) - 3.5
    places = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1)
    grid = torch.einsum("nij,hwj->nhwi", source[..., :2], places) + source[:, None, None, :, 2]
    expected = torch.nn.functional.grid_sample(
        x, grid / 3.5, mode="bilinear", padding_mode="reflection", align_corners=True
    )
    torch.testing.assert_close(warp_images(x, source), expected)


def test_gradients_reach_the_pixels_and_the_layout_stays() -> None:
    x = pictures().requires_grad_()
    source = rotations(torch.tensor([0.3, -0.2, 1.0], dtype=torch.float64))
    torch.autograd.gradcheck(lambda each: warp_images(each, source), x[:, :1, :4, :4])
    last = pictures().to(memory_format=torch.channels_last)
    assert warp_images(last, source).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("degrees", [0.0, 30.0])
def test_a_rotation_turns_each_image_by_its_own_angle(degrees: float) -> None:
    side = 33
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    wedge = torch.atan2(rows - 16.0, columns - 16.0).expand(200, 1, side, side)
    torch.manual_seed(0)
    moved = Rotation(degrees)(Batch(wedge)).x
    angles = (moved[:, 0, 16, 26] - wedge[:, 0, 16, 26]) * 180 / math.pi
    assert angles.abs().max() <= degrees + 1e-3
    if degrees:
        assert angles.std() == pytest.approx(degrees / 3**0.5, rel=0.1)  # of U[-a, a]
