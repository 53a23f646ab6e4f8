"""Names that are not UTF-8, as an old disk or zip has them, pass every message, log and file."""

import os
from pathlib import Path

from PIL import Image
from support.runs import Crgan, refused, tiny, unmeasured

NAME = os.fsdecode(b"caf\xe9")


def make_pictures(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for number in range(20):
        with open(folder / f"{NAME}{number:02}.png", "wb") as file:
            Image.new("RGB", (32, 32), (4 * number, 0, 0)).save(file, "png")
    return folder


def settings(root: Path, *more: str) -> list[str]:
    data = ["dataset=folder", f"dataset.root={root}", "dataset.resolution=32"]
    others = [word for word in tiny("steps=2") if not word.startswith("dataset.")]
    return [*data, *unmeasured(others), *more]


def test_images_and_runs_of_such_names(crgan: Crgan, tmp_path: Path) -> None:
    root = make_pictures(tmp_path / NAME / "pictures")
    assert crgan("train", *settings(root), "out=run")[0] == 0
    assert rb"caf\udce9" in Path("run/train.log").read_bytes()
    assert rb"caf\xe9" in Path("run/overrides.txt").read_bytes()  # $'...', as a shell reads it
    code, _, err = crgan("train", *settings(root), "out=run")  # its configuration is read back
    assert code == 0
    assert "has all its 2 steps" in err

    moved = Path("run").rename(tmp_path / NAME / "run")
    assert crgan("sample", moved, "--n", "4", "--out", tmp_path / NAME / "grid.png")[0] == 0
    assert (tmp_path / NAME / "grid.png").is_file()


def test_a_file_of_such_a_name_that_is_no_image(crgan: Crgan, tmp_path: Path) -> None:
    root = make_pictures(tmp_path / "pictures")
    (root / f"{NAME}00.png").write_bytes(b"no image")
    refused(crgan("train", *settings(root)), "1 of 18 images", "caf\\udce900.png")


def test_a_run_in_such_a_folder_is_refused_at_once(crgan: Crgan, tmp_path: Path) -> None:
    said = "is not UTF-8, and TensorBoard writes to no such folder"
    refused(crgan("train", *unmeasured(tiny()), f"out={tmp_path / NAME}"), said)
    assert not (tmp_path / NAME).exists()
