"""The folded convolution to an image: the plain one's numbers, and where it is used."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from crgan_cli.networks.fast import image_conv
from crgan_cli.networks.fast.bf16_weights import bf16_weights
from crgan_cli.networks.fast.image_conv import ImageConv

LAYOUTS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])


@LAYOUTS
@pytest.mark.parametrize(
    ("channels", "kernel", "padding", "bias"), [(3, 7, 0, True), (1, 7, 3, False), (4, 3, 1, True)]
)
def test_both_forms_are_equal(
    monkeypatch: pytest.MonkeyPatch,
    layout: torch.memory_format,
    channels: int,
    kernel: int,
    padding: int,
    bias: bool,
) -> None:
    layer = ImageConv(5, channels, kernel, padding=padding, bias=bias).double()
    layer = layer.to(memory_format=layout)  # type: ignore[call-overload]
    # sides of the output: 8 and 6
    sides = (7 + kernel - 2 * padding, 5 + kernel - 2 * padding)
    x = torch.randn(2, 5, *sides).double().contiguous(memory_format=layout).requires_grad_()
    folded: list[torch.Size] = []
    fold = image_conv.fold_places
    monkeypatch.setattr(image_conv, "fold_places", lambda w: (folded.append(w.shape), fold(w))[1])
    ours = layer(x)
    theirs = F.conv2d(x, layer.weight, layer.bias, padding=padding)
    assert folded == [layer.weight.shape]
    torch.testing.assert_close(ours, theirs)
    assert channels == 1 or ours.is_contiguous(memory_format=layout)
    given, probe = [x, *layer.parameters()], torch.randn_like(theirs)
    for one, other in zip(
        torch.autograd.grad(ours, given, probe),
        torch.autograd.grad(theirs, given, probe),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("channels", "sides", "training"),
    [(3, (9, 8), True), (3, (8, 9), True), (5, (8, 8), True), (3, (8, 8), False)],
)
def test_odd_sides_many_channels_and_evaluation_stay_plain(
    monkeypatch: pytest.MonkeyPatch, channels: int, sides: tuple[int, int], training: bool
) -> None:
    monkeypatch.delattr(image_conv, "fold_places")
    layer, x = ImageConv(2, channels, 3, padding=1).train(training), torch.randn(1, 2, *sides)
    assert torch.equal(layer(x), nn.Conv2d.forward(layer, x))


def test_in_bf16_only_rounding_differs() -> None:
    layer, x = ImageConv(4, 3, 7, padding=3), torch.randn(2, 4, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16), bf16_weights(layer):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), nn.Conv2d.forward(layer, x), atol=0.03, rtol=0.03)
