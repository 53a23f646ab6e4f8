"""Notice that other processes use the CPUs that training needs, and say once what to do.

Threads that wait for each other lose far more than their share to one busy process. The run's own
number of threads never changes by itself: equal commands give equal bits.

Linux only: /proc/stat (proc_stat(5)) is read; elsewhere nothing is noticed. Imports no torch.
"""

import math
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from crgan_cli.system.threads import ROOT, allowed_cpus, read

TICKS = 100.0
"""Units of /proc/stat per second (USER_HZ): 100 on every architecture that PyTorch runs on."""

MARGIN = 0.5
"""CPUs that others may use before it counts: a desktop always does something."""

SLOW = 0.5
"""Share of the run's own best speed below which it is worth looking again."""


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
    """Tells once whether others use CPUs that this run's threads need."""

    def __init__(
        self,
        threads: int,
        command: str,
        *,
        cpus: int | None = None,
        measure: Callable[[], CpuSeconds | None] = read_cpu_seconds,
    ) -> None:
        """`command` goes on with the run; `cpus` are those that this process may use."""
        self.threads, self.command, self.measure = threads, command, measure
        self.cpus = len(allowed_cpus()) if cpus is None else cpus
        self.last: CpuSeconds | None = None
        self.best = 0.0
        self.done = threads < 2  # one thread waits for no other: nothing to advise

    def begin(self) -> None:
        """Start the first interval."""
        if not self.done:
            self.last = self.measure()

    def look(self, seconds: float, speed: float) -> str | None:
        """Look at an interval that ends now. Returns a notice, at most one per run.

        The first interval is always looked at, later ones if `speed`, in any unit, is far below the
        best so far.
        """
        if self.done:
            return None
        before, self.last = self.last, self.measure()
        is_first, self.best = not self.best, max(self.best, speed)
        if before is None or self.last is None or not (is_first or speed < SLOW * self.best):
            return None
        everyone, own = self.last.everyone - before.everyone, self.last.own - before.own
        others = max(everyone - own, 0.0) / seconds
        if others <= self.cpus - self.threads + MARGIN:
            return None
        self.done = True
        fewer = min(max(math.floor(self.cpus - others + MARGIN), 1), self.threads - 1)
        return (
            f"other processes use {others:.1f} of the {self.cpus} CPUs, and this run's "
            f"{self.threads} threads wait for each other, which slows it down. It may be faster "
            f"with fewer threads: stop it with Ctrl-C and type `{self.command} "
            f"engine.threads={fewer}`. Nothing is changed by itself, since another number of "
            "threads rounds differently and gives other bits"
        )
