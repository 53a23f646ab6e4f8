"""The demo set in the package, and the script that makes it."""

import hashlib
import random
import runpy
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from crgan_cli.data.embedded import FOLDER, Demo, pack_grid, unpack_grid
from crgan_cli.data.images import fingerprint
from crgan_cli.errors import UserError

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_demo_data.py"


def demo() -> Demo:
    return Demo(resolution=32, channels=1, classes=10)


@pytest.mark.parametrize(("split", "per_class"), [("train", 2000), ("test", 400)])
def test_the_demo_set_is_balanced_from_its_first_images_on(split: str, per_class: int):
    images = demo().load(split)  # pyright: ignore[reportArgumentType]
    assert images.x.shape == (10 * per_class, 1, 32, 32)
    assert torch.bincount(images.y).tolist() == [per_class] * 10
    assert images.y[:50].tolist() == [*range(10)] * 5


def test_the_demo_set_is_fashion_mnist_in_official_order():
    train = demo().load("train")
    first = train.x[9]  # the official training set begins with an ankle boot
    assert hashlib.sha256(first.numpy().tobytes()).hexdigest() == FIRST
    frame = first.clone()
    frame[:, 2:30, 2:30] = 0
    assert frame.sum() == 0
    assert fingerprint(train) == TRAIN


def test_any_flipped_bit_of_the_demo_set_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """PNG has a checksum for each of its parts."""
    monkeypatch.setattr("crgan_cli.data.embedded.FOLDER", tmp_path)
    whole = (FOLDER / "fashion_mnist_test.png").read_bytes()
    chance = random.Random(0)
    for place in [
        *range(8 * 33, 8 * 33 + 64, 16),
        *(chance.randrange(8 * len(whole)) for _ in "12345"),
    ]:
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        (tmp_path / "fashion_mnist_test.png").write_bytes(damaged)
        with pytest.raises(UserError, match="Install crgan again"):
            demo().load("test")


FIRST = "9358a45573e0c939471446e696d5d2b5c7b1fa3a4371b56ea381a677617a1ba9"
TRAIN = "0b5758bd8ab276aafe01378f00b92889755385b4411470cdeac52658610e8a98"


def test_the_demo_files_are_small_and_carry_their_licence():
    files = [path for path in FOLDER.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12_000_000
    licence = (FOLDER / "LICENSE-fashion-mnist").read_text()
    assert "Copyright (c) 2017 Zalando SE" in licence
    assert "Permission is hereby granted, free of charge" in licence


def test_a_grid_is_read_row_by_row():
    tiles = np.random.RandomState(0).randint(0, 256, (400, 28, 28)).astype(np.uint8)
    grid = pack_grid(tiles)
    assert grid.shape == (56, 5600)
    assert np.array_equal(grid[28:, 28:56], tiles[201])
    assert np.array_equal(unpack_grid(grid), tiles)


def write_official(folder: Path, count: int) -> None:
    """`count` images per class and split, of class i modulo 10; image i is filled with i."""
    folder.mkdir(exist_ok=True)
    for stem in ("train", "t10k"):
        number = np.arange(10 * count)
        pixels = np.broadcast_to(number.astype(np.uint8)[:, None, None], (10 * count, 28, 28))
        for kind, array in (("images-idx3", pixels), ("labels-idx1", (number % 10).astype("u1"))):
            header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            (folder / f"{stem}-{kind}-ubyte").write_bytes(header + array.tobytes())


def test_the_script_packs_the_same_bytes_twice(tmp_path: Path):
    write_official(tmp_path / "idx", 22)
    pack = runpy.run_path(str(SCRIPT))["pack"]
    once, twice = (
        [path.read_bytes() for path in pack(tmp_path / "idx", tmp_path / out, {"test": 20})]
        for out in ("once", "twice")
    )
    assert once == twice
    assert len(once) == 2


def test_the_script_takes_the_first_of_each_class():
    in_turn = runpy.run_path(str(SCRIPT))["in_turn"]
    labels = np.repeat(np.arange(10), 3)
    pixels = np.arange(30).reshape(30, 1, 1)
    assert in_turn(pixels, labels, 2).ravel().tolist() == [*range(0, 30, 3), *range(1, 30, 3)]
    with pytest.raises(UserError, match="fewer than 4 images"):
        in_turn(pixels, labels, 4)


def test_the_script_names_a_missing_file(tmp_path: Path):
    with pytest.raises(UserError, match="holds neither train-images-idx3-ubyte nor"):
        runpy.run_path(str(SCRIPT))["pack"](tmp_path, tmp_path / "out", {"train": 20})


def test_a_missing_demo_file_says_how_to_get_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("crgan_cli.data.embedded.FOLDER", tmp_path)
    with pytest.raises(UserError, match=r"fashion_mnist_train\.png cannot be read.*Install crgan"):
        demo().load("train")


def test_only_some_classes_of_a_named_set_are_used_and_said_in_the_protocol():
    options = {"resolution": 32, "channels": 1, "only_classes": ["bag", "coat"]}
    data = Demo(classes=2, **options)  # pyright: ignore[reportArgumentType]
    whole = Demo(resolution=32, channels=1, classes=10).load("test")
    for _ in range(2):
        images = data.load("test")
        assert data.class_names == ("bag", "coat")
        assert torch.equal(images.x[images.y == 0], whole.x[whole.y == 8])
        assert torch.equal(images.x[images.y == 1], whole.x[whole.y == 4])
    assert data.described == "demo (bag,coat)"
    with pytest.raises(UserError, match=r"must name dataset\.classes=10 classes"):
        Demo(classes=10, **options).load("test")  # pyright: ignore[reportArgumentType]
