"""A sweep's table on a terminal: one, below what all processes say."""

import logging
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from support.runs import environment

from crgan_cli.system.captured_lines import captured_lines
from crgan_cli.system.console import log_to_stderr

SWEEP = """
import os, subprocess, sys
from pathlib import Path
from crgan_cli.experiments.sweep_state import SweepJob, SweepState
from crgan_cli.experiments.sweep_table import live_table

state = SweepState(Path("sweep"), 2)
state.clear()
state.write(SweepJob(1, "seed=1", "seed=1", "running"))
with live_table(state, 10):
    print("the start", file=sys.stderr)
    worker = "import os; os.write(2, b'a worker says\\\\nthree lines\\\\nof its own\\\\n')"
    subprocess.run([sys.executable, "-c", worker])
    os.write(1, b"a result\\n")
    print("a message", file=sys.stderr)
print("the end", file=sys.stderr)
"""


def on_a_terminal(script: str, cwd: Path) -> str:
    """What a Python script writes to a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=theirs,
        stderr=theirs,
        cwd=cwd,
        env=environment({"COLUMNS": "80", "LINES": "24", "TERM": "xterm"}),
    )
    os.close(theirs)
    written = b""
    with suppress(OSError):  # the terminal is gone with its last process
        while part := os.read(ours, 4096):
            written += part
    os.close(ours)
    assert process.wait() == 0, written
    return written.decode()


def shown(written: str) -> list[str]:
    """The lines of a terminal after text, ends of lines, cursor up and erased lines."""
    lines, row, column = [""], 0, 0
    for count, command, end, text in re.findall(
        r"\x1b\[([\d?;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)", written
    ):
        if command == "A":
            row -= int(count or 1)
        elif command == "K":
            lines[row] = ""
        elif end == "\r":
            column = 0
        elif end == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif text:
            before, after = lines[row][:column].ljust(column), lines[row][column + len(text) :]
            lines[row], column = before + text + after, column + len(text)
    return [line.rstrip() for line in lines if line.strip()]


def test_what_all_processes_say_stays_above_one_table(tmp_path: Path) -> None:
    written = on_a_terminal(SWEEP, tmp_path)
    worker = ["a worker says", "three lines", "of its own"]
    said = ["the start", *worker, "a result", "a message", "the end"]
    assert shown(written) == said
    table, _, _ = written.rpartition("the end")
    *lines, title, head, row = shown(table.rpartition("\x1b[?25h")[0])
    assert lines == said[:-1]
    assert title == "1 of 2 jobs: 1 running, 1 to come"
    assert head.split() == ["job", "settings", "state", "step", "metric", "time", "left"]
    assert row.split() == ["1", "seed=1", "running", "0", "/", "10"]


def test_lines_are_captured_to_the_end_although_a_process_lives_on() -> None:
    lines: list[str] = []
    with captured_lines([2], lines.append):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        os.write(2, b"one\n\ntwo \xff\r\nhalf")
    child.communicate(b"\n")
    assert lines == ["one", "", r"two \xff", "half"]


@pytest.mark.parametrize(("tabled", "said"), [(False, "plan\nnotice\n"), (True, "notice\n")])
def test_next_to_a_table_no_job_announces_what_is_in_its_log(
    tabled: bool, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CRGAN_TABLED", raising=False)
    if tabled:
        monkeypatch.setenv("CRGAN_TABLED", "1")
    with log_to_stderr():
        logging.getLogger("crgan_cli.training").info("plan")
        logging.getLogger("crgan_cli.training").warning("notice")
    assert capsys.readouterr().err == said
