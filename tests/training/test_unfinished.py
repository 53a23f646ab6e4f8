"""What a kill or damage leaves of a run: the next start completes it, or says what it cannot."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.runs import different, leaves, lines, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from crgan_cli.errors import UserError
from crgan_cli.report.read import read_run
from crgan_cli.runs.checkpoint import file_name
from crgan_cli.runs.folder import RunDir

KIND = (
    "metrics.measures=[kid]",
    "dataset.fraction=0.002",
    "steps=2",
    "checkpoint.every=1",
    "checkpoint.keep=1",
    "log.every=1",
    "metrics.every=2",
    "samples.every=2",
)
LAST = f"checkpoints/{file_name(2)}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps with metrics after the last."""
    out = tmp_path_factory.mktemp("finished")
    train(out, *KIND)
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> RunDir:
    """A copy of it."""
    return RunDir(shutil.copytree(finished, tmp_path / "run"))


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def forget_second_name(run: RunDir) -> None:
    """As killed after the last checkpoint, before best.pt, older ones deleted and the result."""
    run.result.write_text('{"status": "running"}')
    run.best.unlink()
    shutil.copy(run.path / LAST, run.checkpoints / file_name(1))
    (run.checkpoints / "step_00000002.pt.1.partial").touch()


def write_again(text: str) -> Callable[[RunDir], object]:
    return lambda run: run.result.write_text(text)


@pytest.mark.parametrize(
    "left",
    [
        forget_second_name,
        lambda run: run.result.unlink(),
        write_again('{"status": "running"}'),
        write_again('{"status": "interrupted", "signal": 15}'),
        write_again('{"status": "fini'),
        write_again('{"status": "finished", "step": "2"}'),
    ],
    ids=["no best.pt", "no result", "running", "interrupted", "half a result", "wrong types"],
)
def test_a_run_without_its_result_is_completed(
    left: Callable[[RunDir], object], run: RunDir, finished: Path
) -> None:
    left(run)
    metric = train(run.path, *KIND)
    expected, found = result(finished), result(run.path)
    for key in ("status", "step", "images_seen", "last", "best", "protocol", "seed"):
        assert found[key] == expected[key]
    assert metric == expected["last"][expected["protocol"]["headline"]]
    saved = torch.load(run.path / LAST, weights_only=True)["seconds"]
    assert found["seconds"] == pytest.approx(saved, abs=1)
    report = read_run(run.path)
    assert (report.status, report.step) == ("finished", 2)
    assert report.evals[-1]["step"] == 2
    names = {path.relative_to(finished) for path in finished.rglob("*") if path.suffix != ".0"}
    there = {path.relative_to(run.path) for path in run.path.rglob("*") if path.suffix != ".0"}
    assert {name for name in names ^ there if "tensorboard" not in name.parts} == set()
    assert different(run.best, finished / "checkpoints/best.pt") == []
    for kind in ("train", "eval"):
        assert lines(run.path, kind) == lines(finished, kind)
    events = EventAccumulator(str(run.tensorboard)).Reload()
    assert metadata.SESSION_END_INFO_TAG in events.PluginTagToContent(metadata.PLUGIN_NAME)


def test_a_damaged_log_does_not_bar_a_resumed_run(run: RunDir, finished: Path) -> None:
    first, *rest = run.metrics.read_bytes().splitlines(keepends=True)
    run.metrics.write_bytes(b"".join([first, b"[1]\n", b"\xc3\n", b"\0\0\n", *rest]))
    run.result.unlink()
    train(run.path, *KIND)
    for kind in ("train", "eval"):
        assert lines(run.path, kind) == lines(finished, kind)
    assert "3 lines that cannot be read are left out" in run.log.read_text()
    assert (run.path / "metrics.jsonl.damaged").exists()


def test_a_damaged_configuration_is_taken_from_the_checkpoint(run: RunDir, finished: Path) -> None:
    for damage in (b"\xff\xfe", b"a: ["):
        run.config.write_bytes(damage)
        run.result.unlink()
        train(run.path, *KIND)
        assert f"The settings are taken from {run.path / LAST}" in run.log.read_text()
        before, after = (
            (path / "config.yaml").read_text().replace(str(path), "")
            for path in (finished, run.path)
        )
        assert after == before


def test_a_setting_that_changed_in_the_file_alone_is_not_believed(run: RunDir) -> None:
    text = run.config.read_text()
    assert "lambda_cr: 10.0" in text
    run.config.write_text(text.replace("lambda_cr: 10.0", "lambda_cr: 18.0"))
    with pytest.raises(UserError, match=r"lambda_cr: 10 -> 18\nPut the former values back"):
        train(run.path, *KIND, "regularizer.lambda_cr=18.0")


def test_a_resumed_run_may_have_another_layout(finished: Path, tmp_path: Path) -> None:
    """Moments belong to their weights in any layout. One step later, Adam shows if they do not."""
    ends = {}
    for layout in ("true", "false"):
        out = shutil.copytree(finished, tmp_path / layout)
        (out / "result.json").unlink()
        train(out, *KIND, "steps=3", "engine.precision=fp32", f"engine.channels_last={layout}")
        saved = torch.load(out / "checkpoints" / file_name(3), weights_only=True)
        ends[layout] = {
            name: leaf
            for name, leaf in leaves(saved["states"]).items()
            if isinstance(leaf, torch.Tensor)
            and name.split("/")[1] in ("task", "optimizer_d", "optimizer_g")
        }
    assert ends["true"].keys() == ends["false"].keys()
    for name, leaf in ends["true"].items():
        torch.testing.assert_close(leaf, ends["false"][name], rtol=1e-3, atol=1e-5, msg=name)


def test_a_finished_run_without_its_checkpoints_keeps_its_results(run: RunDir) -> None:
    shutil.rmtree(run.checkpoints)
    before = (run.result.read_text(), run.metrics.read_text())
    train(run.path, *KIND)
    assert "Its checkpoints are gone" in run.log.read_text()
    assert (run.result.read_text(), run.metrics.read_text()) == before
