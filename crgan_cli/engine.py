"""How a turn is executed on the hardware: device, precision, memory layout, the update itself.

Autocast, and later compilation, CUDA graphs and processes, live here and nowhere else, so that the
step keeps reading like the paper.
"""

import logging
import os
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from crgan_cli.bounds import Count
from crgan_cli.errors import UserError
from crgan_cli.tasks.base import Task
from crgan_cli.types import Batch, Move

log = logging.getLogger(__name__)
DEFAULT_THREADS = torch.get_num_threads()


def device_of(name: str) -> torch.device:
    """The device of a configuration: auto, cpu, cuda, cuda:N or mps. `auto` says what it chose.

    Raises UserError where the device asked for is not there: nothing falls back to the CPU.
    """
    if name == "auto":
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        log.info("device=auto: using %s", describe(device))
        return device
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(
            f"device={name} is no device. Type device=auto, cpu, cuda, cuda:0 or mps."
        ) from None
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": torch.backends.mps.is_available()}
    if (device.index or 0) >= int(there.get(device.type, 0)):
        raise UserError(
            f"device={name} is not available here: PyTorch {torch.__version__} finds "
            f"{torch.cuda.device_count()} CUDA devices. Type device=auto or device=cpu, or install "
            "a PyTorch build and a driver for your GPU."
        )
    return device


def gpus() -> int:
    """How many CUDA devices there are."""
    return torch.cuda.device_count()


def describe(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)


class Eager:
    """Executes turns operation by operation, in fp32 or with bf16 inside the networks.

    Images and logits are fp32 at every seam; consistency terms and penalties are computed in fp32.
    """

    def __init__(
        self,
        precision: Literal["fp32", "bf16"] = "fp32",
        channels_last: bool = True,
        deterministic: bool = False,
        threads: Count | None = None,
    ) -> None:
        self.precision = precision
        self.channels_last = channels_last
        self.deterministic = deterministic
        self.threads = threads

    def prepare(self, task: Task, device: torch.device) -> None:
        """Moves the players to the device, in the layout that its convolutions prefer."""
        torch.set_num_threads(self.threads or DEFAULT_THREADS)
        if self.deterministic:  # which cuBLAS cannot be without a workspace of fixed size
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        if torch.are_deterministic_algorithms_enabled() != self.deterministic:
            torch.use_deterministic_algorithms(self.deterministic)  # its import takes seconds
        torch.backends.cudnn.benchmark = not self.deterministic  # shapes never change in a run
        self.device = device
        self.task = task.to(device).to(memory_format=self.layout)  # type: ignore[call-overload]
        self.players = {who: task.player(who) for who in dict.fromkeys(task.turns)}

    @property
    def layout(self) -> torch.memory_format:
        """The order in which the pixels of a batch lie in memory."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self) -> torch.autocast:
        """bf16 inside the networks where the configuration says so."""
        return torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"
        )

    def turn(
        self, who: str, batch: Batch, optimizers: Mapping[str, Optimizer], *, measure: bool = False
    ) -> Move:
        """One update of one player; the others get no gradient. `measure` adds the gradient's norm.

        Never waits for the device: what it returns stays there.
        """
        for name, player in self.players.items():
            player.requires_grad_(name == who)
        batch = batch._replace(x=batch.x.contiguous(memory_format=self.layout))
        optimizer = optimizers[who]
        optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            move = self.task.move(who, batch)
        torch.stack(list(move.terms.values())).sum().backward()
        gauges = dict(move.gauges)
        if measure:
            gauges[f"gradient_norm/{who}"] = gradient_norm(self.players[who])
        optimizer.step()
        return Move({name: term.detach() for name, term in move.terms.items()}, gauges)


def gradient_norm(player: nn.Module) -> Tensor:
    """The Euclidean norm of the gradient over all parameters of a player, ()."""
    gradients = [p.grad for p in player.parameters() if p.grad is not None]
    return torch.linalg.vector_norm(
        torch.stack([torch.linalg.vector_norm(each) for each in gradients])
    )
