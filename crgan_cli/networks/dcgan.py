"""The ordinary DCGAN.

Radford et al. 2016 (arXiv:1511.06434), as built in compare_gan/architectures/dcgan.py.
"""

from torch import Tensor, nn

from crgan_cli.config.bounds import Positive, PositiveInt
from crgan_cli.networks.fast.spectral import apply_spectral_norm
from crgan_cli.networks.layers import (
    LinearHead,
    ToUnitInterval,
    init_normal_002,
    init_weights,
    require_resolution,
    scale_channels,
)


def _require_multiple_of_16(resolution: int) -> None:
    require_resolution(
        resolution % 16 == 0,
        resolution,
        "dcgan",
        "32, 64, 128 or another multiple of 16",
        "architecture=sndcgan (any multiple of 8)",
    )


class SameDeconv5(nn.ConvTranspose2d):
    """TensorFlow's SAME 5x5 transposed convolution, stride 2: (H, W) -> (2H, 2W).

    It crops 1 from the top and left and 2 from the bottom and right; torch's output_padding can
    only crop more at the top.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, 5, stride=2, padding=1)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        return super().forward(input, output_size)[:, :, :-1, :-1]


class DCGANGenerator(nn.Module):
    """linear to (s/16, s/16, 512), four 5x5 deconvolutions with batch norm, tanh."""

    classes = 0

    def __init__(
        self, resolution: PositiveInt, channels: PositiveInt, z_dim: PositiveInt, width: Positive
    ) -> None:
        _require_multiple_of_16(resolution)
        super().__init__()
        self.z_dim, self.resolution, self.channels = z_dim, resolution, channels
        a, b, c, d = (scale_channels(w, width) for w in (512, 256, 128, 64))
        side = resolution // 16
        self.layers = nn.Sequential(
            nn.Linear(z_dim, a * side**2),
            nn.Unflatten(1, (a, side, side)),
            *_normed(a),
            SameDeconv5(a, b),
            *_normed(b),
            SameDeconv5(b, c),
            *_normed(c),
            SameDeconv5(c, d),
            *_normed(d),
            SameDeconv5(d, channels),
            nn.Tanh(),
        )
        init_weights(self, init_normal_002)

    def forward(self, z: Tensor, y: Tensor | None) -> Tensor:
        """(N, z_dim) -> (N, C, H, W) in [-1, 1]; `y` is not used."""
        return self.layers(z)


class DCGANDiscriminator(nn.Module):
    """Four 5x5 stride-2 convolutions, 64 to 512 channels, LReLU 0.2; sees images in [0, 1].

    `batch_norm` puts batch norm into all but the first. Its scores then depend on the rest of the
    batch, so several views cannot be scored in one call.
    """

    classes = 0

    def __init__(
        self,
        resolution: PositiveInt,
        channels: PositiveInt,
        width: Positive,
        batch_norm: bool,
        spectral_norm: bool,
    ) -> None:
        _require_multiple_of_16(resolution)
        super().__init__()
        a, b, c, d = (scale_channels(w, width) for w in (64, 128, 256, 512))
        norm = nn.BatchNorm2d if batch_norm else nn.Identity
        self.layers = nn.Sequential(
            ToUnitInterval(),
            *_down(channels, a, nn.Identity()),
            *_down(a, b, norm(b)),
            *_down(b, c, norm(c)),
            *_down(c, d, norm(d)),
            nn.Flatten(),
        )
        self.head = LinearHead(d * (resolution // 16) ** 2)
        init_weights(self, init_normal_002)
        if spectral_norm:
            apply_spectral_norm(self)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> (N,) logits; `y` is not used."""
        return self.head(self.layers(x), y)


def _normed(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU()]


def _down(c_in: int, c_out: int, norm: nn.Module) -> list[nn.Module]:
    # TensorFlow's SAME at 5x5 stride 2 pads 1 at the top and left, 2 at the bottom and right.
    pad = nn.ZeroPad2d((1, 2, 1, 2))
    return [pad, nn.Conv2d(c_in, c_out, 5, stride=2), norm, nn.LeakyReLU(0.2)]
