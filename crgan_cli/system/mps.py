"""NVIDIA's Multi-Process Service (MPS) for the jobs of a sweep that share a GPU.

Without it a GPU serves its processes in turns; with it their kernels run at the same time.
Source: NVIDIA, Multi-Process Service, https://docs.nvidia.com/deploy/mps. Free of torch.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType

from crgan_cli.errors import Interrupted
from crgan_cli.system.signals import handle_signals

PROGRAM = "nvidia-cuda-mps-control"
PIPES, LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
VISIBLE = "CUDA_VISIBLE_DEVICES"

USUAL = Path("/tmp/nvidia-mps")
"""Where a daemon has its pipes unless it is told otherwise."""

LONGEST = 64
"""Bytes in the path of a folder for pipes: a socket's whole path may have 107, its name in it."""

PATIENCE_SECONDS = 10
"""What processes that are still on the GPU get to end in, before the daemon ends all the same."""


@contextmanager
def mps_daemon(folder: Path) -> Iterator[None]:
    """MPS for the processes that the body starts; says on stderr what is done.

    A daemon that runs already is used as it is. Else one is started, with its pipes and its log
    below `folder`, and stopped at the end, however the body ends.
    """
    program = shutil.which(PROGRAM)
    if there := running_already(os.environ):
        send_command(f"jobs that share a GPU run at once, through the MPS daemon of {there}")
        served = nullcontext()
    elif program is None:
        send_command(f"jobs that share a GPU take turns on it: MPS needs {PROGRAM} on PATH")
        served = nullcontext()
    else:
        served = daemon(program, folder)
    with served:
        yield


def send_command(what: str) -> None:
    """A line about the sweep, where those about its jobs go."""
    print(what, file=sys.stderr)


def running_already(environment: Mapping[str, str]) -> str | None:
    """The pipes of somebody's daemon, as the environment names them or in the usual place."""
    if PIPES in environment:
        return environment[PIPES]
    with suppress(OSError, ValueError):
        pid = int((USUAL / f"{PROGRAM}.pid").read_text())  # gone when the daemon has ended
        with suppress(PermissionError):  # it is another user's
            os.kill(pid, 0)
        return str(USUAL)
    return None


@contextmanager
def daemon(program: str, folder: Path) -> Iterator[None]:
    """A daemon of our own, which the processes started in the body find in their environment."""
    with room_for_pipes(folder) as pipes:
        logs = folder.absolute() / "mps_log"
        logs.mkdir(parents=True, exist_ok=True)
        own = {PIPES: str(pipes), LOGS: str(logs)}
        if problem := mps_control(program, ["-d"], "", own, logs):
            send_command(f"jobs that share a GPU take turns on it: MPS does not start ({problem})")
            yield
            return
        send_command(
            f"jobs that share a GPU run at once, through MPS (sweep.mps=never: without); {logs}"
        )
        try:
            with added(own), handle_signals(end):
                yield
        finally:
            with handle_signals(wait):
                stop_daemon(program, own, logs)


@contextmanager
def room_for_pipes(folder: Path) -> Iterator[Path]:
    """A new folder below `folder`, or elsewhere for a while where that path is too long."""
    near = folder.absolute() / "mps"
    if len(os.fsencode(near)) <= LONGEST:
        near.mkdir(parents=True, exist_ok=True)
        yield near
        return
    with tempfile.TemporaryDirectory(prefix="crgan-mps-", ignore_cleanup_errors=True) as short:
        yield Path(short)


def mps_control(
    program: str, arguments: list[str], command: str, own: Mapping[str, str], logs: Path
) -> str:
    """Runs the control program, in a session of its own that no Ctrl-C reaches.

    Gives what went wrong, "" for nothing. Its output goes to a file, which a daemon may keep open.
    """
    said = logs / "control.txt"
    try:
        with open(said, "w", encoding="utf-8") as file:
            done = subprocess.run(
                [program, *arguments],
                input=command,
                text=True,
                stdout=file,
                stderr=file,
                env={**daemon_env(os.environ), **own},
                timeout=3 * PATIENCE_SECONDS,
                start_new_session=True,
                check=False,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    words = " ".join(said.read_text(encoding="utf-8", errors="replace").split())
    return words or f"exit code {done.returncode}"


def daemon_env(environment: Mapping[str, str]) -> dict[str, str]:
    """The daemon's environment. It serves all GPUs where ours are chosen by number.

    Its processes see the GPUs that it sees and count these anew: numbers would be taken twice.
    """
    numbered = any(word.strip().isdecimal() for word in environment.get(VISIBLE, "").split(","))
    dropped = {VISIBLE} if numbered else set[str]()
    return {key: value for key, value in environment.items() if key not in dropped}


def stop_daemon(program: str, own: Mapping[str, str], logs: Path) -> None:
    """Ends the daemon, or says how."""
    if problem := mps_control(program, [], f"quit -t {PATIENCE_SECONDS}\n", own, logs):
        send_command(
            f"the MPS daemon could not be stopped ({problem}). Type: "
            f"echo quit -t 0 | {PIPES}={shlex.quote(own[PIPES])} {PROGRAM}"
        )


@contextmanager
def added(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables as given while the body lasts."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def end(signum: int, frame: FrameType | None) -> None:
    """A signal that would end this process at once ends the body first, and so the daemon."""
    raise Interrupted(signum)


def wait(signum: int, frame: FrameType | None) -> None:
    """A signal comes while the daemon ends, which takes some seconds at most."""
