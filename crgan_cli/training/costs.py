"""What a run will cost, before it is started: minutes by a model, disk by counting weights.

The model takes the longer of two times: to launch a step's kernels, and to compute what they
compute. Operations are counted (`flops`). Estimated are the launches, the time that each takes and
the speed of an H200: nothing of them has been measured on a GPU, so that a number is good for
telling minutes from days. `gpu_minutes` is the one place to replace.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from crgan_cli.config.build import build_group
from crgan_cli.config.resolve import Settings, flatten, to_plain

if TYPE_CHECKING:
    from crgan_cli.gan.regularizers.base import CombinedRegularizer
    from crgan_cli.training.flops import CountedNetworks

LAUNCHES = 250  # of a step with one D turn and no regularizer [counted on a CPU: SNDCGAN, bf16]
LAUNCHES_PER_PART = 35  # which scores further images with D, or differentiates it [as above]
LAUNCHES_PER_LATENT_PART = 65  # of a part that draws further images from G [as above]
SECONDS_PER_LAUNCH = 2.5e-6  # of a kernel in a CUDA graph [derived: performance model]
FLOPS_PER_SECOND = 200e12  # a quarter of what an H200 reaches in bf16 [derived: performance model]
SECONDS_PER_SCORED_IMAGE = 3e-4  # 10,000 images in 3 s on one H200 [derived: performance model]


def gpu_minutes(config: Settings, steps: int) -> float | None:
    """Minutes that `steps` take on one H200, with evaluations [derived: performance model, not
    measured]; None for networks that cannot be counted without being made."""
    flop = estimate_step_flops(config)
    if flop is None:
        return None
    training = steps * seconds_per_step(config, flop)
    return (training + scoring_seconds(flatten(config), steps)) / 60


def estimate_step_flops(config: Settings) -> float | None:
    """FLOP of all turns of a step, as the networks are written; None where they cannot be counted
    without being made."""
    from crgan_cli.training import flops  # brings torch: counted when first asked for

    counted = count_networks_once(config)
    if counted is None:
        return None
    turns = flops.flops_per_turn(counted, build_regularizer(config))
    return flops.flops_per_step(turns, n_dis=n_dis(config), batch_size=int(config["batch_size"]))


def build_regularizer(config: Settings) -> "CombinedRegularizer":
    """The regularizer of a configuration, to ask what it does."""
    from crgan_cli.gan.regularizers.base import CombinedRegularizer

    return CombinedRegularizer(**build_group(config["regularizer"]))


def n_dis(config: Settings) -> int:
    """D's turns in a step."""
    return int(config["optimizer"]["n_dis"])


def count_networks_once(config: Settings) -> "CountedNetworks | None":
    """The networks, counted once for all the runs that share them."""
    architecture, dataset = to_plain(config)["architecture"], config["dataset"]
    return _networks(json.dumps(architecture), int(dataset["resolution"]), int(dataset["channels"]))


@lru_cache
def _networks(architecture: str, resolution: int, channels: int) -> "CountedNetworks | None":
    from crgan_cli.training import flops

    try:
        return flops.count_networks(
            json.loads(architecture), resolution=resolution, channels=channels
        )
    except (RuntimeError, NotImplementedError):  # of a plug-in that needs numbers to work with
        return None


def seconds_per_step(config: Settings, flop: float) -> float:
    """The longer of two times: to launch a step's kernels, and to compute what they compute."""
    from crgan_cli.training import flops

    launches = LAUNCHES + sum(
        LAUNCHES_PER_PART + LAUNCHES_PER_LATENT_PART * len(flops.latent_roles(part))
        for part in build_regularizer(config).members
    )
    return max(launches * (n_dis(config) + 1) / 2 * SECONDS_PER_LAUNCH, flop / FLOPS_PER_SECOND)


def scoring_seconds(keys: Mapping[str, object], steps: int) -> float:
    """All evaluations of a run; none without metrics."""
    if "metrics.num_samples" not in keys:
        return 0.0
    each, repeats, every = (
        int(str(keys[f"metrics.{key}"])) for key in ("num_samples", "repeats", "every")
    )
    return steps // every * each * repeats * SECONDS_PER_SCORED_IMAGE


def disk_bytes(config: Settings) -> int:
    """Checkpoints of a run at their most: the last `keep` and the best, of weights and Adam."""
    G, D = count_weights(config["architecture"])
    averaged = G if config["ema"]["decay"] is not None else 0
    return 4 * (3 * (G + D) + averaged) * (config["checkpoint"]["keep"] + 1)  # Adam: two moments


def count_weights(architecture: Settings) -> tuple[int, int]:
    """How many numbers G and D learn."""
    import torch

    with torch.device("meta"):  # counted, not made
        nets = build_group(architecture)
    G, D = (
        sum(each.numel() for each in nets[name].parameters())
        for name in ("generator", "discriminator")
    )
    return G, D
