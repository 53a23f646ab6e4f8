"""Runs that grow, by the command line: their checkpoints on the way up, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.runs import Crgan, refused, tiny, train, unmeasured

from crgan_cli.runs.protocol import differences

GROWING = (
    "task=progressive",
    "architecture=pggan",
    "architecture.width=1",
    "architecture.fmap_base=64",
    "architecture.fmap_max=8",
    "architecture.z_dim=4",
    "optimizer=pggan",
    "loss=wasserstein",
    "regularizer=gp_drift",
    "task.stable_images=8",
    "task.fade_images=8",
)
SIDES = {2: "16 of 32 pixels", 4: "32 of 32 pixels (alpha 0.5)"}


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run at 16 pixels in steps 1 and 2, and at 32 from step 3 on, which fades in until 4."""
    out = tmp_path_factory.mktemp("growing")
    more = ("architecture.labels=ac", "regularizer=[gp_drift,ac]", "ema.decay=0.5", "steps=4")
    every = ("metrics.every=2", "metrics.measures=[kid]", "checkpoint.keep=9")
    train(out, "dataset=demo", *GROWING, *more, *every, "task.first_resolution=16")
    return out


def step_file(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step_{step:08d}.pt"


def test_a_result_says_at_what_size_its_last_numbers_were(growing: Path, scored: Path) -> None:
    ours, plain = (json.loads((run / "result.json").read_text()) for run in (growing, scored))
    assert ours["protocol"]["generator_side"] == SIDES[4]
    assert "generator_side" not in plain["protocol"]  # as in all records before there was growth
    assert differences(ours["protocol"], {**ours["protocol"], "generator_side": "8"}) == []


def test_each_checkpoint_is_scored_at_its_size(growing: Path, crgan: Crgan) -> None:
    code, out, err = crgan("eval", growing, "--all", "device=cpu")
    assert code == 0
    for step, side in SIDES.items():
        assert f"at step {step}, ema weights, images of {side}\n" in out
        assert f"{step_file(growing, step).name} have not grown up: they work at {side}." in err
    records = [
        json.loads(text) for text in (growing / "evaluations.jsonl").read_text().splitlines()
    ]
    assert [each["protocol"]["generator_side"] for each in records] == [*SIDES.values()]
    logged = [json.loads(text) for text in (growing / "metrics.jsonl").read_text().splitlines()]
    name = records[0]["protocol"]["headline"]
    trained = [line[name] for line in logged if line["kind"] == "eval"]
    assert [each[name] for each in records] == trained


def test_images_are_drawn_on_the_way_up(growing: Path, crgan: Crgan, tmp_path: Path) -> None:
    early, full = tmp_path / "early", ["--n", "2", "--device", "cpu", "--truncation", "0.5"]
    code, out, err = crgan("sample", step_file(growing, 2), "--out", early, *full)
    assert (code, out) == (0, f"2 images of step 2, ema weights: {early}\n")
    assert f"they work at {SIDES[2]}." in err
    with Image.open(next(early.iterdir())) as image:
        assert image.size == (32, 32)
        halves = image.resize((16, 16), Image.Resampling.NEAREST)
        assert halves.resize((32, 32), Image.Resampling.NEAREST).tobytes() == image.tobytes()


def test_a_d_on_the_way_up_that_classifies_is_measured(
    growing: Path, crgan: Crgan, tmp_path: Path
) -> None:
    words = ["artefacts", step_file(growing, 2), "consistency", "--n", "4", "--out", tmp_path / "a"]
    code, out, _ = crgan(*words, "device=cpu")
    assert code == 0
    assert "cutout     at 16: train" in out


def test_a_report_marks_the_stages_and_names_the_size(growing: Path, crgan: Crgan) -> None:
    code, out, _ = crgan("report", growing)
    assert code == 0
    assert f"grown to {SIDES[4]}" in out
    page = (growing / "report" / "report.html").read_text()
    assert "a new resolution fades in at steps 2 (32 px); shaded until it is there in full" in page


# --- what is refused, with nothing trained --------------------------------------------------------


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 images of 16 pixels in two classes."""
    root = tmp_path_factory.mktemp("images")
    for number in range(20):
        folder = root / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (16, 16), (number, 0, 0)).save(folder / f"{number:02}.png")
    return root


def words_for(images: Path, *more: str) -> list[str]:
    folder = ("dataset=folder", f"dataset.root={images}", "dataset.resolution=16")
    return unmeasured(tiny(*folder, *GROWING, "dataset.fraction=1", *more))


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["dataset.resolution=24"], "24 is not 4 times a power of two. Type task.first_resol"),
        (["dataset.resolution=2"], "2 is not 4 times a power of two. Type task.first_resolution=4"),
        (["task=generation", "dataset.resolution=24"], "dataset.resolution=32"),
        (["task.first_resolution=3"], "16 is not 3 times a power of two"),
        (["task.first_resolution=64"], "task.first_resolution is 64 and dataset.resolution 16"),
        (["task.first_resolution=2"], "begins at 4 pixels. Type task.first_resolution=4"),
        (["task.first_resolution=0"], "must be a whole number of at least 1, not 0"),
        (["task.stable_images=0"], "Give task.stable_images=1 or more"),
        (["task.batch_sizes=[8]"], "has 1 numbers, and from 4 to 16 pixels there are 3 stages"),
        (["batch_size=6"], "has a batch of 6, which is no multiple of it. Give a multiple, such"),
        (["task.batch_sizes=[8,4,6]"], "has a batch of 6, which is no multiple of it"),
        (["task.batch_sizes=[8,40,4]"], "A batch of 40 images cannot be drawn from a training set"),
        (["architecture.labels=ac"], "architecture.labels=none, or a data set with labels"),
        (["architecture.labels=ac", "dataset.classes=2"], "Type regularizer=[gp_drift,ac]"),
        (["regularizer=[gp_drift,ac]"], "Type architecture=pggan architecture.labels=ac for"),
    ],
)
def test_a_setting_that_cannot_be_is_answered(
    images: Path, crgan: Crgan, tmp_path: Path, typed: list[str], said: str
) -> None:
    if "task=generation" in typed:
        words = [word for word in words_for(images, *typed) if not word.startswith("task.")]
    else:
        words = words_for(images, *typed)
    refused(crgan("train", *words), said)
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["architecture=sndcgan", "dataset=demo"], "SNDCGANGenerator cannot grow."),
        (["architecture=stargan", "dataset=demo"], "type architecture=pggan"),
        (["architecture=pggan", "architecture.fmap_base=64", "dataset=demo_pairs"], "task=pix2pix"),
    ],
)
def test_what_does_not_grow_is_named(crgan: Crgan, typed: list[str], said: str) -> None:
    refused(crgan("train", "task=progressive", *typed, "metrics=none", "device=cpu"), said)


def test_another_schedule_is_another_run(images: Path, crgan: Crgan, tmp_path: Path) -> None:
    words = words_for(images, "steps=1", f"out={tmp_path / 'run'}")
    assert crgan("train", *words)[0] == 0
    saved = torch.load(tmp_path / "run/checkpoints/step_00000001.pt", weights_only=True)
    assert saved["states"]["task"]["G.growth.stored_level"] == 0
    longer = [word for word in words if not word.startswith("task.fade_images")]
    refused(crgan("train", *longer, "task.fade_images=16"), "task.fade_images: 8 -> 16")
