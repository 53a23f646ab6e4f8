"""Detect whether several processes were started for one run. Imports no torch.

torchrun sets environment variables for it. Slurm does too, but counts only in jobs of submitit: in
another allocation of several tasks, crgan may well run once.
"""

import os

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def is_torchrun() -> bool:
    """Whether torchrun, or a launcher that sets its variables, started several processes."""
    return os.environ.keys() >= set(TORCHRUN) and int(os.environ["WORLD_SIZE"]) > 1


def is_submitit() -> bool:
    """Whether submitit started several Slurm tasks."""
    return (
        os.environ.get("SUBMITIT_EXECUTOR") == "slurm"
        and int(os.environ.get("SLURM_NTASKS", 1)) > 1
    )


def is_distributed() -> bool:
    """Whether several processes were started for one run."""
    return is_torchrun() or is_submitit()


def is_main() -> bool:
    """Whether this is rank 0, which writes and prints for all ranks."""
    rank = os.environ.get("RANK") or os.environ.get("SLURM_PROCID", "0")
    return int(rank) == 0 or not is_distributed()
