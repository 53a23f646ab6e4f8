"""Runs of pix2pix with every kind of setting, and by two processes."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.ranks import in_processes
from support.runs import different, leaves, lines, tiny

from crgan_cli.config.compose import compose
from crgan_cli.runs.checkpoint import file_name
from crgan_cli.training.start import train_run

NETS = (
    "task=pix2pix",
    "architecture=unet",
    "architecture.d_layers=1",
    "optimizer=pix2pix",
    "regularizer=none",
    "dataset=pairs",
    "dataset.resolution=32",
    "dataset.load_size=34",
    "dataset.fraction=1",
    "log.every=1",
    "engine.precision=fp32",
)
UNMEASURED = ("metrics=none", "samples.every=9", "steps=2", "checkpoint.every=2")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 pairs to train on and 5 for tests: noise, and the same noise inverted."""
    folder = tmp_path_factory.mktemp("pairs")
    random = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 5)):
        (folder / split).mkdir()
        for number in range(count):
            half = random.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(np.hstack([half, 255 - half])).save(folder / split / f"{number}.png")
    return folder


def train(out: Path, root: Path, *overrides: str) -> Path:
    """A run on these pairs. A later override of a key replaces an earlier one."""
    typed = dict(word.split("=", 1) for word in (*NETS, f"dataset.root={root}", *overrides))
    words = tiny(f"out={out}", *(f"{key}={value}" for key, value in typed.items()))
    if typed.get("metrics") == "none":
        words = [word for word in words if not word.startswith(("metrics.", "extractor."))]
    train_run(compose(words), words, {}, None)
    return out


@pytest.mark.parametrize(
    ("settings", "terms"),
    [
        ("regularizer=cr architecture.d_norm=batch loss=hinge", "cr/real"),
        ("regularizer=bcr architecture.d_norm=instance loss=least_squares", "bcr/real bcr/fake"),
        ("regularizer=bcr architecture.d_layers=0", "bcr/real bcr/fake"),
        ("regularizer=gp architecture.d_norm=none task.conditional=false", "gp"),
        ("regularizer=[r1,cr] architecture.d_norm=instance architecture.d_layers=2", "r1 cr/real"),
        ("regularizer=jsr architecture.d_norm=batch architecture.d_layers=3", "jsr/real jsr/fake"),
        ("regularizer=dragan architecture.upsampling=resize architecture.norm=none", "dragan"),
        ("dataset.resolution=96 dataset.load_size=96 architecture.d_layers=5", ""),
        ("engine.precision=bf16 engine.channels_last=false architecture.norm=instance", ""),
        ("dataset.channels_in=1 augment=cutout augment.size=8 regularizer=bcr", "bcr/fake"),
    ],
)
def test_it_trains_with(settings: str, terms: str, root: Path, tmp_path: Path) -> None:
    run = train(tmp_path / "run", root, *UNMEASURED, *settings.split())
    logged = lines(run, "train")
    assert [line["step"] for line in logged] == [1, 2]
    expected = {"adversarial/d", "adversarial/g", "l1", *terms.split()}
    for line in logged:
        assert {f"terms/{term}" for term in expected} <= line.keys()
        assert all(math.isfinite(value) for value in line.values() if isinstance(value, float))


def test_engine_settings_change_nothing_but_rounding(root: Path, tmp_path: Path) -> None:
    plain, strict, first = (
        train(tmp_path / name, root, *UNMEASURED, "optimizer.eps=0.01", *more)
        for name, more in (
            ("plain", ()),
            ("strict", ("engine.deterministic=true",)),
            ("channels first", ("engine.channels_last=false",)),
        )
    )
    newest = Path("checkpoints") / file_name(2)
    assert different(plain / newest, strict / newest) == []
    assert_close(plain, first, 2)


def assert_close(one: Path, other: Path, step: int) -> None:
    """Weights and numbers are the same to rounding."""
    for kind in ("train", "eval"):
        for a, b in zip(lines(one, kind), lines(other, kind), strict=True):
            assert b.pop("kind") == a.pop("kind")
            assert b == pytest.approx(a, rel=1e-3, abs=1e-5)
    newest = Path("checkpoints") / file_name(step)
    a, b = (torch.load(each / newest, weights_only=True)["states"] for each in (one, other))
    for part in ("task", "ema"):
        expected, found = (leaves(states.get(part, {})) for states in (a, b))
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5, msg=key)


# Batch norm in both players, dropout, crops, flips, T, an average, and metrics of an odd number of
# images. Adam with a large eps, as in test_distributed.
KIND = (
    "regularizer=bcr",
    "architecture.d_norm=batch",
    "optimizer.eps=0.01",
    "ema.decay=0.5",
    "metrics=pairs",
    "metrics.measures=[kid]",
    "metrics.num_samples=null",
    "metrics.every=2",
    "samples.every=4",
    "steps=4",
)


def test_two_processes_train_and_measure_as_one(root: Path, tmp_path: Path) -> None:
    train(tmp_path / "one", root, *KIND)
    in_processes(2, partial(train, tmp_path / "two", root, *KIND))
    assert_close(tmp_path / "one", tmp_path / "two", 4)
    assert len(lines(tmp_path / "two", "eval")) == 2
    grids = [(tmp_path / run / "samples/step_00000004.png") for run in ("one", "two")]
    a, b = (np.asarray(Image.open(grid)).astype(int) for grid in grids)
    assert a.shape == b.shape
    assert abs(a - b).max() <= 1
