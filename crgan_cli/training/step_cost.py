"""What a step costs, and which share of the device's peak a run reaches: two lines of its log."""

import logging
from typing import NamedTuple

import torch
from omegaconf import DictConfig

from crgan_cli.config.sides import Sides
from crgan_cli.gan.stages import Stage
from crgan_cli.system.device import Precision, describe_device
from crgan_cli.system.numbers import format_flop, format_rate, format_share
from crgan_cli.training import costs, peaks

log = logging.getLogger(__name__)


class StepCost(NamedTuple):
    """FLOP of a step, and what the device could do."""

    flops: float  # of a step, as the networks are written: folding shows as speed
    peak: float | None  # FLOP/s of the device's matrix products, if known
    peak_name: str

    def describe(self, steps_per_second: float) -> str:
        """The speed in FLOP/s, and as a share of the peak (MFU)."""
        speed = self.flops * steps_per_second
        share = f", {format_share(speed / self.peak)} of {self.peak_name}" if self.peak else ""
        return f"{format_flop(speed)}/s{share}"

    def log_speed(self, sides: Sides | None, steps_per_second: float, speed: float) -> None:
        """Log FLOP of a step, and the `speed` in images/s beside the device's peak.

        `sides` are those of the images; None where they are the same in all steps.
        """
        size = f" at {sides} pixels" if sides else ""
        flops = format_flop(self.flops)
        log.info("a step%s is %s, with the networks as they are written", size, flops)
        log.info("%s images/s, %s", format_rate(speed), self.describe(steps_per_second))


def count_step_cost(
    config: DictConfig, precision: Precision, device: torch.device, stage: Stage
) -> StepCost | None:
    """FLOP of a step of a stage; None for networks that cannot be counted."""
    flops = costs.estimate_step_flops(config, stage)
    if flops is None:
        return None  # the peak, which is measured on a CPU, would be of no use
    peak = peaks.peak(device, precision)
    name = "this CPU's matrix products" if device.type == "cpu" else describe_device(device)
    peak_name = f"the {format_flop(peak)}/s of {name} in {precision}" if peak else ""
    return StepCost(flops, peak, peak_name)
