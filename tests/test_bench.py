"""The benchmark runs, and its numbers add up; how fast anything is, is not asserted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from runs import PIPES, environment

SCRIPT = Path(__file__).parents[1] / "scripts" / "bench.py"
TINY = [
    "--n",
    "16",
    "--batch-size",
    "8",
    "--rounds",
    "1",
    "--extractor-side",
    "32",
    "--device",
    "cpu",
    "--threads",
    "1",
]


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *words], env=environment(None), **PIPES)


def test_the_parts_of_an_evaluation_add_up_to_the_whole(tmp_path: Path) -> None:
    done = bench("eval", *TINY, "--json", str(tmp_path / "times.json"))
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "times.json").read_text())
    parts = record["parts"]
    assert list(parts) == [
        "G's draw",
        "quantise",
        "resize and extractor",
        "moments",
        "Frechet term",
        "KID",
        "IS",
    ]
    assert all(each["seconds"] > 0 for each in parts.values())
    assert sum(each["share"] for each in parts.values()) == pytest.approx(1)
    assert sum(each["seconds"] for each in parts.values()) == pytest.approx(record["seconds"])
    assert record["images_per_second"] == pytest.approx(16 / record["seconds"])
    assert (record["n"], record["batch_size"], record["rounds"]) == (16, 8, 1)
    assert (record["device"], record["threads"]) == ("cpu", 1)
    assert record["extractor"] == "effnetlite0_32"
    assert len(record["others"]) == 2
    for each in record["others"].values():
        assert each["ratio"] == pytest.approx(each["others"] / each["ours"])
    for name in (*parts, *record["others"]):
        assert f"| {name} |" in done.stdout


def test_what_cannot_be_timed_is_refused() -> None:
    done = bench("eval", *TINY, "--n", "1")
    assert done.returncode == 2
    assert "--n 1: a covariance needs 2 images" in done.stderr
