"""Environment variables that hold for a while, for the processes started meanwhile."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

SWEEP_TABLE_VAR = "CRGAN_TABLED"
"""Set while a sweep's table shows the progress of all jobs, including those in other processes."""


@contextmanager
def set_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables while the body runs, then restore the old values."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value
