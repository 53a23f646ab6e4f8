"""A user's own pairs: layouts, direction, channels, and every way in which they can be wrong."""

import logging
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from PIL import Image

from crgan_cli.data import decoding
from crgan_cli.data.pairs import Pairs, count_grey
from crgan_cli.errors import UserError
from crgan_cli.gan.types import split_pair

pytestmark = pytest.mark.usefixtures("cache_folder")


def pairs(root: Path, **changed: object) -> Pairs:
    options: dict[str, object] = {
        "direction": "a_to_b",
        "channels_in": 1,
        "channels_out": 1,
        "resolution": 4,
        "load_size": 4,
        "classes": 0,
        **changed,
    }
    options.setdefault("channels", options["channels_in"] + options["channels_out"])  # type: ignore[operator]
    return Pairs(root=str(root), **options)  # pyright: ignore[reportArgumentType]


def save(path: Path, picture: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def side_by_side(root: Path, names: Iterable[str], start: int = 0) -> Path:
    """Pair i: the left half is start + i, the right half 100 + start + i."""
    for i, name in enumerate(names, start):
        picture = Image.new("L", (8, 4), i)
        picture.paste(100 + i, (4, 0, 8, 4))
        save(root / name, picture)
    return root


def two_folders(root: Path, names: Iterable[str], start: int = 0) -> Path:
    """As `side_by_side`; "?" in a name is A in one file, B in the other. B is PNG, A is BMP."""
    for i, name in enumerate(names, start):
        save(root / name.replace("?", "A").replace(".png", ".bmp"), Image.new("L", (4, 4), i))
        save(root / name.replace("?", "B"), Image.new("L", (4, 4), 100 + i))
    return root


def values(x: torch.Tensor) -> list[tuple[int, ...]]:
    """The values of each pair's channels, sorted; all pixels of a channel are equal."""
    assert torch.equal(x, x[:, :, :1, :1].expand_as(x))
    return sorted(tuple(each) for each in x[:, :, 0, 0].tolist())


def zipped(root: Path) -> Path:
    path = root.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, file.relative_to(root.parent))
    return path


# --- layouts

SPLIT = [(0, 100), (1, 101)], [(5, 105)]
LAYOUTS = {
    "side by side": lambda root: side_by_side(
        side_by_side(root, ["train/a.png", "train/b.png"]), ["test/a.png"], 5
    ),
    "splits in A and B": lambda root: two_folders(
        two_folders(root, ["?/train/a.png", "?/train/b.png"]), ["?/test/a.png"], 5
    ),
    "capital letters": lambda root: two_folders(
        two_folders(root, ["?/Train/a.png", "?/Train/b.png"]), ["?/Test/a.png"], 5
    ),
    "splits around A and B": lambda root: two_folders(
        two_folders(root, ["train/?/a.png", "train/?/b.png"]), ["val/?/a.png"], 5
    ),
    "folders below": lambda root: two_folders(
        two_folders(root, ["?/train/x/a.png", "?/train/y/a.png"]), ["?/test/x/a.png"], 5
    ),
}


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_found_in_a_folder_and_in_a_zip(tmp_path: Path, layout: str, packed: bool):
    root = LAYOUTS[layout](tmp_path / "images")
    data = pairs(zipped(root) if packed else root)
    train, test = data.load("train"), data.load("test")
    assert (values(train.x), values(test.x)) == SPLIT
    assert train.y.tolist() == [0, 0]
    assert data.name == "images"


@pytest.mark.parametrize(
    "root", [lambda r: side_by_side(r, NAMES), lambda r: two_folders(r, ["?/" + n for n in NAMES])]
)
def test_without_splits_some_pairs_are_held_out_always_the_same(tmp_path: Path, root):
    data = pairs(root(tmp_path / "images"), holdout=0.2)
    train, test = data.load("train"), data.load("test")
    assert (len(train.x), len(test.x)) == (8, 2)
    assert sorted(values(train.x) + values(test.x)) == [(i, 100 + i) for i in range(10)]
    assert torch.equal(data.load("test").x, test.x)


NAMES = [f"{i}.png" for i in range(10)]


def test_a_train_folder_alone_is_split_too(tmp_path: Path):
    data = pairs(side_by_side(tmp_path / "images", ["train/" + name for name in NAMES]))
    assert [len(data.load(split).x) for split in ("train", "test")] == [9, 1]


def test_unused_splits_and_what_is_the_input_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    root = side_by_side(tmp_path / "images", ["train/a.png", "val/a.png", "val/b.png"])
    side_by_side(root, ["test/a.png"])
    caplog.set_level(logging.INFO)
    pairs(root, direction="b_to_a").load("train")
    assert "images: 2 pairs in val/ are not used" in caplog.text
    assert (
        "the input is the right half of train/a.png, the target the left half of train/a.png "
        "(dataset.direction=b_to_a); each is 4x4\n"
    ) in caplog.text


# --- what a pair becomes


@pytest.mark.parametrize("layout", ["side by side", "splits in A and B"])
def test_the_direction_swaps_the_data_and_the_input_comes_first(tmp_path: Path, layout: str):
    root = LAYOUTS[layout](tmp_path / "images")
    x = pairs(root, direction="b_to_a", channels_in=3, channels_out=1).load("train").x
    assert values(x) == [(100, 100, 100, 0), (101, 101, 101, 1)]
    source, target = split_pair(x, 3)
    assert values(source) == [(100,) * 3, (101,) * 3]
    assert values(target) == [(0,), (1,)]


def test_split_pair_copies_nothing():
    x = torch.zeros(2, 4, 3, 3)
    source, target = split_pair(x, 1)
    target.fill_(1)
    assert (source.shape[1], target.shape[1], x.sum()) == (1, 3, 2 * 3 * 9)


def test_halves_are_squashed_to_squares_by_bicubic_interpolation(tmp_path: Path):
    random = torch.Generator().manual_seed(0)
    a, b = (
        Image.fromarray(torch.randint(256, (6, 10, 3), generator=random).byte().numpy())
        for _ in range(2)
    )
    both = Image.new("RGB", (20, 6))
    both.paste(a, (0, 0))
    both.paste(b, (10, 0))
    for name in ("train/0.png", "test/0.png"):
        save(tmp_path / "images" / name, both)
    data = pairs(tmp_path / "images", channels_in=3, channels_out=3, resolution=4, load_size=5)
    assert (data.stored_resolution, data.resolution) == (5, 4)
    for split, side in (("train", 5), ("test", 4)):
        (pixels,) = data.load(split).x  # pyright: ignore[reportArgumentType]
        expected = [each.resize((side, side), Image.Resampling.BICUBIC) for each in (a, b)]
        for half, picture in zip(split_pair(pixels[None], 3), expected, strict=True):
            assert bytes(half[0].permute(1, 2, 0).contiguous().numpy()) == picture.tobytes()
    whole = data.load_views("train")  # who compares images gets them as those of the test split
    assert torch.equal(whole["target"].x, data.load_views("test")["target"].x)
    assert torch.equal(whole["real"].x, data.load("test").x)


def test_alpha_is_a_fourth_channel_and_does_not_touch_the_colours(tmp_path: Path):
    masked = Image.new("RGBA", (6, 6), (10, 20, 30, 0))
    masked.paste((10, 20, 30, 255), (3, 0, 6, 6))
    for half in ("A", "B"):
        for name in ("train/0.png", "test/0.png"):
            save(tmp_path / "images" / half / name, masked)
    (x,) = pairs(tmp_path / "images", channels_in=4, channels_out=3, load_size=4).load("train").x
    assert x[:3].flatten(1).unique(dim=1).flatten().tolist() == [10, 20, 30]
    assert x[3, :, 0].tolist() == [0] * 4
    assert x[3, :, -1].tolist() == [255] * 4
    assert x[4:, :, 0].unique().tolist() == [255]  # three channels: on white, where it is clear


def test_an_alpha_channel_that_is_not_there_is_an_error(tmp_path: Path):
    root = LAYOUTS["side by side"](tmp_path / "images")
    with pytest.raises(UserError, match=r"2 of 2 .*no alpha channel for the fourth channel"):
        pairs(root, channels_out=4).load("train")


def test_grey_files_of_a_colour_set_are_converted_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    root = side_by_side(tmp_path / "images", ["train/a.png", "train/b.png", "test/a.png"])
    coloured = Image.new("RGB", (8, 4), (1, 2, 3))
    coloured.paste((9, 9, 9), (4, 0, 8, 4))
    save(root / "train/c.png", coloured)
    caplog.set_level(logging.INFO)
    for _ in range(2):  # decoded, then from the cache
        caplog.clear()
        x = pairs(root, channels_in=3, channels_out=3).load("train").x
        assert values(x)[0] == (0, 0, 0, 100, 100, 100)
        assert "2 of 3 inputs are grey: their colour channels are equal\n" in caplog.text
        assert "3 of 3 targets are grey" in caplog.text
        assert "(dataset.channels_out=1 would do)" in caplog.text


def test_grey_is_told_from_nearly_grey():
    x = torch.full((3, 4, 5, 5), 7, dtype=torch.uint8)
    x[:, 3] = 1  # alpha does not count
    x[1, 2, 0, 0] = 8  # one pixel, not in the middle row
    x[2, 0, 2, 0] = 8  # one that is
    assert count_grey(x) == 1


def test_pairs_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = LAYOUTS["splits in A and B"](tmp_path / "images")
    first = pairs(root).load("train").x
    opposite = pairs(root, direction="b_to_a").load("train").x
    assert torch.equal(opposite, first.flip(1))

    def refuse(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(decoding, "_decode_all", refuse)
    assert torch.equal(pairs(root).load("train").x, first)


def test_a_fraction_is_of_the_training_pairs(tmp_path: Path):
    root = side_by_side(tmp_path / "images", NAMES)
    data = pairs(root, fraction=0.5, holdout=0.2)
    assert [len(data.load(split).x) for split in ("train", "test")] == [4, 2]


# --- files that are no pairs


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["trainA/1.png", "trainB/2.png", "testA/1.png", "testB/2.png"], "unpaired images"),
        (
            ["train_A/1.png", "train_B/2.png"],
            "unpaired images: type dataset=domains.*trainA to A/train",
        ),
        (["trainA/1.png"], r"in trainA \(1\): that is a layout of unpaired images"),
        (["images/1.png", "masks/1.png"], r"images \(1\), masks \(1\): these names mean nothing"),
        (["train/images/1.png", "train/masks/1.png"], "these names mean nothing here"),
        (["A/1.png", "2.png"], r"no folder \(1\), A \(1\): some are in A/ or B/, and some are not"),
        (["A/1.png", "A/2.png"], r"in A \(2\): B/ is missing"),
        (["train/B/1.png", "test/B/2.png"], "A/ is missing"),
        (["train/1.png", "test/1.png", "1.png"], "some are in train/, val/ or test/, and some are"),
        (["test/1.png", "val/1.png"], "there is no train/ among them"),
    ],
)
def test_what_is_neither_layout_or_both_is_told_what_they_look_like(
    tmp_path: Path, names: list[str], said: str
):
    root = side_by_side(tmp_path / "images", names)
    with pytest.raises(UserError, match=said) as caught:
        pairs(root).load("train")
    assert "(1) Side by side: each file is two images" in str(caught.value)
    assert "A/1.jpg and B/1.png are a pair" in str(caught.value)


def test_files_without_a_partner_and_twins_are_listed_together(tmp_path: Path):
    root = two_folders(tmp_path / "images", [f"?/{i:02}.png" for i in range(3)])
    side_by_side(root, [f"A/alone{i:02}.png" for i in range(12)])
    side_by_side(root, ["B/other.png", "B/01.gif"])
    with pytest.raises(UserError) as caught:
        pairs(root).load("train")
    said = str(caught.value)
    assert "12 in A have no partner in B: A/alone00.png, A/alone01.png" in said
    assert "A/alone09.png and 2 more. 1 in B have no partner in A: B/other.png." in said
    assert "1 name(s) with two files: B/01.gif and 01.png." in said
    assert "Rename or remove these files" in said
    assert "unpaired" in said


def test_the_same_name_in_another_split_is_no_partner(tmp_path: Path):
    root = two_folders(tmp_path / "images", ["?/train/a.png"])
    side_by_side(root, ["A/test/b.png", "B/val/b.png"])
    with pytest.raises(UserError, match=r"1 in A .*: A/test/b\.png\. 1 in B .*: B/val/b\.png\."):
        pairs(root).load("train")


def test_pairs_of_unequal_size_are_listed(tmp_path: Path):
    root = two_folders(tmp_path / "images", [f"?/train/{i}.png" for i in range(3)])
    two_folders(root, ["?/test/a.png"])
    for i in (0, 2):
        save(root / f"B/train/{i}.png", Image.new("L", (4, 5)))
    with pytest.raises(UserError) as caught:
        pairs(root).load("train")
    said = str(caught.value)
    assert "2 of 3 images in" in said
    assert "A/train/0.bmp with B/train/0.png (A is 4x4, but B is 4x5)" in said
    assert "A/train/2.bmp with" in said
    assert "two files of equal size in A/ and B/" in said


def test_files_that_have_no_two_halves_are_listed(tmp_path: Path):
    root = LAYOUTS["side by side"](tmp_path / "images")
    save(root / "train/odd.png", Image.new("L", (9, 4)))
    save(root / "train/square.png", Image.new("L", (4, 4)))
    with pytest.raises(UserError) as caught:
        pairs(root).load("train")
    said = str(caught.value)
    assert "2 of 4 images in" in said
    assert "train/odd.png (its width 9 is odd, so it has no two equal halves)" in said
    assert "train/square.png (it is 4x4, not two images side by side)" in said
    assert "the two halves of one wide file" in said
    assert "dataset.skip_unreadable=true" in said
    assert values(pairs(root, skip_unreadable=True).load("train").x) == SPLIT[0]


def test_an_unreadable_file_of_a_pair_is_listed(tmp_path: Path):
    root = LAYOUTS["splits in A and B"](tmp_path / "images")
    (root / "B/train/a.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"A/train/a\.bmp with B/train/a\.png \(cannot identify"):
        pairs(root).load("train")


# --- settings


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"channels": 6}, r"channels=6 must be the sum of .*channels_in=1 and .*channels_out=1"),
        ({"channels_in": 2}, r"channels_in=2: .* 1 channel \(grey\), 3 \(colour\) or 4"),
        ({"channels_out": 5}, "channels_out=5: "),
        ({"load_size": 3}, r"load_size=3 is smaller than dataset\.resolution=4.* at least 4"),
        ({"classes": 2}, "classes=2: pairs have no classes"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(tmp_path: Path, changed: dict[str, object], said: str):
    with pytest.raises(UserError, match=said):
        pairs(tmp_path, **changed)


def test_a_holdout_that_leaves_nothing_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"holdout=0\.1 of the 1 image.*Give more images\.$"):
        pairs(side_by_side(tmp_path / "images", ["a.png"])).load("train")
    two = side_by_side(tmp_path / "two", ["a.png", "b.png"])
    with pytest.raises(UserError, match=r"more images, or a smaller dataset\.holdout\.$"):
        pairs(two, holdout=0.9).load("train")
