"""Path length regularization of G, for any generator of latents."""

import math
from typing import cast

import torch
from torch import Tensor, nn

from crgan_cli.config.bounds import Decay, NonNegative, PositiveInt
from crgan_cli.gan.regularizers.base import Regularizer
from crgan_cli.gan.regularizers.penalties import EPSILON
from crgan_cli.gan.scoring import Origin, ScoredViews
from crgan_cli.gan.types import Terms
from crgan_cli.networks.fast.bf16_weights import full_precision
from crgan_cli.networks.layers import at_least_fp32
from crgan_cli.system import rng
from crgan_cli.system.distributed.tensors import all_reduce_mean


class PathLength(Regularizer):
    """Karras et al. 2020 (arXiv:1912.04958) eq. 4: lambda_pl * E (||J^T y||_2 - a)^2, in a G step.

    J = dG(z)/dz, y ~ N(0, 1) / sqrt(HW), and a is the running mean of ||J^T y||. A step of the same
    length in z then changes the image by the same amount everywhere.

    As in NVIDIA's code (stylegan2-ada-pytorch): every `pl_every`-th G step with `pl_every` times
    the weight, on 1 / `pl_batch_shrink` of the batch, and a enters the penalty with its gradient.
    The paper differentiates with respect to the style w; the networks here have z alone. The
    latents are those of the G step (NVIDIA's code draws new ones); fp32, whatever the precision.
    """

    differentiates_G = True
    mixes_samples = True  # by a
    mean_length: Tensor

    def __init__(
        self,
        lambda_pl: NonNegative,
        pl_decay: Decay,
        pl_batch_shrink: PositiveInt,
        pl_every: PositiveInt,
    ) -> None:
        super().__init__()
        self.lambda_pl = lambda_pl
        self.pl_decay = pl_decay
        self.pl_batch_shrink = pl_batch_shrink
        self.every = pl_every
        self.register_buffer("mean_length", torch.zeros(()))

    def g_terms(self, scored: ScoredViews) -> Terms:
        assert scored.origin is not None, "a task with latents tells where its images come from"
        length = path_lengths(scored.origin, self.pl_batch_shrink)
        batch_mean = length.mean()
        # over all processes; the gradient is that of this one
        batch_mean = batch_mean + (all_reduce_mean(batch_mean.detach()) - batch_mean.detach())
        a = torch.lerp(self.mean_length, batch_mean, 1 - self.pl_decay)
        with torch.no_grad():
            self.mean_length.copy_(a)
        return {"path_length": self.lambda_pl * (length - a).square().mean()}


def path_lengths(origin: Origin, batch_shrink: int) -> Tensor:
    """||J^T y|| of the first N / batch_shrink images, at least one, with a graph to G's weights."""
    n = max(1, len(origin.latents["fake"]) // batch_shrink)
    z = origin.latents["fake"][:n].detach().requires_grad_()
    y = None if origin.y is None else origin.y[:n]
    with full_precision(cast(nn.Module, origin.G), z.device):
        x = at_least_fp32(origin.G(z, y))
        noise = rng.randn(*x.shape, device=x.device, dtype=x.dtype) / math.sqrt(x[0, 0].numel())
        (product,) = torch.autograd.grad((x * noise).sum(), z, create_graph=True)
    return (product.square().sum(1) + EPSILON).sqrt()
