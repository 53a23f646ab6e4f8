"""What a run writes down: the same numbers in metrics.jsonl and TensorBoard, each once."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from support.runs import lines, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from torch._subclasses.fake_tensor import FakeTensorMode

from crgan_cli.errors import RunFailed
from crgan_cli.gan.types import TurnLog
from crgan_cli.runs.folder import RunDir
from crgan_cli.runs.loggers import TensorBoard
from crgan_cli.runs.record import MetricBuffer, Recorder, drop_lines_after, read_history, to_cpu
from crgan_cli.system.distributed import launch
from crgan_cli.training.trainer import Trainer

KIND = ("log.every=1", "checkpoint.every=3", "metrics.every=2", "samples.every=2", "steps=5")
HEADLINE = "fd_effnetlite0_32_n8"
PROTOCOL = "demo_8_test/effnetlite0_32-57934424"
HALF = '{"kind": "train", "step": 5, "terms/adv'


class Runs(NamedTuple):
    """A run, and its folder as a kill would have left it after 1 and 4 of its 5 steps."""

    straight: Path
    killed_early: Path
    killed_late: Path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """What is still in memory then is not in the copies."""
    folder = tmp_path_factory.mktemp("runs")
    out, early, late = (folder / name for name in Runs._fields)
    take_step: Callable[[Trainer], None] = Trainer.train_step

    def copying(trainer: Trainer) -> None:
        if copy := {1: early, 4: late}.get(trainer.step):
            shutil.copytree(out, copy)
        take_step(trainer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", copying)
        train(out, *KIND)
    return Runs(out, early, late)


def board(run: Path) -> EventAccumulator:
    """What TensorBoard shows of a run."""
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    return events.Reload()


def scalars(run: Path) -> list[tuple[str, int, float]]:
    """(tag, step, value) of all points, sorted, without what a clock measured."""
    events = board(run)
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith("speed/")]
    return sorted((tag, e.step, e.value) for tag in tags for e in events.Scalars(tag))


def written(run: Path) -> list[tuple[str, int, float]]:
    """The same of metrics.jsonl, as TensorBoard rounds them."""
    return sorted(
        (
            f"metrics/{name}/{PROTOCOL}" if line["kind"] == "eval" else name,
            line["step"],
            float(np.float32(value)),
        )
        for line in lines(run, "train") + lines(run, "eval")
        for name, value in line.items()
        if name not in ("kind", "step", "images_seen")
    )


def test_tensorboard_holds_the_numbers_of_metrics_jsonl(runs: Runs) -> None:
    found = scalars(runs.straight)
    assert found == written(runs.straight)
    names = {tag for tag, _, _ in found}
    assert {"terms/adversarial/d", "terms/cr/real", "loss/g", "logits/gap"} < names
    assert {"gradient_norm/d", "learning_rate/g", f"metrics/{HEADLINE}/{PROTOCOL}"} < names
    headline = f"metrics/{HEADLINE}/{PROTOCOL}"
    assert [step for tag, step, _ in found if tag == headline] == [2, 4, 5]
    assert [step for tag, step, _ in found if tag == "loss/d"] == [1, 2, 3, 4, 5]


def test_a_loss_is_the_sum_of_its_terms(runs: Runs) -> None:
    for line in lines(runs.straight, "train"):
        terms = line["terms/adversarial/d"] + line["terms/cr/real"]
        assert line["loss/d"] == pytest.approx(terms, rel=1e-6)


def test_speed_and_images_are_written_as_well(runs: Runs) -> None:
    whole = read_history(RunDir(runs.straight))
    assert all(line["speed/images_per_second"] > 0 for line in whole if line["kind"] == "train")
    assert all(line["images_seen"] == 4 * line["step"] for line in whole)
    assert len(board(runs.straight).Scalars("speed/images_per_second")) == 5


def test_a_run_is_one_run_of_tensorboard(runs: Runs) -> None:
    (events,) = (runs.straight / "tensorboard").rglob("*")
    assert events.name.startswith("events.out.tfevents.")


def test_the_configuration_is_there_as_text(runs: Runs) -> None:
    (event,) = board(runs.straight).Tensors("config/text_summary")
    (text,) = event.tensor_proto.string_val
    shown = [line.removeprefix("    ") for line in text.decode().splitlines()]
    assert shown == (runs.straight / "config.yaml").read_text().splitlines()


def test_sample_grids_are_there_as_pictures(runs: Runs) -> None:
    shown = board(runs.straight).Images("samples")
    assert [image.step for image in shown] == [2, 4, 5]
    for image in shown:
        with (
            Image.open(io.BytesIO(image.encoded_image_string)) as theirs,
            Image.open(runs.straight / f"samples/step_{image.step:08d}.png") as ours,
        ):
            assert np.array_equal(np.asarray(theirs), np.asarray(ours))


def test_hparams_are_the_settings_with_the_headline_as_their_metric(runs: Runs) -> None:
    events = board(runs.straight)
    experiment, start = (
        events.SummaryMetadata(tag).plugin_data.content
        for tag in (metadata.EXPERIMENT_TAG, metadata.SESSION_START_INFO_TAG)
    )
    metrics = metadata.parse_experiment_plugin_data(experiment).metric_infos
    assert [metric.name.tag for metric in metrics] == [f"metrics/{HEADLINE}/{PROTOCOL}"]
    assert HEADLINE in (runs.straight / "result.json").read_text()
    settings = metadata.parse_session_start_info_plugin_data(start).hparams
    assert settings["batch_size"].number_value == 4
    assert settings["regularizer.lambda_cr"].number_value == 10
    assert settings["architecture.spectral_norm"].number_value == 1  # true, as torch writes it
    assert settings["metrics.reference"].string_value == "test"
    assert settings["ema.decay"].string_value == "None"


@pytest.mark.parametrize("killed", ["killed_early", "killed_late"])
def test_after_a_kill_every_step_is_there_once(killed: str, runs: Runs, tmp_path: Path) -> None:
    """Killed early there is no checkpoint yet, and killed late the last is one step back."""
    out = tmp_path / "run"
    shutil.copytree(getattr(runs, killed), out)
    with open(out / "metrics.jsonl", "a") as file:
        file.write(HALF)  # the crash cut a line short
    train(out, *KIND)
    assert len(list((out / "tensorboard").iterdir())) == 2
    assert scalars(out) == written(out) == written(runs.straight)
    assert [image.step for image in board(out).Images("samples")] == [2, 4, 5]
    for kind in ("train", "eval"):
        assert lines(out, kind) == lines(runs.straight, kind)


def begin_record(folder: Path) -> Recorder:
    """The log of a new run, beside TensorBoard's."""
    recorder = Recorder(RunDir(folder), {"tensorboard": TensorBoard()})
    recorder.open(step=0, hooks_done=True)
    return recorder


def test_nothing_waits_in_memory(runs: Runs, tmp_path: Path) -> None:
    """A resumed run does not write again what lies before its checkpoint."""
    assert scalars(runs.killed_late) == written(runs.killed_late)
    (tmp_path / "run").mkdir()
    recorder = begin_record(tmp_path / "run")
    recorder.write("train", 1, {f"loss/{i}": float(i) for i in range(200)})
    shutil.copytree(tmp_path / "run", tmp_path / "killed")
    recorder.each(lambda logger: logger.close())
    assert len(scalars(tmp_path / "killed")) == 200


# --- by hand ---


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("kind", ["train", "eval"])
def test_what_is_not_finite_is_never_written(value: float, kind: str, tmp_path: Path) -> None:
    recorder = begin_record(tmp_path)
    with pytest.raises(RunFailed, match=r"kid became (nan|inf|-inf) at step 7"):
        recorder.write(kind, 7, {"fid": 1.0, "kid": value})
    recorder.each(lambda logger: logger.close())
    assert (tmp_path / "metrics.jsonl").read_text() == ""
    assert scalars(tmp_path) == []


def test_only_the_main_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in launch.TORCHRUN:
        monkeypatch.setenv(name, "2")
    recorder = begin_record(tmp_path)
    with pytest.raises(RunFailed, match="fid became nan at step 7"):  # as on the main one
        recorder.write("eval", 7, {"fid": float("nan")})
    recorder.write("eval", 7, {"fid": 1.0})
    recorder.each(lambda logger: logger.text("config", "seed: 1"))
    assert list(tmp_path.iterdir()) == []


def test_a_line_cut_short_is_dropped_and_the_rest_is_kept(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert read_history(run) == []
    whole = [{"kind": "train", "step": 1, "a": 0.1}, {"kind": "eval", "step": 1, "fid": 1 / 3}]
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in whole) + HALF)
    assert read_history(run) == whole
    drop_lines_after(run, 1, hooks_done=True)
    assert run.metrics.read_text() == "".join(json.dumps(line) + "\n" for line in whole)


@pytest.mark.parametrize(
    ("step", "hooks_done", "kept"),
    [
        (2, True, ["train 1", "train 2", "eval 2"]),
        (2, False, ["train 1", "train 2"]),  # this step's metrics are still to be computed
        (1, True, ["train 1"]),
        (0, True, []),
    ],
)
def test_what_came_after_the_checkpoint_is_dropped(
    step: int, hooks_done: bool, kept: list[str], tmp_path: Path
) -> None:
    run = RunDir(tmp_path)
    found = [("train", 1), ("train", 2), ("eval", 2), ("train", 3)]
    text = "".join(json.dumps({"kind": kind, "step": at}) + "\n" for kind, at in found)
    run.metrics.write_text(text)
    drop_lines_after(run, step, hooks_done=hooks_done)
    assert [f"{line['kind']} {line['step']}" for line in read_history(run)] == kept
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def numbers(gauge: float, **terms: float) -> TurnLog:
    values = [*terms.values(), sum(terms.values()), gauge]
    names = (*(f"terms/{name}" for name in terms), "loss/d", "logits/real")
    return TurnLog(names, torch.tensor(values))


def window(*turns: tuple[int, TurnLog]) -> MetricBuffer:
    kept = MetricBuffer()
    for turn in turns:
        kept.append(*turn)
    return kept


def test_a_window_is_the_mean_over_the_turns_that_had_a_term() -> None:
    """By hand, with a lazy term that only the second turn has, weighted by 2."""
    kept = window((1, numbers(0.5, adv=1.0)), (2, numbers(1.5, adv=2.0, cr=4.0)))
    means = {"terms/adv": 1.5, "terms/cr": 4.0, "loss/d": (1 + 6) / 2, "logits/real": 1.0}
    assert kept.pop_means() == means
    assert kept.pop_means() == {}


def test_a_window_names_the_first_step_that_is_not_finite() -> None:
    kept = window(
        (3, numbers(0.0, adv=1.0)),
        (5, numbers(0.0, adv=float("nan"))),
        (4, numbers(0.0, adv=1.0, cr=float("inf"))),
    )
    with pytest.raises(RunFailed, match="terms/cr became inf at step 4"):
        kept.pop_means()


def test_an_open_window_goes_on_after_a_checkpoint(tmp_path: Path) -> None:
    turns = [(step, numbers(0.1 * step, adv=1 / step)) for step in (1, 2, 3)]
    torch.save(window(*turns[:2]).state_dict(), tmp_path / "state.pt")
    resumed = MetricBuffer()
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    resumed.append(*turns[2])
    assert resumed.pop_means() == window(*turns).pop_means()


def test_a_window_with_rows_of_two_devices_is_read() -> None:
    """A resumed window lies on the CPU, and what comes after on the GPU; fake tensors stand in."""
    with FakeTensorMode():
        row = torch.zeros(3)
        turns = [(1, row), (2, row.to("cuda")), (3, row.to("cuda"))]
        there = to_cpu(turns)
    assert [step for step, _ in there] == [1, 2, 3]
    assert {str(values.device) for _, values in there} == {"cpu"}
