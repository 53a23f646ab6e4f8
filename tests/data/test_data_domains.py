"""Two sets of images without pairs: layouts, and every way in which they can be wrong."""

import logging
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crgan_cli.data.domains import Domains
from crgan_cli.data.images import Images
from crgan_cli.errors import UserError

pytestmark = pytest.mark.usefixtures("cache_folder")


def domains(root: Path, **changed: object) -> Domains:
    options: dict[str, object] = {
        "channels": 1,
        "channels_a": 1,
        "channels_b": 1,
        "resolution": 4,
        "load_size": 4,
        "classes": 0,
        **changed,
    }
    return Domains(root=str(root), **options)  # pyright: ignore[reportArgumentType]


def write(root: Path, names: Iterable[str], mode: str = "L") -> Path:
    """Image i is grey i: in A from 0, in B from 100."""
    for i, name in enumerate(names):
        value = i + 100 * ("B" in name)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, (6, 4), value if mode == "L" else (value, 0, 9)).save(root / name)
    return root


def values(images: Images) -> list[int]:
    """The value of each image, sorted; all its pixels are equal."""
    assert torch.equal(images.x, images.x[:, :, :1, :1].expand_as(images.x))
    return sorted(images.x[:, 0, 0, 0].tolist())


LAYOUTS = {
    "horse2zebra": ["trainA/0.png", "trainA/1.png", "testA/0.png", "trainB/0.png", "testB/1.png"],
    "underscores": [
        "train_A/0.png",
        "train_A/1.png",
        "val_A/0.png",
        "train_B/0.png",
        "val_B/1.png",
    ],
    "hyphens": ["train-a/0.png", "train-a/1.png", "test-a/0.png", "train-B/0.png", "test-B/1.png"],
    "inside": ["A/train/0.png", "A/train/x/1.png", "A/test/0.png", "B/train/0.png", "B/test/1.png"],
    "capital": ["A/Train/0.png", "A/Train/1.png", "A/Test/0.png", "B/Train/0.png", "B/Test/1.png"],
    "around": ["train/A/0.png", "train/A/1.png", "test/A/0.png", "train/B/0.png", "test/B/1.png"],
}


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_found_in_a_folder_and_in_a_zip(tmp_path: Path, layout: str, packed: bool):
    root = write(tmp_path / "images", LAYOUTS[layout])
    if packed:
        with zipfile.ZipFile(path := root.with_suffix(".zip"), "w") as archive:
            for file in sorted(root.rglob("*")):
                archive.write(file, file.relative_to(root.parent))
        root = path
    data = domains(root)
    train, test = data.load_sets("train"), data.load_views("test")
    assert {name: values(each) for name, each in train.items()} == {"a": [0, 1], "b": [103]}
    assert {name: values(each) for name, each in test.items()} == {"a": [2], "b": [104]}
    assert data.set_sizes(train["a"]) == (2,)
    assert data.name == "images"


def test_without_splits_a_share_of_each_domain_is_held_out(tmp_path: Path):
    names = [f"{domain}/{i}.png" for domain in "AB" for i in range(10 if domain == "A" else 5)]
    data = domains(write(tmp_path / "images", names), holdout=0.2)
    train, test = data.load_sets("train"), data.load_sets("test")
    assert [len(each.x) for each in (*train.values(), *test.values())] == [8, 4, 2, 1]
    assert sorted(values(train["a"]) + values(test["a"])) == list(range(10))
    assert torch.equal(data.load_sets("train")["b"].x, train["b"].x)


def test_images_of_one_name_are_shuffled_apart_and_always_alike(tmp_path: Path):
    names = [f"train{domain}/{i:02}.png" for domain in "AB" for i in range(20)]
    names += ["testA/0.png", "testB/0.png"]
    train = domains(write(tmp_path / "images", names)).load_sets("train")
    a, b = (train[domain].x[:, 0, 0, 0].int() for domain in "ab")
    assert sorted((b - a).tolist()) != [120] * 20
    # RandomState(0) and RandomState(1): the stream that NumPy guarantees
    assert a.tolist() == np.random.RandomState(0).permutation(20).tolist()
    assert (b - 120).tolist() == np.random.RandomState(1).permutation(20).tolist()


def test_training_images_are_larger_squares_and_views_are_as_those_of_the_test_split(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    root = tmp_path / "images"
    ramp = Image.fromarray(np.tile(np.arange(12, dtype=np.uint8) * 20, (6, 1)))
    for folder in ("trainA", "trainB", "testA", "testB"):
        (root / folder).mkdir(parents=True)
        ramp.save(root / folder / "0.png")
    data = domains(root, load_size=6)
    stored = data.load_sets("train")["a"].x
    squashed = np.asarray(ramp.resize((6, 6), Image.Resampling.BICUBIC))
    assert np.array_equal(stored[0, 0], squashed)
    test = data.load_sets("test")["a"].x
    assert test.shape == (1, 1, 4, 4)
    caplog.set_level(logging.INFO)
    caplog.clear()
    assert torch.equal(data.load_views("train")["a"].x, test)
    # what is said of the set is said once, and only the decoding of the other size now
    assert [text.split()[0] for text in caplog.messages] == ["decoded", "decoded"]


def test_unlike_channels_and_grey_files_among_colours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    names = ["trainA/0.png", "trainB/0.png", "testA/0.png", "testB/0.png"]
    root = write(write(tmp_path / "images", names), ["trainB/1.png"], "RGB")
    caplog.set_level(logging.INFO)
    train = domains(root, channels=3, channels_a=1, channels_b=3).load_sets("train")
    assert (train["a"].x.shape[1], train["b"].x.shape[1]) == (1, 3)
    assert "images: 1 of 2 images of b are grey" in caplog.text


def test_a_fraction_is_of_each_domain(tmp_path: Path):
    names = [f"train{d}/{i}.png" for d in "AB" for i in range(10)] + ["testA/0.png", "testB/0.png"]
    train = domains(write(tmp_path / "images", names), fraction=0.3).load_sets("train")
    assert [len(each.x) for each in train.values()] == [3, 3]


def test_a_split_that_is_not_used_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    domains(write(tmp_path / "images", [*LAYOUTS["horse2zebra"], "valA/9.png"])).load_sets("train")
    assert "images: 1 images of a in val are unused" in caplog.text


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["trainA/0.png", "testA/0.png"], "no image is in B: its folder is missing or empty"),
        (["trainA/0.png", "trainB/0.png", "testA/0.png"], "the test split has no image of B"),
        (["trainA/0.png", "testA/0.png", "testB/0.png"], "the train split has no image of B"),
        (["testA/0.png", "testB/0.png"], "there is no train split among them"),
        (["A/train/0.png", "B/0.png"], "some are in train/, val/ or test/, and some are not"),
        (["A/0.png", "B/0.png", "other/0.png"], "1 are in neither domain: other/0.png"),
        (["train/0.png", "test/0.png"], "two images side by side are pairs: dataset=pairs"),
        (["happy/0.png", "sad/0.png"], "are classes: dataset=folder dataset.classes=N"),
        (["A/0.png", "B/0.png", "B/1.png"], r"1 image\(s\) in .*images \(a\) leaves none"),
    ],
)
def test_a_wrong_layout_is_refused_with_the_remedy(tmp_path: Path, names: list[str], said: str):
    with pytest.raises(UserError, match=said):
        domains(write(tmp_path / "images", names), holdout=0.9).load_sets("train")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"load_size": 3}, "load_size=3 is smaller than dataset.resolution=4"),
        ({"classes": 2}, "the domains a and b have no classes. Leave it out. For more than two"),
        ({"channels_b": 2}, r"channels_b=2: images are converted to 1 channel \(grey\)"),
    ],
)
def test_a_wrong_setting_is_refused(tmp_path: Path, changed: dict[str, int], said: str):
    with pytest.raises(UserError, match=said):
        domains(tmp_path, **changed)


def test_asking_for_one_set_is_refused_and_never_gives_one_side(tmp_path: Path):
    data = domains(write(tmp_path / "images", LAYOUTS["horse2zebra"]))
    for ask in (data.load, data.load_whole):
        with pytest.raises(UserError, match="two sets of images, a and b, and one set is needed"):
            ask("train")
