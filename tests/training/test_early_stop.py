"""A run that ends when its metric no longer falls; with it everything else that has a schedule."""

import json
from pathlib import Path

import pytest
from support.kills import Killed, nth_call, raising
from support.runs import Crgan, different, lines, refused, tiny, train, unmeasured

from crgan_cli.errors import Interrupted
from crgan_cli.report.notes import describe_runs
from crgan_cli.report.read import read_run
from crgan_cli.runs.folder import RunDir
from crgan_cli.runs.outcome import has_ended
from crgan_cli.training.early_stop import EarlyStop
from crgan_cli.training.hooks import CheckpointManager, Evaluate
from crgan_cli.training.trainer import Trainer


def stops_at(values: list[float], patience: int | None, delta: float = 0.0, first: int = 0) -> int:
    """The number of the evaluation after which a run ends, from 1; 0 if it never does."""
    early = EarlyStop(patience, delta, first)
    for number, value in enumerate(values, start=1):
        early.observe(value, step=number)
        if early.ended:
            return number
    return 0


def test_patience_by_hand() -> None:
    falling = [5.0, 4.0, 4.5, 3.0, 3.0, 3.5, 2.0]
    assert stops_at(falling, 1) == 3  # 4.5 is above 4
    assert stops_at(falling, 2) == 6  # an equal value is not lower
    assert stops_at(falling, 3) == 0
    assert stops_at(falling, None) == 0
    assert stops_at([5.0, 4.5, 4.2, 3.9], 2, delta=1.0) == 3  # 4.5 and 4.2 are not below 5 - 1
    assert stops_at([5.0, 4.5, 3.9, 3.5], 2, delta=1.0) == 0  # 3.9 is
    assert stops_at([1.0, 2.0, 3.0, 4.0], 1, first=3) == 4  # networks that grew until step 3


# --- real runs ------------------------------------------------------------------------------------

# all that has a schedule; a large rate, so that the metric soon rises; 12 steps, ended at 6 or 8
KIND = (
    "steps=12",
    "metrics.every=2",
    "samples.every=5",
    "checkpoint.every=5",
    "log.every=4",
    "metrics.measures=[kid]",
    "early_stop.patience=2",
    "early_stop.min_delta=1000",
    "optimizer.decay=cosine",
    "optimizer.decay_d=linear",
    "optimizer.warmup=4",
    "optimizer.clip_grad_norm=0.5",
)
END = "checkpoints/step_00000006.pt"  # the first evaluation succeeds, two more do not


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ended early, and that nobody interrupted."""
    out = tmp_path_factory.mktemp("whole")
    train(out, *KIND)
    return out


def result(run: Path) -> dict:
    return json.loads((run / "result.json").read_text())


def test_a_run_ends_early_and_says_why(whole: Path) -> None:
    ended = result(whole)
    assert (ended["status"], ended["step"]) == ("finished", 6)
    stopped = ended["stopped_early"]
    assert (stopped["patience"], stopped["min_delta"]) == (2, 1000)
    said = "has not fallen below "
    assert said in stopped["reason"]
    assert stopped["reason"].endswith(" by more than 1000 in the last 2 evaluations")
    assert f"stopped early at step 6: {stopped['reason']}" in (whole / "train.log").read_text()
    assert (whole / END).exists()
    assert (whole / "samples/step_00000006.png").exists()
    assert [line["step"] for line in lines(whole, "eval")] == [2, 4, 6]
    assert [line["step"] for line in lines(whole, "train")] == [4, 6], "the last is of two steps"
    assert ended["last"]["step"] == 6


def test_it_is_whole_for_reports_and_tables(whole: Path) -> None:
    run = read_run(whole)
    assert (run.status, run.step, run.steps, run.stopped_early) == ("finished", 6, 12, True)
    assert describe_runs([run], [run], run.headline, "last") == "1 of 1 stopped early"
    asked = {"steps": 12, "early_stop": {"patience": 2, "min_delta": 1000.0}}
    assert has_ended(result(whole), asked)
    assert not has_ended(result(whole), {**asked, "early_stop": {"patience": 3, "min_delta": 0.0}})
    assert not has_ended({**result(whole), "status": "interrupted"}, asked)


def test_a_patience_that_is_lowered_when_it_is_over_ends_with_samples_and_metrics_of_that_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.train_step
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", nth_call(8, step, raising(Interrupted(15))))
        with pytest.raises(Interrupted):
            train(tmp_path, *KIND, "early_stop.patience=5")
    train(tmp_path, *KIND, "early_stop.patience=1")
    assert result(tmp_path)["step"] == 7
    assert (tmp_path / "samples/step_00000007.png").exists()
    assert [line["step"] for line in lines(tmp_path, "eval")] == [2, 4, 6, 7]


def test_there_is_nothing_more_to_do(whole: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = {path: path.read_bytes() for path in whole.rglob("*.pt")}
    train(whole, *KIND)
    assert "stopped early at step 6" in caplog.text
    assert "early_stop.patience=null" in caplog.text
    assert before == {path: path.read_bytes() for path in whole.rglob("*.pt")}


PLACES = {
    "warming_up": (Trainer, "train_step", 3, Killed()),
    "falling": (Trainer, "train_step", 6, Killed()),
    "before_the_evaluation_that_ends_it": (Evaluate, "__call__", 3, Interrupted(15)),
    "before_its_last_checkpoint": (CheckpointManager, "save", 3, Killed()),
    "before_its_result": (RunDir, "write_result", 2, Killed()),
}


@pytest.mark.parametrize("place", PLACES)
def test_interrupted_anywhere_it_ends_as_one_that_was_not(
    place: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name, n, error = PLACES[place]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, nth_call(n, getattr(owner, name), raising(error)))
        with pytest.raises(type(error)):
            train(tmp_path, *KIND)
    assert result(tmp_path)["status"] in ("running", "interrupted")
    train(tmp_path, *KIND)
    assert different(tmp_path / END, whole / END) == []
    for kind in ("train", "eval"):
        assert lines(tmp_path, kind) == lines(whole, kind)
    assert result(tmp_path)["stopped_early"] == result(whole)["stopped_early"]


def test_it_goes_on_as_if_it_had_never_ended(tmp_path: Path) -> None:
    train(tmp_path / "ended", *KIND)
    train(tmp_path / "straight", *KIND, "early_stop.patience=null")
    train(tmp_path / "ended", *KIND, "early_stop.patience=null")
    last = "checkpoints/step_00000012.pt"
    assert different(tmp_path / "ended" / last, tmp_path / "straight" / last) == []
    # the end had a line of its own, and the window after it began anew
    ended, straight = (lines(tmp_path / name, "train") for name in ("ended", "straight"))
    assert [line["step"] for line in ended] == [4, 6, 8, 12]
    assert [line for line in ended if line["step"] in (4, 12)] == [straight[0], straight[2]]
    assert "stopped_early" not in result(tmp_path / "ended")


def test_without_metrics_it_is_refused(crgan: Crgan, tmp_path: Path) -> None:
    typed = unmeasured(tiny(f"out={tmp_path / 'run'}", "early_stop.patience=2"))
    said = "early_stop.patience=2 waits for better metrics, and metrics=none measures nothing"
    refused(crgan("train", *typed), said)
    assert not (tmp_path / "run").exists()
