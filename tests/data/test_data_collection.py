"""Images that others made: read as they are or not at all, and exported so that they come back."""

import io
import os
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.pictures import build_png
from torch import Tensor
from torch_fidelity.datasets import ImagesPathDataset
from torch_fidelity.utils import glob_samples_paths

from crgan_cli.data import collection as module
from crgan_cli.data.collection import read_collection
from crgan_cli.data.images import Images, fingerprint
from crgan_cli.errors import RunFailed, UserError
from crgan_cli.evaluation.pictures import Export

pytestmark = pytest.mark.usefixtures("cache_folder")


def noise(n: int, channels: int = 3, height: int = 5, width: int = 5) -> Tensor:
    random = torch.Generator().manual_seed(n)
    size = (n, channels, height, width)
    return torch.randint(0, 256, size, generator=random, dtype=torch.uint8)


def put(path: Path, mode: str = "RGB", size: tuple[int, int] = (4, 4), value: int = 7) -> Path:
    """An image of one value, as the kind of file that the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("L", size, value).convert("L" if mode.startswith("I") else mode)
    (Image.new(mode, size, value) if mode.startswith("I") else picture).save(path)
    return path


def deep_png() -> bytes:
    """2x2 pixels of 16-bit RGB, which Pillow can read and cannot write."""

    return build_png(2, 16, 2, (b"IDAT", zlib.compress(bytes(2 * (1 + 2 * 6)))))


def refusal(root: Path) -> str:
    with pytest.raises(UserError) as raised:
        read_collection(root)
    return str(raised.value)


def stopped(path: Path) -> None:
    """An export that ends badly after some images."""
    with Export(path) as export:
        export.add("real", noise(9, height=64, width=64))
        export.add("generated", noise(3))
        raise RuntimeError("stopped")


def written(path: Path, images: Tensor) -> None:
    """An export that ends well."""
    with Export(path) as export:
        export.add("real", images)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["out", "out.zip"])
def test_what_is_exported_comes_back_bit_for_bit(tmp_path: Path, name: str, channels: int):
    fakes, reals = noise(7, channels), noise(3, channels)
    with Export(tmp_path / name) as export:
        export.add("real", reals)
        export.add("generated", fakes[:4])
        export.add("generated", fakes[4:])
    out = tmp_path / name
    if out.suffix:
        assert zipfile.is_zipfile(out)
        with zipfile.ZipFile(out) as file:
            file.extractall(tmp_path / "unpacked")
        out = tmp_path / "unpacked"
    assert sorted(p.name for p in (out / "real").iterdir()) == [f"00000{i}.png" for i in range(3)]
    assert torch.equal(read_collection(out / "generated").images.x, fakes)
    assert torch.equal(read_collection(out / "real").images.x, reals)
    assert {path.name for path in tmp_path.iterdir()} <= {"out", "out.zip", "unpacked"}


def test_order_and_pixels_are_those_of_torch_fidelity(tmp_path: Path):
    root = tmp_path / "samples"
    names = ["img10.png", "img9.png", "B.png", "a.jpg", "img-1.jpeg", "img_1.PNG"]
    root.mkdir()
    for name, pixels in zip(names, noise(len(names)), strict=True):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(root / name)
    (root / "notes.txt").write_text("no image")
    files = glob_samples_paths(str(root), False, "png,jpg,jpeg", verbose=False)
    theirs = torch.stack(list(ImagesPathDataset(files)))
    assert len(theirs) == len(names)
    assert torch.equal(read_collection(root).images.x, theirs)


def test_an_orientation_in_exif_is_left_alone_as_torch_fidelity_does(tmp_path: Path):
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    path = tmp_path / "samples" / "a.png"
    path.parent.mkdir()
    Image.new("RGB", (4, 2)).save(path, exif=turned)
    assert read_collection(path.parent).images.x.shape == (1, 3, 2, 4)


def test_images_need_not_be_square(tmp_path: Path):
    with Export(tmp_path / "out") as export:
        export.add("real", noise(2, height=3, width=8))
    assert torch.equal(read_collection(tmp_path / "out/real").images.x, noise(2, height=3, width=8))


def test_a_palette_is_looked_up_and_two_values_become_grey(tmp_path: Path):
    colours = Image.new("P", (4, 4), 1)
    colours.putpalette([1, 2, 3, 200, 100, 50])
    (tmp_path / "palette").mkdir()
    colours.save(tmp_path / "palette/a.png")
    put(tmp_path / "palette/b.png", value=7)  # RGB beside it
    x = read_collection(tmp_path / "palette").images.x
    assert x[:, :, 0, 0].tolist() == [[200, 100, 50], [7, 7, 7]]
    put(tmp_path / "two/a.png", "1", value=255)
    put(tmp_path / "two/b.png", "L", value=9)
    assert read_collection(tmp_path / "two").images.x[:, :, 0, 0].tolist() == [[255], [9]]


def test_sub_folders_are_classes_where_every_image_lies_in_one(tmp_path: Path):
    root = tmp_path / "samples"
    put(root / "outer/dog/1.png", value=1)
    put(root / "outer/cat/deeper/2.png", value=2)
    found = read_collection(root)
    assert found.class_names == ("cat", "dog")
    assert found.images.y.tolist() == [0, 1]
    assert found.images.y.dtype == torch.int64
    assert found.images.x[:, 0, 0, 0].tolist() == [2, 1]
    put(root / "outer/loose.png", value=3)
    found = read_collection(root)
    assert found.class_names == ()
    assert found.images.y.tolist() == [0, 0, 0]


def test_the_fingerprint_is_the_contents_wherever_they_lie(tmp_path: Path):
    for name in ("one", "two"):
        with Export(tmp_path / name) as export:
            export.add("real", noise(3))
    shas = [read_collection(tmp_path / name / "real").sha256 for name in ("one", "two")]
    assert shas == [fingerprint(Images(noise(3), torch.zeros(3, dtype=torch.int64)))] * 2
    put(tmp_path / "two/real/000001.png", size=(5, 5))
    assert read_collection(tmp_path / "two/real").sha256 != shas[0]


def test_many_pixels_are_memory_mapped_and_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_folder: Path
):
    with Export(tmp_path / "out") as export:
        export.add("real", noise(4, height=3))
    small = read_collection(tmp_path / "out/real")
    assert not cache_folder.exists()
    monkeypatch.setattr(module, "IN_MEMORY_BYTES", 4 * 3 * 3 * 5 - 1)
    large = read_collection(tmp_path / "out/real")
    assert [path.name for path in cache_folder.glob("*/pixels.u8")] == ["pixels.u8"]
    assert torch.equal(large.images.x, small.images.x)
    assert large.sha256 == small.sha256


def test_jpegs_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    put(tmp_path / "samples/a.jpg", "L")
    put(tmp_path / "samples/b.png", "L")
    read_collection(tmp_path / "samples")
    assert "1 of 2 images" in caplog.text
    assert "JPEG" in caplog.text


def test_images_of_several_sizes_are_refused_with_an_example_of_each(tmp_path: Path):
    root = tmp_path / "samples"
    put(root / "a.png", size=(9, 4))
    put(root / "b.png")
    put(root / "c.png")
    said = refusal(root)
    assert "b.png is 4x4 (one of 2), a.png is 9x4 (one of 1)" in said
    assert "mogrify -path converted -resize '4x4!' *.png" in said


@pytest.mark.parametrize(
    ("mode", "option"),
    [
        ("RGBA", "-alpha remove"),
        ("LA", "-alpha remove"),
        ("I;16", "-depth 8"),
        ("CMYK", "-colorspace sRGB"),
    ],
)
def test_other_modes_are_refused_with_two_examples(tmp_path: Path, mode: str, option: str):
    ending = ".tif" if mode == "CMYK" else ".png"
    for name in ("a", "b", "c"):
        put((tmp_path / "samples" / name).with_suffix(ending), mode)
    put(tmp_path / "samples/d.png")
    said = refusal(tmp_path / "samples")
    assert f"3 of 4 images in {tmp_path / 'samples'}" in said
    assert f"a{ending} is {mode} and b{ending} is {mode} (" in said
    assert option in said


def test_what_pillow_hides_is_refused_too(tmp_path: Path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/a.png").write_bytes(deep_png())
    assert "a.png is 16-bit RGB" in refusal(tmp_path / "deep")
    (tmp_path / "seen-through").mkdir()
    Image.new("P", (4, 4)).save(tmp_path / "seen-through/a.png", transparency=0)
    assert "a.png is P with transparency" in refusal(tmp_path / "seen-through")


def test_grey_beside_rgb_is_refused(tmp_path: Path):
    put(tmp_path / "samples/a.png", "L")
    put(tmp_path / "samples/b.png", "RGB")
    said = refusal(tmp_path / "samples")
    assert "a.png is grey (one of 1), b.png is RGB (one of 1)" in said


@pytest.mark.parametrize("keep", [10, -600], ids=["in its header", "in its pixels"])
def test_an_unreadable_file_is_named(tmp_path: Path, keep: int):
    with Export(tmp_path / "out") as export:
        export.add("real", noise(3, height=30, width=30))
    damaged = tmp_path / "out/real/000001.png"
    damaged.write_bytes(damaged.read_bytes()[:keep])
    said = refusal(tmp_path / "out/real")
    assert "1 of 3 images" in said
    assert "000001.png (" in said
    assert "dataset." not in said


def test_a_folder_that_is_none_is_named_with_its_option(tmp_path: Path):
    assert "--samples must be a folder" in refusal(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "Correct --samples." in refusal(tmp_path / "empty")
    (tmp_path / "a.zip").write_text("no zip")
    assert "neither a folder nor a zip" in refusal(tmp_path / "a.zip")
    (tmp_path / "empty/a.png").write_text("no image")
    assert "correct --samples" in refusal(tmp_path / "empty")
    with pytest.raises(UserError, match="REFERENCE must be a folder"):
        read_collection(tmp_path / "nowhere", "REFERENCE")


def test_both_halves_of_an_export_are_not_one_collection(tmp_path: Path):
    with Export(tmp_path / "out.zip") as export:
        export.add("real", noise(1))
        export.add("generated", noise(1))
    assert "generated/ or real/" in refusal(tmp_path / "out.zip")


@pytest.mark.parametrize("name", ["new", "empty", "out.zip"])
def test_an_export_that_fails_leaves_nothing(tmp_path: Path, name: str):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RuntimeError, match="stopped"):
        stopped(tmp_path / name)
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")] == ["empty"]


def test_an_export_that_fails_leaves_the_zip_that_was_there(tmp_path: Path):
    (tmp_path / "out.zip").write_text("older")
    with pytest.raises(RuntimeError, match="stopped"):
        stopped(tmp_path / "out.zip")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("out.zip", "older")]


def test_where_an_export_cannot_be_is_told_before_there_are_images(tmp_path: Path):
    put(tmp_path / "full/theirs.png")
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.zip").mkdir()
    for name, said in {
        "full": r"not an empty folder. Give another --export\.",
        "file": "not an empty folder",
        "file/below": "cannot be written",
        "folder.zip": "is a folder with the name of a zip",
        "one.png": "names one picture",
    }.items():
        with pytest.raises(UserError, match=said):
            Export(tmp_path / name)
    assert (tmp_path / "full/theirs.png").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full")
@pytest.mark.parametrize("side", [64, 2], ids=["while it is written", "at its end"])
def test_a_full_disk_is_a_failure_of_the_run(tmp_path: Path, side: int):
    os.symlink("/dev/full", tmp_path / "out.zip.partial")
    with pytest.raises(RunFailed, match=r"writing to .*out\.zip failed: No space left"):
        written(tmp_path / "out.zip", noise(9, height=side, width=side))
    assert list(tmp_path.iterdir()) == []


def test_the_first_image_may_fail_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def half(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[:9])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    (tmp_path / "out").mkdir()
    with pytest.raises(RunFailed, match="No space left"):
        written(tmp_path / "out", noise(1))
    assert [path.name for path in tmp_path.rglob("*")] == ["out"]


def test_exported_pngs_are_plain_grey_or_rgb(tmp_path: Path):
    with Export(tmp_path / "out.zip") as export:
        export.add("generated", noise(1, channels=1))
        export.add("real", noise(1))
    with zipfile.ZipFile(tmp_path / "out.zip") as file:
        assert [
            (name, Image.open(io.BytesIO(file.read(name))).mode) for name in file.namelist()
        ] == [("generated/000000.png", "L"), ("real/000000.png", "RGB")]
