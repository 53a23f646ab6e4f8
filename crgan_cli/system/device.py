"""The device of a run, and the best precision for its hardware."""

import logging
from typing import Literal

import torch

from crgan_cli.errors import UserError, not_available

log = logging.getLogger(__name__)
Precision = Literal["fp32", "tf32", "bf16"]


def resolve_device(name: str) -> torch.device:
    """Return the device of a configuration: auto, cpu, cuda, cuda:N or mps. Log the choice of auto.

    UserError if the requested device does not exist: nothing falls back to the CPU.
    """
    if name == "auto":
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        log.info("device=auto: using %s", describe_device(device))
        return device
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(
            f"device={name} is not a device. Type device=auto, cpu, cuda, cuda:0 or mps."
        ) from None
    counts = {"cpu": 1, "cuda": count_gpus(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= counts.get(device.type, 0):
        reason = f"PyTorch {torch.__version__} finds {count_gpus()} CUDA devices"
        remedy = "or install a PyTorch build and a driver for your GPU."
        raise UserError(
            not_available(f"device={name}", reason, f"Type device=auto or device=cpu, {remedy}")
        )
    return device


def count_gpus() -> int:
    """Count the CUDA devices."""
    return torch.cuda.device_count()


def describe_device(device: torch.device) -> str:
    """Return the device as text, with the GPU's name or the number of CPU threads."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)


def best_precision(device: torch.device) -> Precision:
    """Return bf16 if the hardware multiplies it faster than fp32, else fp32.

    That is CUDA from compute capability 8.0 (Ampere), and CPUs with AMX tiles or AVX-512 BF16.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    is_fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return "bf16" if device.type == "cpu" and is_fast else "fp32"


def allow_tf32(wanted: bool) -> None:
    """Allow or forbid TF32 factors in fp32 convolutions and matrix products on CUDA."""
    torch.backends.cudnn.allow_tf32 = wanted
    torch.backends.cuda.matmul.allow_tf32 = wanted
