"""Many files at once: the memory that the threads hold together, and what is said of bad ones."""

import io
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crgan_cli.data import decoding
from crgan_cli.data.decode import quiet_pillow
from crgan_cli.data.decoding import CentreDecoder, decode_readable, format_reason
from crgan_cli.data.file_facts import SetFacts
from crgan_cli.data.files import ImageFiles
from crgan_cli.data.memory import MemoryBudget


def run_threads(budget: MemoryBudget, sizes: list[int]) -> list[int]:
    """What is held whenever a thread has got its part."""
    seen, together = [], threading.Barrier(len(sizes))

    def work(size: int) -> None:
        together.wait()
        for _ in range(50):
            with budget.hold(size):
                seen.append(budget.held)

    threads = [threading.Thread(target=work, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


def test_threads_never_hold_more_than_the_budget():
    budget = MemoryBudget(10)
    seen = run_threads(budget, [4, 4, 4, 6, 3, 3])
    assert max(seen) <= 10
    assert len(seen) == 300  # and each gets its part
    assert budget.held == 0


def test_who_wants_more_than_all_gets_it_alone():
    budget = MemoryBudget(10)
    assert set(run_threads(budget, [25, 30])) == {10}
    with pytest.raises(ValueError, match="bad"), budget.hold(25):
        raise ValueError("bad")
    assert budget.held == 0  # also after an error


def test_images_are_decoded_within_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An image of 8 x 8 takes 1,024 bytes: two fit, and the large one goes alone."""
    for number in range(20):
        side = 40 if number == 7 else 8
        Image.new("RGB", (side, side), (number, 0, 0)).save(tmp_path / f"{number:02}.png")
    pixels, wanted, held = MemoryBudget(2500), [], []
    hold, decode = pixels.hold, decoding.decode
    monkeypatch.setattr(pixels, "hold", lambda size: wanted.append(size) or hold(size))
    monkeypatch.setattr(decoding, "PIXEL_BYTES", pixels)
    monkeypatch.setattr(
        decoding, "decode", lambda *a, **k: held.append(pixels.held) or decode(*a, **k)
    )
    monkeypatch.setattr(decoding.os, "cpu_count", lambda: 8)
    files = ImageFiles(str(tmp_path))
    with quiet_pillow():
        decoder = CentreDecoder(4, 3, None, False)
        found = list(decode_readable(files, files.entries, decoder, SetFacts()))
    assert [int(x[0, 0, 0]) for _, x in found] == list(range(20))
    assert sorted(wanted) == [1024] * 19 + [40 * 40 * 16]
    assert len(held) == 20
    assert max(held) <= 2500


def test_each_file_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for number, kind in enumerate(("PNG", "GIF", "JPEG", "TIFF")):
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(tmp_path / f"{number}.{kind}", kind)
    opened, original = [], Image.open
    monkeypatch.setattr(Image, "open", lambda file: opened.append(file) or original(file))
    files = ImageFiles(str(tmp_path))
    with quiet_pillow():
        decoder = CentreDecoder(4, 1, None, False)
        assert len(list(decode_readable(files, files.entries, decoder, SetFacts()))) == 4
    assert len(opened) == 4


def test_a_reason_names_no_object_of_python(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("0.png", b"no image")
        with archive.open("0.png") as member:
            with pytest.raises(OSError, match="ZipExtFile") as found:
                Image.open(member)
            assert format_reason(found.value) == "cannot identify image file"
            assert format_reason(OSError(f"cannot read {member}: bad")) == "cannot read: bad"
    assert format_reason(OSError(f"bad {io.BytesIO()!r}")) == "bad"
    assert format_reason(OSError(f"bad {object()!r}")) == "bad"
    assert format_reason(OSError("1 < 2 and <b> stay")) == "1 < 2 and <b> stay"
