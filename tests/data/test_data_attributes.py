"""Images with a file of attributes: CelebA's format, CSV, and how they can be wrong."""

import dataclasses
import logging
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from crgan_cli.data.attributes import Attributes, CelebAAttributes
from crgan_cli.data.celeba import CelebA
from crgan_cli.data.images import Images
from crgan_cli.data.label_files import read_labels
from crgan_cli.errors import UserError

CELEBA = b"""3
Male Young  Smiling
1.jpg  1 -1  1
2.jpg -1 -1 -1
3.jpg  1  1 -1
"""
CSV = b"file,Male,age,Young\n1.jpg,1,34,0\n2.jpg,0,20,1\n"


pytestmark = pytest.mark.usefixtures("cache_folder")


def attributes(root: Path, **changed: object) -> Attributes:
    options: dict[str, object] = {
        "attributes": ["Young", "Male"],
        "exclusive": [],
        "channels": 1,
        "resolution": 4,
        "classes": 0,
        **changed,
    }
    return Attributes(root=str(root), **options)  # pyright: ignore[reportArgumentType]


def write(root: Path, count: int = 10, folder: str = "") -> Path:
    """Image i is grey i; Young if i is even, Male if i is above 6."""
    (root / folder).mkdir(parents=True)
    rows = ["file,Male,Young"]
    for i in range(count):
        Image.new("L", (4, 4), i).save(root / folder / f"{i}.png")
        rows.append(f"{i}.png,{int(i > 6)},{int(i % 2 == 0)}")
    (root / "labels.csv").write_text("\n".join(rows))
    return root


def greys_and_labels(images: Images) -> list[tuple[int, list[int]]]:
    pairs = zip(images.x[:, 0, 0, 0].tolist(), images.y.tolist(), strict=True)
    return sorted(pairs)


EXPECTED = [(i, [int(i % 2 == 0), int(i > 6)]) for i in range(10)]


# --- the label file


def test_celebas_format_and_csv_by_hand():
    names, y = read_labels(CELEBA, "list_attr_celeba.txt", ["Smiling", "Male"])
    assert (names, y.tolist()) == (["1.jpg", "2.jpg", "3.jpg"], [[1, 1], [0, 0], [0, 1]])
    names, y = read_labels(CSV, "a.csv", ["Young", "Male"])  # age is not 0 or 1, and not asked for
    assert (names, y.tolist()) == (["1.jpg", "2.jpg"], [[0, 1], [1, 0]])


@pytest.mark.parametrize(
    ("content", "names", "said"),
    [
        (CSV, ["Mal"], "Unknown attribute 'Mal' in a.csv. Did you mean 'Male'.*: Male, age, Young"),
        (CSV, ["age"], "a.csv, line 2: age of 1.jpg is '34'. An attribute is 1 .yes., or 0 or -1"),
        (CSV + b"1.jpg,1,3,1\n", ["Male"], "a.csv, line 4: 1.jpg has two rows"),
        (CSV + b"3.jpg,1\n", ["Male"], "a.csv, line 4 has 2 columns, but a file and 3 attributes"),
        (b"file,Male,Male\n", ["Male"], "a.csv has two columns Male"),
        (b"", ["Male"], "a.csv names no attributes: its first line is ''. A CSV has a header"),
        (
            b"file;Male\na;1",
            ["Male"],
            "no attributes: .*file;Male.* commas between its columns: not",
        ),
        (b"\xff\xfe\x00", ["Male"], "a.csv is no text in UTF-8"),
    ],
)
def test_a_wrong_label_file_is_refused_by_line(content: bytes, names: list[str], said: str):
    with pytest.raises(UserError, match=said):
        read_labels(content, "a.csv", names)


# --- images and rows


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_each_image_has_its_row_in_the_order_of_the_attributes(tmp_path: Path, packed: bool):
    root = write(tmp_path / "faces", folder="images")
    if packed:
        with zipfile.ZipFile(path := root.with_suffix(".zip"), "w") as archive:
            for file in sorted(root.rglob("*")):
                archive.write(file, file.relative_to(root.parent))
        root = path
    data = attributes(root, holdout=0.2)
    train, test = data.load("train"), data.load("test")
    assert (len(train.x), len(test.x)) == (8, 2)
    assert sorted(greys_and_labels(train) + greys_and_labels(test)) == EXPECTED
    assert greys_and_labels(data.load("test")) == greys_and_labels(test)


def test_a_label_file_elsewhere_and_paths_in_it(tmp_path: Path):
    root = write(tmp_path / "faces")
    (root / "labels.csv").rename(tmp_path / "other.csv")
    data = attributes(root, labels_file=str(tmp_path / "other.csv"))
    assert len(data.load("train").x) == 9
    for folder in ("a", "b"):
        (root / folder).mkdir()
        (root / "1.png").rename(root / folder / "1.png")
        Image.new("L", (4, 4), 1).save(root / "1.png")
    (root / "1.png").unlink()
    data = attributes(root, labels_file=str(tmp_path / "other.csv"))  # it lists files once
    with pytest.raises(UserError, match=r"names 1.png, but 2 files .* Write paths below"):
        data.load("train")
    (tmp_path / "other.csv").write_text("f,Male,Young\na/1.png,1,0\nb/1.png,1,1\n2.png,0,0\n")
    assert sorted(map(tuple, data.load("train").y.tolist())) in (
        [(0, 0), (0, 1)],  # which of the three is held out is fixed, but of no interest
        [(0, 0), (1, 1)],
        [(0, 1), (1, 1)],
    )


def test_files_without_a_row_and_rows_without_a_file_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    root = write(tmp_path / "faces")
    (root / "3.png").rename(root / "30.png")
    train = attributes(root).load("train")
    assert len(train.x) == 8
    assert "faces: 1 images have no row in" in caplog.text
    assert "and are left out: 30.png" in caplog.text
    assert "rows of " in caplog.text
    assert "are of no image: 3.png" in caplog.text


def test_nothing_left_is_refused(tmp_path: Path):
    root = write(tmp_path / "faces", count=2)
    (root / "labels.csv").write_text("file,Male,Young\n0.jpg,1,0\n1.jpg,1,0\n")
    said = r"No image of .*faces has a row in .*labels.csv. That names 0.jpg, 1.jpg; the images are"
    with pytest.raises(UserError, match=said + " 0.png, 1.png. Names must agree"):
        attributes(root).load("train")


def test_no_label_file_or_two_are_refused(tmp_path: Path):
    root = write(tmp_path / "faces", count=3)
    (root / "more.csv").write_text("")
    with pytest.raises(UserError, match=r"holds 2: labels.csv, more.csv. Type dataset.labels_file"):
        attributes(root).load("train")
    for file in root.glob("*.csv"):
        file.unlink()
    with pytest.raises(UserError, match=r"must hold one file of attributes, .*but holds none"):
        attributes(root).load("train")
    with pytest.raises(UserError, match=r"file of attributes .*nowhere.txt cannot be read"):
        attributes(root, labels_file=str(tmp_path / "nowhere.txt")).load("train")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"classes": 2}, "classes=2: attributes are no classes"),
        ({"attributes": []}, "attributes=.. names none. Type for example"),
        ({"attributes": ["Male", "Male"]}, "dataset.attributes names Male twice"),
        ({"exclusive": [["Male", "Old"]]}, r"exclusive names Old, not among .*=\[Young,Male\]"),
        ({"exclusive": [["Male"], ["Male"]]}, "dataset.exclusive names Male twice"),
    ],
)
def test_a_wrong_setting_is_refused(tmp_path: Path, changed: dict[str, object], said: str):
    with pytest.raises(UserError, match=said):
        attributes(tmp_path, **changed)


# --- a part of them


def test_a_fraction_has_as_much_of_each_kind_and_of_many_kinds_is_plain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root = write(tmp_path / "faces", count=40)
    whole = attributes(root, holdout=0.01).load("train").y.tolist()
    half = attributes(root, holdout=0.01, fraction=0.5).load("train").y.tolist()
    for kind in ([0, 0], [0, 1], [1, 0], [1, 1]):
        assert half.count(kind) == max(1, round(whole.count(kind) / 2))
    monkeypatch.setattr("crgan_cli.data.strata.MAX_STRATA", 3)
    assert len(attributes(root, holdout=0.01, fraction=0.5).load("train").y) == round(39 / 2)


# --- CelebA


def test_celeba_is_found_in_torchvisions_layout_with_its_own_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(CelebA, "images", 3)
    folder = tmp_path / "data" / "celeba" / "img_align_celeba"
    folder.mkdir(parents=True)
    for i in (1, 2, 3):
        Image.new("RGB", (8, 10), (i, i, i)).save(folder / f"{i}.png")
    text = CELEBA.replace(b".jpg", b".png")
    (folder.parent / "list_attr_celeba.txt").write_bytes(text)
    data = CelebAAttributes(
        root=str(tmp_path / "data"),
        attributes=["Male"],
        exclusive=[],
        resolution=4,
        channels=1,
        classes=0,
        crop=8,
        holdout=0.4,
    )
    train, test = data.load("train"), data.load("test")
    expected = [(1, [1]), (2, [0]), (3, [1])]
    assert sorted(greys_and_labels(train) + greys_and_labels(test)) == expected
    assert len(test.x) == 1
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
    monkeypatch.setattr(CelebA, "images", 4)
    with pytest.raises(UserError, match="holds 3 images; CelebA has 4"):
        dataclasses.replace(data).load("train")
