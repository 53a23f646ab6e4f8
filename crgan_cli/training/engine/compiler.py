"""Whether torch.compile has what it needs."""

import os
import shutil
from importlib.util import find_spec

import torch

from crgan_cli.errors import UserError


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
