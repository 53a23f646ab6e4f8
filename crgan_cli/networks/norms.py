"""Normalisation layers, without a condition and with one."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crgan_cli.networks.fast.exported import is_exported
from crgan_cli.networks.fast.instance_norm import NormalizeInstances

# --- without a condition -------------------------------------------------------------------------

NormKind = Literal["batch", "instance", "none"]


def norm_layers(kind: NormKind, channels: int) -> list[nn.Module]:
    """The norm that follows a convolution: no layer for "none".

    Instance norm has no gains, no shifts and no running statistics, as in the authors' PyTorch
    port of pix2pix and CycleGAN: it is the same in training and evaluation.
    """
    if kind == "none":
        return []
    return [nn.BatchNorm2d(channels) if kind == "batch" else InstanceNorm(channels)]


class InstanceNorm(nn.InstanceNorm2d):
    """Instance norm (Ulyanov et al. 2016, arXiv:1607.08022) that keeps the memory format of x.

    torch's own returns channels first, so that the layers after it would mix both formats: a step
    of pix2pix then takes a sixth more (RESULTS.md). The values are the same, to rounding.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape: each channel of each image with mean 0, variance 1."""
        if is_exported():
            return super().forward(input)
        # where it was measured to pay
        wide = input.device.type == "cpu" and input.dtype.itemsize >= 4
        channels_last = input.is_contiguous(memory_format=torch.channels_last)
        if wide and channels_last and not input.is_contiguous() and input[0, 0].numel() > 1:
            normalized = NormalizeInstances.apply(input, self.weight, self.bias, self.eps)
            assert isinstance(normalized, Tensor)
            return normalized
        if channels_last and len(input) == 1 and not self.track_running_stats:
            # the same for one image. torch's own instance norm, kept in channels last, has a wrong
            # gradient in bf16 on a CPU then (PyTorch 2.15)
            return F.batch_norm(input, None, None, self.weight, self.bias, True, eps=self.eps)
        return keep_format(super().forward(input), input)


def keep_format(y: Tensor, x: Tensor) -> Tensor:
    """y, (N, C, H, W), in channels last if x is. An exported network has channels first."""
    if is_exported():
        return y
    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    return y.contiguous(memory_format=torch.channels_last) if channels_last else y


def needs_bias(kind: NormKind) -> bool:
    """Whether a convolution before the norm `kind` has a bias: not before batch norm's own shift.

    As in the authors' PyTorch port, also where no norm follows. Instance norm cancels the bias.
    """
    return kind != "batch"


# --- with a condition ----------------------------------------------------------------------------

Norm = Callable[[int], nn.Module]
"""channels -> a module called with (x, condition)."""


class PlainBatchNorm(nn.Module):
    """Batch norm that ignores the condition. A wrapper: its `norm` can become a SyncBatchNorm."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return self.norm(x)


class ConditionalBatchNorm(nn.Module):
    """Batch norm with gain 1 + A c and shift B c for a condition c (Brock et al. 2019, appendix B).

    `offset` is the 1. compare_gan has 0 there, so its gain is centred on 0 (its issue 54).
    `affine(channels)` builds A and B: an embedding for labels, a linear map for vectors.
    """

    def __init__(
        self,
        channels: int,
        affine: Callable[[int], nn.Module],
        *,
        eps: float = 1e-5,
        offset: float = 1.0,
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps, affine=False)
        self.offset = offset
        self.gain = affine(channels)
        self.shift = affine(channels)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        h = self.norm(x)
        # to(h): under autocast an embedding is fp32, and would promote the whole feature map
        gain, shift = (self.offset + self.gain(condition)).to(h), self.shift(condition).to(h)
        return h * gain[:, :, None, None] + shift[:, :, None, None]


def label_batch_norm(classes: int) -> Norm:
    """Batch norm conditioned on the class, or plain batch norm if `classes` is 0."""
    if classes == 0:
        return PlainBatchNorm
    return lambda channels: ConditionalBatchNorm(channels, lambda c: nn.Embedding(classes, c))


def vector_batch_norm(dim: int, *, eps: float = 1e-5, offset: float = 1.0) -> Norm:
    """Batch norm conditioned on a vector of length `dim`, through linear maps without bias."""

    def affine(channels: int) -> nn.Module:
        return nn.Linear(dim, channels, bias=False)

    return lambda channels: ConditionalBatchNorm(channels, affine, eps=eps, offset=offset)
