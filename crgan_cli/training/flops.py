"""How much arithmetic a run is: FLOPs of a forward pass, counted, and of a turn, by an algebra.

One forward pass of one image is counted on meta tensors with torch.utils.flop_counter: convolutions
and matrix products, a multiply-add as 2, everything else as nothing. The networks are counted as
they are written, without spectral norm and unfolded, so that a network that is folded to do less
shows a speed above what it executes.

A turn is worth so many passes. Backward costs two forward passes, one for the gradient of the
inputs and one for that of the weights; what no parameter is waiting for is not computed:

    D's turn  G once for each role that it draws, D 3 for each view
              and for each set of images whose gradient is penalised
              6 more by double backward, or 4 through the adjoint network
    G's turn  G 3 for each role that it draws, D 2 (its weights get no gradient)

The gradient of the first layer's input is counted though nobody needs it, so true counts are a
little lower.
"""

import time
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from crgan_cli.config.compose import Settings, build_group, plain
from crgan_cli.gan.regularizers.base import Regularizer, Sum
from crgan_cli.gan.types import Generator

IMAGES = 2  # in a counted batch; batch norm refuses one image
FORWARD_BACKWARD = 3
DOUBLE_BACKWARD = 6  # forward, input gradient, and backward through both
ADJOINT = 4  # forward without a graph, the adjoint network, and backward through it alone


class Net(NamedTuple):
    """GFLOP of one forward pass of one image."""

    d: float
    g: float


class Turns(NamedTuple):
    """GFLOP of one turn of each player, per image of the batch."""

    d: float
    g: float


class Counted(NamedTuple):
    """An architecture without its weights, and what its passes cost."""

    net: Net
    D: nn.Module  # on the meta device, to ask what it is made of


def counted(architecture: Settings, *, resolution: int, channels: int) -> Counted:
    """The networks of a configuration's `architecture`, for images of that side."""
    from torch.utils.flop_counter import FlopCounterMode  # its import takes a second

    settings = plain(architecture)
    if "spectral_norm" in settings:
        settings["spectral_norm"] = False  # autocast knows no meta tensors, and it is no conv
    with torch.device("meta"):
        built = build_group(settings)
    G, D = built["generator"], built["discriminator"]

    def passed(network: nn.Module, x: Tensor) -> float:
        classes = getattr(network, "classes", 0)
        y = torch.zeros(IMAGES, dtype=torch.int64, device="meta") if classes else None
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(x, y)
        return counter.get_total_flops() / IMAGES / 1e9

    z = torch.zeros(IMAGES, cast(Generator, G).z_dim, device="meta")
    x = torch.zeros(IMAGES, channels, resolution, resolution, device="meta")
    return Counted(Net(d=passed(D, x), g=passed(G, z)), D)


def turns(counted: Counted, regularizer: Sum) -> Turns:
    """What the turns of a game with this regularizer cost.

    Lazy parts count with their share of the turns. A view that several parts ask for is scored
    once: as often as the part that asks most often.
    """
    net, parts = counted.net, regularizer.every_part
    views = 2 + often((role, part) for part in parts for role in part.d_views)
    drawn = 1 + often((role, part) for part in parts for role in latents(part))
    d = FORWARD_BACKWARD * views * net.d + drawn * net.g
    for part in parts:
        passes = DOUBLE_BACKWARD if part.differentiates_twice(counted.D) else ADJOINT
        d += passes * part.sloped / part.every * net.d
    return Turns(d=d, g=FORWARD_BACKWARD * drawn * net.g + 2 * net.d)


def step(turns: Turns, *, n_dis: int, batch_size: int) -> float:
    """FLOP of `n_dis` turns of D and one of G."""
    return 1e9 * batch_size * (n_dis * turns.d + turns.g)


def often(asked: Iterable[tuple[str, Regularizer]]) -> float:
    """How many roles beside "real" and "fake" there are in a turn, on average."""
    shares: dict[str, float] = {}
    for role, part in asked:
        if role not in ("real", "fake"):
            shares[role] = max(shares.get(role, 0.0), 1 / part.every)
    return sum(shares.values())


def latents(part: Regularizer) -> tuple[str, ...]:
    """The roles that G draws for a part besides "fake"."""
    with torch.random.fork_rng(devices=()):  # drawing a code must not move the run's numbers
        return tuple(part.latents(torch.zeros(1, 1)))


# --- what a device could do ----------------------------------------------------------------------


class Peak(NamedTuple):
    """TFLOP/s of dense matrix products, from the makers' data sheets; without their sparsity."""

    bf16: float
    tf32: float
    fp32: float


PEAKS = {  # NVIDIA's data sheets of each; SXM forms where there are several
    "H200": Peak(989.0, 494.7, 67.0),
    "H200 NVL": Peak(835.5, 417.7, 60.0),
    "H100 PCIe": Peak(756.0, 378.0, 51.0),
    "H100 NVL": Peak(835.0, 417.5, 60.0),
    "H100": Peak(989.0, 494.7, 67.0),
    "GH200": Peak(989.0, 494.7, 67.0),
    "A100": Peak(312.0, 156.0, 19.5),
    "A10": Peak(125.0, 62.5, 31.2),
    "L40S": Peak(362.0, 183.0, 91.6),
    "L4": Peak(121.0, 60.0, 30.3),
    "RTX A6000": Peak(154.8, 77.4, 38.7),
    "RTX 4090": Peak(165.2, 82.6, 82.6),
    "RTX 3090": Peak(71.0, 35.6, 35.6),
    "V100": Peak(15.7, 15.7, 15.7),  # no bf16 and no TF32 there: fp32 takes their place
    "T4": Peak(8.1, 8.1, 8.1),
}
"""A part of the device's name -> its peaks. The longest part that fits counts."""

SIDE = 1024  # of the matrices that a CPU is measured with
TRIES = 5


def peak(device: torch.device, precision: str) -> float | None:
    """FLOP/s at most, in fp32, tf32 or bf16; None for a device that is not in the table.

    A CPU is measured by a matrix product (some 0.2 s, once): what its library reaches, not what
    its silicon could.
    """
    if device.type == "cpu":
        bf16 = precision == "bf16"
        return measured(torch.bfloat16 if bf16 else torch.float32, torch.get_num_threads())
    if device.type != "cuda":
        return None
    found = peak_of(torch.cuda.get_device_name(device))
    return 1e12 * getattr(found, precision) if found else None


def peak_of(name: str) -> Peak | None:
    """The row of a device's name; None for one that is not in the table."""
    words = name.replace("-", " ").split()
    fits = [key for key in PEAKS if set(key.split()) <= set(words)]
    return PEAKS[max(fits, key=len)] if fits else None


@lru_cache
def measured(dtype: torch.dtype, threads: int) -> float:
    """FLOP/s of a matrix product on this CPU with so many threads (PyTorch's present setting)."""
    a = torch.ones(SIDE, SIDE, dtype=dtype)
    best = float("inf")
    for _ in range(TRIES):
        began = time.perf_counter()
        torch.mm(a, a)
        best = min(best, time.perf_counter() - began)
    return 2 * SIDE**3 / best


def share_of_peak(flops_per_second: float, device: torch.device, precision: str) -> float | None:
    """A speed as a share of what the device could do; None where that is not known."""
    most = peak(device, precision)
    return flops_per_second / most if most else None
