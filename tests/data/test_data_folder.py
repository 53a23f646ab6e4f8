"""A user's folder or zip: classes, splits, the cache, and every way in which it can be wrong."""

import contextlib
import errno
import json
import os
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from unittest.mock import Mock

import pytest
import torch
from PIL import Image
from support.pictures import grey_png, save_grey
from torch import Tensor

from crgan_cli.data import cache, decoding
from crgan_cli.data.file_listing import Entry
from crgan_cli.data.files import ImageFiles
from crgan_cli.data.folder import Folder
from crgan_cli.errors import RunFailed, UserError

pytestmark = pytest.mark.usefixtures("cache_folder")


def folder(root: Path, **changed: object) -> Folder:
    options = {"resolution": 4, "channels": 1, "classes": 0, **changed}
    return Folder(root=str(root), **options)  # pyright: ignore[reportArgumentType]


def load_both(root: Path, **changed: object) -> Tensor:
    """All images, whichever split they are in."""
    return torch.cat([folder(root, **changed).load(split).x for split in ("train", "test")])


def numbered(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{i:03}.png" for i in range(count)]


def values(x: Tensor) -> list[int]:
    """The grey value of each image, sorted."""
    return sorted(x[:, 0, 0, 0].tolist())


def cats_and_dogs(root: Path, count: int = 10) -> Path:
    """Cats are 0, 1, ...; dogs 100, 101, ..."""
    save_grey(root, numbered("cat/", count))
    return save_grey(root, numbered("dog/deeper/", count), start=100)


def test_a_flat_folder_is_split_once_and_for_all(tmp_path: Path):
    root = save_grey(tmp_path / "images", numbered("", 20))
    train, test = folder(root).load("train"), folder(root).load("test")
    assert (len(train.x), len(test.x)) == (18, 2)
    assert sorted(values(train.x) + values(test.x)) == list(range(20))
    assert train.y.tolist() == [0] * 18
    assert torch.equal(folder(root).load("test").x, test.x)


def test_sub_folders_are_classes_in_sorted_order(tmp_path: Path):
    root = cats_and_dogs(tmp_path / "images")
    data = folder(root, classes=2, holdout=0.2)
    train, test = data.load("train"), data.load("test")
    assert data.class_names == ("cat", "dog")
    assert torch.bincount(train.y).tolist() == [8, 8]
    assert torch.bincount(test.y).tolist() == [2, 2]
    for images in (train, test):
        assert torch.equal(images.y, (images.x[:, 0, 0, 0] >= 100).long())


def test_a_class_of_one_image_is_trained_on_and_its_absence_from_the_test_split_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    root = save_grey(cats_and_dogs(tmp_path / "images"), ["bird/0.png"], start=200)
    data = folder(root, classes=3)
    assert data.load("train").y.bincount().tolist() == [1, 9, 9]
    assert data.load("test").y.bincount().tolist() == [0, 1, 1]
    assert "the test split has no image of 1 of them: bird" in caplog.text


def test_a_class_without_a_readable_training_image_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    root = save_grey(tmp_path / "images", ["train/cat/0.png", "test/cat/0.png"])
    (root / "train/ant").mkdir()
    (root / "train/ant/0.png").write_bytes(b"damaged")
    folder(root, classes=2, skip_unreadable=True).load("train")
    assert "no training image is of class 0 (of 0 to 1)" in caplog.text


def test_classes_are_counted_as_a_person_does_and_printed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    names = ["10", "2", "1", "a10b", "a9b", "a09b"]
    root = save_grey(tmp_path / "images", [f"{name}/{i}.png" for name in names for i in range(2)])
    data = folder(root, classes=6)
    data.load("train")
    assert data.class_names == ("1", "2", "10", "a09b", "a9b", "a10b")
    assert "6 classes: 0 1, 1 2, 2 10, 3 a09b, 4 a9b, 5 a10b" in caplog.text


def test_only_some_classes_are_used_and_numbered_as_typed(tmp_path: Path):
    root = save_grey(cats_and_dogs(tmp_path / "images"), numbered("bird/", 10), start=200)
    data = folder(root, classes=2, only_classes=["dog", "bird"])
    data.keep_numbers(["dog", "bird"])
    for split in ("train", "test"):
        images = data.load(split)
        assert data.class_names == ("dog", "bird")
        assert torch.equal(images.y, (images.x[:, 0, 0, 0] >= 200).long())
        assert images.x.min() >= 100
    assert len(data.load("train").x) == 18
    without = folder(root, classes=0, only_classes=["bird"]).load("train")
    assert without.x.min() >= 200
    assert without.y.unique().tolist() == [0]


@pytest.mark.parametrize(
    ("only", "words"),
    [
        (["dog", "fish"], r"Unknown class 'fish' in dataset\.only_classes\..*cat, dog"),
        (["dog"], r"must name dataset\.classes=2 classes.*Type dataset\.classes=1"),
        (["dog", "dog"], r"each once"),
    ],
)
def test_classes_to_use_must_be_there(tmp_path: Path, only: list[str], words: str):
    with pytest.raises(UserError, match=words):
        folder(cats_and_dogs(tmp_path / "images"), classes=2, only_classes=only).load("train")


def test_a_run_keeps_the_numbers_of_its_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Such as one from before classes were counted, in another order."""
    root = cats_and_dogs(tmp_path / "images")
    data = folder(root, classes=2)
    data.keep_numbers(["dog", "cat"])
    for split in ("train", "test"):
        images = data.load(split)
        assert data.class_names == ("dog", "cat")
        assert torch.equal(images.y, (images.x[:, 0, 0, 0] < 100).long())
    assert "not those of the run" not in caplog.text
    data.keep_numbers(["dog", "bird"])
    data.load("train")
    assert data.class_names == ("cat", "dog")
    assert "its classes cat, dog are not those of the run, dog, bird" in caplog.text


def test_the_first_images_are_of_both_classes(tmp_path: Path):
    data = folder(cats_and_dogs(tmp_path / "images", 50), classes=2)
    assert 2 < int(data.load("train").y[:20].sum()) < 18


def test_sub_folders_mean_nothing_without_classes(tmp_path: Path):
    data = folder(cats_and_dogs(tmp_path / "images"))
    assert data.load("train").y.tolist() == [0] * 18
    assert data.class_names == ()


@pytest.mark.parametrize("name", ["test", "val"])
def test_train_and_test_folders_are_splits(tmp_path: Path, name: str):
    root = cats_and_dogs(tmp_path / "images" / "train")
    save_grey(root.parent / name, ["cat/a.png", "dog/a.png", "dog/b.png"], start=200)
    data = folder(root.parent, classes=2)
    assert len(data.load("train").x) == 20
    assert values(data.load("test").x) == [200, 201, 202]
    assert sorted(data.load("test").y.tolist()) == [0, 1, 1]


def test_test_is_preferred_to_val_which_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    root = save_grey(tmp_path / "images", ["train/a.png", "val/a.png", "test/a.png"])
    assert values(folder(root).load("test").x) == [2]
    assert values(folder(root).load("train").x) == [0]
    assert caplog.text.count("images: 1 images in val/ are unused") == 1


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["train/0.png", "test/1.png", "preview.png"], r"train/ and test/, but 1 of 3 .*: preview"),
        (
            ["Train/0.png", "VAL/1.png", "more/2.png"],
            r"train/ and val/, but 1 of 3 .*: more/2\.png",
        ),
        (["set/train/0.png", "set/test/1.png", "0.png"], r"set/train/ and set/test/, but 3 of 3"),
        (["cat/train/0.png", "cat/test/1.png", "dog/2.png"], "cat/train/ and cat/test/, but 3 of"),
    ],
)
def test_test_images_are_not_trained_on_because_of_others_beside_them(
    tmp_path: Path, names: list[str], said: str
):
    root = save_grey(tmp_path / "images", names)
    for classes in (0, 2):
        with pytest.raises(UserError, match=rf"{said}.*\n*dataset\.labels=folders"):
            folder(root, classes=classes).load("train")


def test_splits_may_be_in_capital_letters(tmp_path: Path):
    root = save_grey(tmp_path / "images", ["Train/cat/0.png", "TEST/cat/1.png"])
    data = folder(root, classes=1)
    assert (values(data.load("train").x), values(data.load("test").x)) == ([0], [1])


def test_classes_may_have_the_names_of_splits_if_that_is_said(tmp_path: Path):
    names = [f"{name}/{i}.png" for name in ("plane", "test", "train") for i in range(2)]
    data = folder(save_grey(tmp_path / "images", names), classes=3, labels="folders")
    data.load("train")
    assert data.class_names == ("plane", "test", "train")


def test_a_class_may_be_called_train(tmp_path: Path):
    root = save_grey(
        tmp_path / "images", ["plane/a.png", "plane/b.png", "train/a.png", "train/b.png"]
    )
    data = folder(root, classes=2)
    data.load("train")
    assert data.class_names == ("plane", "train")


def test_a_lone_outer_folder_is_looked_through(tmp_path: Path):
    data = folder(cats_and_dogs(tmp_path / "images" / "release-1" / "photos").parents[1], classes=2)
    assert len(data.load("train").x) == 18
    assert data.class_names == ("cat", "dog")


def zipped(path: Path, root: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, file.relative_to(root.parent))
    return path


def test_a_zip_gives_what_its_folder_gives(tmp_path: Path):
    root = cats_and_dogs(tmp_path / "images")
    save_grey(root / "__MACOSX" / "cat", ["._000.png"])
    archive = zipped(tmp_path / "images.zip", root)
    for split in ("train", "test"):
        from_folder = folder(root, classes=2).load(split)
        from_zip = folder(archive, classes=2).load(split)
        assert torch.equal(from_folder.x, from_zip.x)
        assert torch.equal(from_folder.y, from_zip.y)


def test_hidden_and_other_files_do_not_count_and_are_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    root = save_grey(tmp_path / "images", [*numbered("", 4), ".hidden.png", ".git/a.png"])
    save_grey(root, ["__MACOSX/a.png", "b.heic"])
    assert values(load_both(root)) == [*range(4)]
    assert caplog.text.count("4 images, and 4 left out: 3 hidden") == 1


def test_a_folder_of_links_gives_what_the_folder_gives(tmp_path: Path):
    root = cats_and_dogs(tmp_path / "images")
    (tmp_path / "links").mkdir()
    for name in ("cat", "dog"):
        os.symlink(root / name, tmp_path / "links" / name)
    for split in ("train", "test"):
        for one, other in zip(
            folder(root, classes=2).load(split),
            folder(tmp_path / "links", classes=2).load(split),
            strict=True,
        ):
            assert torch.equal(one, other)


def test_a_zip_from_windows_has_splits_and_classes(tmp_path: Path):
    archive = tmp_path / "images.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for value, name in enumerate(
            ["train\\cat\\a.png", "train\\dog\\a.png", "test\\dog\\a.png"]
        ):
            out.writestr(name, grey_png(value))
    data = folder(archive, classes=2)
    assert values(data.load("train").x) == [0, 1]
    assert values(data.load("test").x) == [2]
    assert data.load("test").y.tolist() == [1]


def test_images_are_resized_and_coloured_as_asked(tmp_path: Path):
    x = (
        folder(save_grey(tmp_path / "images", numbered("", 2)), resolution=8, channels=3)
        .load("train")
        .x
    )
    assert x.shape == (1, 3, 8, 8)
    assert x.unique().tolist() in ([0], [1])


def test_a_fraction_is_taken_of_each_class(tmp_path: Path):
    data = folder(cats_and_dogs(tmp_path / "images"), classes=2, fraction=0.5, holdout=0.2)
    assert torch.bincount(data.load("train").y).tolist() == [4, 4]
    assert torch.bincount(data.load("test").y).tolist() == [2, 2]


# --- the cache


def sets(cache_folder: Path) -> set[str]:
    return {path.name for path in cache_folder.iterdir() if path.is_dir()}


def test_images_are_decoded_once(
    tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    root = save_grey(tmp_path / "images", numbered("", 5))
    first = folder(root).load("train")
    assert len(sets(cache_folder)) == 1

    def refuse(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(decoding, "_decode_all", refuse)
    assert torch.equal(folder(root).load("train").x, first.x)


def test_a_changed_file_is_seen(tmp_path: Path):
    root = save_grey(tmp_path / "images", numbered("", 5))
    (root / "000.png").write_bytes(grey_png(99))
    os.utime(root / "000.png", ns=(1, 1))
    before = values(load_both(root))
    (root / "000.png").write_bytes(grey_png(98))  # as many bytes, so only its time tells
    os.utime(root / "000.png", ns=(2, 2))
    after = values(load_both(root))
    assert before == [1, 2, 3, 4, 99]
    assert after == [1, 2, 3, 4, 98]


def test_another_option_is_another_cached_set(tmp_path: Path, cache_folder: Path):
    root = save_grey(tmp_path / "images", numbered("", 5))
    for changed in ({}, {"resolution": 8}, {"channels": 3}, {}):
        folder(root, **changed).load("train")
    assert len(sets(cache_folder)) == 3


@pytest.mark.parametrize("damage", [b"", b"\0" * 7])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, cache_folder: Path, damage: bytes):
    root = save_grey(tmp_path / "images", numbered("", 5))
    first = folder(root).load("train").x.clone()
    (name,) = sets(cache_folder)
    (cache_folder / name / "pixels.u8").write_bytes(damage)
    assert torch.equal(folder(root).load("train").x, first)


def test_any_flipped_bit_of_a_cache_is_noticed_and_it_is_made_anew(
    tmp_path: Path, cache_folder: Path, caplog: pytest.LogCaptureFixture
):
    root = save_grey(tmp_path / "images", numbered("", 20))
    first = folder(root).load("train").x.clone()
    (name,) = sets(cache_folder)
    chance = random.Random(0)
    for count in range(1, 31):
        file = cache_folder / name / chance.choice(["pixels.u8", "kept.json"])
        damaged = bytearray(file.read_bytes())
        place = chance.randrange(len(damaged) * 8)
        damaged[place // 8] ^= 1 << place % 8
        file.write_bytes(damaged)
        assert torch.equal(folder(root).load("train").x, first)
        assert caplog.text.count("its images are decoded again") == count


def test_a_cache_from_before_digests_is_made_anew(tmp_path: Path, cache_folder: Path):
    root = save_grey(tmp_path / "images", numbered("", 3))
    folder(root).load("train")
    (name,) = sets(cache_folder)
    kept = cache_folder / name / "kept.json"
    whole = kept.read_text()
    kept.write_text(json.dumps(json.loads(whole)["indices"]))
    folder(root).load("train")
    assert kept.read_text() == whole


def test_of_a_large_cache_a_sample_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Three blocks of two bytes of eleven: the first, the middle and the last."""
    monkeypatch.setattr(cache, "BLOCK", 2)
    monkeypatch.setattr(cache, "MAX_BLOCKS", 3)
    file = tmp_path / "pixels.u8"
    file.write_bytes(bytes(11))
    before = cache.sample_digest([0], file)
    changes = []
    for place in range(11):
        file.write_bytes(bytes(place) + b"\1" + bytes(10 - place))
        changes.append(cache.sample_digest([0], file) != before)
    assert [place for place, changed in enumerate(changes) if changed] == [0, 1, 4, 5, 9, 10]
    file.write_bytes(bytes(11))
    assert cache.sample_digest([1], file) != before


def test_nothing_unfinished_is_left_behind(tmp_path: Path, cache_folder: Path):
    root = save_grey(tmp_path / "images", numbered("", 5))
    (root / "000.png").write_bytes(b"damaged")
    with pytest.raises(UserError):
        load_both(root)
    assert not list(cache_folder.glob(".unfinished-*"))


def test_what_a_kill_left_unfinished_is_gone_after_the_next_start(
    tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    root = save_grey(tmp_path / "images", numbered("", 5))
    with monkeypatch.context() as killed:
        killed.setattr(cache.shutil, "rmtree", lambda *_, **__: None)  # as a kill removes nothing
        killed.setattr(cache, "sample_digest", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            folder(root).load("train")
    assert len(list(cache_folder.glob(".unfinished-*"))) == 1
    assert len(folder(root).load("train").x) == 4
    assert not list(cache_folder.glob(".unfinished-*"))


def test_cached_pixels_can_be_written_to_without_changing_the_cache(tmp_path: Path):
    root = save_grey(tmp_path / "images", numbered("", 5))
    first = folder(root).load("train")
    kept = first.x.clone()
    first.x.zero_()
    assert torch.equal(folder(root).load("train").x, kept)


def test_a_cache_folder_that_is_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = save_grey(tmp_path / "images", numbered("", 5))
    monkeypatch.setenv("CRGAN_CACHE", str(root / "000.png"))
    with pytest.raises(UserError, match=r"cannot be written to .* variable CRGAN_CACHE"):
        folder(root).load("train")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_a_failed_run(
    tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    root = save_grey(tmp_path / "images", numbered("", 5))

    @contextlib.contextmanager
    def on_a_full_disk() -> Iterator[None]:
        (unfinished,) = cache_folder.glob(".unfinished-*")
        os.symlink("/dev/full", unfinished / "pixels.u8")
        yield

    monkeypatch.setattr(cache, "quiet_pillow", on_a_full_disk)
    with pytest.raises(RunFailed, match=r"No space left on device.*Free space there"):
        folder(root).load("train")


# --- bad input


def test_unreadable_images_are_listed_ten_at_most(tmp_path: Path):
    root = save_grey(tmp_path / "images", numbered("train/good", 3))
    for i in range(12):
        (root / "train" / f"bad{i:02}.jpg").write_bytes(b"not an image")
    save_grey(root, ["test/a.png"])
    with pytest.raises(UserError) as caught:
        folder(root).load("train")
    message = str(caught.value)
    assert "12 of 15 images in" in message
    assert message.count("cannot identify") == 10
    assert "and 2 more" in message
    assert "dataset.skip_unreadable=true" in message


def test_unreadable_images_can_be_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    root = cats_and_dogs(tmp_path / "images" / "train").parent
    save_grey(root, ["test/cat/a.png"])
    (root / "train" / "cat" / "000.png").write_bytes(grey_png(0)[:40])
    for _ in range(2):  # decoded, then from the cache
        images = folder(root, classes=2, skip_unreadable=True).load("train")
        assert torch.bincount(images.y).tolist() == [9, 10]
        assert torch.equal(images.y, (images.x[:, 0, 0, 0] >= 100).long())
    assert caplog.text.count("skipped 1 unreadable images of 20: train/cat/000.png") == 2


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOENT])
def test_a_failing_disk_leaves_no_image_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    root = save_grey(tmp_path / "images", numbered("", 20))
    whole = ImageFiles.read

    def fail_for_some(files: ImageFiles, entry: Entry) -> bytes:
        if entry.name > "010":
            raise OSError(number, os.strerror(number))
        return whole(files, entry)

    monkeypatch.setattr(ImageFiles, "read", fail_for_some)
    with pytest.raises(
        RunFailed, match=r"0\d\d\.png in .* could not be read .*nothing was left out"
    ):
        folder(root, skip_unreadable=True).load("train")
    monkeypatch.setattr(ImageFiles, "read", whole)
    assert len(folder(root, skip_unreadable=True).load("train").x) == 18


def test_a_failing_disk_does_not_make_an_image_without_an_ending_another_kind_of_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root = save_grey(tmp_path / "images", ["one", "0.png"])

    def fail(files: ImageFiles, entry: Entry) -> IO[bytes]:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(ImageFiles, "open", fail)
    with pytest.raises(RunFailed, match=r"one in .* could not be read"):
        folder(root).load("train")


def test_nothing_readable_is_an_error_even_so(tmp_path: Path):
    root = tmp_path / "images"
    root.mkdir()
    for name in ("a.png", "b.png"):
        (root / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"1 of 1 images .* None is left"):
        folder(root, skip_unreadable=True, holdout=0.5).load("train")


def test_an_image_of_too_many_pixels_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = save_grey(tmp_path / "images", numbered("", 5))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Pillow warns above, and refuses above 20
    with pytest.raises(UserError, match=r"4 of 4 .*\.png \(4x4 pixels are too many, at most 10 "):
        folder(root).load("train")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: None, "There is nothing at .*images"),
        (lambda root: root.mkdir(), "images holds no file"),
        (
            lambda root: save_grey(root, ["a.txt", "b.npy"]),
            r"2 files but no image: 1 \.npy .* 1 \.txt",
        ),
        (lambda root: root.write_bytes(b"PK, but no zip"), "neither a folder nor a zip"),
        (lambda root: root.write_bytes(b""), "neither a folder nor a zip"),
        (lambda root: save_grey(root, ["a.png"]), r"holdout=0\.1 of the 1 image.* leaves none"),
    ],
)
def test_a_root_without_images_is_refused(tmp_path: Path, make, words: str):
    make(tmp_path / "images")
    with pytest.raises(UserError, match=words):
        folder(tmp_path / "images").load("train")


def test_a_truncated_zip_is_refused(tmp_path: Path):
    archive = zipped(tmp_path / "images.zip", save_grey(tmp_path / "images", numbered("", 5)))
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"images\.zip is neither a folder nor a zip"):
        folder(archive).load("train")


def test_a_damaged_member_of_a_zip_is_listed(tmp_path: Path):
    root = save_grey(tmp_path / "images", numbered("train/", 2))
    save_grey(root, ["test/a.png"])
    archive = zipped(tmp_path / "images.zip", root)
    content = bytearray(archive.read_bytes())
    content[content.index(b"IDAT") + 6] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(UserError, match=r"\.png \(Bad CRC-32"):
        load_both(archive)


def test_an_encrypted_zip_is_refused(tmp_path: Path):
    archive = zipped(tmp_path / "images.zip", save_grey(tmp_path / "images", numbered("", 5)))
    content = bytearray(archive.read_bytes())
    at = -1
    while (at := content.find(b"PK\x01\x02", at + 1)) >= 0:
        content[at + 8] |= 1  # the flag that says so, in the zip's directory
    archive.write_bytes(content)
    with pytest.raises(UserError, match=r"4 of 4 .*encrypted"):
        folder(archive).load("train")


def test_a_member_that_unpacks_to_too_much_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root = save_grey(tmp_path / "images", numbered("", 5))
    monkeypatch.setattr("crgan_cli.data.files.MAX_FILE_BYTES", 20)
    with pytest.raises(UserError, match=r"bytes; at most 20 are allowed"):
        folder(zipped(tmp_path / "images.zip", root)).load("train")


def test_a_wrong_number_of_classes_is_refused_with_their_names(tmp_path: Path):
    with pytest.raises(UserError, match=r"classes=3.* 2 sub-folders .*: cat, dog\. .*classes=2"):
        folder(cats_and_dogs(tmp_path / "images"), classes=3).load("train")


def test_classes_need_every_image_in_a_sub_folder(tmp_path: Path):
    root = save_grey(cats_and_dogs(tmp_path / "images"), ["loose.png"])
    with pytest.raises(UserError, match=r"1 are in none, e\.g\. loose\.png.*classes=0"):
        folder(root, classes=2).load("train")


def test_a_class_of_the_test_split_only_is_refused(tmp_path: Path):
    root = cats_and_dogs(tmp_path / "images" / "train").parent
    save_grey(root, ["test/cat/a.png", "test/bird/a.png"])
    with pytest.raises(UserError, match="training split lacks: bird"):
        folder(root, classes=2).load("test")


def test_nothing_left_to_train_on_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"holdout=1\.0 of the 20 image.* leaves none"):
        folder(cats_and_dogs(tmp_path / "images"), holdout=1.0).load("train")


def test_four_channels_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"dataset\.channels=4"):
        folder(tmp_path, channels=4)


def test_a_home_folder_may_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save_grey(tmp_path / "images", numbered("", 5))
    assert len(folder(Path("~/images")).load("train").x) == 4
