"""A machine that others use: it is noticed once, and only where fewer threads would help."""

from pathlib import Path

import pytest
from support.runs import Crgan, train

from crgan_cli.system import progress
from crgan_cli.system.crowding import CpuSeconds, CrowdWatch, read_cpu_seconds


class Machine:
    """CPU time as it passes when others use some CPUs and the run has the rest."""

    def __init__(self, cpus: int) -> None:
        self.cpus = cpus
        self.others = self.own = 0.0

    def measure(self) -> CpuSeconds:
        return CpuSeconds(100 + self.others + self.own, 7 + self.own)

    def run(self, seconds: float, others: float) -> float:
        self.others += others * seconds
        self.own += (self.cpus - others) * seconds
        return seconds


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CrowdWatch, "told", False)


def watch(machine: Machine, threads: int, command: str | None = "crgan train") -> CrowdWatch:
    made = CrowdWatch(lambda: threads, command, cpus=machine.cpus, measure=machine.measure)
    made.begin()
    return made


def test_two_threads_beside_one_busy_process_are_told_of_one_thread() -> None:
    machine = Machine(2)
    said = watch(machine, 2).look("steps", machine.run(10, others=0.9), 99)
    assert said
    assert "other processes use 0.9 of the 2 CPUs" in said
    assert "`crgan train engine.threads=1`" in said
    assert "gives other bits" in said


def test_a_process_is_told_once_whatever_it_does() -> None:
    machine = Machine(2)
    crowds = [watch(machine, 2), watch(machine, 2)]
    seconds = machine.run(10, others=0.9)
    assert [bool(crowd.look("steps", seconds, 1)) for crowd in crowds * 2] == [True] + 3 * [False]


def test_a_command_without_the_setting_is_told_of_the_variable() -> None:
    machine = Machine(4)
    said = watch(machine, 4, None).look("scoring", machine.run(10, others=1), 1)
    assert said
    assert "type `OMP_NUM_THREADS=3` and the same command" in said
    assert "engine.threads" not in said


def test_work_on_one_thread_advises_nothing_and_later_work_does() -> None:
    machine, threads = Machine(2), 1
    crowd = CrowdWatch(lambda: threads, cpus=2, measure=machine.measure)
    crowd.begin()
    assert crowd.look("classifier", machine.run(10, others=2), 1) is None
    threads = 2
    crowd.begin()
    assert crowd.look("scoring", machine.run(10, others=1), 1) is not None


@pytest.mark.parametrize(
    ("cpus", "threads", "others", "advice"),
    [
        (2, 2, 0.4, None),  # a desktop
        (2, 1, 1.0, None),  # the other CPU is free, and one thread waits for nobody
        (2, 1, 1.9, None),
        (4, 2, 2.0, None),  # a place for each
        (4, 4, 1.0, 3),
        (4, 4, 3.9, 1),
        (64, 32, 40.0, 24),
    ],
)
def test_the_advice_is_the_number_of_cpus_that_are_free(
    cpus: int, threads: int, others: float, advice: int | None
) -> None:
    machine = Machine(cpus)
    said = watch(machine, threads).look("steps", machine.run(10, others), 50)
    assert (f"engine.threads={advice}`" in said) if said else advice is None


def test_later_only_a_run_that_is_slow_looks_at_the_others() -> None:
    machine = Machine(2)
    crowd = watch(machine, 2)
    assert crowd.look("steps", machine.run(10, others=0), 200) is None
    assert (
        crowd.look("steps", machine.run(10, others=1), 110) is None
    )  # others are there, and no harm
    assert crowd.look("steps", machine.run(10, others=0), 3) is None  # slow for another reason
    assert crowd.look("steps", machine.run(10, others=1), 3) is not None


def test_only_the_cpus_that_the_process_may_use_count(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text(
        "cpu  99999 0 0 0 0 0 0 0 0 0\n"
        "cpu0 100 20 30 4000 500 6 7 8 50 20\n"  # 171 hundredths are not idle, iowait or a guest's
        "cpu1 5000 0 0 0 0 0 0 0 0 0\n"
        "cpu10 200 0 0 0 0 0 0 0 0 0\n"
        "intr 1 2 3\n"
    )
    found = read_cpu_seconds(tmp_path, {0, 10}, own=1.5)
    assert found == CpuSeconds(pytest.approx(3.71), 1.5)


def test_where_the_system_does_not_tell_nothing_is_said(tmp_path: Path) -> None:
    crowd = CrowdWatch(lambda: 2, cpus=2, measure=lambda: read_cpu_seconds(tmp_path, {0, 1}))
    crowd.begin()
    assert crowd.look("steps", 10, 5) is None


def test_all_long_work_of_the_commands_is_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crgan: Crgan
) -> None:
    """Training before its first step and after it, and what has no setting for threads."""
    seen: list[tuple[str, str | None]] = []

    def look(self: CrowdWatch, work: str, seconds: float, speed: float) -> None:
        if (work, self.command) not in seen:
            seen.append((work, self.command))

    monkeypatch.setattr(CrowdWatch, "look", look)
    monkeypatch.setattr(progress, "LOOK_SECONDS", 1e-9)
    run, quick = tmp_path / "run", ("metrics.measures=[kid]", "metrics.floor=false")
    train(run, *quick, "metrics.batch_size=2", "metrics.every=2", "steps=2", "samples.every=2")
    prepared, *others = seen
    assert prepared[0] == "preparing metrics 1"
    assert prepared[1]
    assert prepared[1].startswith("crgan train ")
    assert f"out={run}" in prepared[1].split()
    again = f"crgan train --from {run}"
    assert others == [("steps", again), ("scoring", again)]
    seen.clear()
    assert crgan("eval", run, "metrics.num_samples=6")[0] == 0
    few = ("--n=4", "--batch-size=2", "--pixels-only")
    assert crgan("artefacts", run, "consistency", *few)[0] == 0
    works = ("scoring 1", "scoring 2", "consistency 1")
    assert seen == [(work, None) for work in works]
