"""Records, one per line: a damaged line costs only itself, and is said."""

import json
from pathlib import Path

import pytest

from crgan_cli.evaluation.records import load_last_record
from crgan_cli.experiments.sweep_table import read_progress
from crgan_cli.report.read import read_metrics
from crgan_cli.runs.folder import RunDir
from crgan_cli.runs.jsonl import append_line, is_evaluation, is_metrics_line, read_records
from crgan_cli.runs.record import drop_lines_after, read_history

DAMAGE = {
    "garbage": b"what?",
    "zeros": b"\0" * 40,
    "half a letter": b'{"kind": "train", "step": 2, "a\xc3": 1.0}',
    "a list": b"[1]",
    "a number": b"7",
    "no step": b'{"kind": "train", "loss/d": 1.0}',
    "a step in words": b'{"kind": "train", "step": "two"}',
    "a metric in words": b'{"kind": "eval", "step": 2, "fid": "low"}',
    "a nest without end": b"[" * 100_000,
    "two lines in one": b'{"kind": "train", "step": 2}{"kind": "train", "step": 2}',
}
WHOLE = [
    {"kind": "train", "step": 1, "images_seen": 8, "speed/images_per_second": 4.0},
    {"kind": "eval", "step": 2, "images_seen": 16, "fid": 5.0},
]


def damaged(folder: Path, damage: bytes) -> RunDir:
    """A run whose log has a damaged line between two good ones."""
    run = RunDir(folder)
    first, last = (json.dumps(line).encode() for line in WHOLE)
    run.metrics.write_bytes(b"\n".join([first, damage, last, b""]))
    return run


@pytest.mark.parametrize("damage", DAMAGE)
def test_every_reader_leaves_out_the_same_lines(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = damaged(tmp_path, DAMAGE[damage])
    assert read_history(run) == WHOLE
    train, evals = read_metrics(run.metrics)
    assert [line["step"] for line in train + evals] == [1, 2]
    assert caplog.text.count("metrics.jsonl: a line that cannot be read is left out: ") == 2
    assert (read_progress(tmp_path).step, read_progress(tmp_path).metric) == (2, "5.000")


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_resumed_run_goes_on_and_keeps_a_copy(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number, copy in enumerate(["metrics.jsonl.damaged", "metrics.jsonl.damaged1"]):
        run = damaged(tmp_path, DAMAGE[damage])
        before = run.metrics.read_bytes()
        drop_lines_after(run, 2, hooks_done=True)
        assert (tmp_path / copy).read_bytes() == before
        assert caplog.messages[number].endswith(f". A copy is {copy}")
        assert [json.loads(line) for line in run.metrics.read_text().splitlines()] == WHOLE


def test_a_missing_log_of_a_run_with_steps_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    drop_lines_after(RunDir(tmp_path / "new"), 0, hooks_done=True)
    assert caplog.messages == []
    drop_lines_after(RunDir(tmp_path / "old"), 2, hooks_done=True)
    assert "is missing: this run's log begins anew after step 2" in caplog.text


def test_a_last_line_counts_if_it_is_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, whole = tmp_path / "metrics.jsonl", json.dumps(WHOLE[0])
    file.write_text(f"{whole}\n\n{whole}")
    assert read_records(file, is_metrics_line) == [WHOLE[0], WHOLE[0]]
    file.write_text(f"{whole}\n{whole[:-1]}")
    assert read_records(file, is_metrics_line) == [WHOLE[0]]
    assert caplog.messages == []


def test_what_is_appended_begins_a_line(tmp_path: Path) -> None:
    file, record = tmp_path / "evaluations.jsonl", {"fid": 1.0, "protocol": {}}
    for _ in range(2):
        append_line(file, json.dumps(record))
    with open(file, "a") as cut:
        cut.write('{"fid": 2.')
    append_line(file, json.dumps(record))
    assert file.read_text().splitlines()[2] == '{"fid": 2.'
    assert read_records(file, is_evaluation) == [record] * 3
    append_line(Path("/dev/null"), "nothing")  # --json /dev/stdout is no file to read from


def test_an_evaluation_is_found_behind_a_damaged_one(tmp_path: Path) -> None:
    good = {"step": 3, "fid": 2.0, "protocol": {"headline": "fid"}}
    file = tmp_path / "evaluations.jsonl"
    file.write_bytes(json.dumps(good).encode() + b"\n\0\0\n[1]\n")
    assert load_last_record(tmp_path).values == {"fid": 2.0}
