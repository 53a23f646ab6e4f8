"""Where else the numbers of a run go, and that none of these places can end a run.

wandb and mlflow are stand-ins here, which write down what they are asked for. docs/logging.md says
with which versions the real ones were tried.
"""

import csv
import errno
import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from support.runs import Crgan, lines, refused, tiny, unmeasured
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from crgan_cli.config.choices import Choices
from crgan_cli.runs.loggers import base
from crgan_cli.runs.loggers.csv_table import CSV
from crgan_cli.training.trainer import Trainer

SMALL = (*unmeasured(tiny("steps=4", "log.every=1", "samples.every=2")), "checkpoint.every=2")


class Calls(list):
    """What a stand-in was asked for: (name, positional arguments, the others)."""

    def note(self, name: str, answer: object = None) -> Any:
        def called(*args: object, **kwargs: object) -> object:
            self.append((name, args, kwargs))
            return answer

        return called

    def named(self, name: str) -> list[tuple[tuple, dict]]:
        return [(args, kwargs) for each, args, kwargs in self if each == name]


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **content: object) -> None:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    for key, value in content.items():
        setattr(module, key, value)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    methods = {each: calls.note(each) for each in ("log", "define_metric", "finish")}
    config = SimpleNamespace(update=calls.note("config"))
    run = SimpleNamespace(id="id1", offline=True, config=config, **methods)
    stand_in(
        monkeypatch,
        "wandb",
        init=calls.note("init", run),
        Settings=lambda **each: each,
        Image=lambda pixels: pixels,
    )
    return calls


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    names = ("update_run", "log_batch", "log_image", "log_text", "set_terminated")
    client = SimpleNamespace(
        get_experiment_by_name=calls.note("get_experiment_by_name"),
        create_experiment=calls.note("create_experiment", "7"),
        create_run=calls.note("create_run", SimpleNamespace(info=SimpleNamespace(run_id="run7"))),
        **{each: calls.note(each) for each in names},
    )
    make = calls.note("client", client)
    stand_in(monkeypatch, "mlflow")
    stand_in(monkeypatch, "mlflow.tracking", MlflowClient=make)
    plain = {"Metric": lambda *each: each, "Param": lambda *each: each}
    stand_in(monkeypatch, "mlflow.entities", **plain)
    return calls


def killed_at(n: int, patch: pytest.MonkeyPatch) -> None:
    """Stop the run as kill -9 would, before its step n."""
    take_step = Trainer.train_step

    def take(trainer: Trainer) -> None:
        if trainer.step == n:
            raise KeyboardInterrupt
        take_step(trainer)

    patch.setattr(Trainer, "train_step", take)


def table(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_group_has_every_logger() -> None:
    assert Choices().groups["logger"] == ["csv", "mlflow", "none", "tensorboard", "wandb"]


@pytest.mark.parametrize(
    ("choice", "files"),
    [
        ("tensorboard", {"tensorboard"}),
        ("none", set()),
        ("csv", {"metrics.csv"}),
        ("[csv,tensorboard]", {"metrics.csv", "tensorboard"}),
        ("[csv,wandb,mlflow]", {"metrics.csv", "loggers.json"}),
    ],
)
def test_every_choice_trains_and_metrics_jsonl_is_always_there(
    choice: str, files: set[str], crgan: Crgan, tmp_path: Path, wandb: Calls, mlflow: Calls
) -> None:
    code, _, said = crgan("train", *SMALL, f"logger={choice}", f"out={tmp_path / 'run'}")
    assert code == 0, said
    run = tmp_path / "run"
    own = {"metrics.csv", "loggers.json", "tensorboard"}
    assert {path.name for path in run.iterdir()} & own == files
    assert [line["step"] for line in lines(run, "train")] == [1, 2, 3, 4]
    assert bool(wandb) == bool(mlflow) == ("wandb" in choice)


def test_a_table_has_a_row_for_each_line_also_after_a_kill(crgan: Crgan, tmp_path: Path) -> None:
    """Some names come later than others: with metrics, and with terms that are lazy."""
    typed = tiny("steps=4", "log.every=1", "metrics.every=2", "metrics.measures=[kid]")
    typed += ["logger=csv", "regularizer=path_length", f"out={tmp_path / 'run'}"]
    with pytest.MonkeyPatch.context() as patch:
        killed_at(3, patch)
        assert crgan("train", *typed)[0] == 130
    assert [row["step"] for row in table(tmp_path / "run")] == ["1", "2", "2", "3"]
    assert crgan("train", *typed)[0] == 0
    rows = table(tmp_path / "run")
    written = [
        json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    ]
    assert len(rows) == len(written) == 6
    for row, line in zip(rows, written, strict=True):
        assert {key: str(line.get(key, "")) for key in row} == row
        assert line.keys() <= row.keys()


def test_wandb_goes_on_in_the_same_run(crgan: Crgan, tmp_path: Path, wandb: Calls) -> None:
    out = tmp_path / "run"
    words = ["logger=wandb", "logger.project=mine", "logger.mode=offline", f"out={out}"]
    with pytest.MonkeyPatch.context() as patch:
        killed_at(3, patch)
        assert crgan("train", *SMALL, *words)[0] == 130
    assert [kwargs["exit_code"] for _, kwargs in wandb.named("finish")] == [1]
    assert crgan("train", "--from", out)[0] == 0
    first, second = (kwargs for _, kwargs in wandb.named("init"))
    assert (first["project"], first["mode"], first["dir"]) == ("mine", "offline", str(out))
    assert (first["id"], second["id"], second["resume"]) == (None, "id1", "allow")
    logged = [args[0] for args, _ in wandb.named("log")]
    numbers = [each for each in logged if "samples" not in each]
    # killed before step 4 with 2 saved: step 3 comes again, with equal numbers
    assert [each["step"] for each in numbers] == [1, 2, 3, 3, 4]
    equal = ({k: v for k, v in each.items() if "speed" not in k} for each in numbers[2:4])
    assert next(equal) == next(equal)
    pictures = {each["step"]: each["samples"] for each in logged if "samples" in each}
    assert set(pictures) == {2, 4}
    assert all(picture.ndim == 3 and picture.shape[-1] == 3 for picture in pictures.values())
    (settings, _), *_ = wandb.named("config")
    assert settings[0]["optimizer.lr_g"] == 2e-4
    assert not any(key.startswith("logger") for key in settings[0])


def test_mlflow_goes_on_in_the_same_run(crgan: Crgan, tmp_path: Path, mlflow: Calls) -> None:
    out = tmp_path / "run"
    words = ["logger=mlflow", "logger.tracking_uri=file:x", f"out={out}"]
    with pytest.MonkeyPatch.context() as patch:
        killed_at(3, patch)
        assert crgan("train", *SMALL, *words)[0] == 130
    assert mlflow.named("set_terminated") == [(("run7", "KILLED"), {})]
    assert crgan("train", "--from", out)[0] == 0
    assert mlflow.named("set_terminated")[1:] == [(("run7", "FINISHED"), {})]
    assert mlflow.named("client")[0][1] == {"tracking_uri": "file:x"}
    assert len(mlflow.named("create_run")) == 1
    batches = [kwargs for args, kwargs in mlflow.named("log_batch") if args == ("run7",)]
    steps = [each["metrics"][0][3] for each in batches if "metrics" in each]
    assert steps == [1, 2, 3, 3, 4]
    params = [pair for each in batches for pair in each.get("params", ())]
    assert ("optimizer.lr_g", "0.0002") in params
    assert len(params) == len(dict(params))  # MLflow refuses a second value
    assert all(len(each.get("params", ())) <= 100 for each in batches)


@pytest.mark.parametrize("method", ["open", "write", "image", "text", "hparams", "finish", "close"])
def test_a_logger_that_fails_is_left_out_and_the_run_goes_on(
    method: str, crgan: Crgan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(CSV, method, full)
    out = tmp_path / "run"
    code, _, said = crgan("train", *SMALL, "logger=[csv,tensorboard]", f"out={out}")
    assert code == 0
    words = "logger=csv failed, and the run goes on without it (metrics.jsonl has all numbers): "
    assert said.count(words + "OSError: [Errno 28] No space left on device") == 1
    assert json.loads((out / "result.json").read_text())["status"] == "finished"
    assert [line["step"] for line in lines(out, "train")] == [1, 2, 3, 4]
    events = EventAccumulator(str(out / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss/d")] == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_refused_with_what_to_type(
    name: str, crgan: Crgan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "find_spec", lambda package: None)
    words = ("train", *SMALL, f"logger=[csv,{name}]", f"out={tmp_path / 'run'}")
    said = f"the package {name} is not installed", f'pip install "crgan[{name}]"'
    refused(crgan(*words), *said)
    refused(crgan(*words, "--dry-run"), *said)
    assert not (tmp_path / "run").exists()


class NoLogger:
    """Nothing that a run can write to."""


def test_another_class_is_no_logger(
    crgan: Crgan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRGAN_PLUGINS", __name__)
    (tmp_path / "conf/logger").mkdir(parents=True)
    (tmp_path / "conf/logger/mine.yaml").write_text(f"_target_: {__name__}.NoLogger\n")
    words = ("train", *SMALL, "--config-dir", tmp_path / "conf", f"out={tmp_path / 'run'}")
    said = "logger NoLogger must be a crgan_cli.runs.loggers.base.Logger, not NoLogger."
    refused(crgan(*words, "logger=mine"), said)


def test_hparams_open_on_what_was_swept(crgan: Crgan, tmp_path: Path) -> None:
    axes = ["optimizer.lr_g=1e-4,2e-4", "regularizer=none,cr", "seed=3", f"out={tmp_path / 'all'}"]
    typed = [word for word in SMALL if not word.startswith("steps")]
    code, _, said = crgan("train", "-m", *typed, "steps=1", *axes)
    assert code == 0, said
    runs = sorted(path.parent for path in tmp_path.glob("all/*/config.yaml"))
    assert len(runs) == 4
    for run in runs:
        events = EventAccumulator(str(run / "tensorboard")).Reload()
        experiment, start = (
            events.SummaryMetadata(tag).plugin_data.content
            for tag in (metadata.EXPERIMENT_TAG, metadata.SESSION_START_INFO_TAG)
        )
        columns = metadata.parse_experiment_plugin_data(experiment).hparam_infos
        assert [column.name for column in columns] == ["optimizer.lr_g", "regularizer"]
        every = metadata.parse_session_start_info_plugin_data(start).hparams
        assert every["seed"].number_value == 3
        assert every["batch_size"].number_value == 4
