"""How many CPU threads training should take: what this process may use, and no more.

Linux tells it in /sys/devices/system/cpu (which CPUs are one core's), in the files of control
groups (Documentation/admin-guide/cgroup-v2.rst: cpu.max; scheduler/sched-bwc.rst: cpu.cfs_*), and
through the affinity of the process. Elsewhere the number of CPUs counts. Free of torch.
"""

import math
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

VARIABLE = "OMP_NUM_THREADS"
"""What OpenMP, and so PyTorch, takes; launchers set it (torchrun, joblib, Slurm's users)."""

ROOT = Path("/")


def default_num_threads() -> int:
    """CPU threads for training in this process, at least 1.

    The least of the cores that it may run on, of what its control group allows it, and of
    OMP_NUM_THREADS where somebody has set that.
    """
    return thread_share(1)


def thread_share(processes: int) -> int:
    """`default_num_threads` for each of some processes that run side by side on this machine."""
    each = max(available_cpus(ROOT, affinity()) // processes, 1)
    return min(each, requested_threads(os.environ) or each)


@contextmanager
def split_threads(processes: int) -> Iterator[int]:
    """Gives each process that is started in the body its share, by OMP_NUM_THREADS.

    joblib hands that on where it is set. Its own choice counts the CPUs that share a core one by
    one, and places for jobs that there are not.
    """
    before, each = os.environ.get(VARIABLE), thread_share(processes)
    os.environ[VARIABLE] = str(each)
    try:
        yield each
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before


def affinity() -> set[int]:
    """The numbers of the CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def requested_threads(environment: Mapping[str, str]) -> int | None:
    """OMP_NUM_THREADS, of a list its first number; None where it is unset or no number."""
    first = environment.get(VARIABLE, "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) else None


def available_cpus(root: Path, cpus: Collection[int]) -> int:
    """The cores among these CPUs, or what the control group allows if that is less; at least 1."""
    quotas = [quota for quota in map(quota_in, control_groups(root)) if quota is not None]
    return max(min([physical_cores(root, cpus), *map(math.ceil, quotas)]), 1)


def physical_cores(root: Path, cpus: Collection[int]) -> int:
    """How many cores these CPUs belong to; a CPU that nothing is known of is one by itself."""
    found = set()
    for cpu in cpus:
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        siblings = text(topology / "core_cpus_list") or text(topology / "thread_siblings_list")
        found.add(siblings or str(cpu))
    return len(found)


def control_groups(root: Path) -> Iterator[Path]:
    """The folders of the control groups that bound this process's CPU time, innermost first.

    Version 2 has one tree, version 1 one for each controller. A tree can be mounted from below its
    top, as in a container.
    """
    inside: dict[str, str] = {}
    for line in text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        inside |= dict.fromkeys(controllers.split(","), path)  # "" is version 2
    for line in text(root / "proc/self/mountinfo").splitlines():
        mount, _, kind = line.partition(" - ")
        top, place = mount.split()[3:5]
        version, _, options = kind.split()[:3]
        unified = version == "cgroup2"
        if not unified and (version != "cgroup" or "cpu" not in options.split(",")):
            continue
        own = PurePosixPath(inside.get("" if unified else "cpu", "/"))
        below = own.relative_to(top) if own.is_relative_to(top) else PurePosixPath()
        base = root / place.removeprefix("/")
        yield from (base / each for each in (below, *below.parents))


def quota_in(folder: Path) -> float | None:
    """The CPUs' worth of time that a control group may take; None where it has no limit."""
    words = text(folder / "cpu.max").split()
    if not words:
        words = [text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
    with suppress(ValueError):  # "max", or no such file
        quota, period = map(int, words)
        return quota / period if quota > 0 and period > 0 else None  # -1 is none in version 1
    return None


def text(file: Path) -> str:
    """What is in a file of the kernel's; "" where it is not there."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""
