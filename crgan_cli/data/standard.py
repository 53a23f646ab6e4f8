"""CIFAR-10, CIFAR-100, MNIST and Fashion-MNIST as torchvision stores and downloads them.

Existing files are used without network access. torchvision is imported only for downloads and for
CIFAR's checksums.
"""

import contextlib
import io
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from filelock import FileLock

from crgan_cli.config.bounds import DataPath
from crgan_cli.data.idx import find_idx, read_idx
from crgan_cli.data.images import DatasetInfo, Images, Split
from crgan_cli.data.labelled import LabelledDataset
from crgan_cli.errors import UserError

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

FASHION_NAMES = (
    "t-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


def pad_to_32(grey: np.ndarray, labels: np.ndarray) -> Images:
    """(N, 28, 28) uint8 and (N,) -> (N, 1, 32, 32) with a black border of 2, int64 labels."""
    framed = np.pad(grey, ((0, 0), (2, 2), (2, 2)))[:, None]
    return Images(torch.from_numpy(framed), torch.from_numpy(labels.astype(np.int64)))


@dataclass(kw_only=True, eq=False)
class TorchvisionDataset(LabelledDataset):
    """A published data set below `root`. Missing files are downloaded."""

    root: DataPath

    def __post_init__(self) -> None:
        self.data_root = Path(self.root).expanduser().absolute()

    def _download_if_missing(
        self, missing: Callable[[], object], download: Callable[[], object]
    ) -> None:
        """Download if `missing()`. If that fails, the error says which files to put where."""
        if not missing():
            return
        try:
            self.data_root.mkdir(parents=True, exist_ok=True)
            # one process of a run downloads; the others wait, check again and find the files
            with FileLock(self.data_root / f".{type(self).__name__}.lock"), _quiet_with_timeout():
                if missing():
                    download()
        except (OSError, RuntimeError, EOFError) as error:
            first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"{self.title} is not on this machine and could not be downloaded "
                f"({first_line}). {self._format_manual_download()} Or give the folder that has it: "
                "data_root=FOLDER. Or train on the embedded images, which need no download: "
                "dataset=demo."
            ) from error

    def _format_manual_download(self) -> str:
        """Say how to get the files by hand, in sentences."""
        raise NotImplementedError


@contextlib.contextmanager
def _quiet_with_timeout() -> Iterator[None]:
    """Hide the downloader's output, and give up on a network that does not answer for 30 s."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30.0)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)


class Cifar10(TorchvisionDataset):
    """CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 colour photos of 32x32, 10 classes."""

    title = "CIFAR-10"
    facts = DatasetInfo(resolution=32, channels=3, classes=10)

    @property
    def _source(self) -> "type[CIFAR10]":
        from torchvision.datasets import CIFAR10, CIFAR100

        return CIFAR100 if isinstance(self, Cifar100) else CIFAR10

    def read(self, split: Split) -> Images:
        """Return the official split in its official order. torchvision checks each file's md5."""
        source = self._source
        folder = self.data_root / source.base_folder
        names = [name for name, _ in source.train_list + source.test_list]
        names.append(source.meta["filename"])
        self._download_if_missing(
            lambda: [name for name in names if not (folder / name).is_file()],
            lambda: source(self.data_root, download=True),
        )
        try:
            data = source(self.data_root, train=split == "train")
        except RuntimeError as error:
            raise UserError(
                f"The files in {folder} are not the official ones of {self.title}: an md5 "
                "differs, so a file is damaged or changed. Delete that folder and run again to "
                "download it again."
            ) from error
        self.class_names = tuple(data.classes)
        x = torch.from_numpy(np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)))
        return Images(x, torch.tensor(data.targets, dtype=torch.int64))

    def _format_manual_download(self) -> str:
        source = self._source
        files = ", ".join(name for name, _ in source.train_list + source.test_list)
        root = self.data_root
        return (
            f"Download {source.url} on a machine with a network and unpack it into {root}, so that "
            f"{root / source.base_folder} holds {files} and {source.meta['filename']}."
        )


class Cifar100(Cifar10):
    """CIFAR-100 (Krizhevsky 2009): 50,000 + 10,000 colour photos of 32x32, 100 fine classes."""

    title = "CIFAR-100"
    facts = DatasetInfo(resolution=32, channels=3, classes=100)


class Mnist(TorchvisionDataset):
    """MNIST (LeCun et al. 1998): 60,000 + 10,000 grey digits of 28x28, padded to 32x32."""

    title = "MNIST"
    facts = DatasetInfo(32, 1, 10, note=" (28x28, padded)")
    class_names = tuple("0123456789")
    folder = "MNIST"  # torchvision's class and its folder have this name

    def read(self, split: Split) -> Images:
        """Return the official split in its official order, from IDX files (gzipped or not)."""
        self._download_if_missing(self._find_missing, self._download)
        stem = "train" if split == "train" else "t10k"
        pixels, labels = (self._read_array(stem, kind) for kind in ("images-idx3", "labels-idx1"))
        if pixels.ndim != 3 or pixels.shape[1:] != (28, 28) or labels.shape != pixels.shape[:1]:
            raise UserError(
                f"{self._raw} holds {stem} images of shape {pixels.shape} and labels of shape "
                f"{labels.shape}; {self.title} has (N, 28, 28) and (N,). Put its own files "
                "there, or use dataset=folder for other images."
            )
        return pad_to_32(pixels, labels)

    @property
    def _raw(self) -> Path:
        return self.data_root / self.folder / "raw"

    def _read_array(self, stem: str, kind: str) -> np.ndarray:
        path = find_idx(self._raw, f"{stem}-{kind}-ubyte")
        assert path is not None  # _download_if_missing has checked it
        return read_idx(path)

    def _find_missing(self) -> list[str]:
        stems = [
            f"{stem}-{kind}-ubyte"
            for stem in ("train", "t10k")
            for kind in ("images-idx3", "labels-idx1")
        ]
        return [stem for stem in stems if find_idx(self._raw, stem) is None]

    def _download(self) -> None:
        from torchvision import datasets

        getattr(datasets, self.folder)(self.data_root, download=True)

    def _format_manual_download(self) -> str:
        return (
            f"Put the four IDX files of {self.title}, gzipped or not, into {self._raw}; "
            f"missing: {', '.join(self._find_missing())}."
        )


class FashionMnist(Mnist):
    """Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747): MNIST's shape, 10 kinds of garments."""

    title = "Fashion-MNIST"
    facts = DatasetInfo(32, 1, 10, note=" (28x28, padded)")
    class_names = FASHION_NAMES
    folder = "FashionMNIST"
