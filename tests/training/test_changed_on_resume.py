"""What `crgan train --from` lets change, says, and keeps."""

import json
from pathlib import Path

import pytest
import torch
from support.runs import Crgan, different, lines, refused, tiny, train, unmeasured

from crgan_cli.errors import UserError
from crgan_cli.report.notes import describe_runs
from crgan_cli.report.read import read_run

FIRST = tuple(unmeasured(tiny("steps=2", "log.every=2", "checkpoint.every=2")))

KEPT = ("config.yaml", "overrides.txt", "result.json", "metrics.jsonl", "metrics.csv")
"""What a refusal leaves as it is."""


@pytest.fixture
def begun(crgan: Crgan, tmp_path: Path) -> Path:
    """A run of two steps."""
    assert crgan("train", *FIRST, f"out={tmp_path / 'run'}")[0] == 0
    return tmp_path / "run"


def log_of(run: Path) -> str:
    return (run / "train.log").read_text()


def result(run: Path) -> dict:
    return json.loads((run / "result.json").read_text())


def test_how_often_to_look_changes_freely_and_training_stays_as_it_was(
    crgan: Crgan, begun: Path, tmp_path: Path
) -> None:
    cadence = ("log.every=1", "samples.every=1", "samples.num=2", "checkpoint.every=1")
    assert crgan("train", "--from", begun, "steps=5", *cadence)[0] == 0
    assert [line["step"] for line in lines(begun, "train")] == [2, 3, 4, 5]
    assert {path.name for path in begun.glob("samples/*3.png")} == {"step_00000003.png"}
    said = next(line for line in log_of(begun).splitlines() if "changed from step 2 on: " in line)
    for words in ("log.every: 2 -> 1", "samples.num: 4 -> 2", "steps: 2 -> 5"):
        assert words in said
    assert "former optimizer settings" not in log_of(begun)
    (change,) = result(begun)["changes"]
    assert change["step"] == 2
    assert {"log.every: 2 -> 1", "steps: 2 -> 5"} < set(change["settings"])

    typed = [*FIRST, "steps=5", f"out={tmp_path / 'straight'}"]
    assert crgan("train", *typed)[0] == 0
    assert "changes" not in result(tmp_path / "straight")
    last = "checkpoints/step_00000005.pt"
    left = different(begun / last, tmp_path / "straight" / last)
    assert [name for name in left if not name.startswith("/window/")] == []


def test_the_optimizer_changes_with_a_warning_and_the_record_keeps_both(
    crgan: Crgan, begun: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ("optimizer.lr_g=0.001", "optimizer.clip_grad_norm=0.5")
    code, _, said = crgan("train", "--from", begun, "steps=4", *words)
    assert code == 0
    assert "changed from step 2 on: steps: 2 -> 4, optimizer.lr_g: 0.0002 -> 0.001" in said
    assert "optimizer.clip_grad_norm: null -> 0.5" in said
    (warned,) = (record for record in caplog.records if "former optimizer" in record.message)
    assert warned.levelname == "WARNING"
    assert lines(begun, "train")[-1]["learning_rate/g"] == pytest.approx(1e-3)

    run = read_run(begun)
    assert describe_runs([run], [run], "", "last") == "1 of 1 began with another optimizer"

    # typed once; another session has them, and the record of all
    assert crgan("train", "--from", begun, "steps=6", "optimizer.beta1=0.9")[0] == 0
    first, second = result(begun)["changes"]
    assert "optimizer.lr_g: 0.0002 -> 0.001" in first["settings"]
    assert second == {"step": 4, "settings": ["steps: 4 -> 6", "optimizer.beta1: 0.5 -> 0.9"]}
    (group,) = torch.load(begun / "checkpoints/step_00000006.pt", weights_only=True)["states"][
        "optimizer_g"
    ]["param_groups"]
    assert group["lr"].item() == pytest.approx(1e-3)
    assert group["betas"] == (0.9, 0.999)


def test_a_change_survives_a_kill_before_the_first_checkpoint_with_it(
    crgan: Crgan, begun: Path
) -> None:
    before = (begun / "checkpoints/step_00000002.pt").read_bytes()
    assert crgan("train", "--from", begun, "steps=4", "optimizer.lr_g=0.001")[0] == 0
    for path in begun.glob("checkpoints/*"):
        path.unlink()
    (begun / "checkpoints/step_00000002.pt").write_bytes(before)
    (begun / "result.json").write_text(
        json.dumps({"status": "running", "changes": result(begun)["changes"]})
    )
    assert crgan("train", "--from", begun)[0] == 0
    assert lines(begun, "train")[-1]["learning_rate/g"] == pytest.approx(1e-3)
    assert [change["step"] for change in result(begun)["changes"]] == [2]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("optimizer.n_dis=2", "optimizer.n_dis: 1 -> 2"),
        ("optimizer=goodfellow", "optimizer._target_: "),
        ("regularizer.lambda_cr=5", "takes the run's own settings"),
        ("metrics=none", "takes the run's own settings"),
        ("log.evry=5", "Did you mean"),
    ],
)
def test_what_would_be_another_run_is_refused(
    crgan: Crgan, begun: Path, word: str, said: str
) -> None:
    before = (begun / "config.yaml").read_text()
    refused(crgan("train", "--from", begun, "steps=4", word), said)
    assert (begun / "config.yaml").read_text() == before


def test_a_checkpoint_that_does_not_fit_leaves_the_run_as_it_was(
    crgan: Crgan, tmp_path: Path
) -> None:
    """Adam needs the number of its steps, which gradient descent has not saved."""
    run, sgd = tmp_path / "run", [*FIRST, "optimizer=goodfellow", "logger=csv"]
    assert crgan("train", *sgd, f"out={run}")[0] == 0
    with (run / "metrics.jsonl").open("a") as file:  # of a step that a kill left unsaved
        file.write('{"kind": "train", "step": 3, "images_seen": 12}\n')
    before = {path: path.read_bytes() for path in run.rglob("*") if path.name in KEPT}
    assert len(before) == len(KEPT)
    force = ("optimizer=adam", "steps=4", "resume=force", "logger=csv", f"out={run}")
    said = "does not fit this configuration: optimizer_d (AdamInMemoryOrder): it has no 'step'"
    refused(crgan("train", *FIRST, *force), said, "crgan info ")
    assert {path: path.read_bytes() for path in before} == before
    assert "changed from step" not in log_of(run)
    assert crgan("train", "--from", run, "steps=4")[0] == 0
    assert [line["step"] for line in lines(run, "train")] == [2, 4]


def test_more_steps_of_a_rate_that_falls_are_refused_unless_it_falls_only_from_now_on(
    crgan: Crgan, begun: Path, tmp_path: Path
) -> None:
    assert crgan("train", "--from", begun, "steps=4", "optimizer.decay=linear")[0] == 0
    said = "steps: 4 -> 8 (optimizer.decay runs over them)"
    refused(crgan("train", "--from", begun, "steps=8"), said)
    assert crgan("train", "--from", begun, "steps=8", "optimizer.decay=none")[0] == 0


def test_the_whole_command_takes_no_other_optimizer(tmp_path: Path) -> None:
    train(tmp_path, "steps=2", "metrics.measures=[kid]", "metrics.every=2")
    with pytest.raises(UserError, match=r"optimizer.lr_g: 0.0002 -> 0.001"):
        train(tmp_path, "metrics.measures=[kid]", "metrics.every=2", "optimizer.lr_g=0.001")
    train(tmp_path, "steps=3", "metrics.measures=[kid]", "metrics.every=1", "log.every=1")
    assert [line["step"] for line in lines(tmp_path, "eval")] == [2, 3]
