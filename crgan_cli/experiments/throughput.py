"""What a sweep trained, all jobs together."""

import json
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate
from typing import NamedTuple

from crgan_cli.experiments.sweep_state import SweepJob, SweepState
from crgan_cli.system.atomic import write_text
from crgan_cli.system.progress import format_duration


class Throughput(NamedTuple):
    """What one start of a sweep has trained, all jobs together."""

    jobs: int  # that trained to their end
    others: int  # skipped, failed or not started: they count for nothing
    side_by_side: int  # jobs at most at one time
    seconds: float  # from the start of the first job to the end of the last, set-up included
    images: int  # real images that D was shown
    images_per_second: float  # images / seconds
    of_a_job: float  # images/s while it trained, the mean over the jobs


FILE = "throughput.json"
"""In the folder of a sweep's state."""


def write_throughput(board: SweepState, seconds: float) -> None:
    """Writes what the jobs have trained in the seconds since the sweep was started."""
    trained = compute_throughput(board.jobs(), seconds)
    write_text(board.path / FILE, json.dumps(trained._asdict(), indent=2) + "\n")


def read_throughput(board: SweepState) -> Throughput | None:
    """What `write_throughput` wrote; None if no job trained."""
    with suppress(OSError, ValueError, TypeError):
        found = Throughput(**json.loads((board.path / FILE).read_text("utf-8")))
        return found if found.images else None
    return None


def compute_throughput(jobs: Sequence[SweepJob], seconds: float) -> Throughput:
    """Of the jobs that finished in a start of the sweep, which took so many seconds."""
    counted = [job for job in jobs if job.status == "finished" and job.images]
    images = sum(job.images for job in counted)
    speeds = [job.images / job.training for job in counted if job.training > 0]
    return Throughput(
        jobs=len(counted),
        others=len(jobs) - len(counted),
        side_by_side=max_parallel([(job.began, job.ended) for job in counted]),
        seconds=round(seconds, 1),
        images=images,
        images_per_second=images / seconds if seconds > 0 else 0.0,
        of_a_job=sum(speeds) / len(speeds) if speeds else 0.0,
    )


def max_parallel(spans: Sequence[tuple[float, float]]) -> int:
    """How many of the spans of time overlap at most; one that begins as another ends does not."""
    changes = sorted((when, up) for span in spans for when, up in zip(span, (1, -1), strict=True))
    return max(accumulate(up for _, up in changes), default=0)


def format_throughput(trained: Throughput) -> str:
    """A start's throughput in one line."""
    jobs = f"{trained.jobs} job{'s' * (trained.jobs != 1)}"
    others = f"; {trained.others} more trained nothing to its end" if trained.others else ""
    return (
        f"{jobs} trained in {format_duration(trained.seconds)}, at most {trained.side_by_side} "
        f"side by side: {trained.images_per_second:.4g} images/s together, "
        f"{trained.of_a_job:.4g} images/s a job on average{others}"
    )
