"""The device of a run, and the best precision for its hardware."""

import logging
import re
from typing import Literal

import torch

from crgan_cli.errors import UserError, not_available
from crgan_cli.system.crowding import CrowdWatch

log = logging.getLogger(__name__)
Precision = Literal["fp32", "tf32", "bf16"]


def resolve_device(name: str) -> torch.device:
    """Return the device of a configuration: auto, cpu, cuda, cuda:N or mps. Log the choice of auto.

    UserError if the requested device does not exist: nothing falls back to the CPU.
    """
    if name == "auto":
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        require_kernels(device, name)
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
    require_kernels(device, name)
    return device


def require_kernels(device: torch.device, name: str) -> None:
    """Raise UserError if PyTorch was built without kernels for this GPU. `name`: as typed."""
    if device.type != "cuda" or torch.version.cuda is None:  # ROCm has other names for its GPUs
        return
    built_for = torch.cuda.get_arch_list()
    major, minor = torch.cuda.get_device_capability(device)
    if built_for and not any(runs_on(each, major, minor) for each in built_for):
        reason = (
            f"{torch.cuda.get_device_name(device)} has compute capability {major}.{minor} "
            f"(sm_{major}{minor}), and PyTorch {torch.__version__} has kernels for "
            f"{', '.join(built_for)} only"
        )
        remedy = (
            "Type device=cpu, or install a PyTorch build for this GPU: a newer one for a newer "
            "GPU, one for an older CUDA for an older GPU (https://pytorch.org/get-started/locally)."
        )
        raise UserError(not_available(f"device={name}", reason, remedy))


def runs_on(architecture: str, major: int, minor: int) -> bool:
    """Whether code for sm_XY or compute_XY runs on a GPU of compute capability major.minor.

    sm_XY is machine code: it runs on the same major version from its minor one on. compute_XY is
    PTX, which the driver compiles for the same or any later version. The suffix "a" binds either to
    exactly X.Y, and "f" to a family within the major version (NVIDIA, "CUDA C++ Programming Guide",
    compute capabilities).
    """
    found = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", architecture)
    if found is None:
        return False
    kind, built_major, built_minor, suffix = found.groups()
    built, asked = (int(built_major), int(built_minor)), (major, minor)
    if suffix == "a":
        return built == asked
    return built <= asked and (built[0] == major or (kind == "compute" and not suffix))


def count_gpus() -> int:
    """Count the CUDA devices."""
    return torch.cuda.device_count()


def describe_device(device: torch.device) -> str:
    """Return the device as text, with the GPU's name or the number of CPU threads."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)


def watch_crowding(device: torch.device, command: str | None = None) -> CrowdWatch | None:
    """Return what notices that others use the CPUs of work on `device`; None on other devices.

    `command`: see `CrowdWatch`.
    """
    return CrowdWatch(torch.get_num_threads, command) if device.type == "cpu" else None


def best_precision(device: torch.device) -> Precision:
    """Return bf16 if the hardware multiplies it faster than fp32, else fp32.

    That is CUDA from compute capability 8.0 (Ampere), and CPUs with AMX tiles or AVX-512 BF16.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    is_fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return "bf16" if device.type == "cpu" and is_fast else "fp32"


def allow_tf32(wanted: bool) -> None:
    """Allow or forbid TF32 factors in fp32 convolutions on CUDA. Matrix products never use it.

    So logits and spectral norm are fp32 in every precision. These are PyTorch's older switches: as
    soon as a newer one (`fp32_precision`) is set for convolutions alone, reading an older one, as
    torch.compile does, is an error.
    """
    torch.backends.cudnn.allow_tf32 = wanted
    torch.backends.cuda.matmul.allow_tf32 = False
