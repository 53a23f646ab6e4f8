"""Images that are no squares, from the command line: dataset.resolution=[HEIGHT,WIDTH]."""

import json
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.runs import Crgan, different, refused, tiny, train, unmeasured

from crgan_cli.evaluation.artefacts import detector, leakage
from crgan_cli.report import plots

HEIGHT, WIDTH = 48, 32
LAST = "checkpoints/step_00000004.pt"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The settings for a folder of pictures of many shapes."""
    root = tmp_path_factory.mktemp("pictures")
    random = np.random.RandomState(0)
    for number in range(80):
        height, width = random.randint(30, 90, 2)
        pixels = random.randint(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number:02}.png")
    sizes = [f"dataset.resolution=[{HEIGHT},{WIDTH}]", "dataset.fraction=1", "dataset.holdout=0.35"]
    return ["dataset=folder", f"dataset.root={root}", *sizes]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, own: list[str]) -> Path:
    """A run of all that changes or compares images, scored and then finished."""
    out = tmp_path_factory.mktemp("run") / "run"
    train(out, *settings(own), "steps=2")
    train(out, *settings(own), "steps=4")
    return out


def settings(own: list[str]) -> list[str]:
    views = ["regularizer=icr", "augment=cutout_flip_shift", "augment.size=16", "augment.shift=4"]
    scores = [
        "metrics.every=2",
        "samples.every=2",
        "ema.decay=0.5",
        "metrics=demo",
        "metrics.measures=[kid]",
    ]
    glorot = ["architecture=resnet_sngan"]  # its images are not grey from the first step on
    return [*own, *views, "augment_both=diffaugment", *scores, *glorot]


def test_a_resumed_run_is_one_that_never_stopped(run: Path, own: list[str], tmp_path: Path) -> None:
    train(tmp_path / "whole", *settings(own), "steps=4")
    assert different(run / LAST, tmp_path / "whole" / LAST) == []


def test_the_grid_of_a_run_and_the_images_of_sample_have_the_height_and_the_width(
    run: Path, crgan: Crgan, tmp_path: Path
) -> None:
    with Image.open(run / "samples/step_00000004.png") as grid:
        assert grid.size == (2 * (WIDTH + 2) + 2, 2 * (HEIGHT + 2) + 2)
    assert crgan("sample", run, "--n", "3", "--out", "images.zip")[0] == 0
    with zipfile.ZipFile(tmp_path / "images.zip") as images:
        pictures = [name for name in images.namelist() if name.endswith(".png")]
        assert len(pictures) == 3
        assert Image.open(BytesIO(images.read(pictures[0]))).size == (WIDTH, HEIGHT)
    assert crgan("sample", run, "--n", "4", "--interpolate", "4", "--out", "loop.gif")[0] == 0


def test_eval_scores_the_run_and_the_images_of_a_file(
    run: Path, own: list[str], crgan: Crgan
) -> None:
    measures = "metrics.measures=[kid,swd]"
    code, out, err = crgan("eval", run, measures, "metrics.num_samples=8")
    assert code == 0, err
    assert f"swd_{WIDTH}" in out
    assert crgan("sample", run, "--n", "8", "--out", "few.zip")[0] == 0
    few = ["metrics=demo", "extractor.resolution=32", "metrics.measures=[kid]"]
    few += ["metrics.num_samples=8"]
    assert crgan("eval", "--samples", "few.zip", *own, *few)[0] == 0
    square = f"dataset.resolution={WIDTH}"
    answer = crgan("eval", "--samples", "few.zip", *own, square, *few)
    refused(answer, "are 3 x 48 x 32 (channels x height x width)")


def test_artefacts_measure_them(
    run: Path, crgan: Crgan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: None)
    monkeypatch.setattr(detector, "ROUNDS", 1)
    monkeypatch.setattr(detector, "STEPS_PER_ROUND", 1)
    monkeypatch.setattr(leakage, "FEWEST", 12)
    monkeypatch.setenv("CRGAN_CACHE", str(tmp_path / "cache"))
    code, _, err = crgan("artefacts", run, "--n", "12", "--pixels-only")
    assert code == 0, err
    found = json.loads((run / "artefacts/step_00000004_ema/leakage.json").read_text())
    assert found["transforms"]["shift"]["transform"]["shift"] == 4  # the run's own
    assert found["transforms"]["cutout"]["transform"]["size"] == 16


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("sndcgan", "[40,24]"),
        ("dcgan", "[32,48]"),
        ("mlp", "[7,5]"),
        ("mlp_maxout", "[5,7]"),
        ("resnet", "[32,48]"),
        ("biggan_lite", "[96,48]"),
        ("biggan", "[64,96]"),
    ],
)
def test_networks_train_on_rectangles(own: list[str], crgan: Crgan, name: str, sides: str) -> None:
    size, few = f"dataset.resolution={sides}", ["steps=2", "batch_size=2"]
    typed = [*own, size, *few, f"architecture={name}", "augment_both=ada"]
    if name.startswith("biggan"):
        typed.append("architecture.conditional=false")
    code, _, err = crgan("train", *unmeasured(tiny("out=run", *typed)))
    assert code == 0, err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dataset.resolution=[32,32]"], "Type dataset.resolution=32."),
        (
            ["dataset.resolution=[36,32]", "architecture=sndcgan"],
            "[36,32], but architecture=sndcgan works at",
        ),
        (["architecture=resnet5"], "Of [HEIGHT,WIDTH] the shorter one must be such a side"),
        (["architecture=pggan"], "[HEIGHT,WIDTH] is for architecture=sndcgan, dcgan,"),
        (["architecture=unet", "task=pix2pix"], "[HEIGHT,WIDTH] is for architecture=sndcgan,"),
        (["task=progressive"], "images that grow are squares. Type dataset.resolution=48"),
        (["dataset.resolution=[1,2,3]"], "or [HEIGHT,WIDTH], not [1,2,3]"),
        (["augment=cutout", "augment.size=33"], "augment.size=33 is larger than images of 32"),
    ],
)
def test_what_cannot_be_a_rectangle_says_what_can(
    own: list[str], crgan: Crgan, words: list[str], said: str
) -> None:
    refused(crgan("train", *unmeasured(tiny(*own, *words))), said)


@pytest.mark.parametrize("name", ["demo", "cifar10", "celeba", "imagenet", "pairs", "domains"])
def test_other_data_sets_name_the_one_that_takes_rectangles(crgan: Crgan, name: str) -> None:
    words = [f"dataset={name}", "dataset.resolution=[48,32]", "metrics=none"]
    code, _, err = crgan("train", *words)
    assert code == 2
    assert "([HEIGHT,WIDTH] is for dataset=folder), not [48,32]" in err
