"""The networks as torch.compile runs them, and whether it has what it needs."""

import logging
import os
import shutil
import warnings
from collections.abc import Iterable
from importlib.util import find_spec

import torch

from crgan_cli.errors import UserError
from crgan_cli.gan.tasks.base import Task

log = logging.getLogger(__name__)


def require_compiler(device: torch.device) -> None:
    """Raise UserError if torch.compile finds no compiler."""
    there = find_spec("triton") if device.type == "cuda" else cpp_compiler()
    if not there:
        needed = (
            "the package triton" if device.type == "cuda" else "a C++ compiler (g++ or clang++)"
        )
        raise UserError(
            f"compiling networks for {device} needs {needed}, and there is none. Install it, or "
            "leave it out: engine=auto engine.compile=false."
        )


def cpp_compiler() -> str | None:
    """The C++ compiler that torch.compile would find."""
    names = (os.environ.get("CXX"), "g++", "clang++", "cl" if os.name == "nt" else None)
    return next((found for name in names if name and (found := shutil.which(name))), None)


def compile_players(task: Task, players: Iterable[str]) -> None:
    """Compile in place, so that all weights keep their names. Forget the code of the stage
    before: PyTorch keeps 8 versions of a function, and then silently compiles no more."""
    torch.compiler.reset()
    # the compiler looks at the gradients of the normalised weights, which have none
    warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a")
    from torch._inductor import config as inductor  # takes seconds

    if hasattr(inductor, "deterministic"):  # PyTorch 2.10 and newer: no choice by timing
        inductor.deterministic = True
    twice = task.players_with_double_backward()
    for who in players:
        if who in twice:
            log.info(
                "%s is not compiled: its gradient penalty needs double backward, which "
                "torch.compile does not support",
                who,
            )
            continue
        for network in task.networks(who):
            network.compile(dynamic=False)
