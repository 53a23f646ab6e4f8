"""What a user's folder or zip holds: whoever made it, every image counts and the rest is said."""

import contextlib
import errno
import io
import os
import zipfile
from pathlib import Path
from unittest.mock import Mock

import pytest
from PIL import Image

from crgan_cli.data import file_listing
from crgan_cli.data.files import ImageFiles
from crgan_cli.errors import UserError


def encoded(kind: str = "PNG", value: int = 0) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), (value,) * 3).save(out, kind)
    return out.getvalue()


def zipped(path: Path, *names: str) -> Path:
    """The content of each image is its own."""
    with zipfile.ZipFile(path, "w") as archive:
        for value, name in enumerate(names):
            content = b"" if name.endswith(("/", "\\")) else encoded(value=value)
            archive.writestr(name, content)
    return path


def names(files: ImageFiles) -> list[str]:
    return [entry.name for entry in files.entries]


@pytest.mark.parametrize(
    "stored", ["train\\0.png", "./train/0.png", "/train/0.png", "C:\\train\\0.png"]
)
def test_a_zip_reads_alike_wherever_it_was_made(tmp_path: Path, stored: str):
    files = ImageFiles(str(zipped(tmp_path / "a.zip", "train\\", "other/9.png", stored)))
    assert names(files) == ["other/9.png", "train/0.png"]
    assert files.read(files.entries[1]) == encoded(value=2)
    assert files.others == []


def test_a_folder_unpacked_with_backslashes_in_its_names_reads_like_its_zip(tmp_path: Path):
    root = tmp_path / "images"
    root.mkdir()
    for value, name in enumerate(["train\\a\\0.png", "test\\a\\0.png"]):
        (root / name).write_bytes(encoded(value=value))
    files = ImageFiles(str(root))
    assert names(files) == ["test/a/0.png", "train/a/0.png"]
    assert [files.read(entry) for entry in files.entries] == [encoded(value=1), encoded(value=0)]


def test_a_backslash_leads_out_of_nothing(tmp_path: Path):
    files = ImageFiles(str(zipped(tmp_path / "a.zip", "..\\up.png", "0.png")))
    assert names(files) == ["0.png"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_two_files_of_one_name_in_a_zip_the_later_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    files = ImageFiles(str(zipped(tmp_path / "a.zip", "a/0.png", "a\\0.png", "a/1.png", "a/1.png")))
    assert names(files) == ["a/0.png", "a/1.png"]
    assert [files.read(entry) for entry in files.entries] == [encoded(value=1), encoded(value=3)]
    files.log_left_out()
    assert "2 replaced by a later file of that name (e.g. a/0.png)" in caplog.text


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "AVIF"])
def test_a_file_without_an_ending_is_an_image_if_it_begins_like_one(tmp_path: Path, kind: str):
    (tmp_path / "d41d8cd9").write_bytes(encoded(kind))
    (tmp_path / "README").write_text("no image")
    assert names(ImageFiles(str(tmp_path))) == ["d41d8cd9"]


def test_avif_is_read(tmp_path: Path):
    (tmp_path / "a.AVIF").write_bytes(encoded("AVIF"))
    assert names(ImageFiles(str(tmp_path))) == ["a.AVIF"]


def test_links_are_followed_but_not_in_circles(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    root, elsewhere = tmp_path / "images", tmp_path / "elsewhere"
    for folder in (root / "cat", elsewhere):
        folder.mkdir(parents=True)
        (folder / "0.png").write_bytes(encoded())
    os.symlink(elsewhere, root / "dog")
    os.symlink(elsewhere / "0.png", root / "cat" / "1.png")
    os.symlink(root, elsewhere / "back")
    os.symlink(tmp_path / "gone.png", root / "cat" / "2.png")
    os.symlink(root / "cat" / "3.png", root / "cat" / "3.png")
    files = ImageFiles(str(root))
    assert names(files) == ["cat/0.png", "cat/1.png", "dog/0.png"]
    files.log_left_out()
    assert "2 links to nothing that can be read (e.g. cat/2.png)" in caplog.text
    assert "1 links to a folder above them (e.g. dog/back)" in caplog.text


def test_what_is_left_out_is_counted_by_kind(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for name in ("a.png", "b.heic", "c.HEIC", "notes.txt", ".hidden.png"):
        (tmp_path / name).write_bytes(encoded())
    os.mkfifo(tmp_path / "pipe.png")
    ImageFiles(str(tmp_path)).log_left_out()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == (
        f"{tmp_path}: 1 images, and 5 left out: 2 .heic (e.g. b.heic), 1 .txt (e.g. notes.txt), "
        "1 hidden (e.g. .hidden.png), 1 no files but devices, pipes or sockets (e.g. pipe.png). "
        "Convert what is an image to PNG or JPEG to use it"
    )


def test_notes_beside_images_are_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for name in ("a.png", "notes.txt", ".DS_Store"):
        (tmp_path / name).write_bytes(encoded())
    ImageFiles(str(tmp_path)).log_left_out()
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_only_images_that_cannot_be_read_are_named_by_kind(tmp_path: Path):
    (tmp_path / "a.heic").write_bytes(b"")
    with pytest.raises(UserError, match=r"1 files but no image: 1 \.heic \(e\.g\. a\.heic\)"):
        ImageFiles(str(tmp_path))


def test_a_file_of_a_failing_disk_is_not_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    child = Mock(stat=Mock(side_effect=OSError(errno.ESTALE, "Stale file handle")))
    child.name = "a.png"
    listed = contextlib.nullcontext([child])
    monkeypatch.setattr(file_listing.os, "scandir", lambda folder: listed)
    with pytest.raises(UserError, match=r"cannot be read \(Stale file handle\)"):
        ImageFiles(str(tmp_path))
