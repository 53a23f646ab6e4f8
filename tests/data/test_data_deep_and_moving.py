"""What pixels do not show: more than 8 bits, transparency of every kind, further frames."""

import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.pictures import build_png, encoded, grey_png
from torch import Tensor

from crgan_cli.data.collection import read_collection
from crgan_cli.data.decode import DECODE_ERRORS, Reading, convert_colour, decode, open_image
from crgan_cli.data.decoding import CentreDecoder
from crgan_cli.data.domains import SquashDecoder
from crgan_cli.data.file_facts import FileFacts, inspect_file
from crgan_cli.data.folder import Folder
from crgan_cli.data.pairs import PairDecoder
from crgan_cli.errors import UserError

pytestmark = pytest.mark.usefixtures("cache_folder")


def deep(value: float, kind: type = np.uint16) -> bytes:
    array = np.full((4, 4), value, dtype=kind)
    return encoded(Image.fromarray(array), "PNG" if kind == np.uint16 else "TIFF")


def deep_png(colour_type: int, value: Sequence[int], transparent: Sequence[int] = ()) -> bytes:
    """A PNG of 4x4 pixels of one value with 16 bits a channel, which Pillow cannot write."""

    row = b"\0" + struct.pack(f">{len(value)}H", *value) * 4
    key = struct.pack(f">{len(transparent)}H", *transparent)
    keys = [(b"tRNS", key)] if transparent else []
    return build_png(4, 16, colour_type, *keys, (b"IDAT", zlib.compress(row * 4)))


def write(root: Path, *contents: bytes) -> Path:
    root.mkdir()
    for i, content in enumerate(contents):
        (root / f"{i}.img.png").write_bytes(content)
    return root


def load(root: Path, **changed: object) -> Tensor:
    options = {"resolution": 4, "channels": 1, "classes": 0, "holdout": 1e-6, **changed}
    if not (root / "train").exists():  # the held-out one
        (root / "train").mkdir()
        for file in root.glob("*.png"):
            file.rename(root / "train" / file.name)
        (root / "test").mkdir()
        (root / "test" / "a.png").write_bytes(grey_png(0))
    return Folder(root=str(root), **options).load("train").x  # pyright: ignore[reportArgumentType]


def greys(x: Tensor) -> list[int]:
    return sorted(x[:, 0, 0, 0].tolist())


# --- depth


@pytest.mark.parametrize(
    ("contents", "bits"),
    [
        ([deep(100), deep(4095)], 12),
        ([deep(1000), deep(1023)], 10),
        ([deep(16383)], 14),
        ([deep(0, np.int32), deep(254, np.int32)], 8),
        ([deep(4000), grey_png(200)], 12),  # bright images of 8 bits beside them change nothing
    ],
)
def test_values_of_fewer_bits_are_refused_and_scaled_if_asked(
    tmp_path: Path, contents: list[bytes], bits: int, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    root = write(tmp_path / "images", *contents)
    white = 2**bits - 1
    with pytest.raises(UserError, match=rf"nearly black.*dataset\.range=\[0,{white}\]\. To keep"):
        load(root)
    values = [int(np.asarray(Image.open(io.BytesIO(content))).max()) for content in contents]
    expected = [round(v * 255 / white) if v != 200 else 200 for v in values]
    assert greys(load(root, range=[0, white])) == sorted(expected)
    assert f"0 is black, {white} is white" in caplog.text
    assert greys(load(root, range=[0, 65535])) == sorted(
        round(v / 257) if v != 200 else 200 for v in values
    )


def test_a_set_that_uses_its_range_is_read_as_before_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    root = write(tmp_path / "images", deep(257 * 10), deep(257 * 200))
    assert greys(load(root)) == [10, 200]
    assert "2 images" in caplog.text
    assert "values from 2570 to 51400: 0 is black, 65535 is white" in caplog.text


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_pixels_of_any_range_can_be_given_one(tmp_path: Path, kind: type):
    root = write(tmp_path / "images", *(deep(v, kind) for v in (-1000, -200, 400, 5000)))
    with pytest.raises(UserError, match=r"no known range: dataset\.range=\[BLACK,WHITE\]"):
        load(root)
    # outside of the range is black or white: (-200 + 1000) * 255 / 1400 = 145.7
    assert greys(load(root, range=[-1000, 400])) == [0, 146, 255, 255]


def test_pixels_that_are_no_numbers_are_refused():
    content = deep(float("nan"), np.float32)
    with pytest.raises(DECODE_ERRORS, match="no numbers"):
        decode(
            open_image(content), resolution=4, channels=1, crop=None, reading=Reading((0.0, 1.0))
        )


@pytest.mark.parametrize("value", [[0], [5, 5], [2, 1], [0, float("inf")], [0, 1, 2]])
def test_a_range_is_two_rising_numbers(value: list[float]):
    with pytest.raises(UserError, match=r"dataset\.range=.* must be two numbers"):
        Folder(root="x", resolution=4, channels=1, classes=0, range=value)


def test_deep_colours_that_would_be_black_are_refused(tmp_path: Path):
    root = write(tmp_path / "images", deep_png(2, (4000, 10, 20)), deep_png(6, (1, 1, 1, 65535)))
    with pytest.raises(UserError, match=r"2 images .* colours of more than 8 bits.*mogrify"):
        load(root, channels=3)
    assert load(root, channels=3, range=[0, 65535]).shape == (2, 3, 4, 4)


def test_a_depth_is_no_other_images_matter():
    assert inspect_file(open_image(grey_png(3))) == FileFacts()
    assert (
        inspect_file(open_image(encoded(Image.new("RGB", (4, 4), (9, 9, 9)), "BMP"))) == FileFacts()
    )
    assert inspect_file(open_image(deep_png(0, (4095,)))) == FileFacts(1, 4095.0, 4095.0, False)


def test_an_option_at_its_default_leaves_the_name_of_the_cache(tmp_path: Path, cache_folder: Path):
    """So that images which were decoded before there was the option are found."""
    root = write(tmp_path / "images", grey_png(1))
    load(root)
    file = root / "train" / "0.img.png"
    entry = ["train/0.img.png", file.stat().st_size, file.stat().st_mtime_ns]
    key = json.dumps([2, str(root), [4, 1, None, False], [entry]])
    assert (cache_folder / hashlib.sha256(key.encode()).hexdigest()[:32]).is_dir()


# --- transparency


@pytest.mark.parametrize(("key", "expected"), [(1000, 255), (1001, 4)])
def test_a_transparent_value_of_16_bits_is_white(key: int, expected: int):
    content = deep_png(0, (1000,), (key,))
    pixels = decode(open_image(content), resolution=2, channels=3, crop=None)
    assert pixels.ravel().tolist() == [expected] * 12


def test_a_transparent_value_of_16_bits_is_alpha():
    with Image.open(io.BytesIO(deep_png(0, (1000,), (1000,)))) as picture:
        assert np.asarray(convert_colour(picture, 4))[0, 0].tolist() == [4, 4, 4, 0]


def test_a_transparent_colour_of_16_bits_is_refused_as_its_low_bits_are_lost():
    with pytest.raises(DECODE_ERRORS, match="transparent colour of 16 bits"):
        decode(
            open_image(deep_png(2, (1000, 1, 2), (1000, 1, 2))), resolution=2, channels=3, crop=None
        )


@pytest.mark.parametrize("mode", ["LA", "La", "PA", "RGBA", "RGBa"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_with_alpha_is_composited_on_white(mode: str, channels: int):
    assert np.asarray(convert_colour(Image.new(mode, (1, 1)), channels)).min() == 255


@pytest.mark.parametrize(("mode", "value"), [("1", 0), ("L", 7), ("RGB", (7, 8, 9))])
def test_every_mode_with_a_transparent_value_is_white_there(mode: str, value: object):
    picture = Image.new(mode, (4, 4), value)  # pyright: ignore[reportArgumentType]
    content = encoded(picture, transparency=value)
    assert decode(open_image(content), resolution=4, channels=3, crop=None).min() == 255


# --- frames


def moving(kind: str, *values: int, mode: str = "L") -> bytes:
    """An image whose frames, or pages, are plain. WebP without loss."""
    frames = [Image.new("L", (4, 4), value).convert(mode) for value in values]
    lossless = {"lossless": True} if kind == "WEBP" else {}
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], **lossless)


KINDS = ["GIF", "WEBP", "PNG", "TIFF"]


@pytest.mark.parametrize("kind", KINDS)
def test_further_frames_are_said_each_time_and_used_if_asked(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
):
    root = write(tmp_path / "images", moving(kind, 10, 120, 250), grey_png(77))
    for _ in range(2):  # decoded, then from the cache
        caplog.clear()
        assert greys(load(root)) == [10, 77]
        said = "1 of 2 images of {} have more frames or pages: only the first is used"
        assert said.format(root) in caplog.text
        assert "dataset.frames=all" in caplog.text
    caplog.clear()
    assert greys(load(root, frames="all")) == [10, 77, 120, 250]
    assert greys(load(root, frames="all")) == [10, 77, 120, 250]
    assert "only the first" not in caplog.text


def test_frames_have_the_class_of_their_file_and_stay_in_one_split(tmp_path: Path):
    for number in range(4):
        for name, start in (("cat", 10), ("dog", 110)):
            value = start + number * 20
            path = tmp_path / "images" / name / f"{number}.gif"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(moving("GIF", value, value + 5))
    data = Folder(
        root=str(tmp_path / "images"),
        resolution=4,
        channels=1,
        classes=2,
        holdout=0.25,
        frames="all",
    )
    train, test = data.load("train"), data.load("test")
    assert (len(train.x), len(test.x)) == (12, 4)
    for images in (train, test):
        x = images.x[:, 0, 0, 0]
        assert images.y.tolist() == (x >= 100).long().tolist()
        files = x - (x % 10 // 5) * 5
        assert sorted(files.tolist())[::2] == sorted(files.tolist())[1::2]


def test_a_damaged_count_of_frames_is_noticed(tmp_path: Path, cache_folder: Path):
    root = write(tmp_path / "images", moving("GIF", 10, 120))
    load(root)
    (kept,) = cache_folder.glob("*/kept.json")
    whole = kept.read_text()
    assert json.loads(whole)["moving"] == [1]
    kept.write_text(whole.replace("[1]", "[3]"))
    load(root)
    assert kept.read_text() == whole


def test_the_image_in_a_jpeg_is_one(tmp_path: Path):
    """Phones add previews and maps as further images."""
    content = moving("MPO", 10, 120)
    reading = Reading(None, "all")
    assert (
        decode(open_image(content), resolution=4, channels=1, crop=None, reading=reading).shape[0]
        == 1
    )
    assert inspect_file(open_image(content)) == FileFacts()


def test_all_decoders_read_all_frames():
    reading = Reading(None, "all")
    one, other = moving("GIF", 10, 120), moving("GIF", 20, 220)
    square = CentreDecoder(4, 1, None, False, reading).decode(open_image(one))
    assert square[:, 0, 0, 0].tolist() == [10, 120]
    assert np.array_equal(SquashDecoder(4, 1, False, reading).decode(open_image(one)), square)
    pairs = PairDecoder(4, 1, 1, "b_to_a", False, reading).decode(*map(open_image, (one, other)))
    assert pairs[:, :, 0, 0].tolist() == [[20, 10], [220, 120]]
    with pytest.raises(DECODE_ERRORS, match="A has 2 frames, but B has 1"):
        PairDecoder(4, 1, 1, "a_to_b", False, reading).decode(*map(open_image, (one, grey_png(1))))


def test_scores_of_existing_images_are_of_first_frames_and_say_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("0.png", moving("PNG", 10, 120))
        archive.writestr("1.png", grey_png(5))
    assert greys(read_collection(tmp_path / "a.zip").images.x) == [5, 10]
    assert "1 of 2 images of" in caplog.text
    assert "dataset.frames" not in caplog.text
