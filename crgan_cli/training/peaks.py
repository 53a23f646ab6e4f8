"""Peak speed of a device: FLOP/s of dense matrix products."""

import time
from functools import lru_cache
from typing import NamedTuple

import torch


class Peak(NamedTuple):
    """TFLOP/s of dense matrix products, from the data sheets, without sparsity."""

    bf16: float
    tf32: float
    fp32: float


PEAKS = {  # NVIDIA's data sheets of each; SXM forms where there are several
    "H200": Peak(989.0, 494.7, 67.0),
    "H200 NVL": Peak(835.5, 417.7, 60.0),
    "H100 PCIe": Peak(756.0, 378.0, 51.0),
    "H100 NVL": Peak(835.0, 417.5, 60.0),
    "H100": Peak(989.0, 494.7, 67.0),
    "GH200": Peak(989.0, 494.7, 67.0),
    "A100": Peak(312.0, 156.0, 19.5),
    "A10": Peak(125.0, 62.5, 31.2),
    "L40S": Peak(362.0, 183.0, 91.6),
    "L4": Peak(121.0, 60.0, 30.3),
    "RTX A6000": Peak(154.8, 77.4, 38.7),
    "RTX 4090": Peak(165.2, 82.6, 82.6),
    "RTX 3090": Peak(71.0, 35.6, 35.6),
    "V100": Peak(15.7, 15.7, 15.7),  # no bf16 and no TF32 there: fp32 takes their place
    "T4": Peak(8.1, 8.1, 8.1),
}
"""A part of the device's name -> its peaks. The longest part that fits is taken."""

SIDES = (512, 1024)
"""Of the matrices that a CPU is measured with. A product of the small ones takes less time than
other processes leave a thread at a stretch; many threads need the large ones."""

SECONDS, FEWEST = 0.1, 3  # that a side is measured for, and products


def peak(device: torch.device, precision: str) -> float | None:
    """Return the peak FLOP/s in fp32, tf32 or bf16; None for a device that is not in the table.

    A CPU is measured by matrix products (0.2 s, once): what its library reaches. The result
    is only logged, and decides nothing.
    """
    if device.type == "cpu":
        bf16 = precision == "bf16"
        return measure_cpu(torch.bfloat16 if bf16 else torch.float32, torch.get_num_threads())
    if device.type != "cuda":
        return None
    found = find_peak(torch.cuda.get_device_name(device))
    return 1e12 * getattr(found, precision) if found else None


def find_peak(name: str) -> Peak | None:
    """Return the row of a device's name; None for one that is not in the table."""
    words = name.replace("-", " ").split()
    fits = [key for key in PEAKS if set(key.split()) <= set(words)]
    return PEAKS[max(fits, key=len)] if fits else None


@lru_cache
def measure_cpu(dtype: torch.dtype, threads: int) -> float:
    """Measure FLOP/s of a matrix product on this CPU; `threads` is PyTorch's present setting.

    The best of many, since other processes and a clock that is still low only slow some down.
    """
    return max(measure_products(torch.ones(side, side, dtype=dtype)) for side in SIDES)


def measure_products(a: torch.Tensor) -> float:
    """Return the FLOP/s of the fastest product of a square matrix with itself."""
    product = torch.mm(a, a)  # the first one prepares the library, and the threads
    found: list[float] = []
    while sum(found) < SECONDS or len(found) < FEWEST:
        began = time.perf_counter()
        torch.mm(a, a, out=product)
        found.append(time.perf_counter() - began)
    return 2 * len(a) ** 3 / min(found)
