"""How many kernels a step is made of: those that ran on CUDA, operations handed out on a CPU."""

from collections.abc import Callable

import torch
from torch._C._autograd import DeviceType
from torch.utils._python_dispatch import TorchDispatchMode

from .timing import wait


class Dispatched(TorchDispatchMode):
    """Counts the operations that compute something: views and new memory do not."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        idle = func.namespace in ("prim", "profiler") or "empty" in func.overloadpacket.__name__
        self.count += not (func.is_view or idle)
        return func(*args, **(kwargs or {}))


def count_step_kernels(
    work: Callable[[], object], device: torch.device, *, compiled: bool
) -> int | None:
    """Of one call of `work`; None where nothing tells: a compiled step on a CPU."""
    if device.type == "cuda":
        return count_cuda_kernels(work, device)
    if compiled:
        return None
    with Dispatched() as seen:
        work()
    return seen.count


def count_cuda_kernels(work: Callable[[], object], device: torch.device) -> int:
    """Kernels and copies that the profiler saw."""
    from torch.profiler import ProfilerActivity, profile

    wait(device)
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        work()
        wait(device)
    return sum(
        event.device_type == DeviceType.CUDA and not event.is_user_annotation
        for event in seen.events() or []
    )
