"""Notice that other processes use the CPUs that long work needs, and say once what to do.

Threads that wait for each other lose far more than their share to one busy process. The number of
threads never changes by itself: equal commands give equal bits.

Linux only: /proc/stat (proc_stat(5)) is read; elsewhere nothing is noticed. Imports no torch.
"""

import math
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import ClassVar, NamedTuple

from crgan_cli.system.threads import ROOT, VARIABLE, allowed_cpus, read

TICKS = 100.0
"""Units of /proc/stat per second (USER_HZ): 100 on every architecture that PyTorch runs on."""

MARGIN = 0.5
"""CPUs that others may use before it counts: a desktop always does something."""

SLOW = 0.5
"""Share of the work's own best speed below which it is worth looking again."""


class CpuSeconds(NamedTuple):
    """CPU time since some beginning."""

    everyone: float  # of all processes, on the CPUs that this process may use
    own: float  # of this process


def read_cpu_seconds(
    root: Path = ROOT, cpus: Collection[int] | None = None, own: float | None = None
) -> CpuSeconds | None:
    """Return the CPU time so far; None if the system does not tell."""
    wanted = {f"cpu{number}" for number in (allowed_cpus() if cpus is None else cpus)}
    rows = [line.split() for line in read(root / "proc/stat").splitlines()]
    # user nice system idle iowait irq softirq steal; later columns are part of the first two
    busy = [sum(map(int, row[1:4] + row[6:9])) for row in rows if row and row[0] in wanted]
    if not busy:
        return None
    if own is None:
        times = os.times()
        own = times.user + times.system
    return CpuSeconds(sum(busy) / TICKS, own)


class CrowdWatch:
    """Tells whether others use CPUs that the threads of this process need: once in a process."""

    told: ClassVar[bool] = False

    def __init__(
        self,
        count_threads: Callable[[], int],
        command: str | None = None,
        *,
        cpus: int | None = None,
        measure: Callable[[], CpuSeconds | None] = read_cpu_seconds,
    ) -> None:
        """`count_threads` returns those that work now. `command` does the rest of the work if
        engine.threads=N is added to it; None: only the environment sets how many there are.
        `cpus` are those that this process may use."""
        self.count_threads, self.command, self.measure = count_threads, command, measure
        self.cpus = len(allowed_cpus()) if cpus is None else cpus
        self.last: CpuSeconds | None = None
        self.best: dict[str, float] = {}  # speeds by kind of work

    def begin(self) -> None:
        """Start an interval."""
        if not CrowdWatch.told:
            self.last = self.measure()

    def look(self, work: str, seconds: float, speed: float) -> str | None:
        """Look at an interval of some work that ends now. Returns a notice, or None.

        The first interval of each work is looked at, later ones if `speed`, in any unit, is far
        below its best so far.
        """
        threads = self.count_threads()
        if CrowdWatch.told or threads < 2:  # one thread waits for no other: nothing to advise
            return None
        before, self.last = self.last, self.measure()
        best = self.best.get(work, 0.0)
        self.best[work] = max(best, speed)
        if before is None or self.last is None or (best and speed >= SLOW * best):
            return None
        everyone, own = self.last.everyone - before.everyone, self.last.own - before.own
        others = max(everyone - own, 0.0) / seconds
        if others <= self.cpus - threads + MARGIN:
            return None
        CrowdWatch.told = True
        fewer = min(max(math.floor(self.cpus - others + MARGIN), 1), threads - 1)
        return (
            f"other processes use {others:.1f} of the {self.cpus} CPUs, and the {threads} threads "
            "of this one wait for each other, which slows it down. It may be faster with fewer "
            f"threads: stop it with Ctrl-C and type {self.advise(fewer)}. Nothing is changed by "
            "itself, since another number of threads rounds differently and gives other bits"
        )

    def advise(self, threads: int) -> str:
        """Say what to type for so many threads."""
        if self.command:
            return f"`{self.command} engine.threads={threads}`"
        return f"`{VARIABLE}={threads}` and the same command behind it, on one line"
