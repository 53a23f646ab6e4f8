"""What a run will cost, before it is started: minutes by a model, disk by counting weights.

The model counts operations and divides them by a speed; nothing of it has been measured on a GPU,
so that a number is good for telling minutes from days. `gpu_minutes` is the one place to replace.
"""

from collections.abc import Mapping
from typing import NamedTuple

from crgan_cli.config import Settings, build_group, flat


class Net(NamedTuple):
    """GFLOP of one forward pass of one image at 32 pixels; a multiply-add is 2."""

    d: float
    g: float


NETS = {  # counted on the published widths [inf: performance model]
    "SNDCGANGenerator": Net(0.431, 0.207),
    "ResNetGenerator": Net(0.544, 3.362),
    "BigGANGenerator": Net(1.246, 7.656),
}


class Extra(NamedTuple):
    """What a part of the regularizer adds to a turn, in forward passes; and its kernel launches."""

    d_in_d: float  # passes of D in D's turn: 3 a view, forward and backward
    g_in_d: float
    g_in_g: float
    launches: int


PARTS = {  # [inf: performance model]
    "cr": Extra(3, 0, 0, 290),
    "bcr": Extra(6, 0, 0, 290),
    "zcr": Extra(3, 1, 3, 580),
    "gp": Extra(6, 0, 0, 290),  # forward, gradient, and the backward pass through both
    "dragan": Extra(6, 0, 0, 290),
    "r1": Extra(6, 0, 0, 290),
    "jsr": Extra(12, 0, 0, 290),  # two batches of D's own
}
LAUNCHES = 760  # of a step with one D turn and no regularizer [inf: performance model]
SECONDS_A_LAUNCH = 6e-6  # [inf: performance model]
FLOP_A_SECOND = 90e12  # TF32 on one H200, operation by operation [inf: performance model]
SECONDS_A_SCORED_IMAGE = 3e-4  # FID of 10,000 images in 3 s on one H200 [inf: performance model]
SIDE = 32


def gpu_minutes(config: Settings, steps: int) -> float | None:
    """Minutes that `steps` take on one H200, with evaluations [inf: performance model, not
    measured]; None for networks that were not counted."""
    keys = flat(config)
    net = NETS.get(str(keys["architecture._target_.generator"]).rpartition(".")[2])
    parts = [key.rpartition(".")[2] for key in keys if key.startswith("regularizer._target_.")]
    known = net and keys["architecture.resolution"] == SIDE and set(parts) <= PARTS.keys()
    if net is None or not known:
        return None
    extras = [PARTS[part] for part in parts]
    training = steps * seconds_a_step(keys, net, extras)
    return (training + scoring_seconds(keys, steps)) / 60


def seconds_a_step(keys: Mapping[str, object], net: Net, extras: list[Extra]) -> float:
    """The longer of two times: to launch a step's kernels, and to compute what they compute."""
    n_dis, batch, width, every = (
        float(str(keys.get(key, 1)))
        for key in ("optimizer.n_dis", "batch_size", "architecture.width", "regularizer.every")
    )
    d_turn = net.g + 6 * net.d
    d_turn += sum(extra.d_in_d * net.d + extra.g_in_d * net.g for extra in extras) / every
    g_turn = 3 * net.g + 2 * net.d
    g_turn += sum(extra.g_in_g * net.g for extra in extras) / every
    flop = 1e9 * batch * width**2 * (n_dis * d_turn + g_turn)
    launches = (LAUNCHES + sum(extra.launches for extra in extras)) * (n_dis + 1) / 2
    return max(launches * SECONDS_A_LAUNCH, flop / FLOP_A_SECOND)


def scoring_seconds(keys: Mapping[str, object], steps: int) -> float:
    """All evaluations of a run; none without metrics."""
    if "metrics.num_samples" not in keys:
        return 0.0
    each, repeats, every = (
        int(str(keys[f"metrics.{key}"])) for key in ("num_samples", "repeats", "every")
    )
    return steps // every * each * repeats * SECONDS_A_SCORED_IMAGE


def disk_bytes(config: Settings) -> int:
    """Checkpoints of a run at their most: the last `keep` and the best, of weights and Adam."""
    G, D = weights(config["architecture"])
    averaged = G if config["ema"]["decay"] is not None else 0
    return 4 * (3 * (G + D) + averaged) * (config["checkpoint"]["keep"] + 1)  # Adam: two moments


def weights(architecture: Settings) -> tuple[int, int]:
    """How many numbers G and D learn."""
    import torch

    with torch.device("meta"):  # counted, not made
        nets = build_group(architecture)
    G, D = (
        sum(each.numel() for each in nets[name].parameters())
        for name in ("generator", "discriminator")
    )
    return G, D
