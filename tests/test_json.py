"""All JSON that the package writes is JSON: there is no NaN and no infinity in it."""

import ast
import json
from pathlib import Path

import pytest

import crgan_cli
from crgan_cli.evaluation.records import Evaluation, append_record
from crgan_cli.experiments.sweep_state import SweepJob, SweepState
from crgan_cli.runs.folder import RunDir
from crgan_cli.runs.record import drop_lines_after
from crgan_cli.system.atomic import write_json
from crgan_cli.system.numbers import name_nonfinite

ROOT = Path(crgan_cli.__file__).parent
IN_MEMORY = {"training/costs.py", "experiments/job_folder.py"}
"""Their texts are a key and a hash, and no file."""
NAN = float("nan")


def allows_nan(call: ast.Call) -> bool:
    """Whether it is a call of json.dump or dumps without allow_nan=False."""
    called = ast.unparse(call.func)
    words = {word.arg: ast.unparse(word.value) for word in call.keywords}
    return called in ("json.dump", "json.dumps") and words.get("allow_nan") != "False"


def test_nothing_writes_json_that_allows_nan() -> None:
    found = {
        file.relative_to(ROOT).as_posix()
        for file in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and allows_nan(node)
    }
    assert found == IN_MEMORY


def test_a_file_is_refused_before_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"a": NAN})
    with pytest.raises(ValueError, match="JSON compliant"):
        append_record(Evaluation({"step": 1}, {"kid": NAN}, {}), tmp_path / "b.jsonl")
    assert not (tmp_path / "a.json").exists()
    assert not (tmp_path / "b.jsonl").exists()


def test_a_job_whose_metric_is_no_number_has_none(tmp_path: Path) -> None:
    state = SweepState(tmp_path)
    state.write(SweepJob(0, "a", "a", "finished", value=NAN))
    state.write(SweepJob(1, "b", "b", "finished", value=9e-5))
    assert [job.value for job in state.jobs()] == [None, 9e-5]


def test_a_log_of_an_older_version_is_cut_and_otherwise_left_as_it_is(tmp_path: Path) -> None:
    lines = ['{"kind": "eval", "step": 1, "kid": NaN}\n', '{"kind": "eval", "step": 2}\n']
    run = RunDir(tmp_path)
    run.metrics.write_text("".join(lines))
    drop_lines_after(run, 1, hooks_done=True)
    assert run.metrics.read_text() == lines[0]


def test_numbers_that_are_not_finite_are_named_by_their_place() -> None:
    record = {"a": {"b": [1.0, NAN], "c": (2, float("inf"))}, "d": 3.0, "e": "nan", "f": None}
    assert name_nonfinite(record) == ["a.b.1", "a.c.1"]
    assert json.loads(json.dumps(name_nonfinite({}))) == []
