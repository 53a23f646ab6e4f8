"""The engine that fits the device."""

import torch

from crgan_cli.training.engine.eager import Eager
from crgan_cli.training.engine.graphs import Graphs


class Auto(Eager):
    """CUDA graphs on CUDA, operation by operation elsewhere."""

    def for_device(self, device: torch.device) -> Eager:
        kind = Graphs if device.type == "cuda" else Eager
        return kind(**self.options).for_device(device)
