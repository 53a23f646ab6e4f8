"""Runs of CycleGAN and StarGAN: every kind of setting, killed and resumed, by two processes."""

import math
from functools import partial
from pathlib import Path

import pytest
from support.ranks import in_processes
from support.runs import different, lines, tiny, train, unmeasured
from training.test_translation_runs import assert_close

from crgan_cli.config.compose import compose
from crgan_cli.errors import UserError
from crgan_cli.runs.checkpoint import file_name
from crgan_cli.training.start import train_run

CYCLEGAN = ("experiment=demo_cyclegan", "architecture.blocks=1", "log.every=1", "steps=2")
STARGAN = ("experiment=demo_stargan", "architecture.blocks=1", "log.every=1", "steps=2")
JOINT = ("experiment=demo_stargan_joint", *STARGAN[1:])
COMMON = ("batch_size=2", "engine.precision=fp32", "samples.num=2")
CYCLE_TERMS = [
    f"{term}/{side}" for term in ("adversarial/d", "adversarial/g", "cycle") for side in "ab"
]
STAR_TERMS = ["adversarial/d", "adversarial/g", "classification/d", "classification/g"]


def run_unmeasured(out: Path, *overrides: str) -> list[dict]:
    """Two steps without metrics. Gives their numbers."""
    typed = unmeasured(tiny(f"out={out}", *COMMON, *overrides))
    train_run(compose(typed), typed, {}, None)
    logged = lines(out, "train")
    assert [line["step"] for line in logged] == [1, 2]
    assert all(
        math.isfinite(value)
        for line in logged
        for value in line.values()
        if isinstance(value, float)
    )
    assert (out / "samples" / "step_00000002.png").is_file()
    return logged


@pytest.mark.parametrize(
    ("settings", "terms"),
    [
        ("regularizer=none task.lambda_identity=0.5", "identity/a identity/b"),
        ("regularizer=cr architecture.norm=batch architecture.d_norm=batch", "cr/real/a cr/real/b"),
        ("regularizer=[bcr,gp] architecture.d_norm=none", "bcr/fake/a bcr/fake/b gp/a gp/b"),
        ("regularizer=[r1,cr] regularizer.every=2 task.pool_size=0", "r1/a r1/b"),
        ("engine.precision=bf16 architecture.upsampling=deconv", ""),
        ("engine.deterministic=true architecture.spectral_norm=true", ""),
    ],
)
def test_cyclegan_trains_with(settings: str, terms: str, tmp_path: Path) -> None:
    first, _ = run_unmeasured(tmp_path / "run", *CYCLEGAN, *settings.split())
    assert {f"terms/{term}" for term in (*CYCLE_TERMS, *terms.split())} <= first.keys()


def test_cyclegan_trains_with_the_unet(tmp_path: Path) -> None:
    words = "dataset=demo_domains task=cyclegan architecture=unet architecture.norm=instance"
    more = ("regularizer=bcr", "augment.shift=2", "steps=2", "log.every=1", "samples.every=2")
    first, _ = run_unmeasured(tmp_path / "run", *words.split(), *more, "optimizer=cyclegan")
    assert {f"terms/{term}" for term in CYCLE_TERMS} <= first.keys()


@pytest.mark.parametrize(
    ("words", "settings", "terms"),
    [
        (STARGAN, "loss=wasserstein regularizer=[classification,gp] optimizer.n_dis=2", "gp"),
        (STARGAN, "regularizer=[classification,bcr] regularizer.classes=true", "bcr/real_classes"),
        (STARGAN, "dataset=demo_traits regularizer=[classification,r1]", "r1"),
        (STARGAN, "engine.precision=bf16 architecture.spectral_norm=true", "bcr/fake"),
        (JOINT, "optimizer.n_dis=3 architecture.upsampling=deconv", "bcr/fake"),
    ],
)
def test_stargan_trains_with(words: tuple, settings: str, terms: str, tmp_path: Path) -> None:
    first, _ = run_unmeasured(tmp_path / "run", *words, *settings.split())
    expected = (*STAR_TERMS, "reconstruction", *terms.split())
    assert {f"terms/{term}" for term in expected} <= first.keys()


@pytest.mark.parametrize("words", [CYCLEGAN, STARGAN, JOINT], ids=["cyclegan", "stargan", "joint"])
def test_a_resumed_run_is_one_that_never_stopped(words: tuple[str, ...], tmp_path: Path) -> None:
    more = (
        *COMMON,
        *words[:-1],
        "steps=4",
        "checkpoint.every=2",
        "samples.every=4",
        "ema.decay=0.5",
    )

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for out in (whole, parts):
        typed = unmeasured(tiny(f"out={out}", *more))
        train_run(compose(typed), typed, {}, None)
    newest = Path("checkpoints") / file_name(4)
    (parts / newest).unlink()  # as after a kill behind step 2
    (parts / "result.json").unlink()
    typed = unmeasured(tiny(f"out={parts}", *more))
    train_run(compose(typed), typed, {}, None)
    assert different(whole / newest, parts / newest) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*CYCLEGAN, "regularizer=zcr"), "CycleGAN has none: its generator translates images"),
        ((*STARGAN, "regularizer=[classification,zcr]"), "StarGAN has none"),
        ((*STARGAN, "dataset=demo", "dataset.classes=0"), "this data set has none"),
        ((*CYCLEGAN, "regularizer=classification"), "classif"),
        ((*CYCLEGAN, "optimizer.n_dis=2"), "optimizer.n_dis=1"),
        ((*JOINT, "optimizer.n_dis=2"), "optimizer.n_dis=3"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_step(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    typed = unmeasured(tiny(f"out={tmp_path / 'run'}", *COMMON, *words))
    with pytest.raises(UserError, match=said):
        train_run(compose(typed), typed, {}, None)


@pytest.mark.parametrize("words", [CYCLEGAN, JOINT], ids=["cyclegan", "joint"])
def test_two_processes_train_as_one(words: tuple[str, ...], tmp_path: Path) -> None:
    settings = (*words, "optimizer.eps=0.01")  # a larger eps, as in test_distributed
    run_unmeasured(tmp_path / "one", *settings)
    in_processes(2, partial(run_unmeasured, tmp_path / "two", *settings))
    assert_close(tmp_path / "one", tmp_path / "two", 2)


def test_metrics_of_both_directions_and_their_mean_are_logged(tmp_path: Path) -> None:
    measured = ("metrics.measures=[kid]", "metrics.every=2", "samples.every=2")
    train(tmp_path / "run", *COMMON, *CYCLEGAN, *measured)
    (line,) = lines(tmp_path / "run", "eval")
    kid = next(key for key in line if key.startswith("kid") and "_" not in key.partition("_n")[2])
    assert line[kid] == pytest.approx((line[f"{kid}_to_a"] + line[f"{kid}_to_b"]) / 2)
