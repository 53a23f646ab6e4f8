"""Batch norm over the batch of all processes, on any device.

torch.nn.SyncBatchNorm computes the same, but does not support CPU tensors.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from crgan_cli.system.distributed.tensors import all_gather
from crgan_cli.system.distributed.world import world


class SyncBatchNorm(_BatchNorm):
    """Ioffe & Szegedy 2015 (arXiv:1502.03167) Algorithm 1 over the batch of all processes:
    y = (x - mean) / sqrt(var + eps) * weight + bias.

    All processes have equally many values per channel. So with their means m_r and variances v_r,
    mean = E m_r and var = E v_r + E (m_r - mean)^2, without differences of large numbers.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        assert input.ndim >= 2, "batch norm needs (N, C, ...)"

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...) -> the same shape. In eval mode, or with one process: as in nn.BatchNorm."""
        if world().world_size == 1 or not self.training:
            return super().forward(input)
        x = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input
        dims = [d for d in range(x.ndim) if d != 1]
        local = torch.stack(torch.var_mean(x, dims, correction=0))  # (2, C)
        variances, means = all_gather(local).unbind(1)
        mean = means.mean(0)
        var = variances.mean(0) + (means - mean).square().mean(0)
        self.update_running_stats(mean, var, world().world_size * x.numel() // x.shape[1])
        scale = (var + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        shape = (-1, *[1] * (x.ndim - 2))
        y = (x - mean.view(shape)) * scale.view(shape)
        if self.bias is not None:
            y = y + self.bias.view(shape)
        return y.to(input.dtype)

    @torch.no_grad()
    def update_running_stats(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Update the running statistics; the variance is unbiased as in nn.BatchNorm."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(var * (count / (count - 1)), momentum)


def convert_sync_batchnorm(module: nn.Module) -> None:
    """Replace every batch norm in `module` by one over all processes.

    Parameters, buffers and their names do not change.
    """
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, _BatchNorm) and not isinstance(layer, SyncBatchNorm):
                setattr(parent, name, make_sync_batchnorm(layer))


def make_sync_batchnorm(layer: _BatchNorm) -> SyncBatchNorm:
    """Return the same layer over all processes; it shares parameters and buffers with `layer`."""
    new = SyncBatchNorm(
        layer.num_features,
        layer.eps,
        layer.momentum,
        affine=layer.affine,
        track_running_stats=layer.track_running_stats,
        device=torch.device("meta"),
    )
    for name, parameter in layer.named_parameters(recurse=False):
        setattr(new, name, parameter)
    for name, buffer in layer.named_buffers(recurse=False):
        setattr(new, name, buffer)
    return new.train(layer.training)
