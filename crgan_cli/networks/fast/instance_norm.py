"""Instance norm of images in channels last, without a copy to channels first and back.

torch's own treats (N, C, H, W) as N C channels of one image, which channels last is not: it copies
there, and its result has to be copied back. On a CPU that is two thirds of its time in fp32. In
bf16 the copies are cheaper than what is here (RESULTS.md).
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

PLACES = (2, 3)


class NormContext(FunctionCtx):
    """What `NormalizeInstances` saves for backward."""

    saved_tensors: tuple[Tensor, Tensor, Tensor, Tensor | None]
    eps: float


class NormalizeInstances(torch.autograd.Function):
    """y = gain * (x - mean) / sqrt(var + eps) + shift, over the places of each image and channel.

    In the type and the memory format of x, fp32 or wider. Has double backward.
    """

    @staticmethod
    def forward(
        ctx: NormContext, x: Tensor, gain: Tensor | None, shift: Tensor | None, eps: float
    ) -> Tensor:
        """x (N, C, H, W), gain and shift (C,) or None -> the shape of x."""
        mean = x.mean(PLACES, keepdim=True)
        centred = x - mean
        inverse = find_inverse_deviation(centred, eps)
        ctx.save_for_backward(x, mean, inverse, gain)  # type: ignore[arg-type]  # None is allowed
        ctx.eps = eps
        if gain is None or shift is None:
            return centred.mul_(inverse)
        return torch.addcmul(spread(shift), centred, inverse * spread(gain))

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: NormContext, grad: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        x, mean, inverse, gain = ctx.saved_tensors
        if torch.is_grad_enabled():  # double backward: through the statistics too
            mean = x.mean(PLACES, keepdim=True)
            inverse = find_inverse_deviation(x - mean, ctx.eps)
        centred = x - mean
        # means of the gradient, and of the gradient times (x - mean) / deviation
        plain = grad.mean(PLACES, keepdim=True)
        along = (grad * centred).mean(PLACES, keepdim=True) * inverse
        scale = inverse if gain is None else inverse * spread(gain)
        to_x = torch.addcmul(grad - plain, centred, along * inverse, value=-1) * scale
        if gain is None:
            return to_x, None, None, None
        places = x.shape[2] * x.shape[3]
        to_gain, to_shift = (places * each.sum((0, *PLACES)) for each in (along, plain))
        return to_x, to_gain, to_shift, None


def find_inverse_deviation(centred: Tensor, eps: float) -> Tensor:
    """1 / sqrt(var + eps) of each image and channel, (N, C, 1, 1)."""
    return (centred.square().mean(PLACES, keepdim=True) + eps).rsqrt()


def spread(values: Tensor) -> Tensor:
    """(C,) -> (1, C, 1, 1)."""
    return values[None, :, None, None]
