"""The engine that fits the device."""

import torch

from crgan_cli.training.engine.eager import Eager
from crgan_cli.training.engine.graphs import Graphs


class Auto(Eager):
    """CUDA graphs on CUDA, operation by operation elsewhere and for batches in parts."""

    def for_device(self, device: torch.device, accumulate: int = 1) -> Eager:
        kind = Graphs if device.type == "cuda" and accumulate == 1 else Eager
        return kind(**self.options).for_device(device, accumulate)
