"""CelebA from tiny files in its layouts, with and without the official partition."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from crgan_cli.data import standard
from crgan_cli.data.celeba import CelebA
from crgan_cli.errors import UserError

pytestmark = pytest.mark.usefixtures("cache_folder")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CelebA of six photos."""
    monkeypatch.setattr(CelebA, "images", 6)


def celeba(root: Path, **changed: float) -> CelebA:
    options = {"resolution": 8, "channels": 3, "classes": 0, "crop": 16, **changed}
    return CelebA(root=str(root), **options)  # pyright: ignore[reportArgumentType]


def write(folder: Path, count: int = 20) -> Path:
    """Photos of 18x22 whose centre square of 16 is grey 10 i, in a white frame."""
    folder.mkdir(parents=True)
    for i in range(count):
        photo = Image.new("RGB", (18, 22), "white")
        photo.paste((10 * i, 10 * i, 10 * i), (1, 3, 17, 19))
        photo.save(folder / f"{i + 1:06}.png")
    return folder


def greys(data: CelebA, split: str) -> list[int]:
    x = data.load(split).x  # pyright: ignore[reportArgumentType]
    assert x.shape[1:] == (3, 8, 8)
    assert (x == x[:, :1, :1, :1]).all()  # nothing of the frame is left
    return x[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("where", ["celeba/img_align_celeba", "img_align_celeba"])
def test_the_centre_square_is_cropped_and_the_last_tenth_held_out(
    tmp_path: Path, where: str, caplog: pytest.LogCaptureFixture
):
    write(tmp_path / "data" / where)
    data = celeba(tmp_path / "data")
    with caplog.at_level(logging.WARNING):
        assert greys(data, "test") == [180, 190]
    assert greys(data, "train") == list(range(0, 180, 10))
    assert "last tenth" in data.split_rule
    assert "last tenth" in caplog.text


@pytest.mark.parametrize(
    ("name", "header", "separator"),
    [
        ("list_eval_partition.txt", "", " "),
        ("list_eval_partition.csv", "image_id,partition\n", ","),
    ],
)
def test_the_official_partition_is_used(tmp_path: Path, name: str, header: str, separator: str):
    folder = write(tmp_path / "celeba" / "img_align_celeba", 6)
    rows = [f"{i + 1:06}.png{separator}{part}" for i, part in enumerate([0, 2, 1, 0, 0, 2])]
    (folder.parent / name).write_text(header + "\n".join(rows) + "\n")
    data = celeba(tmp_path)
    assert greys(data, "train") == [0, 30, 40]
    assert greys(data, "test") == [10, 50]
    assert name in data.split_rule


def test_a_partition_of_something_else_is_refused(tmp_path: Path):
    folder = write(tmp_path / "celeba" / "img_align_celeba", 6)
    (folder.parent / "list_eval_partition.txt").write_text("000001.png 0\n")
    with pytest.raises(UserError, match=r"does not name 5 of the 6 images .* 000002\.png"):
        celeba(tmp_path).load("train")


def test_a_part_of_the_photos_is_refused(tmp_path: Path):
    folder = write(tmp_path / "celeba" / "img_align_celeba", 5)
    with pytest.raises(UserError, match=r"holds 5 images; CelebA has 6\. .*dataset=folder"):
        celeba(tmp_path).load("train")
    rows = [f"{i:06}.png {i % 2}" for i in range(1, 8)]
    (folder.parent / "list_eval_partition.txt").write_text("\n".join(rows))
    with pytest.raises(UserError, match=r"also names 000006\.png, 000007\.png"):
        celeba(tmp_path).count_listed("train")


def test_photos_that_another_process_unpacks_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = write(tmp_path / "celeba" / "img_align_celeba", 5)
    lock = tmp_path / ".CelebA.lock"
    lock.touch()  # as whoever downloads

    @contextlib.contextmanager
    def wait(path: Path) -> Iterator[None]:
        assert path == lock
        Image.new("RGB", (18, 22)).save(folder / "000006.png")  # while we wait
        yield

    monkeypatch.setattr(standard, "FileLock", wait)
    assert celeba(tmp_path).count_listed("train") == {"real": 6}


def test_an_empty_split_is_refused(tmp_path: Path):
    write(tmp_path / "celeba" / "img_align_celeba", 6)
    with pytest.raises(UserError, match="has 6 images, but none of them is in the test split"):
        celeba(tmp_path).load("test")


def test_a_photo_smaller_than_the_crop_is_listed(tmp_path: Path):
    write(tmp_path / "celeba" / "img_align_celeba", 6)
    with pytest.raises(UserError, match=r"000001\.png \(it is 18x22, smaller than the crop 19\)"):
        celeba(tmp_path, crop=19).load("train")


def test_attributes_are_no_classes(tmp_path: Path):
    with pytest.raises(UserError, match=r"dataset\.classes=40: CelebA has attributes"):
        celeba(tmp_path, classes=40).load("train")


def test_without_photos_it_says_what_goes_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("To download files from GDrive, 'gdown' is required.")

    monkeypatch.setattr("torchvision.datasets.celeba.download_file_from_google_drive", refuse)
    with pytest.raises(UserError) as caught:
        celeba(tmp_path).load("train")
    for words in (
        "CelebA is not on this machine",
        "'gdown' is required",
        str(tmp_path / "celeba" / "img_align_celeba"),
        "list_eval_partition.txt",
        "dataset=demo",
    ):
        assert words in str(caught.value)
