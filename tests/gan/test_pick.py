"""Pixels by their positions: PyTorch's gather, also differentiated twice."""

import torch

from crgan_cli.gan.pick import pick_entries, pick_pixels


def test_the_same_position_twice_adds_its_gradients():
    values = torch.tensor([10.0, 20.0, 30.0], requires_grad=True)
    picked = pick_entries(values, torch.tensor([2, 0, 2]))
    assert picked.tolist() == [30, 10, 30]
    (grad,) = torch.autograd.grad(picked @ torch.tensor([1.0, 2.0, 4.0]), values)
    assert grad.tolist() == [2, 0, 5]


def test_first_and_second_gradients_are_those_of_finite_differences():
    at = torch.tensor([3, 1, 1, 0])
    values = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pick_entries, (values, at))
    assert torch.autograd.gradgradcheck(lambda x: pick_entries(x, at).pow(3), (values,))


def test_pixels_of_another_device_are_those_of_gather():
    """The meta device takes the path of CUDA; its arithmetic is `pick_entries`'s, above."""
    pixels, at = torch.randn(2, 3, 5), torch.randint(0, 5, (2, 1, 7))
    expected = pixels.gather(2, at.expand(2, 3, 7))
    assert pick_pixels(pixels, at).equal(expected)
    first = torch.arange(0, 30, 5).view(2, 3, 1)
    assert pick_entries(pixels.reshape(-1), (at + first).view(-1)).view(2, 3, 7).equal(expected)
    assert pick_pixels(pixels.to("meta"), at.to("meta")).shape == (2, 3, 7)
