"""What a user gives that cannot be used, from the words typed to the words answered.

Mistakes in the configuration are test_config's and test_cli's; these come to light with the data.
"""

import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from PIL import Image
from support.runs import tiny, without_measuring

from crgan_cli.commands.main import run_command

Answer = Callable[..., str]


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Answer:
    """What `crgan train` says, one paragraph, having exited with 2 and written nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRGAN_CACHE", str(tmp_path / "cache"))

    def say(*overrides: str) -> str:
        words = tiny("steps=2", *overrides)
        if any(word.startswith("metrics=") for word in overrides):  # has no key of the demo's
            words = [*without_measuring(words), *overrides]
        code = run_command(["train", *words])
        out, err = capsys.readouterr()
        said = err[err.index("crgan train: error: ") :]
        assert code == 2
        assert out == ""
        assert said.count("\n") == 1, said
        assert "Traceback" not in err
        assert [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()] == []
        return said

    return say


def pictures(folder: Path, count: int = 20) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(folder / f"{number:02}.png")
    return folder


def own(root: Path, *more: str) -> list[str]:
    sizes = ["dataset.resolution=32", "dataset.fraction=1", "metrics=none"]
    return ["dataset=folder", f"dataset.root={root}", *sizes, *more]


def test_a_device_that_is_absent(refused: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert "Type device=auto or device=cpu" in refused("device=cuda")


def test_what_is_no_device(refused: Answer) -> None:
    assert "device=tpu is not a device" in refused("device=tpu")


def test_a_root_that_is_not_given(refused: Answer) -> None:
    said = refused("dataset=folder", "metrics=none")
    assert "dataset.root has no value yet. Type dataset.root=PATH" in said


def test_a_root_that_is_not_there(refused: Answer, tmp_path: Path) -> None:
    said = refused(*own(tmp_path / "nowhere"))
    assert f"There is nothing at {tmp_path / 'nowhere'}: dataset.root= must be a folder" in said


def test_an_empty_folder(refused: Answer, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty holds no file" in refused(*own(tmp_path / "empty"))


def test_unpaired_images_where_pairs_are_asked_for(refused: Answer, tmp_path: Path) -> None:
    for name in ("trainA", "trainB"):
        pictures(tmp_path / "pictures" / name)
    game = ["task=pix2pix", "architecture=unet", "metrics=none"]
    said = refused("dataset=pairs", *game, f"dataset.root={tmp_path / 'pictures'}")
    assert "trainA (20), trainB (20): that is a layout of unpaired images" in said
    assert "rename the folders: trainA to A/train" in said


def test_a_corrupt_image(refused: Answer, tmp_path: Path) -> None:
    root = pictures(tmp_path / "pictures")
    (root / "07.png").write_bytes((root / "07.png").read_bytes()[:40])
    said = refused(*own(root))
    assert "07.png" in said
    assert "dataset.skip_unreadable=true" in said


def test_a_zip_that_is_none(refused: Answer, tmp_path: Path) -> None:
    (tmp_path / "pictures.zip").write_bytes(b"PK\3\4 and no more")
    assert "neither a folder nor a zip" in refused(*own(tmp_path / "pictures.zip"))


def test_a_network_that_cannot_make_the_resolution(refused: Answer, tmp_path: Path) -> None:
    root = pictures(tmp_path / "pictures")
    said = refused(*own(root, "architecture=resnet"), "dataset.resolution=64")
    assert "architecture=resnet works at 32 or 48 pixels" in said


def test_a_batch_that_is_larger_than_the_data(refused: Answer, tmp_path: Path) -> None:
    said = refused(*own(pictures(tmp_path / "pictures"), "batch_size=100"))
    assert (
        "A batch of 100 images cannot be drawn from a training set of 18. Type batch_size=18."
        in said
    )


def test_labels_where_there_are_none(refused: Answer, tmp_path: Path) -> None:
    labels = ["architecture=resnet", "architecture.conditional=true"]
    said = refused(*own(pictures(tmp_path / "pictures"), *labels))
    assert "a conditional architecture needs a data set with classes" in said


def test_more_classes_than_there_are(refused: Answer, tmp_path: Path) -> None:
    root = pictures(tmp_path / "pictures/cat").parent
    pictures(root / "dog")
    said = refused(*own(root, "dataset.classes=3"))
    assert "Set dataset.classes=2" in said


def test_more_samples_than_real_images(refused: Answer) -> None:
    said = refused("metrics.num_samples=5000")
    assert "metrics.num_samples=5000 is more than the 4000 images" in said
    assert "Give metrics.num_samples=4000" in said


def test_weights_of_inception_that_are_not_there(refused: Answer, tmp_path: Path) -> None:
    said = refused("metrics=fid1k_train", f"extractor.weights={tmp_path / 'none.pth'}")
    assert "none.pth" in said


def unreachable(*_: object, **__: object) -> None:
    raise URLError("Name or service not known")


def test_inception_that_is_not_here_and_no_network(
    refused: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crgan_cli.evaluation.metrics.weights.urlopen", unreachable)
    for variable in ("CRGAN_INCEPTION", "CRGAN_WEIGHTS_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    said = refused("metrics=fid1k_train")
    assert "Name or service not known" in said
    assert "extractor=efficientnet_lite0" in said


def test_a_data_set_that_is_not_here_and_no_network(
    refused: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    root = tmp_path / "sets"
    said = refused("dataset=cifar10", "metrics=none", f"data_root={root}")
    for words in (
        "CIFAR-10 is not on this machine",
        "cifar-10-python.tar.gz",
        f"unpack it into {root}",
        "data_batch_5",
        "data_root=FOLDER",
        "dataset=demo",
    ):
        assert words in said
