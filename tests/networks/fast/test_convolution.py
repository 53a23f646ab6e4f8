"""Convolutions by other forms: the same numbers as PyTorch's, chosen by shapes alone."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crgan_cli.networks.fast import convolution
from crgan_cli.networks.fast.convolution import Convolution, TransposedConvolution, choose_forms
from crgan_cli.networks.fast.convolution_forms import (
    LIBRARY,
    Convolve,
    Forms,
    Geometry,
    SpreadOut,
    small_side,
)

BF16, CHANNELS_LAST = torch.bfloat16, torch.channels_last
HALVING = Geometry(4, 2, 1)
SHIFTS = Forms("shifts", "shifts", "shifts")
CASES = [  # of both: Y's channels, then X's channels and sides
    pytest.param(HALVING, LIBRARY, 2, (3, 4, 6), id="library"),
    pytest.param(HALVING, Forms("windows", "residues", "windows"), 2, (3, 4, 6), id="halving"),
    pytest.param(HALVING, Forms("windows", "residues", "windows"), 2, (2, 5, 7), id="odd-sides"),
    pytest.param(Geometry(5, 2, 0), Forms("windows", "library", "windows"), 3, (2, 6, 5), id="5x5"),
    pytest.param(Geometry(3, 1, 1), Forms("windows", "library", "windows"), 2, (3, 3, 4), id="3x3"),
    pytest.param(Geometry(4, 1, 1), SHIFTS, 1, (3, 5, 4), id="shifts"),
    pytest.param(Geometry(3, 1, 1), SHIFTS, 2, (3, 4, 3), id="shifts-two-channels"),
]


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    x = torch.randn(shape, dtype=dtype)
    return x.contiguous(memory_format=CHANNELS_LAST if x.ndim == 4 else torch.contiguous_format)


@pytest.mark.parametrize(("at", "forms", "c_small", "large"), CASES)
def test_each_form_and_both_its_derivatives_are_those_of_the_library(
    at: Geometry, forms: Forms, c_small: int, large: tuple[int, int, int]
) -> None:
    x = draw(2, *large).requires_grad_()
    weight = draw(c_small, large[0], at.kernel, at.kernel).requires_grad_()
    bias = draw(c_small).requires_grad_()

    def convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return Convolve.apply(x, weight, bias, at, forms)

    expected = F.conv2d(x, weight, bias, at.stride, at.padding)
    torch.testing.assert_close(convolve(x, weight, bias), expected)
    assert torch.autograd.gradcheck(convolve, (x, weight, bias))
    assert torch.autograd.gradgradcheck(convolve, (x, weight, bias))


@pytest.mark.parametrize(("at", "forms", "c_small", "large"), CASES)
def test_each_transposed_form_and_both_its_derivatives_are_those_of_the_library(
    at: Geometry, forms: Forms, c_small: int, large: tuple[int, int, int]
) -> None:
    c, *sides = large
    small = [small_side(side, at) for side in sides]
    more = [(side + 2 * at.padding - at.kernel) % at.stride for side in sides]
    y = draw(2, c_small, *small).requires_grad_()
    weight = draw(c_small, c, at.kernel, at.kernel).requires_grad_()
    bias = draw(c).requires_grad_()

    def spread(y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return SpreadOut.apply(y, weight, bias, sides, at, forms)

    expected = F.conv_transpose2d(y, weight, bias, at.stride, at.padding, more)
    torch.testing.assert_close(spread(y, weight, bias), expected)
    assert torch.autograd.gradcheck(spread, (y, weight, bias))
    assert torch.autograd.gradgradcheck(spread, (y, weight, bias))


# --- layers --------------------------------------------------------------------------------------

LAYERS = [
    pytest.param(lambda: Convolution(64, 64, 4, 2, 1), (2, 64, 4, 4), id="windows"),
    pytest.param(lambda: TransposedConvolution(64, 64, 4, 2, 1), (2, 64, 1, 1), id="transposed"),
    pytest.param(lambda: TransposedConvolution(16, 3, 4, 2, 1), (1, 16, 32, 32), id="residues"),
    pytest.param(lambda: Convolution(32, 1, 4, 1, 1), (2, 32, 5, 5), id="shifts"),
]


@pytest.fixture(params=[True, False], ids=["slow", "fast"])
def slow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether this CPU is taken for one on which other forms are cheaper."""
    monkeypatch.setattr(convolution, "forms_pay", lambda dtype: request.param)
    return request.param


def build(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make().to(memory_format=CHANNELS_LAST)  # type: ignore[call-overload]


def plain(layer: nn.Module, x: Tensor) -> Tensor:
    """PyTorch's own answer."""
    function = F.conv2d if isinstance(layer, nn.Conv2d) else F.conv_transpose2d
    return function(x, layer.weight, layer.bias, layer.stride, layer.padding)  # type: ignore


def differentiate(y: Tensor, x: Tensor, layer: nn.Module) -> tuple[Tensor, ...]:
    weights = torch.arange(y.numel()).view(y.shape).to(y.dtype) / y.numel() - 0.5
    return torch.autograd.grad(y, [x, *layer.parameters()], weights)


@pytest.mark.parametrize(("make", "shape"), LAYERS)
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_a_layer_is_pytorchs_up_to_rounding_and_on_other_cpus_to_the_bit(
    slow: bool, bf16: bool, make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    layer, x = build(make), draw(*shape, dtype=torch.float32).requires_grad_()
    with torch.autocast("cpu", dtype=BF16, enabled=bf16):
        y, expected = layer(x), plain(layer, x)
    assert (type(y.grad_fn).__name__ != "ConvolutionBackward0") == slow
    pairs = [(y, expected)]
    pairs += zip(differentiate(y, x, layer), differentiate(expected, x, layer), strict=True)
    for found, wanted in pairs:
        assert found.dtype is wanted.dtype
        assert found.is_contiguous(memory_format=CHANNELS_LAST) or found.ndim == 1
        if not slow:
            assert torch.equal(found, wanted)
        error = torch.linalg.vector_norm((found - wanted).double())
        assert error <= (1e-2 if bf16 else 1e-5) * torch.linalg.vector_norm(wanted.double())


@pytest.mark.parametrize("slow", [True], indirect=True)
@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_samples_and_scores_and_images_in_nchw_are_pytorchs_to_the_bit(
    slow: bool, make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    layer, x = build(make), draw(*shape, dtype=torch.float32)
    assert torch.equal(layer.eval()(x), plain(layer, x))
    layer.train().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    x = x.contiguous()
    assert torch.equal(layer(x), plain(layer, x))


@pytest.mark.parametrize("slow", [True], indirect=True)
def test_a_backward_pass_within_autocast_stays_in_fp32(slow: bool) -> None:
    layer, x = build(lambda: Convolution(64, 64, 4, 2, 1)), draw(2, 64, 4, 4).float()
    y = layer(x.requires_grad_())
    with torch.autocast("cpu", dtype=BF16):
        within = torch.autograd.grad(y.sum(), layer.weight, retain_graph=True)
    assert torch.equal(*within, *torch.autograd.grad(y.sum(), layer.weight))


# --- which form ----------------------------------------------------------------------------------


L, W, R, S = "library", "windows", "residues", "shifts"
CHOICES = [
    # a U-Net's innermost layer, batch 4: 4 positions, 262,144 weights
    (4, 128, 128, HALVING, (W, L, W), (W, L, W)),
    # up to as many positions as channels in fp32, four times as many in bf16
    (128, 128, 64, HALVING, (L, L, W), (W, L, W)),
    (512, 128, 64, HALVING, (L, L, L), (L, L, W)),
    (513, 128, 64, HALVING, (L, L, L), (L, L, L)),
    # oneDNN is better without a stride
    (128, 128, 64, Geometry(3, 1, 1), (L, L, W), (L, L, W)),
    # a small kernel costs it little
    (4, 32, 32, HALVING, (L, L, L), (L, L, L)),
    # few channels of many pixels
    (16384, 32, 3, HALVING, (L, R, L), (L, R, L)),
    (16384, 16, 6, HALVING, (L, L, L), (L, R, L)),
    (1023, 32, 3, HALVING, (L, L, L), (L, L, L)),
    # one logit per patch
    (784, 1, 128, Geometry(4, 1, 1), (S, S, S), (S, S, S)),
    (784, 1, 16, Geometry(4, 1, 1), (L, L, L), (L, L, L)),
    (784, 1, 128, Geometry(1, 1, 0), (L, L, L), (L, L, L)),
]


@pytest.mark.parametrize(("positions", "c_small", "c_large", "at", "fp32", "bf16"), CHOICES)
def test_shapes_choose_the_form(
    positions: int, c_small: int, c_large: int, at: Geometry, fp32: Forms, bf16: Forms
) -> None:
    chosen = [choose_forms(positions, c_small, c_large, at, t) for t in (torch.float32, BF16)]
    assert chosen == [fp32, bf16]


def test_a_cpu_with_amx_and_one_without_avx512_keep_the_librarys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def pay(capability: str, amx: bool, bf16: bool) -> tuple[bool, bool, bool]:
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
        ask = convolution.forms_pay.__wrapped__
        return ask(torch.float32), ask(BF16), ask(torch.float64)

    assert pay("AVX512", amx=False, bf16=True) == (True, True, False)
    assert pay("AVX512", amx=False, bf16=False) == (True, False, False)
    assert pay("AVX512", amx=True, bf16=True) == (False, False, False)
    assert pay("AVX2", amx=False, bf16=False) == (False, False, False)
