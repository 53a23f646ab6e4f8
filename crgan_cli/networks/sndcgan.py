"""SNDCGAN, the column that the papers' tables call "DCGAN".

Miyato et al. 2018 (arXiv:1802.05957), table 3, as built in compare_gan/architectures/sndcgan.py.
"""

from torch import Tensor, nn

from crgan_cli.config.bounds import Positive, PositiveInt
from crgan_cli.networks.fast.spectral import apply_spectral_norm
from crgan_cli.networks.layers import (
    LinearHead,
    init_normal_002,
    init_weights,
    require_resolution,
    scale_channels,
)


def _require_multiple_of_8(resolution: int) -> None:
    require_resolution(
        resolution % 8 == 0,
        resolution,
        "sndcgan",
        "32, 64, 128 or another multiple of 8",
        "a multiple of 8 (no other architecture makes a side that is none)",
    )


class SNDCGANGenerator(nn.Module):
    """linear to (s/8, s/8, 512), three 4x4 deconvolutions, conv3, tanh (papers' table 3).

    As in compare_gan, the first batch norm is over the flat vector: one gain and one bias a unit,
    not a channel.
    """

    classes = 0

    def __init__(
        self, resolution: PositiveInt, channels: PositiveInt, z_dim: PositiveInt, width: Positive
    ) -> None:
        _require_multiple_of_8(resolution)
        super().__init__()
        self.z_dim, self.resolution, self.channels = z_dim, resolution, channels
        a, b, c, d = (scale_channels(w, width) for w in (512, 256, 128, 64))
        side = resolution // 8
        self.layers = nn.Sequential(
            nn.Linear(z_dim, a * side**2),
            nn.BatchNorm1d(a * side**2),
            nn.ReLU(),
            nn.Unflatten(1, (a, side, side)),
            *_up(a, b),
            *_up(b, c),
            *_up(c, d),
            nn.Conv2d(d, channels, 3, padding=1),
            nn.Tanh(),
        )
        init_weights(self, init_normal_002)

    def forward(self, z: Tensor, y: Tensor | None) -> Tensor:
        """(N, z_dim) -> (N, C, H, W) in [-1, 1]; `y` is not used."""
        return self.layers(z)


class SNDCGANDiscriminator(nn.Module):
    """Pairs of conv 3x3 and conv 4x4 stride 2, 64 to 512 channels, LReLU 0.1; no batch norm."""

    classes = 0

    def __init__(
        self, resolution: PositiveInt, channels: PositiveInt, width: Positive, spectral_norm: bool
    ) -> None:
        _require_multiple_of_8(resolution)
        super().__init__()
        a, b, c, d = (scale_channels(w, width) for w in (64, 128, 256, 512))
        self.layers = nn.Sequential(
            *_same(channels, a),
            *_down(a, b),
            *_same(b, b),
            *_down(b, c),
            *_same(c, c),
            *_down(c, d),
            *_same(d, d),
            nn.Flatten(),
        )
        self.head = LinearHead(d * (resolution // 8) ** 2)
        init_weights(self, init_normal_002)
        if spectral_norm:
            apply_spectral_norm(self)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> (N,) logits; `y` is not used."""
        return self.head(self.layers(x), y)


def _up(c_in: int, c_out: int) -> list[nn.Module]:
    return [nn.ConvTranspose2d(c_in, c_out, 4, 2, 1), nn.BatchNorm2d(c_out), nn.ReLU()]


def _same(c_in: int, c_out: int) -> list[nn.Module]:
    return [nn.Conv2d(c_in, c_out, 3, 1, 1), nn.LeakyReLU(0.1)]


def _down(c_in: int, c_out: int) -> list[nn.Module]:
    return [nn.Conv2d(c_in, c_out, 4, 2, 1), nn.LeakyReLU(0.1)]
