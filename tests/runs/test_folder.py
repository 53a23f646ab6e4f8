"""A run's folder: nobody else's, one process at a time, and gone again where nothing came of it."""

import json
from pathlib import Path

import pytest
from support.runs import train

from crgan_cli.errors import UserError
from crgan_cli.runs.folder import RunDir, new_folder


def test_two_folders_made_at_once_differ(tmp_path: Path) -> None:
    folders = [new_folder(tmp_path, None, {"dataset": "demo"}) for _ in range(50)]
    assert len(set(folders)) == 50
    assert all(folder.is_dir() for folder in folders)


def test_a_new_folder_is_named_after_the_experiment_and_the_choices(tmp_path: Path) -> None:
    choices = {"dataset": "demo", "architecture": "dcgan", "regularizer": "[cr,gp]", "loss": "x"}
    folder = new_folder(tmp_path, "icr_cifar10", choices)
    assert folder.parent == tmp_path / "icr_cifar10"
    assert folder.name.endswith("-demo_dcgan_cr+gp")


def test_a_claim_is_exclusive_and_ends(tmp_path: Path) -> None:
    with (
        RunDir(tmp_path).lock(),
        pytest.raises(UserError, match=r"another crgan is training in .* out=FOLDER"),
        RunDir(tmp_path).lock(),
    ):
        pytest.fail("two runs in one folder")
    kept = RunDir(tmp_path).lock()  # a name that outlives the body does not keep the lock
    with kept:
        pass
    with RunDir(tmp_path).lock():
        pass


def test_a_claim_ends_where_its_run_fails(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk") as kept, RunDir(tmp_path).lock():
        raise OSError("disk")
    with RunDir(tmp_path).lock():  # though a sweep may keep the error, and all that led to it
        assert kept.value.__traceback__


def test_a_run_that_died_before_it_began_does_not_bar_its_folder(tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text("device=auto: using cpu\n")
    (tmp_path / ".lock").touch()
    with RunDir(tmp_path).lock():
        pass


def test_a_folder_of_other_things_is_not_claimed(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    (tmp_path / "train.log").touch()
    with pytest.raises(UserError, match=r"\(thesis.tex\)"), RunDir(tmp_path).lock():
        pytest.fail("claimed")


def test_a_folder_that_cannot_be_made_is_a_matter_of_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"cannot be created .* out=FOLDER"),
        RunDir(tmp_path / "file" / "run").lock(),
    ):
        pytest.fail("claimed")
    with pytest.raises(UserError, match=r"cannot be created .* out=FOLDER"):
        new_folder(tmp_path / "file", None, {})


def test_only_what_was_made_for_a_run_that_did_not_begin_is_removed(tmp_path: Path) -> None:
    made, given, foreign, begun = (tmp_path / name / "run" for name in ("a", "b", "c", "d"))
    for folder in (given, foreign, begun):
        folder.mkdir(parents=True)
    for folder in (made, given, foreign, begun):
        run = RunDir(folder)
        with run.lock():
            run.log.touch()
            if folder == foreign:
                (folder / "mine.txt").touch()
            if folder == begun:
                run.config.touch()
            run.discard_if_empty()
    assert not made.parent.exists()
    assert list(given.iterdir()) == []
    assert (foreign / "mine.txt").exists()
    assert begun.joinpath("config.yaml").exists()
    assert begun.joinpath("train.log").exists()


def test_a_run_that_cannot_begin_leaves_no_folder(tmp_path: Path) -> None:
    out, data = tmp_path / "run", f"dataset.root={tmp_path / 'nowhere'}"
    sizes = ("dataset.resolution=32", "dataset.channels=3", "dataset.classes=0")
    with pytest.raises(UserError, match="nowhere"):
        train(out, "dataset=folder", "metrics=demo", data, *sizes)
    assert not out.exists()


def test_a_result_is_written_whole(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert run.read_result() == {}
    run.extra_fields["choices"] = {"regularizer": "icr"}
    run.write_result({"status": "failed"})
    run.write_result({"status": "finished", "best": {"step": 3.0}})
    written = {"status": "finished", "best": {"step": 3.0}, "choices": {"regularizer": "icr"}}
    assert json.loads(run.result.read_text()) == run.read_result() == written
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize(
    "damage",
    [
        b'{"status": "fini',
        b"\0" * 20,
        b'"\xff"',
        b"[1]",
        b'{"status": "finished", "step": "6"}',
        b'{"status": "finished", "last": [1]}',
        b'{"status": "finished", "last": {"fid": "low"}}',
        b'{"status": "finished", "protocol": null}',
        b'{"status": "finished", "seconds": null}',
    ],
)
def test_a_damaged_result_is_none_and_is_said(
    damage: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunDir(tmp_path)
    run.result.write_bytes(damage)
    assert run.read_result() == {}
    assert "result.json is damaged" in caplog.text


def test_what_a_kill_left_of_the_first_files_does_not_bar_the_folder(tmp_path: Path) -> None:
    (tmp_path / "overrides.txt").touch()
    (tmp_path / "config.yaml.123.partial").touch()
    with RunDir(tmp_path).lock():
        assert not list(tmp_path.glob("*.partial"))


# --- links ---


INSIDE = (
    ".lock",
    "config.yaml",
    "overrides.txt",
    "train.log",
    "metrics.jsonl",
    "result.json",
    "metrics.csv",
    "loggers.json",
    "evaluations.jsonl",
    "checkpoints",
    "samples",
    "tensorboard",
    "artefacts",
    "checkpoints/step_00000002.pt",
    "samples/step_00000002.png",
    "artefacts/step_00000002_ema/leakage.json",
)


@pytest.mark.parametrize("name", INSIDE)
def test_nothing_is_written_through_a_link_in_a_run(name: str, tmp_path: Path) -> None:
    outside, link = tmp_path / "outside", tmp_path / "run" / name
    outside.mkdir()
    link.parent.mkdir(parents=True)
    link.symlink_to(outside / "mine" if "." in link.name else outside)
    with (
        pytest.raises(UserError, match=r"is a symbolic link to .*outside.* Put the real file"),
        RunDir(tmp_path / "run").lock(),
    ):
        pytest.fail("claimed")
    assert list(outside.iterdir()) == []


def test_a_run_folder_may_itself_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "outputs").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/run").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk/run")
    for folder in (tmp_path / "outputs/run", tmp_path / "run"):
        with RunDir(folder).lock():
            pass
    (tmp_path / "disk/run/checkpoints").mkdir()
    (tmp_path / "disk/run/checkpoints/step_00000002.pt").touch()
    (tmp_path / "disk/run/checkpoints/best.pt").hardlink_to(  # as we make it
        tmp_path / "disk/run/checkpoints/step_00000002.pt"
    )
    RunDir(tmp_path / "run").require_no_links()
