"""`crgan info` says what a run is, where it stands, and what to type next."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from support.run_folders import write_run
from support.runs import HEADLINE, PIPES, Crgan, different, environment, refused, tiny, unmeasured

from crgan_cli.config.changes import list_changes, list_unchosen
from crgan_cli.config.choices import Choices
from crgan_cli.config.compose import compose
from crgan_cli.config.resolve import to_plain
from crgan_cli.errors import RunFailed
from crgan_cli.report import run_info
from crgan_cli.runs import checkpoint
from crgan_cli.training.start import train_run
from crgan_cli.training.trainer import Trainer


def read(crgan: Crgan, *words: object) -> dict:
    code, out, err = crgan("info", *words, "--json")
    assert code == 0, err
    return json.loads(out)


@pytest.fixture
def copied(scored: Path, tmp_path: Path) -> Path:
    """A run that a test may change."""
    return Path(shutil.copytree(scored, tmp_path / "a run"))


def test_a_run_is_told_in_full(crgan: Crgan, scored: Path) -> None:
    found = read(crgan, scored)
    assert (found["status"], found["step"], found["steps"], found["seed"]) == ("finished", 4, 4, 1)
    assert found["choices"]["regularizer"] == "cr"
    assert found["settings"]["architecture.width"] == 0.02
    assert not {"steps", "seed", "out", "regularizer.lambda_cr"} & found["settings"].keys()
    assert (found["metric"], found["last"]["step"]) == (HEADLINE, 4)
    assert found["best"][HEADLINE] <= found["last"][HEADLINE]
    assert found["protocol"]["num_samples"] == 8
    assert found["checkpoints"][0]["step"] == found["resumes_from"] == 4
    assert found["provenance"]["torch"]
    assert found["images_per_second"] > 0
    assert found["bytes"] > found["checkpoints"][0]["bytes"]

    _, text, _ = crgan("info", scored)
    for name, value in (
        ("status", "finished: 4 of 4 steps in "),
        ("changed", "batch_size=4 device=cpu ema.decay=0.5 "),
        ("last", f"{HEADLINE} "),
        (
            "protocol",
            "demo_8_test: 8 generated and 8 real images (test), extractor effnetlite0_32 (",
        ),
        ("checkpoints", "step 4 ("),
        ("made by", "crgan "),
    ):
        assert f"  {name:13} {value}" in text
    assert text.endswith(
        f"next:\n  crgan sample {scored}\n  crgan eval {scored}\n  crgan report {scored}\n"
    )


def test_a_checkpoint_is_told_too(crgan: Crgan, scored: Path) -> None:
    found = read(crgan, scored / "checkpoints" / "step_00000002.pt")
    assert (found["step"], found["steps"]) == (2, 4)
    assert found["settings"] == read(crgan, scored)["settings"]
    assert found["class_names"][0] == "t-shirt/top"
    assert found["numbers"]["ema"] < found["numbers"]["task"]
    assert (
        "checkpoint after 2 of 4 steps"
        in crgan("info", scored / "checkpoints" / "step_00000002.pt")[1]
    )


def test_of_a_checkpoint_without_its_run_no_default_is_told_as_changed(
    crgan: Crgan, scored: Path, tmp_path: Path
) -> None:
    """Several files have the classes of its optimizer and its metrics."""
    shutil.copy(scored / "checkpoints" / "step_00000002.pt", tmp_path / "alone.pt")
    alone = read(crgan, tmp_path / "alone.pt")
    unchosen = alone["unchosen"]
    assert {"metrics", "optimizer"} <= {*unchosen}
    assert not alone["choices"].keys() & {*unchosen}
    assert not [key for key in alone["settings"] if key.partition(".")[0] in unchosen]
    assert alone["settings"]["architecture.width"] == 0.02
    assert list_unchosen(to_plain(compose([])), Choices().defaults()) == []
    said = f"  not known     the choices of {', '.join(unchosen)}, and what"
    assert said in crgan("info", tmp_path / "alone.pt")[1]


def test_a_run_that_stopped_early_says_why_and_how_it_goes_on(crgan: Crgan, copied: Path) -> None:
    """`tests/training/test_early_stop.py` goes on with that setting."""
    config = yaml.safe_load((copied / "config.yaml").read_text())
    early = {"patience": 1, "min_delta": 0.0}
    (copied / "config.yaml").write_text(yaml.safe_dump(config | {"steps": 9, "early_stop": early}))
    result = json.loads((copied / "result.json").read_text())
    stopped = early | {"reason": "fid has not fallen"}
    (copied / "result.json").write_text(json.dumps(result | {"stopped_early": stopped}))
    found = read(crgan, copied)
    assert found["stopped_early"] == "fid has not fallen"
    *_, last = found["next"]
    assert last == f"crgan train --from '{copied}' early_stop.patience=null"
    assert sum("crgan train" in command for command in found["next"]) == 1
    text = crgan("info", copied)[1]
    assert re.search(r"finished: 4 of 9 steps in .*\. Stopped early: fid has not fallen\n", text)


def test_a_killed_run_goes_on_from_its_newest_good_checkpoint(crgan: Crgan, copied: Path) -> None:
    result = json.loads((copied / "result.json").read_text())
    kept = {key: result[key] for key in ("choices", "protocol", "provenance")}
    (copied / "result.json").write_text(json.dumps({"status": "running", **kept}))
    newest = copied / "checkpoints" / "step_00000004.pt"
    newest.write_bytes(newest.read_bytes()[:5000] + b"x" + newest.read_bytes()[5001:])
    found = read(crgan, copied)
    assert (found["status"], found["resumes_from"]) == ("interrupted", 2)
    assert "killed" in found["error"]
    assert [each["state"] for each in found["checkpoints"]] == ["damaged", "good"]
    assert found["next"][0] == f"crgan train --from '{copied}'"
    shutil.rmtree(copied / "checkpoints")
    assert read(crgan, copied)["next"] == [f"crgan train --from '{copied}'"]


def test_a_run_that_trains_is_not_to_be_resumed(crgan: Crgan, copied: Path) -> None:
    (copied / "result.json").write_text(json.dumps({"status": "running"}))
    with FileLock(copied / ".lock"):
        found = read(crgan, copied)
        assert found["status"] == "running"
        assert found["next"][0] == f"crgan sample '{copied}'"
        shutil.rmtree(copied / "checkpoints")
        assert read(crgan, copied)["next"] == []
        assert "next:" not in crgan("info", copied)[1]


@pytest.mark.parametrize("when", ["before it is opened", "while it is read"])
def test_a_checkpoint_that_training_deletes_meanwhile_is_left_out(
    crgan: Crgan, copied: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """The newest is read, seconds if it is large; the run saves others and deletes the old."""
    read_state = run_info.read_state

    def delete_too(path: Path) -> str:
        if when == "while it is read":
            state = read_state(path)
            shutil.rmtree(path.parent)
            return state
        path.unlink()
        return read_state(path)

    monkeypatch.setattr(run_info, "read_state", delete_too)
    found = read(crgan, copied)
    left = [(each["step"], each["state"]) for each in found["checkpoints"]]
    assert left == ([(4, "good")] if when == "while it is read" else [])


def test_a_checkpoint_that_training_deletes_after_it_was_read_is_told(
    crgan: Crgan, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, path = checkpoint.load, copied / "checkpoints" / "step_00000002.pt"
    size = path.stat().st_size

    def delete_too(path: Path) -> checkpoint.Content:
        content = load(path)
        path.unlink()
        return content

    monkeypatch.setattr(checkpoint, "load", delete_too)
    assert read(crgan, path)["bytes"] == size


def test_a_run_that_failed_tells_what_made_it(
    crgan: Crgan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The versions and the device are in result.json from the start, not from the end on."""

    def fail(*_: object) -> None:
        raise RunFailed("the disk is full")

    monkeypatch.setattr(Trainer, "fit", fail)
    typed = unmeasured(tiny(f"out={tmp_path / 'run'}"))
    with pytest.raises(RunFailed):
        train_run(compose(typed), typed, {}, None)
    found = read(crgan, tmp_path / "run")
    assert (found["status"], found["error"]) == ("failed", "RunFailed: the disk is full")
    assert found["provenance"]["device"] == "cpu (1 threads)"


def test_a_folder_of_runs_is_a_table(crgan: Crgan, tmp_path: Path) -> None:
    write_run(tmp_path / "sweep" / "seed=1", {100: 30.0, 200: 20.0, 300: 25.0})
    more = {"error": "RunFailed: full"}
    write_run(tmp_path / "sweep" / "seed=2", {}, seed=2, status="failed", more=more)
    broken = write_run(tmp_path / "sweep" / "seed=3", {})
    (broken / "config.yaml").write_text("steps: [")
    _, out, _ = crgan("info", tmp_path / "sweep")
    lines = out.splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["job", "status", "step", "best", "metric"],
        ["seed=1", "finished", "300", "of", "300", "20.0000", "at", "200", "fid"],
        ["seed=2", "failed", "300", "of", "300", "-"],
    ]
    assert lines[3].split() == ["seed=3", "failed", "-", "-"]
    assert "seed=2: RunFailed: full" in lines
    assert "cannot be read as the configuration of a run" in out
    assert len(read(crgan, tmp_path / "sweep")["runs"]) == 3


def test_what_is_no_run_is_refused(crgan: Crgan, tmp_path: Path) -> None:
    refused(crgan("info", "nowhere"), "there is nothing at nowhere")
    refused(crgan("info", tmp_path), "is empty")


def test_a_run_is_read_without_torch(scored: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from crgan_cli.commands.main import run_command; "
        "code = run_command(sys.argv[1:]); print(code, 'torch' in sys.modules)"
    )
    words = [sys.executable, "-c", code, "info", str(scored)]
    done = subprocess.run(words, cwd=tmp_path, env=environment(), **PIPES)
    assert done.stdout.splitlines()[-1] == "0 False", done.stderr


def test_what_follows_another_setting_is_no_change_of_its_own() -> None:
    typed = ["dataset=folder", "dataset.root=photos", "dataset.resolution=32", "loss=hinge"]
    config = to_plain(compose(typed))
    chosen = {**Choices().defaults(), "dataset": "folder", "loss": "hinge"}
    chosen |= {"metrics": "fid1k_train", "extractor": "inception"}  # which the data set brings
    assert list_changes(config, chosen) == {"dataset.root": "photos", "dataset.resolution": 32}
    config["architecture"]["resolution"] = 64
    assert list_changes(config, chosen)["architecture.resolution"] == 64


def test_a_sum_and_a_choice_of_ones_own() -> None:
    config = to_plain(compose(["regularizer=[cr,gp]", "regularizer.lambda_gp=3"]))
    chosen = {**Choices().defaults(), "regularizer": "[cr,gp]"}
    assert list_changes(config, chosen) == {"regularizer.lambda_gp": 3}
    changed = list_changes(config, {**chosen, "regularizer": "mine"})  # constructors' defaults
    assert changed["regularizer.lambda_gp"] == 3
    assert "regularizer.every" not in changed


def test_a_folder_of_ones_own_yaml_is_in_the_line_that_can_be_typed_again(
    crgan: Crgan, tmp_path: Path
) -> None:
    own = tmp_path / "my conf's" / "regularizer"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("defaults: [cr, _self_]\n\nlambda_cr: 3.0\n")
    typed = ["regularizer=mine", "steps=2", "samples.every=2", "out=run"]
    typed = unmeasured(tiny(*typed))
    assert crgan("train", "--config-dir", "my conf's", *typed)[0] == 0
    words = shlex.split((tmp_path / "run/overrides.txt").read_text())
    assert words == ["crgan", "train", "--config-dir", str(own.parent), *typed]
    words = [word.replace("out=run", "out=again") for word in words[1:]]
    assert crgan(*words)[0] == 0
    files = [tmp_path / run / "checkpoints/step_00000002.pt" for run in ("run", "again")]
    assert different(*files) == []
    assert crgan("info", "run")[1].count("--config-dir") == 1
