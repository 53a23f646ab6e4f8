"""CIFAR and MNIST from files in torchvision's layout, and what is said where there are none."""

import gzip
import hashlib
import pickle
import struct
import urllib.request
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from torchvision import datasets

from crgan_cli.data.standard import Cifar10, Cifar100, FashionMnist, Mnist
from crgan_cli.errors import UserError


def cifar10(root: Path, **changed: float) -> Cifar10:
    return Cifar10(root=str(root), **{"resolution": 32, "channels": 3, "classes": 10, **changed})  # pyright: ignore


def mnist(root: Path, kind: type[Mnist] = Mnist, **changed: float) -> Mnist:
    return kind(root=str(root), **{"resolution": 32, "channels": 1, "classes": 10, **changed})  # pyright: ignore


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def write_cifar(
    folder: Path,
    source: type[datasets.CIFAR10],
    key: str,
    names: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each file holds 4 images: image i of file f is plain, red 10 f, green i, blue 255."""
    folder.mkdir(parents=True)
    tables: dict[str, list[list[str]]] = {"train_list": [], "test_list": []}
    for table, rows in tables.items():
        for number, (name, _) in enumerate(getattr(source, table)):
            pixels = np.zeros((4, 3, 1024), dtype=np.uint8)
            pixels[:, 0] = 10 * number
            pixels[:, 1] = np.arange(4)[:, None]
            pixels[:, 2] = 255
            content = pickle.dumps(
                {"data": pixels.reshape(4, 3072), key: [0, 1, 2, len(names) - 1]}
            )
            (folder / name).write_bytes(content)
            rows.append([name, hashlib.md5(content).hexdigest()])
        monkeypatch.setattr(source, table, rows)
    meta = pickle.dumps({source.meta["key"]: names})
    (folder / source.meta["filename"]).write_bytes(meta)
    monkeypatch.setitem(source.meta, "md5", hashlib.md5(meta).hexdigest())


@pytest.mark.usefixtures("offline")
def test_cifar10_is_read_from_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = [f"class {i}" for i in range(10)]
    write_cifar(tmp_path / "cifar-10-batches-py", datasets.CIFAR10, "labels", names, monkeypatch)
    data = cifar10(tmp_path)
    train, test = data.load("train"), data.load("test")
    assert train.x.shape == (20, 3, 32, 32)
    assert train.x[13, :, 5, 7].tolist() == [30, 1, 255]  # file 3, image 1
    assert train.y.tolist() == [0, 1, 2, 9] * 5
    assert test.x.shape == (4, 3, 32, 32)
    assert data.class_names == tuple(names)


@pytest.mark.usefixtures("offline")
def test_cifar100_has_fine_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = [f"class {i}" for i in range(100)]
    folder = tmp_path / "cifar-100-python"
    monkeypatch.setattr(datasets.CIFAR100, "meta", dict(datasets.CIFAR100.meta))
    write_cifar(folder, datasets.CIFAR100, "fine_labels", names, monkeypatch)
    data = Cifar100(root=str(tmp_path), resolution=32, channels=3, classes=100)
    assert data.load("train").y.tolist() == [0, 1, 2, 99]
    assert data.class_names[99] == "class 99"


@pytest.mark.usefixtures("offline")
def test_a_changed_cifar_file_is_refused_and_never_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar(folder, datasets.CIFAR10, "labels", ["a"] * 10, monkeypatch)
    (folder / "data_batch_3").write_bytes(b"cos\n_exit\n(I99\ntR.")
    with pytest.raises(UserError, match=r"cifar-10-batches-py are not the official ones.*md5"):
        cifar10(tmp_path).load("train")


@pytest.mark.usefixtures("offline")
def test_cifar_without_files_and_network_says_what_goes_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(UserError) as caught:
        cifar10(tmp_path / "data").load("train")
    message = str(caught.value)
    for words in (
        "CIFAR-10 is not on this machine",
        "Name or service not known",
        "cifar-10-python.tar.gz",
        str(tmp_path / "data" / "cifar-10-batches-py"),
        "data_batch_5",
        "dataset=demo",
        "\n",
    ):
        assert (words in message) == (words != "\n")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("inside", ["cifar-10-batches-py", "MNIST", "MNIST/raw"])
def test_a_root_that_leads_into_the_folder_of_the_files_is_named(tmp_path: Path, inside: str):
    """And nothing is downloaded into it."""
    write_mnist(tmp_path)
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py/data_batch_2").touch()
    before = sorted(tmp_path.rglob("*"))
    kind = cifar10 if "cifar" in inside else mnist
    with pytest.raises(UserError) as caught:
        kind(tmp_path / inside).load("train")
    assert f"data_root={tmp_path / inside} leads into the folder of" in str(caught.value)
    assert str(caught.value).endswith(f": data_root={tmp_path}")
    assert sorted(tmp_path.rglob("*")) == before


def test_files_without_their_folder_are_named(tmp_path: Path):
    (tmp_path / "test_batch").touch()
    with pytest.raises(UserError, match=r"files of CIFAR-10 themselves.*cifar-10-batches-py"):
        cifar10(tmp_path).load("train")


def test_a_root_that_is_a_file_is_named(tmp_path: Path):
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(b"half")
    with pytest.raises(UserError, match=rf"is a file.*data_root={tmp_path}$"):
        cifar10(archive).load("train")


@pytest.mark.usefixtures("offline")
def test_what_is_there_of_a_broken_download_is_said(tmp_path: Path):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"\x1f\x8b" * 750_000)
    with pytest.raises(
        UserError, match=r"tar\.gz is there, and is not the whole archive \(1\.5 MB"
    ):
        cifar10(tmp_path).load("train")
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py/data_batch_1").touch()
    with pytest.raises(UserError, match=r"batches-py holds a part of it; missing: data_batch_2,"):
        cifar10(tmp_path).load("train")


def test_cifar_has_three_channels_and_says_so_before_it_looks_for_files(tmp_path: Path):
    with pytest.raises(UserError, match=r"CIFAR-10 has 3 channels .*dataset\.channels=1.*folder"):
        cifar10(tmp_path, channels=1).load("train")
    assert list(tmp_path.iterdir()) == []


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(root: Path, name: str = "MNIST", zipped: bool = False) -> Path:
    """20 training and 10 test images; image i is filled with i + 1, its label is i modulo 10."""
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    for stem, count in (("train", 20), ("t10k", 10)):
        number = np.arange(count, dtype=np.uint8)
        pixels = np.broadcast_to((number + 1)[:, None, None], (count, 28, 28))
        files = {"images-idx3": np.ascontiguousarray(pixels), "labels-idx1": number % 10}
        for kind, array in files.items():
            path = raw / f"{stem}-{kind}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(idx(array)) if zipped else idx(array))
    return raw


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("zipped", [False, True])
def test_mnist_is_padded_with_black_to_32(tmp_path: Path, zipped: bool):
    write_mnist(tmp_path, zipped=zipped)
    images = mnist(tmp_path).load("train")
    assert images.x.shape == (20, 1, 32, 32)
    assert (images.x[4, 0, 2:30, 2:30] == 5).all()
    assert images.x[4].long().sum() == 5 * 28 * 28  # and nothing but black around it
    assert images.y.tolist() == [*range(10)] * 2
    assert len(mnist(tmp_path).load("test").x) == 10


@pytest.mark.usefixtures("offline")
def test_fashion_mnist_has_its_own_folder_and_names(tmp_path: Path):
    write_mnist(tmp_path, "FashionMNIST")
    data = mnist(tmp_path, FashionMnist)
    assert len(data.load("train").x) == 20
    assert (data.class_names[0], data.class_names[9]) == ("t-shirt/top", "ankle boot")
    with pytest.raises(UserError, match="MNIST is not on this machine"):
        mnist(tmp_path).load("train")


@pytest.mark.usefixtures("offline")
def test_mnist_names_the_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    raw = write_mnist(tmp_path)
    (raw / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError) as caught:
        mnist(tmp_path).load("train")
    assert f"{raw} holds a part of it; missing: t10k-labels-idx1-ubyte." in str(caught.value)
    assert "dataset=demo" in str(caught.value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not an IDX file"),
        (b"\x89PNG....", "not an IDX file"),
        (b"\0\0\x0b\x03", "not an IDX file"),
        (idx(np.zeros((20, 28, 28), np.uint8))[:-1], r"15679 values.*\(20, 28, 28\)"),
        (idx(np.zeros((20, 30, 30), np.uint8)), r"images of shape \(20, 30, 30\)"),
        (idx(np.zeros((19, 28, 28), np.uint8)), r"labels of shape \(20,\)"),
    ],
)
def test_a_damaged_idx_file_is_refused(tmp_path: Path, content: bytes, words: str):
    raw = write_mnist(tmp_path)
    (raw / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(UserError, match=words):
        mnist(tmp_path).load("train")


def test_a_truncated_gzip_is_refused(tmp_path: Path):
    path = write_mnist(tmp_path, zipped=True) / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz cannot be read"):
        mnist(tmp_path).load("train")
