"""What the networks without residual blocks share (`dcgan`, `sndcgan`). They take no labels."""

from collections.abc import Sequence

from torch import Tensor, nn

from crgan_cli.networks.fast.spectral import apply_spectral_norm
from crgan_cli.networks.layers import LinearHead, init_normal_002, init_weights


class SequentialGenerator(nn.Module):
    """The `layers` one after another, with weights from N(0, 0.02)."""

    classes = 0

    def __init__(
        self,
        layers: Sequence[nn.Module],
        *,
        z_dim: int,
        resolution: int | tuple[int, int],
        channels: int,
    ) -> None:
        super().__init__()
        self.z_dim, self.resolution, self.channels = z_dim, resolution, channels
        self.layers = nn.Sequential(*layers)
        init_weights(self, init_normal_002)

    def forward(self, z: Tensor, y: Tensor | None) -> Tensor:
        """(N, z_dim) -> (N, C, H, W) in [-1, 1]; `y` is not used."""
        return self.layers(z)


class SequentialDiscriminator(nn.Module):
    """The `layers` one after another, flattened to `features`, and a linear head; N(0, 0.02)."""

    classes = 0

    def __init__(self, layers: Sequence[nn.Module], features: int, spectral_norm: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.head = LinearHead(features)
        init_weights(self, init_normal_002)
        if spectral_norm:
            apply_spectral_norm(self)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> (N,) logits; `y` is not used."""
        return self.head(self.layers(x), y)
