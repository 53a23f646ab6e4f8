"""The threads of a process: cores by hand, in made-up trees of /sys, /proc and control groups."""

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from crgan_cli.system import threads
from crgan_cli.system.threads import (
    available_cpus,
    control_groups,
    default_num_threads,
    physical_cores,
    quota_in,
    requested_threads,
    split_threads,
    thread_share,
)

V1 = "31 23 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
V2 = "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
OTHERS = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 23 0:29 / /sys/fs/cgroup/cpuset - cgroup c rw\n"


def tree(root: Path, files: Mapping[str, str]) -> Path:
    """Files below a root, each with its text."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def siblings(*lists: str, name: str = "core_cpus_list") -> dict[str, str]:
    """For CPU 0, 1, ... the CPUs of its core."""
    return {
        f"sys/devices/system/cpu/cpu{i}/topology/{name}": f"{text}\n"
        for i, text in enumerate(lists)
    }


@pytest.mark.parametrize("name", ["core_cpus_list", "thread_siblings_list"])
def test_two_threads_of_one_core_count_once(name: str, tmp_path: Path) -> None:
    tree(tmp_path, siblings("0,2", "1,3", "0,2", "1,3", name=name))
    assert physical_cores(tmp_path, range(4)) == 2
    assert physical_cores(tmp_path, {0, 2}) == 1  # both of one core
    assert physical_cores(tmp_path, {0, 1}) == 2
    assert physical_cores(tmp_path, {0, 2, 7}) == 2  # of 7 nothing is known


def test_without_a_topology_every_cpu_is_a_core(tmp_path: Path) -> None:
    assert physical_cores(tmp_path, range(6)) == available_cpus(tmp_path, range(6)) == 6


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.cfs_quota_us": "300000\n", "cpu.cfs_period_us": "100000\n"}, 3.0),
        ({"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_a_control_group_has_its_limit(
    files: dict[str, str], quota: float | None, tmp_path: Path
) -> None:
    assert quota_in(tree(tmp_path, files)) == quota


def test_the_tightest_group_around_the_process_counts_rounded_up(tmp_path: Path) -> None:
    """Version 2: a slice of 2.5 CPUs around a service of 6."""
    top = "sys/fs/cgroup"
    tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/users.slice/train.service\n",
            "proc/self/mountinfo": OTHERS + V2,
            f"{top}/users.slice/train.service/cpu.max": "600000 100000\n",
            f"{top}/users.slice/cpu.max": "250000 100000\n",
            f"{top}/other.slice/cpu.max": "100000 100000\n",
        },
    )
    base = tmp_path / top
    own = base / "users.slice/train.service"
    assert list(control_groups(tmp_path)) == [own, own.parent, base]
    assert available_cpus(tmp_path, range(8)) == 3
    assert available_cpus(tmp_path, range(2)) == 2


def test_a_container_sees_its_group_from_the_inside(tmp_path: Path) -> None:
    """Version 1, the tree mounted from the container's own group on, where the limit then lies."""
    place = "sys/fs/cgroup/cpu,cpuacct"
    files = {
        "proc/self/cgroup": "4:memory:/docker/12ab\n3:cpu,cpuacct:/docker/12ab\n0::/\n",
        "proc/self/mountinfo": OTHERS + V1.replace(" / ", " /docker/12ab ", 1),
        f"{place}/cpu.cfs_quota_us": "400000\n",
        f"{place}/cpu.cfs_period_us": "100000\n",
        **siblings(*[f"{i % 8},{i % 8 + 8}" for i in range(16)]),
    }
    assert available_cpus(tree(tmp_path, files), range(16)) == 4
    (tmp_path / place / "cpu.cfs_quota_us").write_text("-1\n")
    assert available_cpus(tmp_path, range(16)) == 8  # the cores, as nothing else limits


@pytest.mark.parametrize(
    "mounted", [b"/a rw - tmpfs  rw", b"/\xff rw - tmpfs none rw", b"/\f rw - tmpfs none rw"]
)
def test_mounts_without_a_source_or_with_odd_names_are_passed_over(
    mounted: bytes, tmp_path: Path
) -> None:
    tree(tmp_path, {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": ""})
    (tmp_path / "proc/self/mountinfo").write_bytes(b"9 1 0:2 / " + mounted + b"\n" + V2.encode())
    assert list(control_groups(tmp_path)) == [tmp_path / "sys/fs/cgroup"]


def test_less_than_one_cpu_is_one_thread(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/\n",
        "proc/self/mountinfo": V2,
        "sys/fs/cgroup/cpu.max": "20000 100000\n",
    }
    assert available_cpus(tree(tmp_path, files), range(4)) == 1


@pytest.mark.parametrize(
    ("value", "number"),
    [("3", 3), ("4,2", 4), (" 2 ", 2), ("", None), ("0", None), ("all", None), ("-1", None)],
)
def test_a_number_of_threads_that_was_set(value: str, number: int | None) -> None:
    assert requested_threads({threads.VARIABLE: value}) == number
    assert requested_threads({}) is None


@pytest.fixture
def eight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 8 cores, 16 CPUs, where nobody has set anything."""
    tree(tmp_path, siblings(*[f"{i % 8},{i % 8 + 8}" for i in range(16)]))
    monkeypatch.setattr(threads, "ROOT", tmp_path)
    monkeypatch.setattr(threads, "allowed_cpus", lambda: set(range(16)))
    monkeypatch.delenv(threads.VARIABLE, raising=False)


@pytest.mark.usefixtures("eight")
def test_jobs_side_by_side_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_num_threads() == 8
    assert [thread_share(jobs) for jobs in (1, 2, 3, 8, 20)] == [8, 4, 2, 1, 1]
    monkeypatch.setenv(threads.VARIABLE, "3")  # of each process: a bound, not what is shared
    assert [thread_share(jobs) for jobs in (1, 2, 4)] == [3, 3, 2]


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize("before", [None, "6"])
def test_what_is_started_meanwhile_learns_its_share(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if before:
        monkeypatch.setenv(threads.VARIABLE, before)
    with suppress(KeyError), split_threads(4) as each:
        assert (each, os.environ[threads.VARIABLE]) == (2, "2")
        raise KeyError  # as from a sweep that ends badly
    assert os.environ.get(threads.VARIABLE) == before


def test_this_machine_allows_no_more_than_its_cpus() -> None:
    command = [
        sys.executable,
        "-c",
        "from crgan_cli.system.threads import default_num_threads; print(default_num_threads())",
    ]
    plain = {key: value for key, value in os.environ.items() if key != threads.VARIABLE}

    def said(**more: str) -> int:
        return int(subprocess.check_output(command, env=plain | more, text=True))

    assert 1 <= said() <= (os.cpu_count() or 1)
    assert said(OMP_NUM_THREADS="1") == 1
