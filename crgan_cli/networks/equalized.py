"""Layers with an equalised learning rate: Karras et al. 2018 (arXiv:1710.10196) section 4.1.

Weights are drawn from N(0, 1) and multiplied by gain / sqrt(fan_in) whenever they are used, He's
constant. Adam's steps do not depend on the scale of a gradient, so all weights learn at one speed.
Biases start at 0.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crgan_cli.networks.fast.convolution import Convolution
from crgan_cli.networks.fast.fused_resample import NearestConv3
from crgan_cli.networks.fast.leaky_convolution import convolve_leaky
from crgan_cli.networks.layers import InFullPrecision

HE_GAIN = math.sqrt(2)
"""Before a (leaky) ReLU, He et al. 2015 (arXiv:1502.01852)."""

SLOPE = 0.2
"""Of all leaky ReLUs of PGGAN."""


def equalize(layer: nn.Linear | nn.Conv2d, gain: float) -> float:
    """Draw a layer's weights from N(0, 1), set its bias to 0, and return the factor of the weights:
    gain / sqrt(fan_in)."""
    nn.init.normal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return gain / math.sqrt(layer.weight[0].numel())


class ScaledWeights:
    """The scaled weights of this turn, if it keeps them: by layer and type."""

    current: dict[tuple[nn.Module, torch.dtype], Tensor] | None = None


@contextmanager
def scaled_once() -> Iterator[None]:
    """Scale each weight, and cast it for autocast, at its first use in the body only.

    No weight may change in it, nor whether it requires a gradient.
    """
    assert ScaledWeights.current is None, "scaled_once within scaled_once"
    ScaledWeights.current = {}
    try:
        yield
    finally:
        ScaledWeights.current = None


def scale_weight(layer: nn.Module, weight: Tensor, scale: float, *, cast: bool = True) -> Tensor:
    """weight * scale, from this turn's store if there is one. `cast`: as autocast would."""
    store = ScaledWeights.current
    forgets = weight.requires_grad and not torch.is_grad_enabled()
    if store is None or forgets or torch.compiler.is_compiling():
        return weight * scale
    kind, dtype = weight.device.type, weight.dtype
    if (layer, dtype) not in store:
        store[layer, dtype] = weight * scale
    if cast and torch.is_autocast_enabled(kind) and dtype == torch.float32:
        dtype = torch.get_autocast_dtype(kind)
        if (layer, dtype) not in store:
            store[layer, dtype] = store[layer, torch.float32].to(dtype)
    return store[layer, dtype]


class EqualizedLinear(nn.Linear):
    """nn.Linear."""

    def __init__(self, c_in: int, c_out: int, *, gain: float = HE_GAIN, bias: bool = True) -> None:
        super().__init__(c_in, c_out, bias=bias)
        self.scale = equalize(self, gain)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, scale_weight(self, self.weight, self.scale), self.bias)


class EqualizedLogit(InFullPrecision, EqualizedLinear):
    """A linear map to logits."""


class EqualizedConv(Convolution):
    """A convolution of the same size, 1x1 or 3x3."""

    def __init__(self, c_in: int, c_out: int, kernel: int, *, gain: float = HE_GAIN) -> None:
        super().__init__(c_in, c_out, kernel, padding=kernel // 2)
        self.scale = equalize(self, gain)

    def forward(self, input: Tensor) -> Tensor:
        weight = scale_weight(self, self.weight, self.scale)
        return self._conv_forward(input, weight, self.bias)


class EqualizedLeakyConv(EqualizedConv):
    """With a leaky ReLU of slope 0.2 after it."""

    def forward(self, input: Tensor) -> Tensor:
        weight, bias = scale_weight(self, self.weight, self.scale), self.bias
        assert bias is not None
        return convolve_leaky(input, weight, bias, SLOPE, self.geometry, training=self.training)


class EqualizedNearestConv3(NearestConv3):
    """Nearest upsampling, then 3x3."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out)
        self.scale = equalize(self, HE_GAIN)

    def forward(self, input: Tensor) -> Tensor:
        # the fused kernel is built from the fp32 weight, then cast
        cast = not self.use_fused
        return self.resample(input, scale_weight(self, self.weight, self.scale, cast=cast))
