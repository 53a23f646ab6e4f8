"""The history of generated images that D of CycleGAN is shown."""

import math

import torch
from torch import Tensor, nn

from crgan_cli.system import rng
from crgan_cli.system.distributed.tensors import all_gather
from crgan_cli.system.distributed.world import as_single_process, world


class ImagePool(nn.Module):
    """Up to `size` earlier images (Shrivastava et al. 2017, arXiv:1612.07828, section 2.3).

    As in Zhu et al. 2017 (arXiv:1703.10593) section 4: while the pool is not full, an image is
    stored and shown. Then, with probability 1/2, a stored one that is drawn at random is shown and
    the new one takes its place; otherwise the new one is shown and forgotten.

    Each row of the batch has slots of its own, `size` / rows rounded up. So no two rows meet, and
    all rows are exchanged at once. With a batch of one, this is the authors' pool. Everything has a
    fixed place and a fixed shape: a CUDA graph can capture it.
    """

    count: Tensor
    kept: Tensor

    def __init__(self, size: int, batch_shape: tuple[int, int, int, int]) -> None:
        """`batch_shape`: (N, C, H, W) of a batch, of all processes together. `size` 0: no pool."""
        super().__init__()
        self.rows, *image = batch_shape
        self.slots = math.ceil(size / self.rows)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))  # slots filled so far
        self.register_buffer("kept", torch.zeros(self.slots * self.rows, *image))  # slot by slot

    @torch.no_grad()
    def exchange(self, x: Tensor) -> Tensor:
        """Return the images that D is shown for the new ones x, (n, C, H, W), both in fp32."""
        if not self.slots:
            return x
        # every process keeps the images of all: the pool does not depend on how many there are
        x = all_gather(x.contiguous()).flatten(0, 1) if world().world_size > 1 else x
        device = x.device
        with as_single_process():
            again = rng.rand(self.rows, device=device) < 0.5
            drawn = rng.randint(0, self.slots, self.rows, device=device)
        full = self.count >= self.slots
        slot = torch.where(full, drawn, self.count)
        at = slot.clamp(max=self.slots - 1) * self.rows + torch.arange(self.rows, device=device)
        stored = self.kept.index_select(0, at)
        swapped, taken = full & again, ~full | again
        self.kept.index_copy_(0, at, torch.where(taken[:, None, None, None], x, stored))
        self.count.add_(1).clamp_(max=self.slots)
        return rng.local_rows(torch.where(swapped[:, None, None, None], stored, x))
