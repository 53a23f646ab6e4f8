"""The checks every data set goes through, and its share of the training images."""

import numpy as np
import pytest
import torch

from crgan_cli.data.dataset import Dataset, DatasetInfo, Split
from crgan_cli.data.images import Images
from crgan_cli.errors import UserError


class Squares(Dataset):
    """60 training images of classes 0, 1, 2 in the ratio 3:2:1, and 3 for testing."""

    title = "Squares"
    facts = DatasetInfo(4, 1, 3)

    def read(self, split: Split) -> Images:
        y = torch.tensor([0] * 30 + [1] * 20 + [2] * 10 if split == "train" else [0, 1, 2])
        return Images(
            torch.arange(len(y), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4), y
        )


def squares(**changed: float) -> Squares:
    return Squares(**{"resolution": 4, "channels": 1, "classes": 3, **changed})  # pyright: ignore


class Jittered(Squares):
    """The same images with numbered columns, stored at 8 pixels for training at 4."""

    facts = None

    @property
    def stored_resolution(self) -> int:
        return 8

    def read(self, split: Split) -> Images:
        side = 8 if split == "train" else 4
        x = torch.arange(side, dtype=torch.uint8).expand(3, 1, side, side)
        return Images(x, torch.arange(3))


def test_training_images_may_be_stored_larger():
    data = Jittered(resolution=4, channels=1, classes=3)
    assert data.load("train").x.shape == (3, 1, 8, 8)
    assert data.load("test").x.shape == (3, 1, 4, 4)
    wrong = Jittered(resolution=5, channels=1, classes=3)
    with pytest.raises(UserError, match=r"\(1, 4, 4\).*its YAML says \(1, 5, 5\)"):
        wrong.load("test")


def test_a_fraction_applies_to_training_only():
    data = squares(fraction=0.5)
    assert torch.bincount(data.load("train").y).tolist() == [15, 10, 5]
    assert len(data.load("test").x) == 3


def test_a_fraction_keeps_images_with_their_labels():
    images = squares(fraction=0.5).load("train")
    number = images.x[:, 0, 0, 0].long()
    assert torch.equal(images.y, (number >= 30).long() + (number >= 50).long())


def test_classes_zero_leaves_the_labels_out_but_still_stratifies():
    images = squares(classes=0, fraction=0.1).load("train")
    assert images.y.tolist() == [0] * 6
    numbers = images.x[:, 0, 0, 0].numpy()
    assert np.histogram(numbers, [0, 30, 50, 60])[0].tolist() == [3, 2, 1]


@pytest.mark.parametrize("changed", [{"resolution": 64}, {"channels": 3}, {"classes": 7}])
def test_a_false_fact_is_refused_by_name(changed: dict[str, int]):
    (name, value), *_ = changed.items()
    with pytest.raises(UserError, match=rf"Squares is 4x4 and has .*dataset\.{name}={value}"):
        squares(**changed).load("train")


class Lying(Squares):
    """What is read is not what the facts say."""

    facts = None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"resolution": 8}, r"shape \(1, 4, 4\).*\(1, 8, 8\)"),
        ({"classes": 2}, r"labels from 0 to 2.*classes: 2"),
    ],
)
def test_pixels_and_labels_are_compared_with_the_yaml(changed: dict[str, int], words: str):
    with pytest.raises(UserError, match=words):
        Lying(**{"resolution": 4, "channels": 1, "classes": 3, **changed}).load("train")  # pyright: ignore
