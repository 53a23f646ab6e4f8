"""The last convolution of a generator of images, in two forms with the same values.

An image has few channels, and a CPU computes 16 at a time: a 7x7 convolution to 3 channels wastes
four fifths of its work. The folded form computes a square of 2x2 places as channels: a convolution
with stride 2 to 4 times as many channels, with one more row and column of its kernel, then a pixel
shuffle (Shi et al. 2016, arXiv:1609.05158). It needs 64/49 of the multiplications, and half of the
time (RESULTS.md).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MOST_CHANNELS = 4
"""Beyond these, there is nothing to gain."""


class ImageConv(nn.Conv2d):
    """A convolution with stride 1 to an image. Folded in training on a CPU, if both sides are even.

    Not measured on other devices, so not used there.
    """

    def forward(self, input: Tensor) -> Tensor:
        # only in training: samples and scores do not depend on the form
        if not self.training or input.device.type != "cpu" or not self.is_foldable(input):
            return super().forward(input)
        kernel = fold_places(self.weight)
        y = F.pixel_shuffle(F.conv2d(input, kernel, None, 2, self.padding), 2)
        return y if self.bias is None else y + self.bias[:, None, None].to(y.dtype)

    def is_foldable(self, x: Tensor) -> bool:
        """Whether the folded form applies to x, and pays."""
        sides = [
            side + 2 * int(p) - k + 1
            for side, p, k in zip(x.shape[2:], self.padding, self.kernel_size, strict=True)
        ]
        return self.out_channels <= MOST_CHANNELS and all(side % 2 == 0 for side in sides)


def fold_places(weight: Tensor) -> Tensor:
    """(O, C, k, k) -> (4 O, C, k + 1, k + 1), in the order of a pixel shuffle: O, row, column."""
    placed = [F.pad(weight, (dx, 1 - dx, dy, 1 - dy)) for dy in (0, 1) for dx in (0, 1)]
    kernel = torch.stack(placed, 1).flatten(0, 1)
    channels_last = weight.is_contiguous(memory_format=torch.channels_last)
    return kernel.contiguous(memory_format=torch.channels_last) if channels_last else kernel
