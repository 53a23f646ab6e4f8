"""Runs with another sampler: killed and resumed, growing, and refused before data are read."""

import logging
import re
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image
from support.kills import Killed, kill, nth_call
from support.runs import Crgan, different, refused, tiny, unmeasured
from training.test_growing_runs import grow

from crgan_cli.config.compose import compose
from crgan_cli.data import embedded
from crgan_cli.data.batches import Batches
from crgan_cli.data.dataset import build_dataset
from crgan_cli.errors import UserError
from crgan_cli.gan.stages import Stage
from crgan_cli.training.requirements import build_sampler
from crgan_cli.training.start import train_run
from crgan_cli.training.trainer import Trainer

SAID = (
    "sampler Balanced: 2 classes of 3 to 9 images; an epoch of 12 images shows each class 6 times, "
    "an image of the smallest class up to 2 times"
)


@pytest.fixture
def by_class(tmp_path: Path) -> Path:
    """Ten images of one class, four of another: nine and three of them to train on."""
    for number in range(14):
        file = tmp_path / "by_class" / ("many" if number < 10 else "few") / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 17 * number).save(file)
    return tmp_path / "by_class"


def test_a_balanced_run_that_is_killed_ends_as_one_that_never_stopped(
    by_class: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Steps 3 to 5 are the second epoch, step 6 is of the third; it is killed in the second."""
    data = ("dataset=folder", f"dataset.root={by_class}", "dataset.classes=2")
    more = ("dataset.channels=1", "dataset.resolution=8", "dataset.fraction=1", "regularizer=none")

    def balance(name: str) -> Path:
        out = f"out={tmp_path / name}"
        typed = unmeasured(tiny(*data, *more, "sampler=balanced", out, "samples.every=9"))
        train_run(compose(typed), typed, {}, None)
        return tmp_path / name / "checkpoints/step_00000006.pt"

    with caplog.at_level(logging.INFO, logger="crgan_cli"):
        whole = balance("whole")
    assert [text for text in caplog.messages if text.startswith("sampler")] == [SAID]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", nth_call(6, Trainer.train_step, kill))
        with pytest.raises(Killed):
            balance("killed")
    assert different(balance("killed"), whole) == []


def test_a_run_that_grows_is_balanced_at_each_resolution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ten classes each is in every epoch twice, at 4, 8 and 16 pixels."""
    enter, counted = Trainer.enter, {}

    def count(trainer: Trainer, stage: Stage) -> None:
        enter(trainer, stage)
        assert isinstance(trainer.batches, Batches)
        drawn = [trainer.batches[index] for index in range(20 // stage.batch_size)]
        counted[drawn[0].x.shape[-1], stage.batch_size] = Counter(
            label for batch in drawn for label in batch.y.tolist()
        )

    monkeypatch.setattr(Trainer, "enter", count)
    words = ("dataset.fraction=0.001", "sampler=balanced", "task.batch_sizes=[4,4,2,2]")
    grow(tmp_path / "run", *words, "steps=5")
    assert counted.keys() == {(4, 4), (8, 4), (16, 2)}
    assert all(each == dict.fromkeys(range(10), 2) for each in counted.values())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "dataset.classes=0",
            "The demo set has no classes with dataset.classes=0, and the sampler",
        ),
        ("dataset.classes=0", "Type dataset.classes=10, or sampler=shuffle."),
        ("experiment=demo_pix2pix", "The demo set of pairs has no classes"),
        ("experiment=demo_cyclegan", "The demo set of domains has no classes"),
        ("experiment=demo_stargan dataset=demo_traits", "The demo set of traits has no classes"),
        ("experiment=demo_stargan_joint", "dataset=joint has no classes"),
        ("dataset=celeba", "Type sampler=shuffle, or dataset.classes=N if each image has one of N"),
        ("dataset=imagenet dataset.root=/tmp", "ImageNet and the sampler Balanced cannot be combi"),
        ("sampler._target_=crgan_cli.gan.Hinge", "sampler._target_ must name one class, a crgan"),
    ],
)
def test_what_cannot_be_balanced_is_refused(words: str, said: str) -> None:
    config = compose(["sampler=balanced", *words.split()])
    with pytest.raises(UserError, match=re.escape(said)):
        build_sampler(config, build_dataset(config))


@pytest.mark.parametrize("dry", [True, False])
def test_a_run_refuses_before_its_data_are_read(
    crgan: Crgan, monkeypatch: pytest.MonkeyPatch, dry: bool
) -> None:
    monkeypatch.setattr(embedded, "read_tiles", None)
    typed = unmeasured(tiny("out=run", "sampler=balanced", "dataset.classes=0"))
    said = "The demo set has no classes with dataset.classes=0, and the sampler Balanced draws by"
    refused(crgan("train", *typed, *["--dry-run"] * dry), said)
    assert not Path("run").exists()


def test_one_class_is_refused_before_the_first_step(crgan: Crgan) -> None:
    one = ("dataset.only_classes=[bag]", "dataset.classes=1")
    typed = unmeasured(tiny("out=run", "sampler=balanced", *one))
    refused(crgan("train", *typed), "all training images are of one. Type sampler=shuffle")
