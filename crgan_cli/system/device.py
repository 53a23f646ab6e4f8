"""The device of a run, and the precision that its hardware is made for."""

import logging
from typing import Literal

import torch

from crgan_cli.errors import UserError

log = logging.getLogger(__name__)
Precision = Literal["fp32", "tf32", "bf16"]


def resolve_device(name: str) -> torch.device:
    """The device of a configuration: auto, cpu, cuda, cuda:N or mps. `auto` says what it chose.

    Raises UserError where the device asked for is not there: nothing falls back to the CPU.
    """
    if name == "auto":
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        log.info("device=auto: using %s", describe_device(device))
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


def count_gpus() -> int:
    """How many CUDA devices there are."""
    return torch.cuda.device_count()


def describe_device(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)


def best_precision(device: torch.device) -> Precision:
    """bf16 where the hardware multiplies it faster than fp32, else fp32.

    That is CUDA from compute capability 8.0 on (Ampere) and CPUs with AMX tiles or AVX-512 BF16.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    able = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return "bf16" if device.type == "cpu" and able else "fp32"


def allow_tf32(wanted: bool) -> None:
    """Whether fp32 convolutions and matrix products on CUDA may round their factors to TF32."""
    torch.backends.cudnn.allow_tf32 = wanted
    torch.backends.cuda.matmul.allow_tf32 = wanted
