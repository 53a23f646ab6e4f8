"""`bench.py share`: what it counts, by hand, and one real run; how fast it is, is not asserted."""

import argparse
import json
import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "scripts"))  # where it finds its own modules

from benchmarks import share
from benchmarks.checkout import ROOT, environment
from benchmarks.share import Point, Race, images_between, numbers, race, table, ways

from crgan_cli.errors import UserError
from crgan_cli.system import mps

SEEN = [Point(10.0, 5, 50), Point(12.0, 10, 100), Point(16.0, 30, 300)]


@pytest.mark.parametrize(
    ("start", "end", "images"),
    [(10.0, 16.0, 250.0), (11.0, 12.0, 25.0), (12.0, 14.0, 100.0), (11.0, 13.0, 75.0)],
)
def test_images_in_a_span_of_time_by_hand(start: float, end: float, images: float) -> None:
    assert images_between(SEEN, start, end) == images


def test_all_are_compared_with_one_alone() -> None:
    races = [Race(1, "", 4.0, 200.0, 200.0, 200.0), Race(2, "on", 5.0, 300.0, 140.0, 160.0)]
    one, two = list(table(races))[2:]
    assert one == "| 1 | - | 200 | 1.00 | 200 to 200 | 4.0 |"
    assert two == "| 2 | on | 300 | 1.50 | 140 to 160 | 5.0 |"


def test_on_cuda_it_is_measured_with_and_without_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    theirs: list[str | None] = [None]
    monkeypatch.setattr(mps, "find_running_daemon", lambda environment: theirs[0])
    monkeypatch.setattr(share.shutil, "which", lambda program: f"/usr/bin/{program}")
    assert ways(2, torch.device("cpu")) == [""]
    assert [ways(1, cuda), ways(2, cuda)] == [["off"], ["off", "on"]]
    theirs[0] = "/tmp/nvidia-mps"
    assert ways(2, cuda) == ["theirs"]


@pytest.mark.parametrize("text", ["0", "1,x", "", "1,,2", "-1"])
def test_numbers_of_processes_are_whole_and_above_zero(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="not a whole number of at least 1"):
        numbers(text)
    assert numbers("1,2,4") == [1, 2, 4]


def test_what_a_benchmark_starts_keeps_the_callers_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert environment()["PYTHONPATH"] == str(ROOT)
    monkeypatch.setenv("PYTHONPATH", "/site:.")
    assert environment()["PYTHONPATH"] == f"{ROOT}{os.pathsep}/site:."


def test_a_run_that_ends_early_is_told_of() -> None:
    with pytest.raises(UserError, match=r"crgan train ended with 2: .*Unknown setting 'tempo'"):
        race(1, "", ["tempo=3"], 1, 1)


def test_two_runs_are_timed_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    share.add(parser.add_subparsers())
    tiny = ["architecture.width=0.02", "batch_size=4", "engine.threads=1", "device=cpu"]
    counts = ["--k", "2", "--steps", "3", "--warm-up", "2", "--json", str(tmp_path / "found.json")]
    args = parser.parse_args(["share", *counts, *tiny])
    args.run(args)
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert [row["k"] for row in rows] == [1, 2]
    assert all(0 < row["slowest"] <= row["fastest"] for row in rows)
    assert rows[0]["images_per_second"] == rows[0]["slowest"]
    assert rows[1]["images_per_second"] == pytest.approx(rows[1]["slowest"] + rows[1]["fastest"])
    assert "| 2 | - |" in capsys.readouterr().out
