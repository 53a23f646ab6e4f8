"""One image to pixels: every colour mode by value, orientation, crop, resize, and refusals."""

import io

import numpy as np
import pytest
from PIL import Image
from support.pictures import build_png, encoded

from crgan_cli.config.sides import Sides
from crgan_cli.data import decode as module
from crgan_cli.data.decode import (
    DECODE_ERRORS,
    Reading,
    check_channels,
    choose_reduction,
    decode,
    estimate_bytes,
    fit_inside,
    least_side,
    open_image,
    quiet_pillow,
    read_frames,
)
from crgan_cli.errors import UserError


def colour(picture: Image.Image, kind: str = "PNG", channels: int = 3, **options: object):
    """The one colour of a plain picture after decoding."""
    pixels = decode(
        open_image(encoded(picture, kind, **options)), resolution=2, channels=channels, crop=None
    ).reshape(channels, -1)
    assert (pixels == pixels[:, :1]).all()
    return pixels[:, 0].tolist()


def plain(mode: str, value: object) -> Image.Image:
    return Image.new(mode, (4, 4), value)  # pyright: ignore[reportArgumentType]


def test_colour_stays_and_becomes_grey_by_luma():
    assert colour(plain("RGB", (10, 20, 30))) == [10, 20, 30]
    # ITU-R 601-2: (299 R + 587 G + 114 B) / 1000
    assert colour(plain("RGB", (100, 200, 50)), channels=1) == [153]


def test_grey_becomes_three_equal_channels():
    assert colour(plain("L", 77)) == [77, 77, 77]
    assert colour(plain("L", 77), channels=1) == [77]
    assert colour(plain("1", 1)) == [255, 255, 255]


def test_a_palette_is_looked_up():
    picture = plain("P", 1)
    picture.putpalette([1, 2, 3, 40, 50, 60])
    assert colour(picture) == [40, 50, 60]


@pytest.mark.parametrize(("alpha", "expected"), [(255, 0), (0, 255), (51, 204)])
def test_alpha_is_composited_on_white(alpha: int, expected: int):
    assert colour(plain("RGBA", (0, 0, 0, alpha))) == [expected] * 3
    assert colour(plain("LA", (0, alpha)), channels=1) == [expected]


def test_a_transparent_palette_entry_is_white():
    picture = plain("P", 1)
    picture.putpalette([1, 2, 3, 40, 50, 60])
    assert colour(picture, transparency=1) == [255, 255, 255]
    assert colour(picture, transparency=0) == [40, 50, 60]


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (257 * 200, 200), (65535, 255)])
def test_sixteen_bit_grey_is_scaled_to_eight(value: int, expected: int):
    picture = Image.fromarray(np.full((4, 4), value, dtype=np.uint16))
    assert colour(picture) == [expected] * 3
    assert colour(picture, "TIFF", channels=1) == [expected]


def test_cmyk_is_converted():
    assert colour(plain("CMYK", (0, 255, 255, 0)), "TIFF") == [255, 0, 0]


def test_the_first_frame_of_an_animation_is_used():
    frames = [plain("L", 10), plain("L", 200)]
    assert colour(frames[0], "GIF", save_all=True, append_images=frames[1:]) == [10, 10, 10]


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_known_range_are_refused(mode: str):
    content = encoded(plain(mode, 100_000), "TIFF")
    with pytest.raises(DECODE_ERRORS, match="no known range"):
        decode(open_image(content), resolution=2, channels=3, crop=None)


def test_the_exif_orientation_is_applied():
    picture = Image.fromarray(np.array([[0, 50], [100, 150]], dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter to the right for display
    pixels = decode(open_image(encoded(picture, exif=exif)), resolution=2, channels=1, crop=None)
    assert pixels[0].tolist() == [[100, 0], [150, 50]]


def test_the_largest_centre_square_is_kept():
    wide = np.arange(5 * 3, dtype=np.uint8).reshape(3, 5)
    for picture in (wide, wide.T):
        pixels = decode(
            open_image(encoded(Image.fromarray(picture))), resolution=3, channels=1, crop=None
        )
        expected = wide[:, 1:4] if picture is wide else wide[:, 1:4].T
        assert np.array_equal(pixels[0], expected)


def test_the_largest_centre_part_of_the_wanted_shape_is_kept():
    wide = np.arange(9 * 4, dtype=np.uint8).reshape(4, 9)
    for picture, resolution, expected in (
        (wide, (4, 2), wide[:, 3:5]),  # twice as high as wide: 2 columns of 9
        (wide.T, (2, 4), wide.T[3:5]),
    ):
        content = open_image(encoded(Image.fromarray(picture)))
        pixels = decode(content, resolution=resolution, channels=1, crop=None)
        assert np.array_equal(pixels[0], expected)


def test_a_kept_part_has_whole_pixels_and_at_least_one():
    assert fit_inside((10, 10), Sides(3, 2)) == (7, 10)  # 6.67 columns
    assert fit_inside((10, 10), Sides(2, 3)) == (10, 7)
    assert fit_inside((9, 4), Sides(5, 5)) == (4, 4)
    assert fit_inside((2, 9), Sides(1, 64)) == (2, 1)


def test_a_jpeg_keeps_twice_the_longer_of_the_wanted_sides():
    assert least_side((48, 64)) == least_side(64) == 128


def test_a_crop_keeps_the_centre_square_of_that_side():
    picture = np.arange(36, dtype=np.uint8).reshape(6, 6)
    pixels = decode(open_image(encoded(Image.fromarray(picture))), resolution=2, channels=1, crop=2)
    assert pixels[0].tolist() == [[14, 15], [20, 21]]


def test_a_crop_larger_than_the_image_is_refused():
    with pytest.raises(DECODE_ERRORS, match="4x4, smaller than the crop 5"):
        decode(open_image(encoded(plain("L", 0))), resolution=2, channels=1, crop=5)


def test_shrinking_is_antialiased():
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (64, 32))
    pixels = decode(
        open_image(encoded(Image.fromarray(stripes))), resolution=8, channels=1, crop=None
    )
    # taking every eighth pixel would give 0 everywhere
    assert 120 < pixels[0, 2:-2, 2:-2].mean() < 135


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_image_is_refused(kind: str):
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    content = encoded(Image.fromarray(noise), kind)
    with pytest.raises(DECODE_ERRORS):
        decode(open_image(content[: len(content) // 2]), resolution=8, channels=3, crop=None)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_refused(content: bytes):
    with pytest.raises(DECODE_ERRORS):
        decode(open_image(content), resolution=8, channels=3, crop=None)


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_an_image_of_too_many_pixels_is_refused_before_it_is_unpacked(side: int):
    bomb = build_png(side, 8, 0)
    with (
        quiet_pillow(),
        pytest.raises(DECODE_ERRORS, match=r"pixels are too many, at most 89,478,485 are read"),
    ):
        decode(open_image(bomb), resolution=8, channels=1, crop=None)


def test_there_are_conversions_to_one_and_three_channels_only():
    check_channels(1)
    check_channels(3)
    with pytest.raises(UserError, match=r"dataset.channels=4.*3 channels \(colour\) or 1"):
        check_channels(4)


def jpeg(width: int, height: int, **options: object) -> bytes:
    """A smooth picture of all colours."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    pixels = np.stack([x, y, 255 - x], 2).astype(np.uint8)
    return encoded(Image.fromarray(pixels), "JPEG", **options)


@pytest.mark.parametrize(
    ("size", "by"), [((600, 400), 8), ((127, 64), 4), ((63, 64), 2), ((31, 90), 1)]
)
def test_a_large_jpeg_is_decoded_at_the_least_size_that_is_twice_the_wanted_one(size, by):
    with open_image(jpeg(*size)) as picture:
        assert choose_reduction(picture, least_side(resolution=8)) == by
        (frame,) = read_frames(picture, Reading(), least_side(resolution=8))
    assert frame.size == (size[0] // by, size[1] // by)  # what fills no whole pixel is left out


@pytest.mark.parametrize("kind", ["plain", "turned", "several", "grey", "cmyk", "progressive"])
def test_a_reduced_jpeg_looks_like_the_whole_one(kind: str, monkeypatch: pytest.MonkeyPatch):
    content = jpeg(205, 155, quality=95, progressive=kind == "progressive")
    with Image.open(io.BytesIO(content)) as picture:
        if kind in ("grey", "cmyk"):
            content = encoded(picture.convert("L" if kind == "grey" else "CMYK"), "JPEG")
        if kind == "turned":
            exif = Image.Exif()
            exif[0x0112] = 6
            content = encoded(picture, "JPEG", exif=exif)
        if kind == "several":
            content = encoded(picture, "MPO", save_all=True, append_images=[picture.copy()])

    def load() -> np.ndarray:
        with open_image(content) as opened:
            return decode(opened, resolution=8, channels=3, crop=None).astype(int)

    reduced = load()
    monkeypatch.setattr(module, "choose_reduction", lambda *_: 1)
    # a quarter of a resulting pixel, which spans 19 of the image, at 255 / 205 a pixel
    assert 0 < np.abs(reduced - load()).max() <= 6


def test_only_jpegs_that_are_resized_are_reduced():
    with open_image(jpeg(400, 300)) as picture:
        assert choose_reduction(picture, least_side(8)) == 8
        assert choose_reduction(picture, least_side(8, crop=100)) == 1  # of its own pixels
        assert choose_reduction(picture, None) == 1
    with open_image(encoded(plain("L", 3).resize((400, 300)))) as picture:
        assert choose_reduction(picture, least_side(8)) == 1


def test_memory_is_estimated_by_kind_and_by_what_is_decoded():
    def estimate(content: bytes, least: int | None = None) -> int:
        with open_image(content) as picture:
            return estimate_bytes(picture, least)

    assert estimate(jpeg(80, 40)) == 80 * 40 * 16
    assert estimate(jpeg(80, 40), least=10) == 20 * 10 * 16
    assert estimate(jpeg(80, 40, progressive=True), least=10) == 20 * 10 * 16 + 80 * 40 * 6
    assert estimate(encoded(plain("RGBA", (0, 0, 0, 9)))) == 16 * 24
    assert estimate(encoded(Image.fromarray(np.zeros((4, 4), np.uint16)))) == 16 * 32
