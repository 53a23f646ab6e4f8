"""StarGAN: one generator for all labels, and a discriminator that also classifies.

Choi et al. 2018 (arXiv:1711.09020), appendix 7.2, as built in yunjey/stargan (model.py).
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from crgan_cli.config.bounds import NetworkSide, Positive, PositiveInt, UpTo1000
from crgan_cli.errors import UserError
from crgan_cli.networks.blocks import Residual
from crgan_cli.networks.fast.convolution import Convolution
from crgan_cli.networks.fast.image_conv import ImageConv
from crgan_cli.networks.fast.spectral import apply_spectral_norm
from crgan_cli.networks.image_to_image import (
    QUARTER,
    SHORTEST,
    Upsampling,
    require_quarters,
    require_sides,
    upsample,
)
from crgan_cli.networks.layers import LogitConv, scale_channels
from crgan_cli.networks.norms import InstanceNorm, keep_format
from crgan_cli.networks.verdict import Verdict

MOST_LAYERS = 6
"""Convolutions with stride 2 of the authors' discriminator, at 128 and at 256 px."""


class StarGANGenerator(nn.Module):
    """(N, channels, H, W) in [-1, 1] and labels (N, label_planes) -> images of the same shape.

    Each label fills a plane, joined to the image. Then 7x7 to 64 channels, two 4x4 with stride 2 to
    128 and 256, `blocks` residual blocks, two upsampling layers back to 128 and 64, 7x7, tanh. An
    instance norm and a ReLU follow each convolution but the last; a block has no ReLU after its
    sum. No convolution has a bias.

    All padding is with zeros. With reflection, the label planes would be constant after the first
    convolution too, and the instance norm would remove them.

    Instance norm has gains and shifts, but no running statistics: the authors' code keeps some and
    never uses them.

    `upsampling`: "deconv" is the authors' transposed convolution, 4x4 with stride 2. "resize" is
    nearest upsampling and a 3x3 convolution, against checkerboards.

    Both sides of the input must be multiples of `multiple`, and at least `shortest`. They need not
    be `resolution`.
    """

    multiple, shortest = QUARTER, SHORTEST

    def __init__(
        self,
        resolution: NetworkSide,
        channels: PositiveInt,
        label_planes: PositiveInt,
        width: Positive,
        blocks: UpTo1000,
        upsampling: Upsampling,
    ) -> None:
        super().__init__()
        require_quarters(resolution, "stargan")
        self.resolution, self.channels, self.label_planes = resolution, channels, label_planes
        c1, c2, c3 = (scale_channels(c, width) for c in (64, 128, 256))

        def normed(layer: nn.Module, c_out: int) -> list[nn.Module]:
            return [layer, InstanceNorm(c_out, affine=True)]

        def block() -> Residual:
            first, second = (nn.Conv2d(c3, c3, 3, 1, 1, bias=False) for _ in range(2))
            body = nn.Sequential(*normed(first, c3), nn.ReLU(), *normed(second, c3))
            return Residual(body, nn.Identity())

        self.layers = nn.Sequential(
            *normed(nn.Conv2d(channels + label_planes, c1, 7, 1, 3, bias=False), c1),
            nn.ReLU(),
            *normed(Convolution(c1, c2, 4, 2, 1, bias=False), c2),
            nn.ReLU(),
            *normed(Convolution(c2, c3, 4, 2, 1, bias=False), c3),
            nn.ReLU(),
            *(block() for _ in range(blocks)),
            *normed(upsample(upsampling, c3, c2, bias=False), c2),
            nn.ReLU(),
            *normed(upsample(upsampling, c2, c1, bias=False), c1),
            nn.ReLU(),
            ImageConv(c1, channels, 7, 1, 3, bias=False),
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Give images the labels y. Raises UserError for sides that do not fit."""
        require_sides(x, "StarGAN", multiple=QUARTER, least=SHORTEST)
        planes = y.to(x.dtype)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        return torch.tanh(self.layers(keep_format(torch.cat([x, planes], 1), x)))


class StarGANDiscriminator(nn.Module):
    """`d_layers` 4x4 convolutions with stride 2, widths 64, 128, 256, ...; LReLU 0.01; two heads.

    One head is a 3x3 convolution to a map of logits, real or generated; the other is a convolution
    of the whole map to a logit per label. So it is made for one size of images. `d_layers` null: 6
    at 128 px and more, as the authors; below, as many as leave a map of 2x2 or 3x3.
    """

    classes = 0  # it is not conditioned on labels
    classifies = True

    def __init__(
        self,
        resolution: NetworkSide,
        channels: PositiveInt,
        d_labels: PositiveInt,
        d_layers: UpTo1000 | None,
        width: Positive,
        spectral_norm: bool,
    ) -> None:
        super().__init__()
        most = resolution.bit_length() - 1  # halvings down to one pixel
        if d_layers is None:
            d_layers = max(1, min(MOST_LAYERS, most - 1))
        if d_layers > most:
            raise UserError(
                f"dataset.resolution is {resolution}, and architecture.d_layers={d_layers} halves "
                f"it too often. Use at most architecture.d_layers={most}."
            )
        self.resolution = resolution
        widths = [channels, *(scale_channels(64 * 2**i, width) for i in range(d_layers))]
        layers = [
            layer
            for c_in, c_out in pairwise(widths)
            for layer in (Convolution(c_in, c_out, 4, 2, 1), nn.LeakyReLU(0.01))
        ]
        self.layers = nn.Sequential(*layers)
        self.source = LogitConv(widths[-1], 1, 3, 1, 1, bias=False)
        self.classifier = LogitConv(widths[-1], d_labels, resolution // 2**d_layers, bias=False)
        if spectral_norm:
            apply_spectral_norm(self)

    def forward(self, x: Tensor, y: Tensor | None) -> Verdict:
        """(N, channels, resolution, resolution) in [-1, 1] -> logits; `y` is not used.

        Maps (N, 1, h, w) with h = resolution // 2^d_layers, and (N, d_labels). Raises UserError for
        images of another size.
        """
        height, width = x.shape[2:]
        if height != self.resolution or width != self.resolution:
            raise UserError(
                f"The images are {height}x{width} pixels, but this StarGAN discriminator was made "
                f"for {self.resolution}x{self.resolution}: its classifier sees the whole image. "
                f"Use images of that size, or train with another dataset.resolution."
            )
        h = self.layers(x)
        return Verdict(self.source(h), self.classifier(h).flatten(1))
