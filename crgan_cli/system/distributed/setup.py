"""Join the processes of a distributed run, and give each its device."""

import os
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
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
"""How long a rank waits for the others. A dead rank ends the run at once; this is for a rank that
downloads a data set, or computes something that the others need."""


@contextmanager
def distributed_run() -> Iterator[World]:
    """Join the process group that torchrun or Slurm started, if any, while the body runs.

    An error that several ranks share is reported by one of them.
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
                with suppress(RuntimeError):  # the work is done: a rank may have left already
                    barrier()
        finally:
            dist.destroy_process_group()


def export_submitit() -> None:
    """Set torchrun's variables from Slurm's. `device_for_rank` assigns the GPUs."""
    from submitit import helpers  # type: ignore[import-not-found]

    helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False)


def device_for_rank(device: torch.device) -> torch.device:
    """Return this rank's device: for "cuda", the GPU of its local rank.

    UserError if ranks would share a GPU, or have devices of different kinds.
    """
    if world().world_size == 1:
        return device
    if device.index is not None:
        raise UserError(
            f"device={device} is one GPU, but this run has {world().world_size} processes, one per "
            "GPU. Type device=cuda or device=auto."
        )
    kinds = sorted({str(kind) for kind in all_gather_objects(device.type)})
    if len(kinds) > 1 or device.type not in ("cpu", "cuda"):
        raise UserError(
            f"The {world().world_size} processes of this run have different devices: "
            f"{' and '.join(kinds)}. All must use CUDA, or all the CPU. Type device=cpu, or start "
            "them where each has a GPU."
        )
    if device.type == "cpu":
        return device
    count = torch.cuda.device_count()
    index = world().local_rank % count  # Slurm may show each process only its own GPU
    gpu = f"{socket.gethostname()} {torch.cuda.get_device_properties(index).uuid}"
    require_one_gpu_per_rank(all_gather_objects(gpu), count)
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def require_one_gpu_per_rank(gpus: Sequence[str], count: int) -> None:
    """UserError if two ranks have the same GPU. `count`: number of GPUs on this machine."""
    _, most = Counter(gpus).most_common(1)[0]
    if most > 1:
        raise UserError(
            f"{most} of the {len(gpus)} processes of this run have the same GPU; this machine has "
            f"{count}. Start one process per GPU: torchrun --nproc-per-node {count}. Several runs "
            "can share a GPU (sweep.per_device)."
        )
