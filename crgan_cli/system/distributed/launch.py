"""Whether this process was started on its own or with others, for one run. Free of torch.

torchrun says so in the environment, and Slurm does, for jobs that submitit has submitted. Other
Slurm jobs are not taken for it: an allocation of several tasks may well run crgan once.
"""

import os

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def is_torchrun() -> bool:
    """Whether torchrun, or what sets its variables, started several processes."""
    return os.environ.keys() >= set(TORCHRUN) and int(os.environ["WORLD_SIZE"]) > 1


def is_submitit() -> bool:
    """Whether this is one of several tasks of a Slurm job of submitit's."""
    return (
        os.environ.get("SUBMITIT_EXECUTOR") == "slurm"
        and int(os.environ.get("SLURM_NTASKS", 1)) > 1
    )


def is_distributed() -> bool:
    """Whether several processes were started for one run."""
    return is_torchrun() or is_submitit()


def is_main() -> bool:
    """Whether this process is the one that writes and speaks for all."""
    rank = os.environ.get("RANK") or os.environ.get("SLURM_PROCID", "0")
    return int(rank) == 0 or not is_distributed()
