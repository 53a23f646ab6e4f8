"""SNDCGAN, the column that the papers' tables call "DCGAN".

Miyato et al. 2018 (arXiv:1802.05957), table 3, as built in compare_gan/architectures/sndcgan.py.
"""

from torch import nn

from crgan_cli.config.bounds import ImageSize, Positive, PositiveInt
from crgan_cli.config.sides import Sides
from crgan_cli.networks.fast.convolution import Convolution, TransposedConvolution
from crgan_cli.networks.layers import require_resolution, scale_channels
from crgan_cli.networks.sequential import SequentialDiscriminator, SequentialGenerator


def _require_multiple_of_8(resolution: int | tuple[int, int]) -> None:
    require_resolution(
        Sides.read(resolution).are_multiples(8),
        resolution,
        "sndcgan",
        "32, 64, 128 or another multiple of 8",
        "a multiple of 8, architecture=mlp or mlp_maxout (any size)",
    )


class SNDCGANGenerator(SequentialGenerator):
    """linear to (s/8, s/8, 512), three 4x4 deconvolutions, 3x3, tanh (papers' table 3).

    As in compare_gan, the first batch norm is over the flat vector: it has one gain and one bias
    per unit, not per channel.
    """

    def __init__(
        self, resolution: ImageSize, channels: PositiveInt, z_dim: PositiveInt, width: Positive
    ) -> None:
        _require_multiple_of_8(resolution)
        a, b, c, d = (scale_channels(w, width) for w in (512, 256, 128, 64))
        first = Sides.read(resolution) // 8
        layers = [
            nn.Linear(z_dim, a * first.pixels),
            nn.BatchNorm1d(a * first.pixels),
            nn.ReLU(),
            nn.Unflatten(1, (a, *first)),
            *_up(a, b),
            *_up(b, c),
            *_up(c, d),
            Convolution(d, channels, 3, padding=1),
            nn.Tanh(),
        ]
        super().__init__(layers, z_dim=z_dim, resolution=resolution, channels=channels)


class SNDCGANDiscriminator(SequentialDiscriminator):
    """Pairs of 3x3 and 4x4 stride-2 convolutions, 64 to 512 channels, LReLU 0.1; no batch norm."""

    def __init__(
        self, resolution: ImageSize, channels: PositiveInt, width: Positive, spectral_norm: bool
    ) -> None:
        _require_multiple_of_8(resolution)
        a, b, c, d = (scale_channels(w, width) for w in (64, 128, 256, 512))
        layers = [
            *_same(channels, a),
            *_down(a, b),
            *_same(b, b),
            *_down(b, c),
            *_same(c, c),
            *_down(c, d),
            *_same(d, d),
        ]
        super().__init__(layers, d * (Sides.read(resolution) // 8).pixels, spectral_norm)


def _up(c_in: int, c_out: int) -> list[nn.Module]:
    return [TransposedConvolution(c_in, c_out, 4, 2, 1), nn.BatchNorm2d(c_out), nn.ReLU()]


def _same(c_in: int, c_out: int) -> list[nn.Module]:
    return [Convolution(c_in, c_out, 3, 1, 1), nn.LeakyReLU(0.1)]


def _down(c_in: int, c_out: int) -> list[nn.Module]:
    return [Convolution(c_in, c_out, 4, 2, 1), nn.LeakyReLU(0.1)]
