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
from crgan_cli.config.resolve import Settings, flat, plain

if TYPE_CHECKING:
    from crgan_cli.gan.regularizers.base import Sum
    from crgan_cli.training.flops import Counted

LAUNCHES = 250  # of a step with one D turn and no regularizer [counted on a CPU: SNDCGAN, bf16]
LAUNCHES_OF_PART = 35  # which scores further images with D, or differentiates it [as above]
LAUNCHES_OF_LATENTS = 65  # of a part that draws further images from G [as above]
SECONDS_A_LAUNCH = 2.5e-6  # of a kernel in a CUDA graph [inf: performance model]
FLOP_A_SECOND = 200e12  # a quarter of what an H200 reaches in bf16 [inf: performance model]
SECONDS_A_SCORED_IMAGE = 3e-4  # FID of 10,000 images in 3 s on one H200 [inf: performance model]


def gpu_minutes(config: Settings, steps: int) -> float | None:
    """Minutes that `steps` take on one H200, with evaluations [inf: performance model, not
    measured]; None for networks that cannot be counted without being made."""
    flop = flop_a_step(config)
    if flop is None:
        return None
    training = steps * seconds_a_step(config, flop)
    return (training + scoring_seconds(flat(config), steps)) / 60


def flop_a_step(config: Settings) -> float | None:
    """FLOP of all turns of a step, as the networks are written; None where they cannot be counted
    without being made."""
    from crgan_cli.training import flops  # brings torch: counted when first asked for

    counted = networks(config)
    if counted is None:
        return None
    turns = flops.turns(counted, regularizer(config))
    return flops.step(turns, n_dis=n_dis(config), batch_size=int(config["batch_size"]))


def regularizer(config: Settings) -> "Sum":
    """The regularizer of a configuration, to ask what it does."""
    from crgan_cli.gan.regularizers.base import Sum

    return Sum(**build_group(config["regularizer"]))


def n_dis(config: Settings) -> int:
    """D's turns in a step."""
    return int(config["optimizer"]["n_dis"])


def networks(config: Settings) -> "Counted | None":
    """The networks, counted once for all the runs that share them."""
    architecture, dataset = plain(config)["architecture"], config["dataset"]
    return _networks(json.dumps(architecture), int(dataset["resolution"]), int(dataset["channels"]))


@lru_cache
def _networks(architecture: str, resolution: int, channels: int) -> "Counted | None":
    from crgan_cli.training import flops

    try:
        return flops.counted(json.loads(architecture), resolution=resolution, channels=channels)
    except (RuntimeError, NotImplementedError):  # of a plug-in that needs numbers to work with
        return None


def seconds_a_step(config: Settings, flop: float) -> float:
    """The longer of two times: to launch a step's kernels, and to compute what they compute."""
    from crgan_cli.training import flops

    launches = LAUNCHES + sum(
        LAUNCHES_OF_PART + LAUNCHES_OF_LATENTS * len(flops.latents(part))
        for part in regularizer(config).every_part
    )
    return max(launches * (n_dis(config) + 1) / 2 * SECONDS_A_LAUNCH, flop / FLOP_A_SECOND)


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
