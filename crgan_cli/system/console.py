"""Print crgan's messages to stderr, and write them to the run's log with their time."""

import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crgan_cli.system.distributed.launch import is_main
from crgan_cli.system.environment import SWEEP_TABLE_VAR

PACKAGE = logging.getLogger("crgan_cli")


class StderrHandler(logging.Handler):
    """Print to the current sys.stderr, which a live line may have replaced."""

    def emit(self, record: logging.LogRecord) -> None:
        if not getattr(record, "for_the_file", False):  # the command prints those itself
            print(self.format(record), file=sys.stderr, flush=True)


@contextmanager
def log_to_stderr() -> Iterator[None]:
    """Log crgan's messages to stderr while the body runs. Other ranks log errors only.

    Next to a sweep's table only warnings: it shows each job, whose log has all messages.
    """
    least = logging.WARNING if SWEEP_TABLE_VAR in os.environ else logging.INFO
    handler = StderrHandler(least if is_main() else logging.ERROR)
    handler.setFormatter(logging.Formatter("%(message)s"))
    with attached_handler(handler):
        yield


@contextmanager
def log_to_file(file: Path) -> Iterator[None]:
    """Append crgan's messages to a file while the body runs, on the main rank only."""
    if not is_main():
        yield
        return
    # a file's name need not be UTF-8: it is logged with an escape sequence, as on stderr
    handler = logging.FileHandler(file, encoding="utf-8", errors="backslashreplace", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    with attached_handler(handler):
        yield


@contextmanager
def attached_handler(handler: logging.Handler) -> Iterator[None]:
    """Attach a handler to crgan's logger while the body runs."""
    PACKAGE.setLevel(logging.INFO)
    PACKAGE.addHandler(handler)
    try:
        yield
    finally:
        PACKAGE.removeHandler(handler)
        handler.close()


def print_error(message: str, *, code: int) -> int:
    """Print a failure, with its traceback if CRGAN_DEBUG=1. Return the exit code."""
    if os.environ.get("CRGAN_DEBUG") == "1":
        traceback.print_exc()
    print(message, file=sys.stderr)
    return code


def format_unexpected(error: BaseException) -> str:
    """Format an unexpected exception on one line. Its notes name the log with the traceback."""
    notes = getattr(error, "__notes__", [])
    where = " ".join(notes) or "Put CRGAN_DEBUG=1 before the same command to see the traceback."
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message or 'without a message'}. {where}"
