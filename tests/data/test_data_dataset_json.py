"""Labels from StyleGAN's dataset.json: images in folders that say nothing, labels in a file."""

import json
import zipfile
from pathlib import Path

import pytest
import torch
from support.pictures import save_grey

from crgan_cli.data.folder import Folder
from crgan_cli.data.images import Images
from crgan_cli.errors import UserError

pytestmark = pytest.mark.usefixtures("cache_folder")


def shards(root: Path, count: int = 12, labels: object = ...) -> Path:
    """Image i is grey i, in shard i // 6, of class i % 3."""
    names = [f"{i // 6:05}/img{i:08}.png" for i in range(count)]
    save_grey(root, names)
    if labels is ...:
        labels = [[name, i % 3] for i, name in enumerate(names)]
    (root / "dataset.json").write_text(json.dumps({"labels": labels}))
    return root


def folder(root: Path, **changed: object) -> Folder:
    options = {"resolution": 4, "channels": 1, "classes": 3, **changed}
    return Folder(root=str(root), **options)  # pyright: ignore[reportArgumentType]


def labels_fit(images: Images) -> bool:
    return torch.equal(images.y, images.x[:, 0, 0, 0].long() % 3)


def test_the_file_and_not_its_shards_are_the_classes(tmp_path: Path):
    data = folder(shards(tmp_path / "images"), holdout=0.25)
    train, test = data.load("train"), data.load("test")
    assert labels_fit(train)
    assert labels_fit(test)
    assert data.class_names == ("0", "1", "2")
    # held out by class
    assert torch.bincount(test.y).tolist() == [1, 1, 1]
    assert len(train.x) == 9


def test_a_zip_gives_what_its_folder_gives(tmp_path: Path):
    root = shards(tmp_path / "images")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for file in sorted(root.rglob("*.*")):
            archive.write(file, f"outer\\{file.relative_to(root)}")
    one, other = (folder(each).load("train") for each in (root, tmp_path / "images.zip"))
    assert torch.equal(one.x, other.x)
    assert torch.equal(one.y, other.y)


def test_one_hot_rows_are_classes(tmp_path: Path):
    rows = torch.eye(3).tolist()
    labels = [[f"{i // 6:05}/img{i:08}.png", rows[i % 3]] for i in range(12)]
    assert labels_fit(folder(shards(tmp_path / "images", labels=labels)).load("train"))


def test_splits_may_each_have_a_file(tmp_path: Path):
    shards(tmp_path / "images" / "train")
    shards(tmp_path / "images" / "test", count=6)
    data = folder(tmp_path / "images")
    assert len(data.load("train").x) == 12
    assert len(data.load("test").x) == 6
    assert labels_fit(data.load("train"))
    assert labels_fit(data.load("test"))


def test_sub_folders_can_be_chosen(tmp_path: Path):
    data = folder(shards(tmp_path / "images"), classes=2, labels="folders")
    data.load("train")
    assert data.class_names == ("00000", "00001")


def test_without_classes_the_log_says_that_there_are_labels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    root = shards(tmp_path / "images")
    assert folder(root, classes=0).load("train").y.tolist() == [0] * 11
    assert "dataset.json labels 3 classes: dataset.classes=3 uses them" in caplog.text
    caplog.clear()
    folder(root, classes=0, labels="none").load("train")
    assert "dataset.json labels" not in caplog.text


def test_a_file_without_labels_is_no_file_of_labels(tmp_path: Path):
    root = shards(tmp_path / "images", labels=None)
    data = folder(root, classes=2)
    data.load("train")
    assert data.class_names == ("00000", "00001")
    with pytest.raises(UserError, match=r"no dataset\.json with labels.*dataset\.labels=folders"):
        folder(root, labels="dataset_json").load("train")


def name(i: int) -> str:
    return f"00000/img{i:08}.png"


@pytest.mark.parametrize(
    ("changed", "labels", "words"),
    [
        ({"classes": 2}, ..., r"classes=2, but dataset\.json .* labels 3 classes.*classes=3"),
        ({}, [[name(i), 10**15] for i in range(6)], r"classes=1000000000000001"),
        ({"classes": 0, "labels": "dataset_json"}, ..., r"classes=3"),
        ({"labels": "none"}, ..., r"dataset\.labels=none and dataset\.classes=3"),
        ({"classes": 0, "labels": "folders"}, ..., r"classes=2"),
        ({}, [[name(0), 0], [name(1), 2]], r"has no label for 4 of the 6 images.*img00000002"),
        ({}, [[name(i), 0.5] for i in range(6)], r"img00000000\.png is 0\.5"),
        ({}, [[name(i), -1] for i in range(6)], r"img00000000\.png is -1"),
        ({}, [[name(i), [0, 1, 1]] for i in range(6)], r"is \[0, 1, 1\].*dataset=attributes"),
        ({}, [name(0)], r"dataset\.json.*\[\[NAME, NUMBER\], \.\.\.\]"),
        ({}, 7, r"dataset\.json.*\[\[NAME, NUMBER\], \.\.\.\]"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, changed: dict[str, object], labels: object, words: str
):
    root = shards(tmp_path / "images", count=12 if labels is ... else 6, labels=labels)
    with pytest.raises(UserError, match=words):
        folder(root, **changed).load("train")


def test_a_file_that_is_no_json_is_refused(tmp_path: Path):
    root = shards(tmp_path / "images")
    (root / "dataset.json").write_bytes(b"{")
    with pytest.raises(UserError, match=r"dataset\.json .*cannot be read"):
        folder(root).load("train")


def test_labels_of_no_image_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    labels = [[name(i), i % 3] for i in range(6)] + [["gone.png", 0]]
    folder(shards(tmp_path / "images", count=6, labels=labels)).load("train")
    assert "1 labels in dataset.json are of no image: gone.png" in caplog.text
