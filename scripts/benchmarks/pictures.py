"""What the steps of other programs for tasks from images to images share.

Each picture is cropped, mirrored and converted for itself, with Pillow; the networks are copies in
NCHW. Not in it: reading files and resizing. The pictures are in memory on both sides.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from crgan_cli.networks.fast.image_conv import ImageConv
from crgan_cli.networks.layers import RowDropout

from .peers import normalising_at_each_call

IMAGES = 400  # in a set, as facades has


class Cut(NamedTuple):
    """What is cut out of a picture: a square, mirrored or not."""

    left: int
    top: int
    side: int
    mirrored: bool

    @classmethod
    def draw(cls, whole: Image.Image, side: int, flip: bool) -> "Cut":
        left, top = (
            int(torch.randint(size - side + 1, ())) for size in (whole.width, whole.height)
        )
        return cls(left, top, side, flip and float(torch.rand(())) < 0.5)

    def convert(self, whole: Image.Image) -> Tensor:
        """Crop, mirror, (C, H, W) in [0, 1], then in [-1, 1]."""
        left, top, side, mirrored = self
        cropped = whole.crop((left, top, left + side, top + side))
        if mirrored:
            cropped = cropped.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        values = torch.from_numpy(np.array(cropped)).view(side, side, -1)
        x = values.permute(2, 0, 1).contiguous().float().div(255)
        mean = std = torch.tensor((0.5,) * len(x)).view(-1, 1, 1)
        return (x - mean) / std


def picture(x: Tensor) -> Image.Image:
    """(C, H, W) uint8, with 1, 3 or 4 channels."""
    return Image.fromarray(x.permute(1, 2, 0).squeeze(2).contiguous().numpy())


def other_network(network: nn.Module, device: torch.device) -> Any:
    """A copy in NCHW, with PyTorch's dropout and convolution in place of ours.

    Its instance norm and its padding are PyTorch's own: in NCHW, on a CPU, ours are too.
    """
    network = normalising_at_each_call(network).to(device)
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, RowDropout):
                setattr(parent, name, nn.Dropout(child.p))
            if isinstance(child, ImageConv):
                setattr(parent, name, plain_convolution(child))
    return network.to(memory_format=torch.contiguous_format).requires_grad_()  # type: ignore[call-overload]


def plain_convolution(ours: nn.Conv2d) -> nn.Conv2d:
    """PyTorch's convolution with the same weights."""
    theirs = nn.Conv2d(
        ours.in_channels,
        ours.out_channels,
        ours.kernel_size,  # type: ignore[arg-type]
        padding=ours.padding,  # type: ignore[arg-type]
        bias=ours.bias is not None,
    )
    theirs.load_state_dict(ours.state_dict())
    return theirs.to(ours.weight.device)
