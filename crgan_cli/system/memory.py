"""How much memory a device has, and what to say where it is not enough. Imports torch late."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from crgan_cli.errors import RunFailed, UserError
from crgan_cli.system.numbers import format_bytes
from crgan_cli.system.threads import control_groups, read

if TYPE_CHECKING:
    import torch

SHORTAGES = (
    *("out of memory", "allocate memory", "not enough memory", "bad_alloc", "ALLOC_FAILED"),
    *("Storage size calculation overflowed", "integer multiplication overflow"),
)
"""What torch says without a type of error for it, also of more bytes than 64 bits count."""


def is_shortage(error: BaseException) -> bool:
    """Whether an error means that memory was short: torch's, NumPy's or Python's."""
    if isinstance(error, RunFailed):
        return False  # it says so in words of its own
    if not isinstance(error, RuntimeError):
        return isinstance(error, MemoryError)
    text = str(error)
    # the whole message of oneDNN; a longer one is of shapes that it does not take
    return text == "could not create a primitive" or any(words in text for words in SHORTAGES)


@contextmanager
def explained_shortage(remedy: str) -> Iterator[None]:
    """Raise RunFailed with a `remedy`, a sentence, where the body finds no memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_shortage(error):
            raise
        asked = re.search(r"llocate ([\d.]+) ?(bytes|[KMGTP]iB)", str(error))
        size = f" (it asked for {format_asked(*asked.groups())} at once)" if asked else ""
        raise RunFailed(f"there is not enough memory{size}. {remedy}") from error


def format_asked(number: str, unit: str) -> str:
    """Return the bytes of an allocator's message."""
    return format_bytes(int(number)) if unit == "bytes" else f"{number} {unit}"


def total_memory(device: "torch.device") -> int | None:
    """Return the bytes of a GPU, or of this machine, or of the control group if that is a part of
    it; None if it is not known."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_properties(device).total_memory
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return None
    return min([machine, *memory_limits(Path("/"))])


def memory_limits(root: Path) -> Iterator[int]:
    """Yield the bytes that the control groups of this process may take."""
    for folder in control_groups(root, "memory"):
        with suppress(ValueError):  # "max", or no such file
            yield int(read(folder / "memory.max") or read(folder / "memory.limit_in_bytes"))


def require_memory(
    what: str, parts: Mapping[str, int], device: "torch.device", remedy: str
) -> None:
    """Raise UserError if work needs more bytes than the device has. `parts` are named; `remedy` is
    a sentence."""
    needed, has = sum(parts.values()), total_memory(device)
    if has is None or needed <= has:
        return
    named = [f"{format_bytes(n)} for {name}" for name, n in parts.items() if n >= needed / 100]
    listed = f" ({', '.join(named)})" if len(named) > 1 else ""
    where = str(device) if device.type == "cuda" else "this machine"
    raise UserError(
        f"{what} needs at least {format_bytes(needed)} of memory{listed}, and {where} has "
        f"{format_bytes(has)}. {remedy}"
    )
