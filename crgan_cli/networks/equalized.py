"""Layers with an equalised learning rate: Karras et al. 2018 (arXiv:1710.10196) section 4.1.

Weights are drawn from N(0, 1) and multiplied by gain / sqrt(fan_in) whenever they are used, He's
constant. Adam's steps do not depend on the scale of a gradient, so all weights learn at one speed.
Biases start at 0.
"""

import math

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


class EqualizedLinear(nn.Linear):
    """nn.Linear."""

    def __init__(self, c_in: int, c_out: int, *, gain: float = HE_GAIN, bias: bool = True) -> None:
        super().__init__(c_in, c_out, bias=bias)
        self.scale = equalize(self, gain)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight * self.scale, self.bias)


class EqualizedLogit(InFullPrecision, EqualizedLinear):
    """A linear map to logits."""


class EqualizedConv(Convolution):
    """A convolution of the same size, 1x1 or 3x3."""

    def __init__(self, c_in: int, c_out: int, kernel: int, *, gain: float = HE_GAIN) -> None:
        super().__init__(c_in, c_out, kernel, padding=kernel // 2)
        self.scale = equalize(self, gain)

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight * self.scale, self.bias)


class EqualizedLeakyConv(EqualizedConv):
    """With a leaky ReLU of slope 0.2 after it."""

    def forward(self, input: Tensor) -> Tensor:
        weight, bias = self.weight * self.scale, self.bias
        assert bias is not None
        return convolve_leaky(input, weight, bias, SLOPE, self.geometry, training=self.training)


class EqualizedNearestConv3(NearestConv3):
    """Nearest upsampling, then 3x3."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out)
        self.scale = equalize(self, HE_GAIN)

    def forward(self, input: Tensor) -> Tensor:
        return self.resample(input, self.weight * self.scale)
