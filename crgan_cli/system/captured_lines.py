"""What this process and those that it starts write to a terminal, line by line.

A live table needs it: lines that a worker process writes between two drawings of the table shift
it, so that its head stays behind and the next drawing covers them.
"""

import io
import os
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from threading import Thread

from crgan_cli.system.streams import make_safe

END = b"\0end of the captured lines\0\n"
"""Written behind all others: the pipe need not end, as a process may outlive the capture."""


def copy_terminal(descriptor: int, stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """Return another way to the terminal of a standard stream, which a capture leaves as it is."""
    return make_safe(os.dup(descriptor), stream)


@contextmanager
def captured_lines(descriptors: Collection[int], show: Callable[[str], None]) -> Iterator[None]:
    """Pass each line to `show`, in another thread, while the body runs.

    `descriptors` are those of standard output or error. All lines are shown when the body has
    ended.
    """
    reader, writer = os.pipe()
    before = {each: os.dup(each) for each in descriptors}
    shower = Thread(target=show_lines, args=(reader, show), daemon=True)
    flush()
    for each in descriptors:
        os.dup2(writer, each)
    try:
        shower.start()
        yield
    finally:
        flush()
        for each, terminal in before.items():
            os.dup2(terminal, each)
            os.close(terminal)
        os.write(writer, END)
        os.close(writer)
        shower.join()


def flush() -> None:
    """Write what the standard streams hold."""
    sys.stdout.flush()
    sys.stderr.flush()


def show_lines(reader: int, show: Callable[[str], None]) -> None:
    """Show the lines of a pipe up to END."""
    with open(reader, "rb") as lines:
        for line in lines:
            text = line.removesuffix(END).decode(errors="backslashreplace").rstrip("\r\n")
            if text or line == b"\n":
                show(text)
            if line.endswith(END):
                return
