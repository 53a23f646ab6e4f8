"""Which folder a sweep's job has: by its settings, wherever it stands in the grid."""

import itertools
import os
import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from filelock import Timeout
from omegaconf import DictConfig, OmegaConf
from support.run_folders import nested
from support.runs import Crgan

from crgan_cli.config.stored import to_text
from crgan_cli.errors import UserError
from crgan_cli.experiments.job_folder import (
    choose_folder,
    folder_name,
    may_change,
    parse_settings,
    strict_keys,
)
from crgan_cli.experiments.sweep_state import SweepState
from crgan_cli.runs.folder import RunDir
from crgan_cli.training.start import is_finished, require_same

GRID = ("optimizer.lr_g=0.0001,0.0002", "seed=1,2")
BASE = {
    "seed": 1,
    "steps": 10,
    "batch_size": 64,
    "out": None,
    "resume": "auto",
    "data_root": "data",
    "dataset.root": "data",
    "optimizer.lr_g": 0.1,
    "published.source": None,
    "engine": {"_target_": "auto"},
    "regularizer": {"_target_": "cr", "lambda_cr": 10.0},
}
CHOICES: dict[str, dict[str, Any]] = {
    "engine=eager": {"engine": {"_target_": "eager"}},
    "engine=auto": {"engine": {"_target_": "auto"}},
    "engine=compile": {"engine": {"_target_": "compile"}},
    "regularizer=icr": {"regularizer": {"_target_": "icr", "lambda_real": 10.0}},
    "experiment=short": {"steps": 2},
    "experiment=long": {"steps": 4},
}
"""What a choice of a group sets, as its file does."""


def train_run(cfg: DictConfig, folder: Path) -> bool:
    """Train without a step: refuse, skip and write as the real one. Whether anything was done."""
    run = RunDir(folder)
    if run.is_run():
        require_same(OmegaConf.create(run.config.read_text()), cfg, run)  # type: ignore[arg-type]
        found = SimpleNamespace(content={"step": run.read_result()["step"]})
        if is_finished(found, run.read_result(), cfg, run):  # type: ignore[arg-type]
            return False
    folder.mkdir(parents=True, exist_ok=True)
    run.config.write_text(to_text(cfg))
    run.write_result({"status": "finished", "step": cfg.steps})
    return True


def sweep(*words: str) -> list[str]:
    """A sweep in the folder X: the folders of the runs that trained."""
    keys = [word.partition("=")[0] for word in words]
    columns = [
        [f"{key}={value}" for value in word.partition("=")[2].split(",")]
        for key, word in zip(keys, words, strict=True)
    ]
    swept = [key for key, column in zip(keys, columns, strict=True) if len(column) > 1]
    trained = []
    for typed in itertools.product(*columns):
        settings: dict[str, Any] = dict(BASE)
        for word in typed:
            key, _, value = word.partition("=")
            settings |= CHOICES.get(word, {key: yaml.safe_load(value)})
        named = sorted(word for word in typed if word.partition("=")[0] in swept)
        keys_of_all = [key for key in keys if key not in swept]
        config = SimpleNamespace(override_dirname=SimpleNamespace(exclude_keys=keys_of_all))
        node: Any = SimpleNamespace(
            overrides=SimpleNamespace(task=list(typed)),
            job=SimpleNamespace(override_dirname=",".join(named), config=config),
        )
        cfg = OmegaConf.create(nested(settings))
        folder = choose_folder(Path("X"), cfg, node)
        if train_run(cfg, folder):
            trained.append(folder.name)
    return trained


@pytest.fixture(autouse=True)
def _empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def folders() -> list[str]:
    return sorted(
        path.name for path in Path("X").iterdir() if path.is_dir() and path.name[0] != "."
    )


def test_a_grid_may_grow_and_change_its_order() -> None:
    first = sweep(*GRID)
    assert first == [
        f"optimizer.lr_g={lr},seed={seed}" for lr in ("0.0001", "0.0002") for seed in (1, 2)
    ]
    assert sweep("seed=3,2,1", "optimizer.lr_g=0.0002,0.0001") == [
        "optimizer.lr_g=0.0002,seed=3",
        "optimizer.lr_g=0.0001,seed=3",
    ]
    assert sweep("seed=1,2,3", "optimizer.lr_g=0.00010,2.0e-4") == []  # written in another way
    assert len(folders()) == 6


def test_a_key_that_all_jobs_had_in_common_may_be_swept() -> None:
    assert sweep("seed=1", GRID[0]) == ["optimizer.lr_g=0.0001", "optimizer.lr_g=0.0002"]
    assert sweep("seed=1,2", GRID[0]) == [
        "optimizer.lr_g=0.0001,seed=2",
        "optimizer.lr_g=0.0002,seed=2",
    ]


def test_a_swept_key_may_become_common() -> None:
    sweep("seed=1", GRID[0])
    more = sweep("seed=2", GRID[0])  # their short names are those of other runs
    assert more == ["optimizer.lr_g=0.0001,seed=2", "optimizer.lr_g=0.0002,seed=2"]
    assert sweep("seed=2", GRID[0]) == sweep("seed=1,2", GRID[0]) == []
    assert sweep("regularizer=icr", "seed=2", GRID[0]) == [
        "optimizer.lr_g=0.0001,regularizer=icr,seed=2",
        "optimizer.lr_g=0.0002,regularizer=icr,seed=2",
    ]


def test_numbered_folders_of_older_sweeps_are_found() -> None:
    for number, name in enumerate(sweep(*GRID)):
        os.rename(Path("X", name), Path("X", f"{number}_{name}"))
    before = folders()
    (Path("X") / before[3] / "result.json").write_text('{"status": "running", "step": 1}')
    assert sweep("seed=2,1", GRID[0]) == [before[3]]
    assert folders() == before


def test_jobs_are_found_and_counted_from_1_on_the_command_line(
    crgan: Crgan, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("crgan_cli.training.start")
    seen: list[Path] = []

    def train(
        cfg: DictConfig, overrides: object, choices: object, folder: Path, **_: object
    ) -> float:
        seen.append(folder)
        train_run(cfg, folder)
        return 1.0

    module.train_run = train  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "crgan_cli.training.start", module)
    assert crgan("train", "-m", "seed=1,2", "out=X")[0] == 0
    assert [folder.name for folder in seen] == ["seed=1", "seed=2"]
    os.rename("X/seed=2", "X/1_seed=2")  # as older versions named it
    code, _, err = crgan("train", "-m", "steps=200000", "seed=2,1", "out=X")
    assert (code, err.count("skipped in")) == (0, 2)
    assert "job 2 of 2: seed=1" in err
    assert folders() == ["1_seed=2", "seed=1"]  # and none is made for a job that is found
    state = SweepState(Path("X"))
    assert [(job.number, job.folder) for job in state.jobs()] == [(1, "1_seed=2"), (2, "seed=1")]
    assert sorted(path.name for path in state.path.glob("[0-9]*.json")) == ["1.json", "2.json"]


def test_equal_jobs_share_a_run_and_others_never_do() -> None:
    assert sweep("seed=1,1") == ["seed=1"]
    long = [f"published.source=a{'b' * 90}{end}" for end in "cd"]
    jobs = sweep(f"{long[0]},{long[1].partition('=')[2]}", "seed=3")
    assert len(set(jobs)) == 2


def test_the_number_of_steps_lengthens_a_run_unless_it_is_swept() -> None:
    assert sweep("seed=1,2", "steps=2") == ["seed=1", "seed=2"]
    assert sweep("seed=2,1,3", "steps=4") == ["seed=2", "seed=1", "seed=3"]
    assert sweep("seed=1", "steps=4,6") == ["steps=6"]
    assert sweep("steps=6", "seed=1,2") == ["seed=2"]
    assert sweep("seed=1", "steps=4,6,8") == ["steps=8"]


def test_one_of_several_runs_with_other_steps_is_not_lengthened() -> None:
    assert sweep("steps=2,4", "seed=1") == ["steps=2", "steps=4"]
    assert sweep("steps=6", "seed=1,2") == ["seed=1", "seed=2"]


def test_keys_that_a_resumed_run_may_change_are_found_again_if_they_are_swept() -> None:
    assert len(sweep("engine=eager,compile", "seed=1")) == 2
    assert sweep("engine=compile,eager,auto", "seed=1,2")[:2] == [
        "engine=compile,seed=2",
        "engine=eager,seed=2",
    ]
    assert len(folders()) == 6


def test_a_swept_experiment_may_set_the_number_of_steps() -> None:
    assert sweep("experiment=short,long") == ["experiment=short", "experiment=long"]
    for number, name in enumerate(["experiment=short", "experiment=long"]):
        os.rename(Path("X", name), Path("X", f"{number}_{name}"))
    assert sweep("experiment=long,short") == []


def test_a_folder_of_another_run_is_refused_with_what_differs() -> None:
    """What was typed does not tell why they differ, as after a change of a default."""
    sweep("seed=1,2", "batch_size=8")
    with pytest.raises(UserError, match="batch_size: 8 -> 64"):
        sweep("seed=1,2")
    assert folders() == ["seed=1", "seed=2"]
    assert sweep("seed=1,2", "resume=force") == []  # insisted


def test_paths_of_data_are_compared_as_they_are_stored() -> None:
    assert len(set(sweep("dataset.root=a,b"))) == 2
    assert sweep("dataset.root=b,a") == sweep("dataset.root=./a,b") == []
    Path("elsewhere").mkdir()
    assert sweep("data_root=elsewhere", "dataset.root=a,b") == []


def test_a_sweep_of_one_job_is_named_after_all_that_was_typed() -> None:
    assert sweep("seed=3", "steps=5") == ["seed=3"]
    assert sweep() == ["run"]


def test_unreadable_settings_are_no_run() -> None:
    for name, text in (("a", "{"), ("b", "3"), ("c", "\0")):
        Path("X", name).mkdir(parents=True)
        Path("X", name, "config.yaml").write_text(text)
    assert sweep("seed=1,2") == ["seed=1", "seed=2"]


def test_each_stored_configuration_is_parsed_once() -> None:
    sweep(*GRID)
    before = parse_settings.cache_info().misses
    assert sweep(*GRID) == sweep(*GRID) == []
    assert parse_settings.cache_info().misses - before <= 4


def test_a_jobs_folder_is_legal_everywhere_short_and_its_own() -> None:
    name = folder_name("dataset.root=C:\\a/b*,x=" + "y" * 200)
    assert len(name) <= 80
    assert not set(name) & set('\\/:*?"<>|')
    assert name != folder_name("dataset.root=C:\\a/b*,x=" + "y" * 201)
    assert folder_name("regularizer=[cr,gp],seed=1") == "regularizer=[cr,gp],seed=1"
    assert folder_name("dataset.root=a/b").startswith("dataset.root=a-b-")
    assert len({folder_name(f"dataset.root=a{sign}b") for sign in "/-: "}) == 4


def test_jobs_with_the_same_settings_run_one_at_a_time(tmp_path: Path) -> None:
    state = SweepState(tmp_path)
    state.clear()
    with state.lock_settings("a"), state.lock_settings("b"), pytest.raises(Timeout):
        state.lock_settings("a").acquire(blocking=False)
    with state.lock_settings("a"):
        assert state.jobs() == []  # locks are no records


def test_jobs_that_differ_in_their_data_alone_are_different_runs() -> None:
    new = {"dataset.root": "/data/b", "regularizer.lambda_cr": 10.0, "steps": 4}
    assert not may_change("dataset.root", strict_keys(["dataset"], new))
    assert not may_change("dataset.root", strict_keys(["experiment"], new))
    assert may_change("dataset.root", strict_keys(["regularizer.lambda_cr"], new))
