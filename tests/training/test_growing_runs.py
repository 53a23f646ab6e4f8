"""Runs that grow: every kind of setting, killed and resumed at a border, by two processes."""

import logging
import math
from functools import partial
from pathlib import Path

import pytest
import torch
from support.ranks import in_processes
from support.runs import different, lines, tiny, train, unmeasured
from training.test_translation_runs import assert_close

from crgan_cli.config.compose import compose
from crgan_cli.runs.checkpoint import file_name
from crgan_cli.training.start import train_run

SMALL = (
    "experiment=demo_pggan",
    "dataset.resolution=32",
    "architecture.z_dim=4",
    "architecture.fmap_base=64",
    "architecture.fmap_max=8",
    "architecture.mbstd_group=2",
    "architecture.width=1",
    "engine.precision=fp32",
    "log.every=1",
    "samples.every=8",
    "checkpoint.every=8",
    "task.fade_images=8",
    "task.stable_images=4",
    "steps=11",
)
# 4 px in step 0; 8 px from step 1, 16 px from step 4, 32 px from step 7 on, each with 2 of fade


def grow(out: Path, *overrides: str) -> list[dict]:
    """All stages without metrics. Gives the numbers of each step."""
    typed = unmeasured(tiny(f"out={out}", *SMALL, *overrides))
    train_run(compose(typed), typed, {}, None)
    logged = lines(out, "train")
    numbers = [value for line in logged for value in line.values() if isinstance(value, float)]
    assert all(map(math.isfinite, numbers))
    return logged


def test_a_run_counts_images_and_rates_by_its_stages(tmp_path: Path) -> None:
    schedule = ("task.batch_sizes=[4,4,2,2]", "task.rates=[1,1,2,3]", "steps=12")
    logged = grow(tmp_path / "run", *schedule)
    # 4 px in step 0, 8 px in steps 1 to 3; 16 px, by twos, in steps 4 to 9; then 32 px
    seen = [line["images_seen"] for line in logged]
    assert seen == [4, 8, 12, 16, *range(18, 34, 2)]
    factors = [line["learning_rate/d"] / 1e-3 for line in logged]
    assert factors == pytest.approx([1] * 4 + [2] * 6 + [3] * 2)
    state = torch.load(tmp_path / "run/checkpoints" / file_name(12), weights_only=True)["states"]
    assert [
        int(state[part][f"{name}growth.stored_level"])
        for part, name in (("task", "G."), ("task", "adversary.D."), ("ema", ""))
    ] == [3, 3, 3]
    assert state["ema"]["growth.alpha"].item() == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("settings", "terms"),
    [
        ("regularizer=[gp_drift,ac] architecture.labels=ac", "gp drift ac/real ac/fake ac/g"),
        ("architecture.labels=projection regularizer=gp_drift regularizer.target=750", "gp drift"),
        ("loss=non_saturating regularizer=[r1,icr]", "r1 bcr/real bcr/fake zcr/dis zcr/gen"),
        ("regularizer=[cr,path_length] engine.fold=never task.first_resolution=8", "cr/real"),
        ("engine.precision=bf16 engine.deterministic=true task.fade_images=0", "r1"),
        ("task=generation regularizer=[gp,cr] steps=2", "gp cr/real"),
    ],
)
def test_networks_that_grow_train_with(settings: str, terms: str, tmp_path: Path) -> None:
    words, run = settings.split(), tmp_path / "run"
    typed = [*SMALL]
    if "task=generation" in words:  # which has no schedule
        typed = ["architecture=pggan", *(word for word in SMALL[1:] if "task." not in word)]
    more = unmeasured(tiny(f"out={run}", *typed, *words))
    train_run(compose(more), more, {}, None)
    first, *_ = lines(run, "train")
    assert {f"terms/{term}" for term in terms.split()} <= first.keys()


@pytest.mark.parametrize("stop", [4, 5])
def test_a_run_killed_at_a_border_or_in_a_fade_ends_in_the_same_bits(
    stop: int, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for out in (whole, parts):
        grow(out, f"checkpoint.every={stop}", "checkpoint.keep=9", "steps=8")
    for path in (parts / "checkpoints").iterdir():
        if path.name != file_name(stop):
            path.unlink()
    (parts / "result.json").unlink()
    grow(parts, f"checkpoint.every={stop}", "checkpoint.keep=9", "steps=8")
    newest = Path("checkpoints") / file_name(8)
    assert different(whole / newest, parts / newest) == []


def test_a_run_that_ends_before_it_has_grown_up_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        grow(tmp_path / "run", "steps=4")
    assert "steps=4 ends before the stages of 16 and 32 pixels begin" in caplog.text
    assert "type steps=10 or more" in caplog.text


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    settings = ("architecture.mbstd_group=1", "optimizer.eps=0.01", "steps=6")
    grow(tmp_path / "one", *settings)
    in_processes(2, partial(grow, tmp_path / "two", *settings))
    assert_close(tmp_path / "one", tmp_path / "two", 6)


def test_metrics_of_an_unfinished_stage_are_of_doubled_images(tmp_path: Path) -> None:
    train(tmp_path / "run", *SMALL, "metrics.every=4", "steps=4")
    (line,) = lines(tmp_path / "run", "eval")
    assert line["step"] == 4
