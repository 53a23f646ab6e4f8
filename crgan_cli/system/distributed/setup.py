"""Joining the processes of one run, and giving each its device."""

import os
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import (
    contextmanager,
    suppress,
)
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from crgan_cli.errors import UserError
from crgan_cli.system.distributed import launch
from crgan_cli.system.distributed.errors import mute_stdout_off_main, report_error_once
from crgan_cli.system.distributed.objects import all_gather_objects, barrier
from crgan_cli.system.distributed.world import World, as_world, world

TIMEOUT = timedelta(hours=6)
"""How long a process waits for the others. One that has died ends the run at once; this is for one
that downloads a data set, or computes what the others wait for."""


@contextmanager
def distributed_run() -> Iterator[World]:
    """While the body runs, this process is one of those that torchrun or Slurm has started.

    Without them, it is alone. An error that several processes have is said by one of them.
    """
    if world().world_size > 1 or not launch.is_distributed():
        yield world()
        return
    if not launch.is_torchrun():
        export_submitit()
    store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    with as_world(World(rank, size, int(os.environ["LOCAL_RANK"]))):
        try:
            with report_error_once(PrefixStore("voice", store), rank), mute_stdout_off_main():
                yield world()
                with suppress(RuntimeError):  # all is done: who has gone already may go
                    barrier()
        finally:
            dist.destroy_process_group()


def export_submitit() -> None:
    """Sets torchrun's variables from those of Slurm.

    Which GPU is whose is settled in `device_for_rank`, so the visible ones stay as they are.
    """
    from submitit.helpers import (  # type: ignore[import-not-found]
        TorchDistributedEnvironment,
    )

    TorchDistributedEnvironment().export(set_cuda_visible_devices=False)


def device_for_rank(device: torch.device) -> torch.device:
    """The device of this process: where `device` is "cuda", the GPU with its number.

    Raises UserError where the processes would share a GPU, or have devices of different kinds.
    """
    if world().world_size == 1:
        return device
    if device.index is not None:
        raise UserError(
            f"device={device} is one GPU, and {world().world_size} processes train this run, one "
            "per GPU. Type device=cuda or device=auto."
        )
    kinds = sorted({str(kind) for kind in all_gather_objects(device.type)})
    if len(kinds) > 1 or device.type not in ("cpu", "cuda"):
        raise UserError(
            f"{world().world_size} processes train this run, and their devices are "
            f"{' and '.join(kinds)}: all must have a CUDA device, or all the CPU. Type device=cpu, "
            "or start them where each has a GPU."
        )
    if device.type == "cpu":
        return device
    here = torch.cuda.device_count()
    index = world().local_rank % here  # Slurm may show each process its own GPU alone
    gpu = f"{socket.gethostname()} {torch.cuda.get_device_properties(index).uuid}"
    require_one_gpu_per_rank(all_gather_objects(gpu), here)
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def require_one_gpu_per_rank(gpus: Sequence[str], here: int) -> None:
    """Raises UserError where two processes have one GPU; `here` is their number on this machine."""
    _, most = Counter(gpus).most_common(1)[0]
    if most > 1:
        raise UserError(
            f"{most} of the {len(gpus)} processes of this run have the same GPU; this machine has "
            f"{here}. Start one process a GPU, as in torchrun --nproc-per-node {here}; what shares "
            "a GPU well is several runs (sweep.per_device)."
        )
