"""CelebA-HQ from tiny files: its split, its layouts, and what is refused."""

import zipfile
from pathlib import Path

import pytest
from PIL import Image

from crgan_cli.data.celeba_hq import CelebAHQ
from crgan_cli.data.dataset import Split
from crgan_cli.errors import UserError

SIZES = (CelebAHQ.images, CelebAHQ.test_images)


@pytest.fixture(autouse=True)
def twenty_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data set has 20 images, and a cache of its own."""
    monkeypatch.setenv("CRGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(CelebAHQ, "images", 20)
    monkeypatch.setattr(CelebAHQ, "test_images", 3)


def data(root: Path, **changed: int) -> CelebAHQ:
    options = {"resolution": 8, "channels": 3, "classes": 0, **changed}
    return CelebAHQ(root=str(root), **options)


def write(folder: Path, count: int = 20) -> Path:
    """Photos 0.png to 19.png of 16x16, in greys of 10 times their number."""
    folder.mkdir(parents=True)
    for i in range(count):
        Image.new("RGB", (16, 16), (10 * i, 10 * i, 10 * i)).save(folder / f"{i}.png")
    return folder


def numbers(data: CelebAHQ, split: Split) -> list[int]:
    x = data.load(split).x
    assert x.shape[1:] == (3, data.resolution, data.resolution)
    return [grey // 10 for grey in x[:, 0, 0, 0].tolist()]


def test_it_has_30000_images_and_the_last_3000_are_for_testing() -> None:
    assert SIZES == (30_000, 3_000)


@pytest.mark.parametrize("where", ["celeba_hq", "."])
def test_the_last_by_number_are_the_test_split(tmp_path: Path, where: str) -> None:
    write(tmp_path / "data" / where if where != "." else tmp_path / "data")
    assert numbers(data(tmp_path / "data"), "train") == list(range(17))
    assert numbers(data(tmp_path / "data"), "test") == [17, 18, 19]


def test_a_zip_is_read_as_it_is_and_folders_in_it_mean_nothing(tmp_path: Path) -> None:
    """The layout of StarGAN v2: the same numbers, in folders by split and sex."""
    folder = write(tmp_path / "flat")
    with zipfile.ZipFile(tmp_path / "celeba_hq.zip", "w") as archive:
        for i, path in enumerate(sorted(folder.iterdir())):
            part = ("train/female", "val/female", "train/male")[i % 3]
            archive.write(path, f"celeba_hq/{part}/{path.name}")
    for root in (tmp_path, tmp_path / "celeba_hq.zip"):
        assert numbers(data(root), "test") == [17, 18, 19]
        assert numbers(data(root), "train") == list(range(17))


def test_another_number_of_images_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "celeba_hq", 19)
    with pytest.raises(UserError) as caught:
        data(tmp_path).load("train")
    for words in (
        f"{folder} holds 19 images; CelebA-HQ has 20",
        "CelebA-HQ-img of CelebAMask-HQ: dataset.root=PATH",
        "dataset=folder",
        "dataset=celeba dataset.resolution=128 dataset.crop=178",
    ):
        assert words in str(caught.value)


def test_where_there_is_none_it_says_what_goes_where(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "gone"):
        with pytest.raises(UserError) as caught:
            data(root).load("train")
        for words in (f"not in {root}", f"into {root / 'celeba_hq'}", "dataset.root=PATH"):
            assert words in str(caught.value)


def test_a_protocol_names_another_size_than_the_papers(tmp_path: Path) -> None:
    assert data(tmp_path, resolution=128).described == "celeba_hq"
    assert data(tmp_path, resolution=64).described == "celeba_hq (64x64)"


def test_it_has_no_classes_and_three_channels(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset\.channels=1 and dataset\.classes=2"):
        data(tmp_path, channels=1, classes=2).load("train")
