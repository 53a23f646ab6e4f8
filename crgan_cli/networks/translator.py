"""The residual generator of CycleGAN, from images to images.

Zhu et al. 2017 (arXiv:1703.10593) section 4 and appendix 7.2, after Johnson et al. 2016
(arXiv:1603.08155); as built in junyanz/CycleGAN (architectures.lua) and, for the norm and for what
has a bias, in the authors' PyTorch port (junyanz/pytorch-CycleGAN-and-pix2pix).
"""

import torch
from torch import Tensor, nn

from crgan_cli.config.bounds import NetworkSide, Positive, PositiveInt, UpTo1000
from crgan_cli.networks.blocks import Residual
from crgan_cli.networks.fast.image_conv import ImageConv
from crgan_cli.networks.image_to_image import (
    QUARTER,
    SHORTEST,
    ReflectionPad,
    Upsampling,
    require_quarters,
    require_sides,
    upsample,
)
from crgan_cli.networks.layers import init_norm_gains, init_normal_002, init_weights, scale_channels
from crgan_cli.networks.norms import NormKind, needs_bias, norm_layers

FEW_BLOCKS, MANY_BLOCKS = 6, 9
"""The authors' residual blocks: below 256 px, and from there on."""


class ResnetTranslator(nn.Module):
    """(N, in_channels, H, W) -> (N, out_channels, H, W), both in [-1, 1].

    7x7 to 64 channels, two 3x3 with stride 2 to 128 and 256, `blocks` residual blocks, two
    upsampling layers back to 128 and 64, 7x7, tanh. A norm and a ReLU follow each convolution but
    the last; a block has no ReLU after its sum. The 7x7 convolutions and the blocks pad by
    reflection. `blocks` null: 6 below 256 px, 9 from there on.

    `upsampling`: "deconv" is the authors' transposed convolution, 3x3 with stride 2. "resize" is
    nearest upsampling and a 3x3 convolution, against checkerboards.

    Both sides of the input must be multiples of `multiple`, and at least `shortest`. They need not
    be `resolution`.
    """

    multiple, shortest = QUARTER, SHORTEST

    def __init__(
        self,
        resolution: NetworkSide,
        in_channels: PositiveInt,
        out_channels: PositiveInt,
        width: Positive,
        blocks: UpTo1000 | None,
        norm: NormKind,
        upsampling: Upsampling,
    ) -> None:
        super().__init__()
        require_quarters(resolution, "translator")
        self.resolution = resolution
        self.in_channels, self.out_channels = in_channels, out_channels
        if blocks is None:
            blocks = MANY_BLOCKS if resolution >= 256 else FEW_BLOCKS
        c1, c2, c3 = (scale_channels(channels, width) for channels in (64, 128, 256))
        bias = needs_bias(norm)

        def normed(layer: nn.Module, channels: int) -> list[nn.Module]:
            return [layer, *norm_layers(norm, channels), nn.ReLU()]

        def block() -> Residual:
            first, second = (nn.Conv2d(c3, c3, 3, bias=bias) for _ in range(2))
            body = [ReflectionPad(1), *normed(first, c3), ReflectionPad(1), second]
            return Residual(nn.Sequential(*body, *norm_layers(norm, c3)), nn.Identity())

        self.layers = nn.Sequential(
            ReflectionPad(3),
            *normed(nn.Conv2d(in_channels, c1, 7, bias=bias), c1),
            *normed(nn.Conv2d(c1, c2, 3, 2, 1, bias=bias), c2),
            *normed(nn.Conv2d(c2, c3, 3, 2, 1, bias=bias), c3),
            *(block() for _ in range(blocks)),
            *normed(upsample(upsampling, c3, c2, bias=bias, kernel=3), c2),
            *normed(upsample(upsampling, c2, c1, bias=bias, kernel=3), c1),
            ReflectionPad(3),
            ImageConv(c1, out_channels, 7),
        )
        init_weights(self, init_normal_002)
        init_norm_gains(self)

    def forward(self, x: Tensor) -> Tensor:
        """Translate images. Raises UserError for sides that are no multiples, or too short."""
        require_sides(x, "ResNet", multiple=QUARTER, least=SHORTEST)
        return torch.tanh(self.layers(x))
