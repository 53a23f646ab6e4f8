"""Which architectures are for which task, and networks of which each layer counts."""

from typing import TypeVar

from torch import nn

from crgan_cli.config.choices import Choices

Network = TypeVar("Network", bound=nn.Module)

OTHER_TASKS = ("unet", "translator", "stargan")
"""Architectures of other tasks than generation."""

GENERATION = [name for name in Choices().groups["architecture"] if name not in OTHER_TASKS]
"""The architectures that make images from noise."""


def lively(net: Network) -> Network:
    """`net` in float64 with weights and biases of order 1, so that no layer hides behind a zero."""
    net = net.double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    return net
