"""Pixel norm as one function against its formula."""

import pytest
import torch

from crgan_cli.networks.fast.pixel_norm import NormalizePixels
from crgan_cli.networks.pggan import pixel_norm

EPS = 1e-8


def formula(x: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(1, keepdim=True) + EPS).sqrt()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_value_and_two_derivatives_are_autograds(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64).contiguous(memory_format=layout)
    x.requires_grad_()
    ours, theirs = NormalizePixels.apply(x, EPS), formula(x)
    assert torch.allclose(ours, theirs, atol=1e-12)
    assert ours.stride() == x.stride()
    v = torch.randn_like(x)
    one, other = (torch.autograd.grad(y, x, v, create_graph=True)[0] for y in (ours, theirs))
    assert torch.allclose(one, other, atol=1e-12)
    probe = torch.randn_like(x)
    one, other = (torch.autograd.grad((g * probe).sum(), x)[0] for g in (one, other))
    assert torch.allclose(one, other, atol=1e-11)
    assert torch.autograd.gradgradcheck(lambda x: NormalizePixels.apply(x, EPS), x)


def test_zeros_stay_zeros_and_have_a_gradient() -> None:
    x = torch.zeros(1, 3, 1, 1, requires_grad=True)
    y = pixel_norm(x)
    assert not y.any()
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.flatten().tolist() == pytest.approx([1e4] * 3)


def test_in_bf16_the_length_is_that_of_fp32() -> None:
    torch.manual_seed(0)
    x = (100 * torch.randn(2, 64, 4, 4)).bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = pixel_norm(x)
    assert y.dtype == torch.bfloat16
    wide = x.detach().float().requires_grad_()
    expected = formula(wide)
    assert torch.allclose(y.float(), expected, rtol=2**-7)
    v = torch.randn_like(expected)
    (ours,) = torch.autograd.grad(y, x, v.bfloat16())
    (theirs,) = torch.autograd.grad(expected, wide, v)
    assert float((ours.float() - theirs).norm() / theirs.norm()) < 0.01


def test_compiled_and_on_other_devices_its_operations_are_plain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = torch.randn(1, 3, 2, 2, requires_grad=True)
    assert type(pixel_norm(x).grad_fn).__name__ == "NormalizePixelsBackward"
    assert type(pixel_norm(x.to("meta")).grad_fn).__name__ == "MulBackward0"
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert type(pixel_norm(x).grad_fn).__name__ == "MulBackward0"
