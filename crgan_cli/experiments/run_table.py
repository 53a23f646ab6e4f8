"""Run the jobs of a table, one process per job."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import FrameType
from typing import NamedTuple

from crgan_cli.config import stored
from crgan_cli.errors import Interrupted, UserError
from crgan_cli.experiments.plan import TableJob
from crgan_cli.report.read import is_locked
from crgan_cli.runs.folder import RunDir
from crgan_cli.runs.outcome import has_ended
from crgan_cli.runs.settings import load_text
from crgan_cli.system.signals import handle_signals

NEW, RESUME, FINISHED, RUNNING = "new", "resume", "finished", "running elsewhere"


class Failure(NamedTuple):
    """A failed run. It has reported why."""

    job: TableJob
    code: int  # its exit code


def job_state(job: TableJob) -> str:
    """Return what to do for a job: NEW, RESUME, FINISHED or RUNNING.

    Raises UserError if its folder holds a run with other settings.
    """
    run = RunDir(job.folder)
    if is_locked(job.folder / ".lock"):
        return RUNNING
    if not run.is_run():
        return NEW
    result, steps = run.read_result(), int(job.config["steps"])
    changed = stored.difference(stored.read_stored(*load_text(run)), job.config)
    if result.get("step", 0) > steps:
        changed.append(f"steps: {result['step']} -> {steps}")
    if changed:
        lines = "".join(f"\n  {line}" for line in changed)
        raise UserError(
            f"{job.folder} holds a run with other settings:{lines}\n"
            "Choose another folder with --out FOLDER, or give the settings of that run."
        )
    return FINISHED if has_ended(result, job.config) else RESUME


class ProcessRunner:
    """Run one process after another, and forward signals to it."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self.child: subprocess.Popen[bytes] | None = None

    def handling_signals(self) -> AbstractContextManager[None]:
        """Forward signals while the body runs."""
        return handle_signals(self.on_signal)

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        """Handle a signal. A run saves itself on the first one, and ends on the second."""
        self.signum = signum
        if self.child is not None:
            self.child.send_signal(signum)

    def run(self, argv: Sequence[str]) -> int:
        """Run `crgan ARGV` and return its exit code, 128 + n if signal n ended it.

        All its output goes to stderr: stdout is for the table.
        """
        self.child = subprocess.Popen(
            [sys.executable, "-m", "crgan_cli", *argv],
            stdin=subprocess.DEVNULL,
            stdout=2,
            start_new_session=True,  # Ctrl-C reaches it once, through us
        )
        if self.signum is not None:  # it came while the process started
            self.child.send_signal(self.signum)
        code = self.child.wait()
        self.child = None
        return code if code >= 0 else 128 - code


def run_jobs(jobs: Sequence[TableJob], report: Callable[[str], None]) -> list[Failure]:
    """Run the unfinished jobs, one after another. Return the failures; they stop nothing.

    Raises Interrupted after a signal, once the run has saved.
    """
    runner = ProcessRunner()
    failures = []
    with runner.handling_signals():
        for number, job in enumerate(jobs, start=1):
            state = job_state(job)  # now: another crgan may have trained it meanwhile
            name = f"[{number} of {len(jobs)}] {job.row.label}, seed {job.seed}"
            report(f"{name}: {state}")
            code = runner.run(job.argv) if state in (NEW, RESUME) else 0
            if runner.signum is not None:
                raise Interrupted(runner.signum)
            if code and job_state(job) == RUNNING:  # both began it, and the other has its lock
                report(f"{name}: {RUNNING}, where it began first")
            elif code:
                failures.append(Failure(job, code))
                report(f"{describe_failure(failures[-1])}; the other runs continue")
    return failures


def describe_failure(failure: Failure) -> str:
    """Return a failure as one line."""
    job = failure.job
    return f"{job.folder} failed with exit code {failure.code}: {job.row.label}, seed {job.seed}"
