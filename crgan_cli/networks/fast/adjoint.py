"""The gradient of D with respect to its images as a network of its own: the adjoint network.

A network of convolutions, linear maps, mean pooling and (leaky) ReLUs is piecewise linear. Around
almost every image its derivative is the product of its layers' matrices, with the slopes of the
ReLUs held constant, and grad_x D is the product of the transposed matrices in reverse order:
transposed convolutions (Baydin et al. 2018, arXiv:1502.05767, section 3.2: reverse mode, written
out). The slopes' own derivative is 0 almost everywhere, so one ordinary backward pass through the
adjoint network is the exact gradient of a penalty on grad_x D. Double backward computes the same
numbers, and pushes zeros through all of the network besides: 6 forward passes' worth of work for 4.
"""

from collections.abc import Callable
from functools import singledispatch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crgan_cli.networks.blocks import Residual, ResidualDiscriminator
from crgan_cli.networks.dcgan import DCGANDiscriminator
from crgan_cli.networks.fast.folding import PooledConv3, with_average_pool
from crgan_cli.networks.layers import (
    LinearHead,
    LogitLayer,
    ProjectionHead,
    ToUnitInterval,
    mean_pool,
    sum_pool,
)
from crgan_cli.networks.sndcgan import SNDCGANDiscriminator

VJP = Callable[[Tensor], Tensor]
"""v -> J^T v, v shaped like a layer's output and the result like its input."""

OutputAndVJP = tuple[Tensor, VJP]
"""A layer's output, which carries no graph, and its pull, which has a graph to the weights."""

CONTAINERS = (
    nn.Sequential,
    Residual,
    ResidualDiscriminator,
    SNDCGANDiscriminator,
    DCGANDiscriminator,
)
"""The modules that are piecewise linear if all that they are made of is."""

POOL_VJPS: dict[object, Callable[[Tensor, torch.Size], Tensor]] = {
    sum_pool: lambda v, shape: v[:, :, None, None].expand(shape),
    mean_pool: lambda v, shape: (v / shape[2:].numel())[:, :, None, None].expand(shape),
}
"""pooling over places -> its transpose, for features of a shape."""


def piecewise_linear(layer: object) -> bool:
    """Whether `linearise` knows `layer` and all within it. Looks at modules, at no numbers.

    A subclass with a forward of its own is not known by what it inherits from, and neither is a
    layer with a forward pre-hook, which may make its weights.
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
    return not isinstance(layer, CONTAINERS) or all(map(piecewise_linear, layer.children()))


def input_gradient(D: nn.Module, x: Tensor, y: Tensor | None) -> Tensor:
    """grad_x D(x, y) image by image, (N, C, H, W), for (N,) class ids or None.

    Its graph leads to D's weights, and not to x. D must be `piecewise_linear`, and its images
    scored independently of one another.
    """
    logits, pull = linearise(D, x.detach(), y)
    return pull(torch.ones_like(logits))


@singledispatch
def linearise(layer: object, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    """`layer` at x, which must carry no graph; y are class ids, for the layers that take them.

    A weight is read once, as spectral norm may make a power iteration at every reading.
    """
    raise AssertionError(f"{type(layer).__name__} is not piecewise linear; ask before")


# --- layers --------------------------------------------------------------------------------------


def linearise_relu(x: Tensor) -> OutputAndVJP:
    """max(x, 0); its slope at 0 is 0, as in torch."""
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
    """A convolution, whose transpose is torch's transposed convolution with the same kernel."""
    assert not isinstance(padding, str)
    fixed = None if bias is None else bias.detach()
    out = F.conv2d(x, weight.detach(), fixed, stride, padding, dilation, groups)
    # rows and columns at the far end that no stride reaches: their gradient is 0
    unreached = [
        (side + 2 * p - d * (k - 1) - 1) % s
        for side, k, s, p, d in zip(
            x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True
        )
    ]
    return out, lambda v: F.conv_transpose2d(
        v, weight, None, stride, padding, unreached, groups, dilation
    )


@linearise.register
def _(layer: nn.Conv2d, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    return linearise_convolution(
        x, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups
    )


@linearise.register
def _(layer: PooledConv3, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    weight = layer.weight
    if layer.folded and layer.training:
        kernel = with_average_pool(weight, divisor=4)
        return linearise_convolution(x, kernel, layer.bias, (2, 2), layer.padding)
    h, pull_conv = linearise_convolution(x, weight, layer.bias, layer.stride, layer.padding)
    h, pull_pool = linearise(nn.AvgPool2d(2), h)
    return h, chain([pull_conv, pull_pool])


@linearise.register(LogitLayer)
@linearise.register(nn.Linear)
def _(layer: nn.Linear, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    weight = layer.weight
    fixed = None if layer.bias is None else layer.bias.detach()
    return F.linear(x, weight.detach(), fixed), lambda v: v @ weight


@linearise.register
def _(layer: nn.ReLU, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    return linearise_relu(x)


@linearise.register
def _(layer: nn.LeakyReLU, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    slope = layer.negative_slope
    backward = torch.ops.aten.leaky_relu_backward  # one kernel each way, where a mask takes three
    return F.leaky_relu(x, slope), lambda v: backward(v, x, slope, False)


@linearise.register
def _(layer: nn.AvgPool2d, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    like = torch.empty_like(x, device="meta")  # the shape and layout of x without its memory
    how = (layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode)
    count = (layer.count_include_pad, layer.divisor_override)
    return layer(x), lambda v: torch.ops.aten.avg_pool2d_backward(
        v, torch.empty_like(like, device=v.device), *how, *count
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
    h, pull = linearise(layer.linear, x)
    return h.squeeze(1), lambda v: pull(v[:, None])


@linearise.register
def _(layer: ProjectionHead, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    assert y is not None, "a conditional discriminator was called without labels"
    h, pull = linearise(layer.linear, x)
    label = layer.embed(y)
    logits = h.squeeze(1) + (label.detach() * x).sum(1)
    return logits, lambda v: pull(v[:, None]) + v[:, None] * label


# --- what layers are put together to -------------------------------------------------------------


@linearise.register
def _(layer: nn.Sequential, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    pulls: list[VJP] = []
    for part in layer:
        x, pull = linearise(part, x)
        pulls.append(pull)
    return x, chain(pulls)


@linearise.register
def _(layer: Residual, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    through, pull_body = linearise(layer.body, x)
    beside, pull_shortcut = linearise(layer.shortcut, x)
    return through + beside, lambda v: pull_body(v) + pull_shortcut(v)


@linearise.register
def _(layer: ResidualDiscriminator, x: Tensor, y: Tensor | None = None) -> OutputAndVJP:
    h, pull_blocks = linearise(layer.blocks, x)
    h, pull_relu = linearise_relu(h)
    shape, spread = h.shape, POOL_VJPS[layer.pool]
    logits, pull_head = linearise(layer.head, layer.pool(h), y)
    return logits, chain([pull_blocks, pull_relu, lambda v: spread(v, shape), pull_head])


@linearise.register(SNDCGANDiscriminator)
@linearise.register(DCGANDiscriminator)
def _(
    layer: SNDCGANDiscriminator | DCGANDiscriminator, x: Tensor, y: Tensor | None = None
) -> OutputAndVJP:
    h, pull_layers = linearise(layer.layers, x)
    logits, pull_head = linearise(layer.head, h)
    return logits, chain([pull_layers, pull_head])


def chain(pulls: list[VJP]) -> VJP:
    """The pull of layers in a row, given in the order in which they are applied."""

    def pull(v: Tensor) -> Tensor:
        for each in reversed(pulls):
            v = each(v)
        return v

    return pull
