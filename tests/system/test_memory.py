"""How much memory there is, and what an error for lack of it says."""

from pathlib import Path

import pytest
import torch
from system.test_threads import OTHERS, V2, tree

from crgan_cli.errors import RunFailed, UserError
from crgan_cli.system import memory
from crgan_cli.system.memory import explained_shortage, memory_limits, require_memory


@pytest.mark.parametrize(
    ("error", "size"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"),
            " (it asked for 2.00 GiB at once)",
        ),
        (
            RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 2048 b"
                "ytes. Error code 12"
            ),
            " (it asked for 2.00 KiB at once)",
        ),
        (MemoryError("Unable to allocate 7.28 TiB for an array"), " (it asked for 7.28 TiB at"),
        (MemoryError(), ""),
        (RuntimeError("std::bad_alloc"), ""),
        (RuntimeError("Storage size calculation overflowed with sizes=[9, 9]"), ""),
        (RuntimeError("could not create a primitive"), ""),
    ],
    ids=str,
)
def test_an_error_for_lack_of_memory_says_what_to_lower(error: Exception, size: str) -> None:
    with pytest.raises(RunFailed) as caught, explained_shortage("Lower --n."):
        raise error
    assert str(caught.value).startswith(f"there is not enough memory{size}")
    assert str(caught.value).endswith(". Lower --n.")


@pytest.mark.parametrize(
    "error",
    [RuntimeError("a bug"), RunFailed("rank 1 ran out of memory"), ValueError("out of memory")],
    ids=str,
)
def test_other_errors_stay(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, explained_shortage("Lower --n."):
        raise error
    assert caught.value is error


def test_a_control_group_limits_the_memory(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/a/b\n",
        "proc/self/mountinfo": OTHERS + V2,
        "sys/fs/cgroup/a/b/memory.max": "max\n",
        "sys/fs/cgroup/a/memory.max": "1000000\n",
    }
    assert list(memory_limits(tree(tmp_path, files))) == [1000000]


def test_what_fits_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "total_memory", lambda device: 2**30)
    cpu = torch.device("cpu")
    require_memory("this", {"images": 2**29, "latents": 2**29}, cpu, "Lower it.")
    said = (
        r"^this needs at least 1\.50 GiB of memory \(1\.00 GiB for images, 512 MiB for lat.*, and "
    )
    with pytest.raises(UserError, match=said + r"this machine has 1\.00 GiB\. Lower it\.$"):
        require_memory("this", {"images": 2**30, "latents": 2**29, "x": 1}, cpu, "Lower it.")
    monkeypatch.setattr(memory, "total_memory", lambda device: None)
    require_memory("this", {"images": 2**90}, cpu, "Lower it.")
