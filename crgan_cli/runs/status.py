"""The status of a run or of a sweep's job."""

from enum import StrEnum


class Status(StrEnum):
    """As written to result.json and to the files of a sweep."""

    NOT_STARTED = "not started"  # only a job
    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"  # stopped by a signal; can be resumed
    FAILED = "failed"
    SKIPPED = "skipped"  # only a job: its run had finished before
