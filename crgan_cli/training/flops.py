"""FLOP of a forward pass, counted, and of a turn, by a formula.

One forward pass of one image is counted on meta tensors with torch.utils.flop_counter: convolutions
and matrix products, 2 per multiply-add, nothing else. The networks are counted as they are written,
without spectral norm and not folded. So a folded network shows a higher speed than it executes.

A turn costs this many passes. Backward costs two forward passes: one for the gradient of the
inputs and one for that of the weights. Gradients that no parameter needs are not computed:

    D's turn  G once for each role that it draws, D 3 for each view
              and for each set of images whose gradient is penalised
              6 more by double backward, or 4 through the adjoint network
    G's turn  G 3 for each role that it draws, D 2 for each view (its weights get no gradient)
              and for images that are differentiated by their latents (path length)
              G 6 more by double backward

The gradient of the first layer's input is counted although it is not needed, so true counts are
a little lower.
"""

from collections.abc import Iterable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from crgan_cli.config.build import build_group
from crgan_cli.config.resolve import Settings, to_plain
from crgan_cli.config.schema import FILLED_BY_CODE
from crgan_cli.config.sides import Sides
from crgan_cli.gan.regularizers.base import CombinedRegularizer, Regularizer
from crgan_cli.gan.regularizers.path_length import PathLength
from crgan_cli.gan.types import Generator
from crgan_cli.networks.growth import Growth

IMAGES = 2  # in a counted batch; batch norm refuses one image
FORWARD_BACKWARD = 3
DOUBLE_BACKWARD = 6  # forward, input gradient, and backward through both
ADJOINT = 4  # forward without a graph, the adjoint network, and backward through it alone


class NetworkFlops(NamedTuple):
    """GFLOP of one forward pass of one image."""

    d: float
    g: float


class TurnFlops(NamedTuple):
    """GFLOP of one turn of each player, per image of the batch."""

    d: float
    g: float


class CountedNetworks(NamedTuple):
    """An architecture without its weights, and what its passes cost."""

    net: NetworkFlops
    D: nn.Module  # on the meta device, to ask what it is made of


def count_networks(
    architecture: Settings, *, resolution: int | tuple[int, int], channels: int
) -> CountedNetworks:
    """Count the networks of `architecture`, for images of this size; of networks that grow, as far
    as they have grown then.

    Raises NotImplementedError for a generator without z: the turns of its task have another cost.
    """
    from torch.utils.flop_counter import FlopCounterMode  # its import takes a second

    settings, sides = to_plain(architecture), Sides.read(resolution)
    if "spectral_norm" in settings:
        settings["spectral_norm"] = False  # autocast knows no meta tensors, and it is no conv
    with torch.device("meta"):
        built = build_group(settings, **dict.fromkeys(FILLED_BY_CODE["architecture"], channels))
    G, D = built["generator"], built["discriminator"]
    if not hasattr(G, "z_dim"):
        raise NotImplementedError(f"{type(G).__name__} makes no images from noise")

    if isinstance(growth := getattr(G, "growth", None), Growth):
        growth.follow(growth.find_level(sides.height, settings["resolution"]), 1.0)
        D.growth = growth

    def passed(network: nn.Module, x: Tensor) -> float:
        classes = getattr(network, "classes", 0)
        y = torch.zeros(IMAGES, dtype=torch.int64, device="meta") if classes else None
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(x, y)
        return counter.get_total_flops() / IMAGES / 1e9

    z = torch.zeros(IMAGES, cast(Generator, G).z_dim, device="meta")
    x = torch.zeros(IMAGES, channels, *sides, device="meta")
    return CountedNetworks(NetworkFlops(d=passed(D, x), g=passed(G, z)), D)


def flops_per_turn(
    counted: CountedNetworks, regularizer: CombinedRegularizer, *, g_views: int = 1
) -> TurnFlops:
    """Return the cost of the turns with this regularizer; D scores `g_views` views in a G step.

    Lazy parts count with their share of the turns. A view that several parts need is scored once:
    as often as for the part that needs it most often.
    """
    net, parts = counted.net, regularizer.members
    views = 2 + mean_extra_roles((role, part) for part in parts for role in part.views)
    drawn = 1 + mean_extra_roles((role, part) for part in parts for role in part.latent_views)
    d = FORWARD_BACKWARD * views * net.d + drawn * net.g
    for part in parts:
        passes = DOUBLE_BACKWARD if part.needs_double_backward(counted.D) else ADJOINT
        d += passes * part.gradient_views / part.every * net.d
    g = FORWARD_BACKWARD * drawn * net.g + 2 * g_views * net.d
    for part in parts:
        if part.differentiates_G:
            shrink = part.pl_batch_shrink if isinstance(part, PathLength) else 1
            g += DOUBLE_BACKWARD / part.every / shrink * net.g
    return TurnFlops(d=d, g=g)


def flops_per_step(turns: TurnFlops, *, n_dis: int, batch_size: int) -> float:
    """Return FLOP of `n_dis` turns of D and one of G."""
    return 1e9 * batch_size * (n_dis * turns.d + turns.g)


def mean_extra_roles(asked: Iterable[tuple[str, Regularizer]]) -> float:
    """Return the mean number of roles per turn besides "real" and "fake"."""
    shares: dict[str, float] = {}
    for role, part in asked:
        if role not in ("real", "fake"):
            shares[role] = max(shares.get(role, 0.0), 1 / part.every)
    return sum(shares.values())
