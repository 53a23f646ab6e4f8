"""A convolution with its leaky ReLU against the two one after the other."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from crgan_cli.networks.fast import convolution, leaky_convolution
from crgan_cli.networks.fast.convolution_forms import (
    LIBRARY,
    Forms,
    Geometry,
    gradients_of_images_only,
)
from crgan_cli.networks.fast.leaky_convolution import ConvolveLeaky, convolve_leaky

SAME = Geometry(3, 1, 1)
SLOPE = 0.2


def operands(n: int, c: int, k: int, side: int, kernel: int = 3) -> list[Tensor]:
    """X, W and bias in float64."""
    shapes = ((n, c, side, side), (k, c, kernel, kernel), (k,))
    return [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in shapes]


def plainly(x: Tensor, weight: Tensor, bias: Tensor, at: Geometry) -> Tensor:
    return F.leaky_relu(F.conv2d(x, weight, bias, at.stride, at.padding), SLOPE)


def all_gradients(y: Tensor, given: list[Tensor]) -> list[Tensor]:
    """First order, and that of a penalty on the image's gradient together with the value."""
    first = torch.autograd.grad(y.sin().sum(), given, retain_graph=True)
    (slope,) = torch.autograd.grad(y.square().sum(), given[0], create_graph=True)
    penalty = (slope.flatten(1).square().sum(1).sqrt() - 1).square().sum()
    return [*first, slope, penalty, *torch.autograd.grad(penalty, given)]


@pytest.mark.parametrize("forms", [LIBRARY, Forms("windows", "shifts", "windows")])
@pytest.mark.parametrize("kernel", [1, 3])
def test_the_value_and_all_gradients_are_autograds(forms: Forms, kernel: int) -> None:
    given, at = operands(3, 4, 5, 6, kernel), Geometry(kernel, 1, kernel // 2)
    ours, theirs = ConvolveLeaky.apply(*given, SLOPE, at, forms), plainly(*given, at)
    assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-12)
    for one, other in zip(all_gradients(ours, given), all_gradients(theirs, given), strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-10)


def test_it_can_be_differentiated_as_often_as_one_likes() -> None:
    given = operands(1, 2, 2, 3)
    function = lambda *given: ConvolveLeaky.apply(*given, SLOPE, SAME, LIBRARY)  # noqa: E731
    assert torch.autograd.gradcheck(function, given)
    assert torch.autograd.gradgradcheck(function, given)


@pytest.mark.parametrize(("dtype", "apart"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_a_layer_used_twice_gets_both_gradients(dtype: torch.dtype, apart: float) -> None:
    """In channels last and under autocast, as in a turn."""
    x, weight, bias = (each.float().detach().requires_grad_() for each in operands(4, 8, 8, 8))
    last = torch.channels_last
    found = []
    for training in (True, False):  # not in training it is plain
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            h = x.contiguous(memory_format=last)
            for _ in range(2):
                kernel = weight.contiguous(memory_format=last) / 9
                h = convolve_leaky(h, kernel, bias, SLOPE, SAME, training=training)
        assert h.dtype == dtype
        assert h.is_contiguous(memory_format=last)
        found.append([h.float(), *torch.autograd.grad(h.float().square().sum(), (x, weight, bias))])
    for one, other in zip(*found, strict=True):
        assert float((one - other).detach().norm() / other.detach().norm()) < apart


def test_only_in_training_on_a_cpu_is_it_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias = (each.float() for each in operands(2, 3, 4, 5))

    def made_by(training: bool, x: Tensor) -> str:
        device = x.device
        y = convolve_leaky(x, weight.to(device), bias.to(device), SLOPE, SAME, training=training)
        return type(y.grad_fn).__name__

    assert made_by(True, x) == "ConvolveLeakyBackward"
    assert made_by(False, x) == "LeakyReluBackward0"
    assert made_by(True, x.to("meta")) == "LeakyReluBackward0"
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert made_by(True, x) == "LeakyReluBackward0"


def test_a_form_that_costs_less_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    by = Forms("windows", "library", "windows")
    monkeypatch.setattr(leaky_convolution, "find_forms", lambda *args: by)
    given = operands(2, 3, 4, 5)
    y = convolve_leaky(*given, SLOPE, SAME, training=True)
    assert y.grad_fn.rest == (SAME, by)
    assert torch.allclose(y, plainly(*given, SAME))
    assert leaky_convolution.find_forms is not convolution.find_forms


def test_weights_get_no_gradient_where_only_the_images_is_asked_for() -> None:
    given = operands(2, 3, 4, 5)
    y = ConvolveLeaky.apply(*given, SLOPE, SAME, LIBRARY)
    with gradients_of_images_only():
        x, weight, bias = torch.autograd.grad(
            y.sum(), given, allow_unused=True, retain_graph=True, create_graph=True
        )
    assert x.any()
    assert weight is bias is None
    assert all(each.any() for each in torch.autograd.grad(y.sum(), given))
