"""Cost of a run before it starts: minutes by a model, disk space by counting weights.

The model takes the longer of two times: to launch the kernels of a step, and to compute them.
Operations are counted (`flops`). The number of launches, the time per launch and the speed of an
H200 are estimated. Nothing of this was measured on a GPU, so a number only tells minutes from days.
`gpu_minutes` is the one place to replace.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from crgan_cli.config.build import build_group
from crgan_cli.config.resolve import Settings, flatten, to_plain
from crgan_cli.config.sides import Sides
from crgan_cli.errors import UserError
from crgan_cli.gan.stages import Stage, Stages

if TYPE_CHECKING:
    from crgan_cli.gan.regularizers.base import CombinedRegularizer
    from crgan_cli.training.flops import CountedNetworks

LAUNCHES = 250  # of a step with one D turn and no regularizer [counted on a CPU: SNDCGAN, bf16]
LAUNCHES_PER_PART = 35  # which scores further images with D, or differentiates it [as above]
LAUNCHES_PER_LATENT_PART = 65  # of a part that draws further images from G [as above]
SECONDS_PER_LAUNCH = 2.5e-6  # of a kernel in a CUDA graph [derived: performance model]
FLOPS_PER_SECOND = 200e12  # a quarter of what an H200 reaches in bf16 [derived: performance model]
SECONDS_ON_CPU = 0.02  # of a step, besides its FLOP [measured: PGGAN, width 0.25, bf16, 1 thread]
FLOPS_ON_CPU = 75e9  # [as above]
SECONDS_PER_SCORED_IMAGE = 3e-4  # 10,000 images in 3 s on one H200 [derived: performance model]


def gpu_minutes(config: Settings, steps: int, done: int = 0) -> float | None:
    """Estimate the minutes from step `done` to `steps` on one H200, with evaluations [derived:
    performance model, not measured]; None for networks that cannot be counted without being
    built."""
    training = 0.0
    for stage, first, end in Stages.from_settings(config).between(done, steps):
        flop = estimate_step_flops(config, stage)
        if flop is None:
            return None
        training += (end - first) * seconds_per_step(config, flop)
    return (training + scoring_seconds(flatten(config), steps - done)) / 60


def relative_costs(config: Settings, device: str) -> list[tuple[int, float]]:
    """Return the first step of each stage and how long one of its steps takes, in any unit. For the
    time that is left: a run finds its own speed out."""
    stages = list(Stages.from_settings(config))
    if len(stages) == 1:
        return [(0, 1.0)]
    flops = [estimate_step_flops(config, stage) or 0.0 for stage in stages]
    return [
        (stage.first, SECONDS_ON_CPU + flop / FLOPS_ON_CPU)
        if device == "cpu"
        else (stage.first, seconds_per_step(config, flop))
        for stage, flop in zip(stages, flops, strict=True)
    ]


def estimate_flops(config: Settings, steps: int, done: int = 0) -> float | None:
    """Return FLOP of the turns from step `done` to `steps`; None as `estimate_step_flops`."""
    total = 0.0
    for stage, first, end in Stages.from_settings(config).between(done, steps):
        flop = estimate_step_flops(config, stage)
        if flop is None:
            return None
        total += (end - first) * flop
    return total


def estimate_step_flops(config: Settings, stage: Stage) -> float | None:
    """Return FLOP of all turns of a step of a stage, as the networks are written; None for tasks
    without latents, and for networks that cannot be counted without being built."""
    from crgan_cli.gan.build import get_task_class
    from crgan_cli.training import flops  # brings torch: counted when first asked for

    if not get_task_class(config).has_latents:
        return None  # the cost of a turn that translates images is not worked out yet
    counted = count_networks_once(config, stage.sides)
    if counted is None:
        return None
    g_views = len(build_group(config["loss"]).g_roles)
    turns = flops.flops_per_turn(counted, build_regularizer(config), g_views=g_views)
    return flops.flops_per_step(turns, n_dis=n_dis(config), batch_size=stage.batch_size)


def build_regularizer(config: Settings) -> "CombinedRegularizer":
    """Build the regularizer of a configuration, to count its terms."""
    from crgan_cli.gan.regularizers.base import CombinedRegularizer

    return CombinedRegularizer(**build_group(config["regularizer"]))


def n_dis(config: Settings) -> int:
    """Return the D steps per G step."""
    return int(config["optimizer"]["n_dis"])


def count_networks_once(
    config: Settings, resolution: int | tuple[int, int]
) -> "CountedNetworks | None":
    """Count the networks for images of this size, once for all runs that share them."""
    architecture, dataset = to_plain(config)["architecture"], config["dataset"]
    return _networks(json.dumps(architecture), Sides.read(resolution), int(dataset["channels"]))


@lru_cache
def _networks(architecture: str, sides: Sides, channels: int) -> "CountedNetworks | None":
    from crgan_cli.training import flops

    try:
        return flops.count_networks(json.loads(architecture), resolution=sides, channels=channels)
    except UserError:
        raise
    except Exception:  # of a plug-in that needs numbers to work with; a run only logs what it costs
        return None


def seconds_per_step(config: Settings, flop: float) -> float:
    """Return the longer of two times: to launch a step's kernels, and to compute them."""
    launches = LAUNCHES + sum(
        LAUNCHES_PER_PART + LAUNCHES_PER_LATENT_PART * len(part.latent_views)
        for part in build_regularizer(config).members
    )
    return max(launches * (n_dis(config) + 1) / 2 * SECONDS_PER_LAUNCH, flop / FLOPS_PER_SECOND)


def scoring_seconds(keys: Mapping[str, object], steps: int) -> float:
    """Estimate the seconds of all evaluations of a run; 0 without metrics."""
    if keys.get("metrics.num_samples") is None:  # no metrics, or as many as the split has
        return 0.0
    each, repeats, every = (
        int(str(keys[f"metrics.{key}"])) for key in ("num_samples", "repeats", "every")
    )
    return steps // every * each * repeats * SECONDS_PER_SCORED_IMAGE


def disk_bytes(config: Settings) -> int:
    """Return the most that the checkpoints take: the last `keep` and the best, weights and Adam."""
    G, D = count_weights(config)
    averaged = G if config["ema"]["decay"] is not None else 0
    return 4 * (3 * (G + D) + averaged) * (config["checkpoint"]["keep"] + 1)  # Adam: two moments


def count_weights(config: Settings) -> tuple[int, int]:
    """Return the number of parameters of G and of D, counted once for all runs that share them.

    Raise UserError if they cannot be built, RuntimeError for more than 64 bits can count.
    """
    plain = to_plain(config)
    # neither has parameters; on the meta device spectral norm takes most of the time
    architecture = plain["architecture"] | {"spectral_norm": False}
    if "spectral_norm" not in plain["architecture"]:
        del architecture["spectral_norm"]
    parts = {name: plain[name] for name in ("task", "dataset")}
    return _count_weights(json.dumps({**parts, "architecture": architecture, "seed": 0}))


@lru_cache
def _count_weights(config: str) -> tuple[int, int]:
    from crgan_cli.gan.build import build_networks
    from crgan_cli.system.meta import without_values

    with without_values():  # counted, not built
        G, D = build_networks(json.loads(config))
    return sum(each.numel() for each in G.parameters()), sum(x.numel() for x in D.parameters())
