"""A data set at the lower resolutions of a run that grows.

Karras et al. 2018 (arXiv:1710.10196): each pixel is the mean of a square of pixels, rounded to 8
bits, as in the authors' dataset_tool.py.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from crgan_cli.data.images import Images
from crgan_cli.data.resize import resize_by


def shrink_images(images: Images, resolution: int, digest: str) -> Images:
    """Return the images at a resolution that divides theirs. A large result is a memory map.

    `digest` identifies the images. Raises UserError for an unusable cache folder, RunFailed for a
    full disk.
    """
    factor = images.x.shape[-1] // resolution
    if factor == 1:
        return images
    return resize_by(
        lambda x: shrink_pixels(x, factor),
        images,
        resolution,
        digest=lambda: digest,
        folder="levels",
    )


def shrink_pixels(x: Tensor, factor: int) -> Tensor:
    """(N, C, H, W) uint8 -> (N, C, H / factor, W / factor) uint8: means, rounded, half to even."""
    return F.avg_pool2d(x.float(), factor).round_().to(torch.uint8)
