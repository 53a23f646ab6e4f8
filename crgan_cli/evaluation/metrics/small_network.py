"""A small convolutional network, quick to train on a CPU."""

import torch
from torch import Tensor, nn

from crgan_cli.data.images import to_float

BATCH = 256  # images that are scored at once


class SmallNetwork(nn.Module):
    """Convolutions that halve the side down to 4, then mean and maximum over positions.

    No layer mixes the images of a batch.
    """

    def __init__(self, channels: int, side: int, outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, padding=1), nn.LeakyReLU(0.1)]
        width = 16
        while side > 4:
            wider = min(2 * width, 64)
            layers += [nn.Conv2d(width, wider, 3, stride=2, padding=1), nn.LeakyReLU(0.1)]
            width, side = wider, (side + 1) // 2
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(2 * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, outputs)."""
        h = self.body(x)
        return self.head(torch.cat([h.mean((2, 3)), h.amax((2, 3))], dim=1))


@torch.no_grad()
def compute_outputs(network: SmallNetwork, x: Tensor) -> Tensor:
    """(N, C, H, W) uint8, or float in [-1, 1] -> the network's outputs on the CPU."""
    device = network.head.weight.device
    floats = (to_float(part) if part.dtype == torch.uint8 else part for part in x.split(BATCH))
    return torch.cat([network(part.to(device)).cpu() for part in floats])
