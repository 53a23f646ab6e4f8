"""Images at the lower resolutions of a run that grows."""

from pathlib import Path

import pytest
import torch

from crgan_cli.data import resize
from crgan_cli.data.images import Images
from crgan_cli.data.levels import shrink_images


def images(n: int = 5, side: int = 16) -> Images:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (n, 3, side, side), generator=generator, dtype=torch.uint8)
    return Images(x, torch.arange(n))


def test_a_pixel_is_the_rounded_mean_of_a_square() -> None:
    x = torch.tensor([[1, 2, 9, 9], [3, 4, 9, 8], [0, 0, 255, 255], [0, 2, 255, 255]])
    small = shrink_images(Images(x.to(torch.uint8).view(1, 1, 4, 4), torch.zeros(1)), 2, "")
    # 2.5 and 0.5 are rounded to the even neighbour, as NumPy's rint does in the authors' tool
    assert small.x.flatten().tolist() == [2, 9, 0, 255]


def test_every_level_is_of_the_full_image_not_of_a_rounded_one() -> None:
    full = images()
    small = shrink_images(full, 4, "")
    expected = full.x.double().view(5, 3, 4, 4, 4, 4).mean((3, 5)).round()
    assert torch.equal(small.x.double(), expected)
    assert torch.equal(small.y, full.y)
    assert shrink_images(full, 16, "") is full


@pytest.fixture
def on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small sets count as large ones, and are shrunk in many parts."""
    monkeypatch.setenv("CRGAN_CACHE", str(tmp_path))
    monkeypatch.setattr(resize, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(resize, "BYTES_AT_ONCE", 1000)
    return tmp_path / "levels"


def test_a_large_set_is_shrunk_once_on_disk(on_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = images()
    monkeypatch.setattr(resize, "IN_MEMORY_BYTES", 2**30)
    expected = shrink_images(full, 8, "abc").x
    assert not on_disk.exists()
    monkeypatch.setattr(resize, "IN_MEMORY_BYTES", 0)
    assert torch.equal(shrink_images(full, 8, "abc").x, expected)
    (file,) = on_disk.glob("abc-8.u8")
    assert file.stat().st_size == expected.numel()
    # not shrunk again: other images with this digest are not looked at
    other = Images(255 - full.x, full.y)
    assert torch.equal(shrink_images(other, 8, "abc").x, expected)


@pytest.mark.parametrize("damage", ["shorter", "another byte", "no digest"])
def test_a_damaged_level_is_written_again(
    on_disk: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    full = images()
    expected = shrink_images(full, 8, "abc").x.clone()
    file = on_disk / "abc-8.u8"
    content = bytearray(file.read_bytes())
    if damage == "shorter":
        file.write_bytes(content[:-1])
    elif damage == "another byte":
        content[7] ^= 1
        file.write_bytes(content)
    else:
        file.with_suffix(".sha256").unlink()
    assert torch.equal(shrink_images(full, 8, "abc").x, expected)
    assert ("is damaged" in caplog.text) == (damage != "no digest")
