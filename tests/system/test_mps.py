"""MPS for a sweep, against a made-up control program that writes down what it is told."""

import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from crgan_cli.errors import Interrupted
from crgan_cli.system import mps
from crgan_cli.system.mps import LOGS, PIPES, PROGRAM, VISIBLE, daemon_env, mps_daemon

SCRIPT = """#!/bin/sh
# what it was called with, what it read, and the variables that a daemon obeys
if [ "$1" = -d ]; then read="start"; else read="$(cat)"; fi
echo "$read|$*|$CUDA_MPS_PIPE_DIRECTORY|$CUDA_MPS_LOG_DIRECTORY|$CUDA_VISIBLE_DEVICES" >> CALLS
echo "no such device" >&2
if [ "$1" = -d ]; then
  if [ STARTS = 0 ]; then sleep 100 & echo $! > PID; fi
  exit STARTS
fi
kill "$(cat PID)"
exit STOPS
"""


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Puts the program on an otherwise ordinary PATH, with the exit codes that it is to have.

    Its daemon keeps its output open, as one may. Gives the file of its calls.
    """
    monkeypatch.setattr(mps, "DEFAULT_PIPES", tmp_path / "usual")
    for name in (PIPES, LOGS, VISIBLE):
        monkeypatch.delenv(name, raising=False)

    def put(starts: int = 0, stops: int = 0) -> Path:
        calls, program = tmp_path / "calls", tmp_path / "bin" / PROGRAM
        text = SCRIPT.replace("CALLS", str(calls)).replace("PID", str(tmp_path / "pid"))
        program.parent.mkdir()
        program.write_text(text.replace("STARTS", str(starts)).replace("STOPS", str(stops)))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        return calls

    return put


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose path is short, whatever the name of the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mps, "MAX_PIPE_PATH", 1000)
    return Path("sweep/.sweep")


def called(calls: Path) -> list[list[str]]:
    return [line.split("|") for line in calls.read_text().splitlines()]


def test_a_daemon_serves_what_is_started_in_the_body(
    control: Callable[..., Path], folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    calls = control()
    with mps_daemon(folder):
        own = [os.environ[PIPES], os.environ[LOGS]]
        assert called(calls) == [["start", "-d", *own, ""]]
        assert [Path(each) for each in own] == [
            folder.absolute() / "mps",
            folder.absolute() / "mps_log",
        ]
        assert all(os.path.isdir(each) for each in own)
    assert called(calls)[1:] == [["quit -t 10", "", *own, ""]]
    assert PIPES not in os.environ
    assert LOGS not in os.environ
    assert "run at once, through MPS" in capfd.readouterr().err


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, None])
def test_a_daemon_ends_however_the_sweep_does(
    signum: signal.Signals | None, control: Callable[..., Path], folder: Path
) -> None:
    calls = control()

    def sweep() -> None:
        with mps_daemon(folder):
            if signum:
                signal.raise_signal(signum)
            raise ValueError

    with pytest.raises(Interrupted if signum else ValueError) as caught:
        sweep()
    assert getattr(caught.value, "signum", None) == signum
    assert [call[0] for call in called(calls)] == ["start", "quit -t 10"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_somebodys_daemon_is_used_as_it_is(
    control: Callable[..., Path],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    calls = control()
    monkeypatch.setenv(PIPES, "/run/theirs")
    with mps_daemon(folder):
        assert os.environ[PIPES] == "/run/theirs"
    assert not calls.exists()
    assert "the MPS daemon of /run/theirs" in capfd.readouterr().err


def test_a_daemon_in_the_usual_place_is_somebodys_while_it_lives(
    control: Callable[..., Path], folder: Path
) -> None:
    calls = control()
    mps.DEFAULT_PIPES.mkdir()
    (mps.DEFAULT_PIPES / f"{PROGRAM}.pid").write_text(f"{os.getpid()}\n")
    with mps_daemon(folder):
        assert PIPES not in os.environ
    assert not calls.exists()
    (mps.DEFAULT_PIPES / f"{PROGRAM}.pid").write_text("999999999\n")  # no process has that number
    with mps_daemon(folder):
        assert PIPES in os.environ


def test_without_the_program_jobs_take_turns(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mps, "DEFAULT_PIPES", folder)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv(PIPES, raising=False)
    with mps_daemon(folder):
        assert PIPES not in os.environ
    assert f"take turns on it: MPS needs {PROGRAM} on PATH" in capfd.readouterr().err


def test_a_daemon_that_does_not_start_is_told_of_and_done_without(
    control: Callable[..., Path], folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    calls = control(starts=3)
    with mps_daemon(folder):
        assert PIPES not in os.environ
    assert len(called(calls)) == 1
    assert "MPS does not start (no such device)" in capfd.readouterr().err


def test_a_daemon_that_does_not_stop_is_told_of(
    control: Callable[..., Path], folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    control(stops=1)
    with mps_daemon(folder):
        pipes = os.environ[PIPES]
    said = capfd.readouterr().err
    assert "could not be stopped (no such device)" in said
    assert f"echo quit -t 0 | {PIPES}={pipes} {PROGRAM}" in said


def test_sockets_of_a_deep_folder_lie_in_a_short_one_for_a_while(
    control: Callable[..., Path], tmp_path: Path
) -> None:
    control()
    deep = tmp_path / ("d" * 60) / ".sweep"
    with mps_daemon(deep):
        pipes = Path(os.environ[PIPES])
        assert pipes.is_dir()
        assert len(os.fsencode(pipes)) <= mps.MAX_PIPE_PATH
        assert Path(os.environ[LOGS]).parent == deep
    assert not pipes.exists()


def test_numbers_of_devices_are_not_taken_twice() -> None:
    assert daemon_env({VISIBLE: "1,2", "HOME": "x"}) == {"HOME": "x"}
    by_name = {VISIBLE: "GPU-12ab,GPU-34cd"}
    assert daemon_env(by_name) == by_name
    assert daemon_env({}) == {}
