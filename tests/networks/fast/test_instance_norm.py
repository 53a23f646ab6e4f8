"""Instance norm in channels last: torch's numbers, its gradient, and the gradient of that."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from crgan_cli.networks.fast.instance_norm import NormalizeInstances
from crgan_cli.networks.norms import InstanceNorm


@pytest.mark.parametrize("affine", [False, True])
def test_values_and_both_gradients_are_torchs(affine: bool) -> None:
    x = torch.randn(2, 3, 4, 5).double().mul(2).add(1).contiguous(memory_format=torch.channels_last)
    learnt = [torch.randn(3).double().requires_grad_() for _ in range(2 * affine)]
    given = (x.requires_grad_(), *learnt)
    eps = 0.1

    def ours(*given: torch.Tensor) -> torch.Tensor:
        x, gain, shift = (*given, None, None)[:3]
        return NormalizeInstances.apply(x, gain, shift, eps)  # type: ignore[return-value]

    y = ours(*given)
    weight, bias = learnt or (None, None)
    torch_y = F.instance_norm(x, weight=weight, bias=bias, eps=eps)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, torch_y)
    probe = torch.randn_like(y)
    for one, other in zip(
        torch.autograd.grad(y, given, probe),
        torch.autograd.grad(torch_y, given, probe),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
    assert torch.autograd.gradcheck(ours, given)
    assert torch.autograd.gradgradcheck(ours, given)


@pytest.mark.parametrize(
    ("layout", "dtype", "fast"),
    [
        (torch.channels_last, torch.float32, True),
        (torch.channels_last, torch.bfloat16, False),
        (torch.contiguous_format, torch.float32, False),
    ],
)
def test_the_layer_uses_it_where_it_pays(
    layout: torch.memory_format, dtype: torch.dtype, fast: bool
) -> None:
    x = torch.randn(2, 3, 8, 8).to(dtype).contiguous(memory_format=layout).requires_grad_()
    y = InstanceNorm(3, affine=True).to(dtype)(x)
    assert y.grad_fn is not None
    assert (y.grad_fn.name() == "NormalizeInstancesBackward") == fast
    assert y.is_contiguous(memory_format=layout)
    assert y.dtype == dtype


def test_images_of_one_place_are_refused_as_by_torch() -> None:
    x = torch.randn(2, 3, 1, 1).contiguous(memory_format=torch.channels_last)
    for layer in (InstanceNorm(3), nn.InstanceNorm2d(3)):
        with pytest.raises(ValueError, match="more than 1 spatial element"):
            layer(x)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("affine", [False, True])
def test_the_gradient_in_bf16_is_that_of_fp32(
    n: int, layout: torch.memory_format, affine: bool
) -> None:
    """Torch's own is not, for one image in channels last whose gradient is in channels last."""
    torch.manual_seed(0)
    x, w = (torch.randn(n, 16, 8, 8).contiguous(memory_format=layout) for _ in range(2))
    norm = InstanceNorm(16, affine=affine)
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        own = x.bfloat16().to(dtype).requires_grad_()
        (found,) = torch.autograd.grad((norm(own).relu() * w.to(dtype)).float().sum(), own)
        gradients.append(found.float())
    assert torch.cosine_similarity(*(each.flatten() for each in gradients), 0) > 0.999
