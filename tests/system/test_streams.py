"""Work does not depend on somebody listening: streams that are closed, broken or full."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.run_folders import write_run
from support.runs import command, environment, tiny

SAFE = "from crgan_cli.system.streams import protect_streams; protect_streams()\n"
SAY = """
import os, subprocess, sys
for number in range(3):
    print("x" * 100_000, flush=True)
    print("y" * 100_000, file=sys.stderr, flush=True)
subprocess.run(["echo", "a process of its own"], check=True)
os.write(1, b"a library")
open("done", "w").close()
"""


def broken_pipe() -> int:
    """The end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def lost_terminal() -> int:
    """A terminal that has been closed. Writing to it is an EIO."""
    import pty

    terminal, ours = pty.openpty()
    os.close(terminal)
    return ours


def full_disk() -> int:
    """A file on a full disk."""
    return os.open("/dev/full", os.O_WRONLY)


def run_code(code: str, cwd: Path, unbuffered: str = "", **streams: int) -> int:
    env = environment({"PYTHONUNBUFFERED": unbuffered})
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, env=env, **streams).returncode


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("broken", [broken_pipe, lost_terminal, full_disk])
def test_nothing_fails_where_nobody_listens(broken, unbuffered: str, tmp_path: Path) -> None:
    streams = {"stdout": broken(), "stderr": broken()}
    assert run_code(SAFE + SAY, tmp_path, unbuffered, **streams) == 0
    assert (tmp_path / "done").exists()


def test_closed_streams_are_opened_so_that_no_file_takes_their_number(tmp_path: Path) -> None:
    code = f"""
import os, sys
assert sys.stdout is sys.stderr is None
{SAFE}
with open("file", "w") as file:
    assert file.fileno() > 2
    {SAY.strip().replace(chr(10), chr(10) + "    ")}
assert open("file").read() == ""
"""
    closed = f"exec '{sys.executable}' -c \"$CODE\" <&- >&- 2>&-"
    done = subprocess.run(["sh", "-c", closed], cwd=tmp_path, env=environment({"CODE": code}))
    assert done.returncode == 0
    assert (tmp_path / "done").exists()


def test_a_full_disk_below_stdout_is_told_once_and_a_reader_that_left_is_not() -> None:
    code = SAFE + "for _ in range(3): print('x', flush=True)"
    for stdout, said in (
        (full_disk(), "standard output cannot be written any more (No space left on device); "),
        (broken_pipe(), ""),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=stdout, stderr=subprocess.PIPE, env=environment()
        )
        assert done.returncode == 0
        assert done.stderr.decode() == (said and said + "crgan goes on without it\n")


def test_a_file_whose_disk_fails_is_told_of_although_a_lost_terminal_fails_alike(
    tmp_path: Path,
) -> None:
    code = (
        SAFE
        + """
import errno, os, sys
raw = getattr(sys.stdout.buffer, "raw", sys.stdout.buffer)  # unbuffered, it is the raw one
raw.give_up(OSError(errno.EIO, os.strerror(errno.EIO)))
"""
    )
    file = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    for stdout, said in ((file, "(Input/output error); crgan goes on"), (lost_terminal(), "")):
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=stdout, stderr=subprocess.PIPE, env=environment()
        )
        assert (done.returncode, bool(done.stderr)) == (0, bool(said))
        assert said in done.stderr.decode()


def test_what_only_prints_fails_on_a_full_disk() -> None:
    done = subprocess.run(
        command("--help"), stdout=full_disk(), stderr=subprocess.PIPE, env=environment()
    )
    assert done.returncode == 1
    assert b"failed: standard output cannot be written (No space left" in done.stderr


def test_streams_are_as_before_where_somebody_listens() -> None:
    code = SAFE + SAFE + "import sys; print('é ↓'); sys.stderr.write('!'); print(sys.stdout.errors)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env=environment({"PYTHONIOENCODING": "latin-1:strict"}),
    )
    assert (done.stdout, done.stderr) == (b"\xe9 \\u2193\nbackslashreplace\n", b"!")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_pipe_that_does_not_block_is_waited_for(unbuffered: str) -> None:
    code = SAFE + "import os; os.set_blocking(1, False)\nprint('x' * 1_000_000)"
    env = environment({"PYTHONUNBUFFERED": unbuffered})
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=env)
    out, _ = child.communicate(timeout=60)
    assert (child.returncode, len(out)) == (0, 1_000_001)


def test_a_launchers_process_has_safe_streams_too(tmp_path: Path) -> None:
    code = f"""
from crgan_cli.experiments import job
def run_job(*_):
    {SAY.strip().replace(chr(10), chr(10) + "    ")}
job.run_job = run_job
job.run_job_on_every_rank(None, None)
"""
    assert run_code(code, tmp_path, stdout=broken_pipe(), stderr=broken_pipe()) == 0
    assert (tmp_path / "done").exists()


def test_a_training_finishes_with_nobody_listening(tmp_path: Path) -> None:
    typed = [word for word in tiny("out=run") if not word.startswith(("metrics", "extractor"))]
    done = subprocess.run(
        command("train", *typed, "metrics=none"),
        cwd=tmp_path,
        env=environment(),
        stdout=broken_pipe(),
        stderr=broken_pipe(),
    )
    assert done.returncode == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["status"], result["step"]) == ("finished", 6)
    assert "resum" not in (tmp_path / "run" / "train.log").read_text()


def test_a_report_is_written_with_nobody_listening(tmp_path: Path) -> None:
    write_run(tmp_path / "run", {300: 40.0})
    words = command("report", str(tmp_path / "run"), "--format", "csv")
    done = subprocess.run(words, stdout=broken_pipe(), stderr=subprocess.PIPE, env=environment())
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "run" / "report" / "rows.csv").is_file()
