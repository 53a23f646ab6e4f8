"""Standard output and error that never fail: work does not depend on somebody listening."""

import errno
import io
import logging
import os
import select
import stat
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from crgan_cli.errors import RunFailed

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

log = logging.getLogger(__name__)
STDOUT, STDERR = 1, 2
STREAMS = {STDOUT: "stdout", STDERR: "stderr"}
LEFT = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ESHUTDOWN, errno.ECONNRESET)
"""The reader of a pipe, or the terminal, is gone. Not an error: nobody listens."""

failures: list[OSError] = []
"""Why standard output could not be written, although it was asked for: a full disk."""


class SafeStream(io.FileIO):
    """Standard output or error. After the first failure it leads nowhere.

    The descriptor itself is redirected, so this holds for libraries and new processes too.
    """

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write all, or drop what cannot be written. A full pipe that does not block is awaited."""
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while left:
                count = super().write(left)
                if count is None:
                    select.select([], [self.fileno()], [])
                left = left[count or 0 :]
        except OSError as error:
            self.give_up(error)
        return size

    def give_up(self, error: OSError) -> None:
        """Redirect the descriptor to nowhere. Say why on stderr, unless the reader has left."""
        is_file = stat.S_ISREG(os.fstat(self.fileno()).st_mode)  # EIO of a file: its disk fails
        redirect_to_nowhere(self.fileno())
        if (error.errno in LEFT and not is_file) or self.fileno() != STDOUT:
            return
        failures.append(error)
        log.warning(
            "standard output cannot be written any more (%s); crgan goes on without it",
            error.strerror,
        )


def redirect_to_nowhere(descriptor: int) -> None:
    """Lead a descriptor to the null device, whether it is open or closed."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
    os.set_inheritable(descriptor, True)


def protect_streams() -> None:
    """Make this process's standard streams safe. A stream that a caller has replaced is left.

    A closed descriptor is opened, as the next file would take its number, and what a library prints
    would go into that file.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            redirect_to_nowhere(descriptor)
    for descriptor, name in STREAMS.items():
        stream, original = getattr(sys, name), getattr(sys, f"__{name}__")
        if stream is original and not is_safe(stream):
            safe = make_safe(descriptor, stream)
            setattr(sys, name, safe)
            setattr(sys, f"__{name}__", safe)


def is_safe(stream: object) -> bool:
    """Return whether a stream is one that `make_safe` returned."""
    buffer = getattr(stream, "buffer", None)
    return isinstance(getattr(buffer, "raw", buffer), SafeStream)


def make_safe(descriptor: int, stream: io.TextIOWrapper | None) -> io.TextIOWrapper:
    """Return a stream like this one that never fails; None is a stream that was closed.

    A character that its encoding lacks is written as an escape sequence.
    """
    raw = SafeStream(descriptor, "w", closefd=False)
    if stream is None:
        return io.TextIOWrapper(io.BufferedWriter(raw), errors="backslashreplace")
    with suppress(OSError, ValueError):
        stream.flush()
    unbuffered = isinstance(stream.buffer, io.RawIOBase)  # python -u
    return io.TextIOWrapper(
        raw if unbuffered else io.BufferedWriter(raw),  # type: ignore[arg-type]
        encoding=stream.encoding,
        errors="backslashreplace" if stream.errors == "strict" else stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def require_printed() -> None:
    """Raise RunFailed if standard output could not be written: for what is printed and no more.

    A reader that has left, such as `head`, wanted no more.
    """
    sys.stdout.flush()
    if failures:
        raise RunFailed(f"standard output cannot be written ({failures[0].strerror}).")
