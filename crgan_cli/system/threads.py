"""How many CPU threads training should use: no more than this process may.

On Linux: the cores in /sys/devices/system/cpu, the limits of control groups
(Documentation/admin-guide/cgroup-v2.rst: cpu.max; scheduler/sched-bwc.rst: cpu.cfs_*), and the
affinity of the process. Elsewhere: the number of CPUs. Imports no torch.

Why not loky's count: CONTRIBUTING.md, "Libraries".
"""

import math
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from crgan_cli.system.environment import set_environment

VARIABLE = "OMP_NUM_THREADS"
"""Read by OpenMP, and so by PyTorch. Launchers set it (torchrun, joblib, Slurm's users)."""

ROOT = Path("/")


def default_num_threads() -> int:
    """Return the CPU threads for training in this process, at least 1.

    The smallest of: its cores, the limit of its control group, and OMP_NUM_THREADS if set.
    """
    return thread_share(1)


def thread_share(processes: int) -> int:
    """Return `default_num_threads` for each of several processes side by side on this machine."""
    share = max(count_cores() // processes, 1)
    return min(share, requested_threads(os.environ) or share)


def count_cores() -> int:
    """Return the cores of this process, at least 1: for threads that OpenMP has no part in."""
    return max(available_cpus(ROOT, allowed_cpus()), 1)


@contextmanager
def split_threads(processes: int) -> Iterator[int]:
    """Set OMP_NUM_THREADS to the share of each process that is started in the body.

    joblib passes it on if it is set. joblib's own default counts hyperthreads as cores, and divides
    by all places for jobs, also unused ones.
    """
    share = thread_share(processes)
    with set_environment({VARIABLE: str(share)}):
        yield share


def allowed_cpus() -> set[int]:
    """Return the numbers of the CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def requested_threads(environment: Mapping[str, str]) -> int | None:
    """Return OMP_NUM_THREADS, or its first number if it is a list. None if there is no number."""
    first = environment.get(VARIABLE, "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) else None


def available_cpus(root: Path, cpus: Collection[int]) -> int:
    """Return the cores among these CPUs, or the control group's limit if that is lower."""
    quotas = [quota for quota in map(quota_in, control_groups(root)) if quota is not None]
    return max(min([physical_cores(root, cpus), *map(math.ceil, quotas)]), 1)


def physical_cores(root: Path, cpus: Collection[int]) -> int:
    """Count the cores of these CPUs. A CPU without topology counts as a core."""
    cores = set()
    for cpu in cpus:
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        siblings = read(topology / "core_cpus_list") or read(topology / "thread_siblings_list")
        cores.add(siblings or str(cpu))
    return len(cores)


def control_groups(root: Path, controller: str = "cpu") -> Iterator[Path]:
    """Yield the folders of the control groups that limit this process's CPU time, or another of
    the kernel's controllers, innermost first.

    Version 2 has one tree, version 1 one per controller. In a container, a tree may be mounted from
    below its top.
    """
    paths: dict[str, str] = {}
    for line in filter(None, read(root / "proc/self/cgroup").split("\n")):
        _, controllers, path = line.split(":", 2)
        paths |= dict.fromkeys(controllers.split(","), path)  # "" is version 2
    for line in filter(None, read(root / "proc/self/mountinfo").split("\n")):
        mount, _, kind = line.partition(" - ")
        top, place = mount.split(" ")[3:5]
        version, _, options = kind.split(" ")[:3]  # the source in between may be empty
        unified = version == "cgroup2"
        if not unified and (version != "cgroup" or controller not in options.split(",")):
            continue
        own = PurePosixPath(paths.get("" if unified else controller, "/"))
        below = own.relative_to(top) if own.is_relative_to(top) else PurePosixPath()
        base = root / place.removeprefix("/")
        yield from (base / each for each in (below, *below.parents))


def quota_in(folder: Path) -> float | None:
    """Return the CPUs' worth of time of a control group; None without a limit."""
    words = read(folder / "cpu.max").split()
    if not words:
        words = [read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
    with suppress(ValueError):  # "max", or no such file
        quota, period = map(int, words)
        return quota / period if quota > 0 and period > 0 else None  # -1 is none in version 1
    return None


def read(file: Path) -> str:
    """Read a file of the kernel; "" if it does not exist. Names in it may have any bytes."""
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape").strip()
    except OSError:
        return ""
