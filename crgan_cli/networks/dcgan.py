"""The ordinary DCGAN.

Radford et al. 2016 (arXiv:1511.06434), as built in compare_gan/architectures/dcgan.py.
"""

from torch import Tensor, nn

from crgan_cli.config.bounds import ImageSize, Positive, PositiveInt
from crgan_cli.config.sides import Sides
from crgan_cli.networks.fast.convolution import Convolution, TransposedConvolution
from crgan_cli.networks.layers import ToUnitInterval, require_resolution, scale_channels
from crgan_cli.networks.sequential import SequentialDiscriminator, SequentialGenerator


def _require_multiple_of_16(resolution: int | tuple[int, int]) -> None:
    require_resolution(
        Sides.read(resolution).are_multiples(16),
        resolution,
        "dcgan",
        "32, 64, 128 or another multiple of 16",
        "architecture=sndcgan (any multiple of 8)",
    )


class SameDeconv5(TransposedConvolution):
    """TensorFlow's SAME 5x5 transposed convolution, stride 2: (H, W) -> (2H, 2W).

    It crops 1 from the top and left and 2 from the bottom and right; torch's output_padding can
    only crop more at the top.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, 5, stride=2, padding=1)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        return super().forward(input, output_size)[:, :, :-1, :-1]


class DCGANGenerator(SequentialGenerator):
    """linear to (s/16, s/16, 512), four 5x5 deconvolutions with batch norm, tanh."""

    def __init__(
        self, resolution: ImageSize, channels: PositiveInt, z_dim: PositiveInt, width: Positive
    ) -> None:
        _require_multiple_of_16(resolution)
        a, b, c, d = (scale_channels(w, width) for w in (512, 256, 128, 64))
        first = Sides.read(resolution) // 16
        layers = [
            nn.Linear(z_dim, a * first.pixels),
            nn.Unflatten(1, (a, *first)),
            *_norm_relu(a),
            SameDeconv5(a, b),
            *_norm_relu(b),
            SameDeconv5(b, c),
            *_norm_relu(c),
            SameDeconv5(c, d),
            *_norm_relu(d),
            SameDeconv5(d, channels),
            nn.Tanh(),
        ]
        super().__init__(layers, z_dim=z_dim, resolution=resolution, channels=channels)


class DCGANDiscriminator(SequentialDiscriminator):
    """Four 5x5 stride-2 convolutions, 64 to 512 channels, LReLU 0.2; sees images in [0, 1].

    `batch_norm` adds batch norm to all but the first. The scores then depend on the rest of the
    batch, so several views cannot be scored in one call.
    """

    def __init__(
        self,
        resolution: ImageSize,
        channels: PositiveInt,
        width: Positive,
        batch_norm: bool,
        spectral_norm: bool,
    ) -> None:
        _require_multiple_of_16(resolution)
        a, b, c, d = (scale_channels(w, width) for w in (64, 128, 256, 512))
        norm = nn.BatchNorm2d if batch_norm else nn.Identity
        layers = [
            ToUnitInterval(),
            *_down(channels, a, nn.Identity()),
            *_down(a, b, norm(b)),
            *_down(b, c, norm(c)),
            *_down(c, d, norm(d)),
        ]
        super().__init__(layers, d * (Sides.read(resolution) // 16).pixels, spectral_norm)


def _norm_relu(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU()]


def _down(c_in: int, c_out: int, norm: nn.Module) -> list[nn.Module]:
    # TensorFlow's SAME at 5x5 stride 2 pads 1 at the top and left, 2 at the bottom and right.
    pad = nn.ZeroPad2d((1, 2, 1, 2))
    return [pad, Convolution(c_in, c_out, 5, stride=2), norm, nn.LeakyReLU(0.2)]
