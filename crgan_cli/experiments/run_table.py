"""Runs the jobs of a table, one process each."""

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
from crgan_cli.system.signals import handle_signals

NEW, RESUME, FINISHED, RUNNING = "new", "resume", "finished", "running elsewhere"


class Failure(NamedTuple):
    """A run that ended badly. It has said why."""

    job: TableJob
    code: int  # its exit code


def job_state(job: TableJob) -> str:
    """What is to be done for a run: one of NEW, RESUME, FINISHED and RUNNING.

    Raises UserError where its folder holds a run of other settings.
    """
    run = RunDir(job.folder)
    if is_locked(job.folder / ".lock"):
        return RUNNING
    if not run.is_run():
        return NEW
    result, steps = run.read_result(), int(job.config["steps"])
    before = stored.from_text(run.config.read_text(encoding="utf-8"), str(run.config))
    changed = stored.difference(before, job.config)
    if result.get("step", 0) > steps:
        changed.append(f"steps: {result['step']} -> {steps}")
    if changed:
        lines = "".join(f"\n  {line}" for line in changed)
        raise UserError(
            f"{job.folder} holds a run with other settings:{lines}\n"
            "Choose another folder with --out FOLDER, or give the settings that it was begun with."
        )
    done = result.get("status") == "finished" and result.get("step") == steps
    return FINISHED if done else RESUME


class ProcessRunner:
    """Runs one process after another, and passes signals on to the one that runs."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self.child: subprocess.Popen[bytes] | None = None

    def handling_signals(self) -> AbstractContextManager[None]:
        """Handles the signals while the body runs."""
        return handle_signals(self.on_signal)

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        """The signal handler. A run saves itself on the first signal, and ends on the second."""
        self.signum = signum
        if self.child is not None:
            self.child.send_signal(signum)

    def run(self, words: Sequence[str]) -> int:
        """The exit code of `crgan WORDS`, 128 + n where signal n ended it.

        Its last words go to stderr, with all else that it says: stdout is the table's.
        """
        self.child = subprocess.Popen(
            [sys.executable, "-m", "crgan_cli", *words],
            stdin=subprocess.DEVNULL,
            stdout=2,
            start_new_session=True,  # Ctrl-C reaches it through us alone, and so once
        )
        if self.signum is not None:  # it came while the process was being made
            self.child.send_signal(self.signum)
        code = self.child.wait()
        self.child = None
        return code if code >= 0 else 128 - code


def run_jobs(jobs: Sequence[TableJob], say: Callable[[str], None]) -> list[Failure]:
    """Runs what is not finished, one after another. Returns what failed; the rest go on.

    Raises Interrupted where a signal has come: the run was saved.
    """
    conductor = ProcessRunner()
    failures = []
    with conductor.handling_signals():
        for number, job in enumerate(jobs, start=1):
            state = job_state(job)  # now: another crgan may have come before
            say(f"[{number} of {len(jobs)}] {job.row.label}, seed {job.seed}: {state}")
            code = conductor.run(job.words) if state in (NEW, RESUME) else 0
            if conductor.signum is not None:
                raise Interrupted(conductor.signum)
            if code:
                failures.append(Failure(job, code))
                say(f"{describe_failure(failures[-1])}; the rest go on")
    return failures


def describe_failure(failure: Failure) -> str:
    """A failure on one line."""
    job = failure.job
    return f"{job.folder} failed with exit code {failure.code}: {job.row.label}, seed {job.seed}"
