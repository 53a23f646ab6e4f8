"""Where crgan's messages go: to stderr as they are, and into the run's log with their time."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crgan_cli.launch import first

PACKAGE = logging.getLogger("crgan_cli")


class Spoken(logging.Handler):
    """Messages on stderr, whatever stderr is at the time: the live line stands in for it."""

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "for_the_file", False):  # the command line says it in its own words
            return
        print(self.format(record), file=sys.stderr, flush=True)


@contextmanager
def speaking() -> Iterator[None]:
    """Messages of all crgan go to stderr while the body runs; of several processes' the first's."""
    handler = Spoken(logging.INFO if first() else logging.ERROR)
    handler.setFormatter(logging.Formatter("%(message)s"))
    with attached(handler):
        yield


@contextmanager
def logging_to(file: Path) -> Iterator[None]:
    """They also go to the end of a file, those of the first of several processes."""
    if not first():
        yield
        return
    handler = logging.FileHandler(file, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    with attached(handler):
        yield


@contextmanager
def attached(handler: logging.Handler) -> Iterator[None]:
    """The handler listens to the package while the body runs."""
    PACKAGE.setLevel(logging.INFO)
    PACKAGE.addHandler(handler)
    try:
        yield
    finally:
        PACKAGE.removeHandler(handler)
        handler.close()
