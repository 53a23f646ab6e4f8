"""Published sets at other resolutions than their own."""

import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError

import pytest
import torch
from PIL import Image

from crgan_cli.data import resize
from crgan_cli.data.decode import decode, open_image
from crgan_cli.data.demo_domains import DemoAttributes
from crgan_cli.data.embedded import Demo
from crgan_cli.data.images import Images, fingerprint
from crgan_cli.data.resize import resize_images


def demo(resolution: int) -> Demo:
    return Demo(resolution=resolution, channels=1, classes=1, only_classes=["bag"], fraction=0.02)


def test_a_named_set_is_resized_as_a_folder_of_its_images_is() -> None:
    own = demo(32).load("train")
    for side in (16, 48):
        for image, resized in zip(own.x, demo(side).load("train").x, strict=True):
            file = io.BytesIO()
            Image.fromarray(image[0].numpy()).save(file, "png")
            decoded = decode(open_image(file.getvalue()), resolution=side, channels=1, crop=None)
            assert decoded.tobytes() == resized.numpy().tobytes()


def test_colours_are_resized_as_pillow_resizes_rgb() -> None:
    x = torch.randint(256, (3, 3, 12, 12), generator=torch.manual_seed(0), dtype=torch.uint8)
    made = resize_images(Images(x, torch.zeros(3)), 20).x
    for image, found in zip(x, made, strict=True):
        picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        whole = picture.resize((20, 20), Image.Resampling.LANCZOS)
        assert whole.tobytes() == found.permute(1, 2, 0).contiguous().numpy().tobytes()


def test_without_its_border_a_grey_set_is_not_resized() -> None:
    padded, inside = demo(32).load("test"), demo(28).load("test")
    assert torch.equal(inside.x, padded.x[:, :, 2:30, 2:30])
    assert torch.equal(inside.y, padded.y)


def test_the_protocol_says_how_the_images_got_their_size() -> None:
    assert demo(32).described == "demo (bag)"
    assert demo(28).described == "demo (bag) (28x28, without a border)"
    assert demo(64).described == "demo (bag) (resized from 32x32 to 64x64, Lanczos)"


def test_classes_as_domains_are_resized_too() -> None:
    words = {"channels": 1, "classes": 5, "fraction": 0.01}
    small, own = (DemoAttributes(resolution=side, **words) for side in (16, 32))  # pyright: ignore[reportArgumentType]
    expected = resize_images(own.load("test"), 16)
    assert fingerprint(small.load("test")) == fingerprint(expected)


def test_a_large_set_is_resized_once_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = demo(32).load("train")
    expected = resize_images(images, 64).x
    monkeypatch.setenv("CRGAN_CACHE", str(tmp_path))
    monkeypatch.setattr(resize, "IN_MEMORY_BYTES", images.x.nbytes)  # the larger side counts
    monkeypatch.setattr(resize, "BYTES_AT_ONCE", 5000)
    assert torch.equal(resize_images(images, 64).x, expected)
    (file,) = (tmp_path / "resized").glob("*-64.u8")
    assert file.stem.startswith(fingerprint(images)[:32])
    assert file.stat().st_size == expected.numel()


def test_of_several_that_start_together_one_resizes_and_removes_what_a_kill_left(
    tmp_path: Path,
) -> None:
    left = tmp_path / "images.u8.1.partial"
    left.touch()
    together, calls = Barrier(2), []

    def double(x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        with suppress(BrokenBarrierError):
            together.wait(0.3)
        return resize.resize_lanczos(x, 8)

    x = torch.arange(48, dtype=torch.uint8).view(3, 1, 4, 4)
    with ThreadPoolExecutor(2) as pool:
        path = tmp_path / "images.u8"
        made = list(pool.map(lambda _: resize.open_resized(path, x, 8, double), range(2)))
    assert calls == [3]
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], resize.resize_lanczos(x, 8))
    assert not left.exists()
