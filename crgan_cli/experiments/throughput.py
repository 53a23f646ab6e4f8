"""The throughput of a sweep: real images per second, all jobs together and per job."""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from crgan_cli.experiments.sweep_state import SweepJob, SweepState, read_fields
from crgan_cli.runs.status import Status
from crgan_cli.system.atomic import write_json
from crgan_cli.system.numbers import format_duration, format_rate


class Throughput(NamedTuple):
    """What one launch of a sweep has trained, all jobs together."""

    jobs: int  # that finished and have trained
    others: int  # skipped, failed or not started: not counted
    side_by_side: int  # most jobs at one time
    seconds: float  # of the whole launch, with set-up
    images: int  # real images that D has seen
    images_per_second: float  # images / seconds
    of_a_job: float  # images/s of a job while it trained, mean over the jobs


FILE = "throughput.json"
"""In the folder of the sweep's state."""


def write_throughput(state: SweepState, seconds: float) -> None:
    """Write the throughput of a launch that took `seconds`."""
    trained = compute_throughput(state.jobs(), seconds)
    write_json(state.path / FILE, trained._asdict(), indent=2)


def read_throughput(state: SweepState) -> Throughput | None:
    """Read the throughput of the latest launch; None if no job has trained."""
    found = read_fields(state.path / FILE, Throughput)
    return found if found and found.images else None


def compute_throughput(jobs: Sequence[SweepJob], seconds: float) -> Throughput:
    """Compute the throughput of a launch that took `seconds`, over its finished jobs."""
    counted = [job for job in jobs if job.status == Status.FINISHED and job.images]
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
    """Return how many (start, end) spans overlap at most. Touching spans do not overlap."""
    changes = sorted((when, up) for span in spans for when, up in zip(span, (1, -1), strict=True))
    return max(accumulate(up for _, up in changes), default=0)


def format_throughput(trained: Throughput) -> str:
    """Return the throughput as one line."""
    jobs = f"{trained.jobs} job{'s' * (trained.jobs != 1)}"
    others = f"; {trained.others} more trained nothing to its end" if trained.others else ""
    return (
        f"{jobs} trained in {format_duration(trained.seconds)}, at most {trained.side_by_side} "
        f"side by side: {format_rate(trained.images_per_second)} images/s together, "
        f"{format_rate(trained.of_a_job)} images/s a job on average{others}"
    )
