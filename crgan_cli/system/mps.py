"""NVIDIA's Multi-Process Service (MPS) for sweep jobs that share a GPU.

Without MPS, the processes on a GPU take turns. With it, their kernels run at the same time.
Source: NVIDIA, Multi-Process Service, https://docs.nvidia.com/deploy/mps. Imports no torch.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType

from crgan_cli.errors import Interrupted
from crgan_cli.system.environment import set_environment
from crgan_cli.system.paths import shell_quoted
from crgan_cli.system.signals import handle_signals

PROGRAM = "nvidia-cuda-mps-control"
PIPES, LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
VISIBLE = "CUDA_VISIBLE_DEVICES"

DEFAULT_PIPES = Path("/tmp/nvidia-mps")
"""Where a daemon has its pipes by default."""

MAX_PIPE_PATH = 64
"""Bytes in the path of the pipe folder. A socket's full path, with its name, may have 107."""

STOP_SECONDS = 10
"""How long processes on the GPU may take to end before the daemon stops anyway."""


@contextmanager
def mps_daemon(folder: Path) -> Iterator[None]:
    """Run the processes that the body starts under MPS, and report on stderr what is done.

    A daemon that already runs is used. Otherwise one is started, with its pipes and log below
    `folder`, and stopped at the end of the body, also after an error.
    """
    program = shutil.which(PROGRAM)
    if pipes := find_running_daemon(os.environ):
        report(f"jobs that share a GPU run at once, through the MPS daemon of {pipes}")
        service = nullcontext()
    elif program is None:
        report(f"jobs that share a GPU take turns on it: MPS needs {PROGRAM} on PATH")
        service = nullcontext()
    else:
        service = run_daemon(program, folder)
    with service:
        yield


def report(message: str) -> None:
    """Print a line about the sweep, to stderr like the lines about its jobs."""
    print(message, file=sys.stderr)


def find_running_daemon(environment: Mapping[str, str]) -> str | None:
    """Return the pipe folder of a running daemon: the environment's, or the default one."""
    if PIPES in environment:
        return environment[PIPES]
    with suppress(OSError, ValueError):
        pid = int((DEFAULT_PIPES / f"{PROGRAM}.pid").read_text())  # stale if the daemon has ended
        with suppress(PermissionError):  # another user's process
            os.kill(pid, 0)
        return str(DEFAULT_PIPES)
    return None


@contextmanager
def run_daemon(program: str, folder: Path) -> Iterator[None]:
    """Run our own daemon. Processes started in the body find it through their environment."""
    with pipe_folder(folder) as pipes:
        logs = folder.absolute() / "mps_log"
        logs.mkdir(parents=True, exist_ok=True)
        variables = {PIPES: str(pipes), LOGS: str(logs)}
        if problem := mps_control(program, ["-d"], "", variables, logs):
            report(f"jobs that share a GPU take turns on it: MPS does not start ({problem})")
            yield
            return
        report(f"jobs that share a GPU run at once, through MPS (sweep.mps=never: without); {logs}")
        try:
            with set_environment(variables), handle_signals(raise_interrupted):
                yield
        finally:
            with handle_signals(ignore_signal):
                stop_daemon(program, variables, logs)


@contextmanager
def pipe_folder(folder: Path) -> Iterator[Path]:
    """Create a folder below `folder`, or a temporary one if that path would be too long."""
    pipes = folder.absolute() / "mps"
    if len(os.fsencode(pipes)) <= MAX_PIPE_PATH:
        pipes.mkdir(parents=True, exist_ok=True)
        yield pipes
        return
    with tempfile.TemporaryDirectory(prefix="crgan-mps-", ignore_cleanup_errors=True) as short:
        yield Path(short)


def mps_control(
    program: str, arguments: list[str], command: str, variables: Mapping[str, str], logs: Path
) -> str:
    """Run the control program; return what went wrong, "" if nothing did.

    It runs in its own session, so that Ctrl-C does not reach it. Its output goes to a file, because
    a daemon may keep the output open.
    """
    output = logs / "control.txt"
    try:
        with open(output, "w", encoding="utf-8") as file:
            done = subprocess.run(
                [program, *arguments],
                input=command,
                text=True,
                stdout=file,
                stderr=file,
                env={**daemon_env(os.environ), **variables},
                timeout=3 * STOP_SECONDS,
                start_new_session=True,
                check=False,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    words = " ".join(output.read_text(encoding="utf-8", errors="replace").split())
    return words or f"exit code {done.returncode}"


def daemon_env(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the daemon's environment. It serves all GPUs if ours are chosen by number.

    The daemon's clients number the GPUs that it sees from 0, so numbers would apply twice.
    """
    numbered = any(word.strip().isdecimal() for word in environment.get(VISIBLE, "").split(","))
    return {key: value for key, value in environment.items() if not numbered or key != VISIBLE}


def stop_daemon(program: str, variables: Mapping[str, str], logs: Path) -> None:
    """Stop the daemon. If that fails, report the command that does it."""
    if problem := mps_control(program, [], f"quit -t {STOP_SECONDS}\n", variables, logs):
        report(
            f"the MPS daemon could not be stopped ({problem}). Type: "
            f"echo quit -t 0 | {PIPES}={shell_quoted(variables[PIPES])} {PROGRAM}"
        )


def raise_interrupted(signum: int, frame: FrameType | None) -> None:
    """Handle a signal that would end this process: leave the body first, and stop the daemon."""
    raise Interrupted(signum)


def ignore_signal(signum: int, frame: FrameType | None) -> None:
    """Handle a signal while the daemon stops, which takes some seconds at most."""
