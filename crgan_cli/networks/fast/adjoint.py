"""grad_x D as an explicit network, the adjoint network: a chain of vector-Jacobian products (VJPs).

A network of convolutions, linear maps, mean pooling and (leaky) ReLUs is piecewise linear. Near
almost every image, its Jacobian is the product of the layers' matrices, with constant ReLU slopes.
grad_x D is the product of the transposed matrices in reverse order, i.e. transposed convolutions
(reverse mode written out: Baydin et al. 2018, arXiv:1502.05767, section 3.2). The derivative of the
slopes is 0 almost everywhere, so one ordinary backward pass through this network is the exact
gradient of a penalty on grad_x D. Double backward computes the same numbers, but also propagates
zeros through the whole network: the work of 6 forward passes instead of 4.
"""

from collections.abc import Callable
from functools import reduce, singledispatch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crgan_cli.networks.blocks import Residual, ResidualDiscriminator
from crgan_cli.networks.fast.fused_resample import PooledConv3, with_average_pool
from crgan_cli.networks.layers import (
    LinearHead,
    LogitConv,
    LogitLayer,
    ProjectionHead,
    ToUnitInterval,
    mean_pool,
    sum_pool,
)
from crgan_cli.networks.patchgan import PatchDiscriminator
from crgan_cli.networks.sequential import SequentialDiscriminator
from crgan_cli.networks.stargan import StarGANDiscriminator

VJP = Callable[[Tensor], Tensor]
"""Vector-Jacobian product v -> J^T v: v has the shape of the layer's output, J^T v of its input."""

OutputAndVJP = tuple[Tensor, VJP]
"""A layer's output, without a graph, and its VJP, with a graph to the weights."""

CONTAINERS = (
    nn.Sequential,
    Residual,
    ResidualDiscriminator,
    SequentialDiscriminator,
    PatchDiscriminator,
    StarGANDiscriminator,
)
"""Modules that are piecewise linear if all their children are."""

POOL_VJPS: dict[object, Callable[[Tensor, torch.Size], Tensor]] = {
    sum_pool: lambda v, shape: v[:, :, None, None].expand(shape),
    mean_pool: lambda v, shape: (v / shape[2:].numel())[:, :, None, None].expand(shape),
}
"""pooling over positions -> its VJP, for features of a shape."""


def is_piecewise_linear(layer: object) -> bool:
    """Whether `linearise` supports `layer` and all its children. Reads no weights.

    Not supported: a subclass that overrides `forward`, and a layer with a forward pre-hook, which
    may compute its weights.
    """
    kind = next(kind for kind in type(layer).__mro__ if kind in linearise.registry)
    if not isinstance(layer, nn.Module) or kind is object or layer._forward_pre_hooks:
        return False
    if type(layer).forward is not getattr(kind, "forward", None):
        return False
    if isinstance(layer, nn.Conv2d):
        return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    if isinstance(layer, ResidualDiscriminator) and layer.pool not in POOL_VJPS:
        return False
    return not isinstance(layer, CONTAINERS) or all(map(is_piecewise_linear, layer.children()))


def input_gradient(D: nn.Module, x: Tensor, y: Tensor | None) -> Tensor:
    """Return grad_x D(x, y) of each image, (N, C, H, W), for (N,) class ids or None.

    If D has a map of logits per image, D(x, y) is their sum; class logits are left out. The
    gradient's graph leads to D's weights, not to x. D must satisfy `is_piecewise_linear`, and must
    score each image independently of the others.
    """
    logits, vjp = linearise(D, x.detach(), y)
    return vjp(torch.ones_like(logits))


@singledispatch
def linearise(layer: object, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    """Return the output of `layer` at x (without a graph), and its VJP. y: class ids, if any.

    Each weight is read once, because spectral norm may run a power iteration at every access.
    """
    raise AssertionError(f"no linearisation of {type(layer).__name__}: see is_piecewise_linear")


# --- layers --------------------------------------------------------------------------------------


def linearise_relu(x: Tensor) -> OutputAndVJP:
    """max(x, 0), with slope 0 at 0 as in torch."""
    return F.relu(x), lambda v: torch.ops.aten.threshold_backward(v, x, 0.0)


def linearise_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...] | str,
    dilation: tuple[int, ...] = (1, 1),
    groups: int = 1,
) -> OutputAndVJP:
    """A convolution. Its VJP is the transposed convolution with the same kernel."""
    assert not isinstance(padding, str)
    bias = None if bias is None else bias.detach()
    out = F.conv2d(x, weight.detach(), bias, stride, padding, dilation, groups)
    # rows and columns at the end that no stride reaches: their gradient is 0
    unreached = [
        (side + 2 * p - d * (k - 1) - 1) % s
        for side, k, s, p, d in zip(
            x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True
        )
    ]
    return out, lambda v: F.conv_transpose2d(
        v, weight, None, stride, padding, unreached, groups, dilation
    )


@linearise.register(LogitConv)
@linearise.register(nn.Conv2d)
def _(layer: nn.Conv2d, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    return linearise_convolution(
        x, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups
    )


@linearise.register
def _(layer: PooledConv3, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    weight = layer.weight
    if layer.use_fused and layer.training:
        kernel = with_average_pool(weight, divisor=4)
        return linearise_convolution(x, kernel, layer.bias, (2, 2), layer.padding)
    h, vjp_conv = linearise_convolution(x, weight, layer.bias, layer.stride, layer.padding)
    h, vjp_pool = linearise(nn.AvgPool2d(2), h)
    return h, compose_vjps([vjp_conv, vjp_pool])


@linearise.register(LogitLayer)
@linearise.register(nn.Linear)
def _(layer: nn.Linear, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    weight = layer.weight
    bias = None if layer.bias is None else layer.bias.detach()
    return F.linear(x, weight.detach(), bias), lambda v: v @ weight


@linearise.register
def _(layer: nn.ReLU, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    return linearise_relu(x)


@linearise.register
def _(layer: nn.LeakyReLU, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    slope = layer.negative_slope
    backward = (
        torch.ops.aten.leaky_relu_backward
    )  # one kernel forward and one backward; a mask needs three
    return F.leaky_relu(x, slope), lambda v: backward(v, x, slope, False)


@linearise.register
def _(layer: nn.AvgPool2d, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    like = torch.empty_like(x, device="meta")  # shape and layout of x, without memory
    window = (layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode)
    count = (layer.count_include_pad, layer.divisor_override)
    return layer(x), lambda v: torch.ops.aten.avg_pool2d_backward(
        v, torch.empty_like(like, device=v.device), *window, *count
    )


@linearise.register
def _(layer: nn.Identity, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    return x, lambda v: v


@linearise.register
def _(layer: nn.Flatten, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    shape = x.shape
    return layer(x), lambda v: v.reshape(shape)


@linearise.register
def _(layer: nn.ZeroPad2d, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    return layer(x), lambda v: F.pad(v, [-p for p in layer.padding])


@linearise.register
def _(layer: ToUnitInterval, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    return layer(x), lambda v: v / 2


# --- heads ---------------------------------------------------------------------------------------


@linearise.register
def _(layer: LinearHead, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    h, vjp = linearise(layer.linear, x)
    return h.squeeze(1), lambda v: vjp(v[:, None])


@linearise.register
def _(layer: ProjectionHead, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    assert y is not None, "a conditional discriminator was called without labels"
    h, vjp = linearise(layer.linear, x)
    label = layer.embed(y)
    logits = h.squeeze(1) + (label.detach() * x).sum(1)
    return logits, lambda v: vjp(v[:, None]) + v[:, None] * label


# --- containers ----------------------------------------------------------------------------------


@linearise.register
def _(layer: nn.Sequential, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    vjps: list[VJP] = []
    for child in layer:
        x, vjp = linearise(child, x)
        vjps.append(vjp)
    return x, compose_vjps(vjps)


@linearise.register
def _(layer: Residual, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    body, vjp_body = linearise(layer.body, x)
    shortcut, vjp_shortcut = linearise(layer.shortcut, x)
    return body + shortcut, lambda v: vjp_body(v) + vjp_shortcut(v)


@linearise.register
def _(layer: ResidualDiscriminator, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    h, vjp_blocks = linearise(layer.blocks, x)
    h, vjp_relu = linearise_relu(h)
    shape, vjp_pool = h.shape, POOL_VJPS[layer.pool]
    logits, vjp_head = linearise(layer.head, layer.pool(h), y)
    return logits, compose_vjps([vjp_blocks, vjp_relu, lambda v: vjp_pool(v, shape), vjp_head])


@linearise.register
def _(layer: SequentialDiscriminator, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    h, vjp_layers = linearise(layer.layers, x)
    logits, vjp_head = linearise(layer.head, h)
    return logits, compose_vjps([vjp_layers, vjp_head])


@linearise.register
def _(layer: PatchDiscriminator, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    return linearise(layer.layers, x)


@linearise.register
def _(layer: StarGANDiscriminator, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    h, vjp_layers = linearise(layer.layers, x)
    logits, vjp_source = linearise(layer.source, h)
    return logits, compose_vjps([vjp_layers, vjp_source])


def compose_vjps(vjps: list[VJP]) -> VJP:
    """Return the VJP of layers in a row; `vjps` are in the order of the layers."""
    return lambda v: reduce(lambda v, vjp: vjp(v), reversed(vjps), v)
