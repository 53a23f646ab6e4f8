"""Where crgan's messages go: to stderr as they are, and into the run's log with their time."""

import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crgan_cli.system.distributed.launch import is_main

PACKAGE = logging.getLogger("crgan_cli")


class StderrHandler(logging.Handler):
    """Messages on stderr, whatever stderr is at the time: the live line stands in for it."""

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "for_the_file", False):  # the command line says it in its own words
            return
        print(self.format(record), file=sys.stderr, flush=True)


@contextmanager
def log_to_stderr() -> Iterator[None]:
    """Messages of all crgan go to stderr while the body runs; of several processes' the first's."""
    handler = StderrHandler(logging.INFO if is_main() else logging.ERROR)
    handler.setFormatter(logging.Formatter("%(message)s"))
    with attached_handler(handler):
        yield


@contextmanager
def log_to_file(file: Path) -> Iterator[None]:
    """They also go to the end of a file, those of the first of several processes."""
    if not is_main():
        yield
        return
    handler = logging.FileHandler(file, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    with attached_handler(handler):
        yield


@contextmanager
def attached_handler(handler: logging.Handler) -> Iterator[None]:
    """The handler listens to the package while the body runs."""
    PACKAGE.setLevel(logging.INFO)
    PACKAGE.addHandler(handler)
    try:
        yield
    finally:
        PACKAGE.removeHandler(handler)
        handler.close()


def print_error(message: str, *, code: int) -> int:
    """Prints a failure, with its traceback where CRGAN_DEBUG=1 asks for it."""
    if os.environ.get("CRGAN_DEBUG") == "1":
        traceback.print_exc()
    print(message, file=sys.stderr)
    return code


def format_unexpected(error: BaseException) -> str:
    """An exception that nobody foresaw, on one line. Its notes name the log with its traceback."""
    notes = getattr(error, "__notes__", [])
    where = " ".join(notes) or "CRGAN_DEBUG=1 in front of the same command shows the traceback."
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said or 'without a message'}. {where}"
