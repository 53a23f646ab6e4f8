"""CIFAR-10, CIFAR-100, MNIST and Fashion-MNIST as torchvision stores and downloads them.

Existing files are used without network access. torchvision is imported only for downloads and for
CIFAR's checksums.
"""

import contextlib
import io
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import numpy as np
import torch
from filelock import FileLock

from crgan_cli.config.bounds import DataPath
from crgan_cli.data.dataset import DatasetInfo, Split
from crgan_cli.data.idx import find_idx, read_idx
from crgan_cli.data.images import Images
from crgan_cli.data.labelled import LabelledDataset
from crgan_cli.errors import UserError

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

CIFAR_COUNTS = {"train": 50000, "test": 10000}
MNIST_COUNTS = {"train": 60000, "test": 10000}

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
        """Download if `missing()`. If that fails, the error says which files to put where.

        What another process downloads now is waited for: until it ends, files are there in part.
        """
        lock = self.data_root / f".{type(self).__name__}.lock"
        if not missing() and not os.access(lock, os.W_OK):
            return
        try:
            self.data_root.mkdir(parents=True, exist_ok=True)
            # one process of a run downloads; the others wait, check again and find the files
            with FileLock(lock), _quiet_with_timeout():
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


class FilesInFolder(TorchvisionDataset):
    """A data set of a few files of known names in one folder below `data_root`."""

    def _require_files(self) -> None:
        """Download the files if some are missing. UserError if they are in another place."""
        if self._find_missing(self._folder):
            self._require_outer_folder()
            self._download_if_missing(lambda: self._find_missing(self._folder), self._download)

    def _require_outer_folder(self) -> None:
        """UserError if `data_root` is the folder of the files, one above it, or a file."""
        root = self.data_root
        if root.is_file():
            raise UserError(
                f"data_root={root} is a file. Give the folder in which crgan finds "
                f"{self._inner} of {self.title}, or downloads it: data_root={root.parent}"
            )
        for outer in root.parents[: len(self._inner.parts)]:
            inner = outer / self._inner
            if inner.is_relative_to(root) and self._holds_some(inner):
                raise UserError(
                    f"data_root={root} leads into the folder of {self.title}. Give the folder that "
                    f"holds {self._inner}: data_root={outer}"
                )
        if self._holds_some(root):
            raise UserError(
                f"data_root={root} holds the files of {self.title} themselves, and crgan looks for "
                f"them in {self._folder}. Move them there."
            )

    def _holds_some(self, folder: Path) -> bool:
        """Whether a folder has at least one of the files."""
        return set(self._find_missing(folder)) < {*self._list_names()}

    def _format_found(self) -> str:
        """Say which part of the files is there, as a sentence with a space; "" if none is."""
        if not self._holds_some(self._folder):
            return ""
        missing = ", ".join(self._find_missing(self._folder))
        return f"{self._folder} holds a part of it; missing: {missing}. "

    @property
    def _folder(self) -> Path:
        """The folder of the files."""
        return self.data_root / self._inner

    @property
    def _inner(self) -> PurePath:
        """The folder of the files, below `data_root`."""
        raise NotImplementedError

    def _list_names(self) -> list[str]:
        """The names of the files."""
        raise NotImplementedError

    def _find_missing(self, folder: Path) -> list[str]:
        """Which of the files are not in a folder."""
        raise NotImplementedError

    def _download(self) -> None:
        """Download and unpack the files. Raises OSError, RuntimeError or EOFError."""
        raise NotImplementedError


class Cifar10(FilesInFolder):
    """CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 colour photos of 32x32, 10 classes."""

    title = "CIFAR-10"
    facts = DatasetInfo(resolution=32, channels=3, classes=10, counts=CIFAR_COUNTS)

    @property
    def _source(self) -> "type[CIFAR10]":
        from torchvision.datasets import CIFAR10, CIFAR100

        return CIFAR100 if isinstance(self, Cifar100) else CIFAR10

    def read(self, split: Split) -> Images:
        """Return the official split in its official order. torchvision checks each file's md5."""
        self._require_files()
        try:
            data = self._source(self.data_root, train=split == "train")
        except RuntimeError as error:
            raise UserError(
                f"The files in {self._folder} are not the official ones of {self.title}: an md5 "
                "differs, so a file is damaged or changed. Delete that folder and run again to "
                "download it again."
            ) from error
        self.class_names = tuple(data.classes)
        x = torch.from_numpy(np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)))
        return Images(x, torch.tensor(data.targets, dtype=torch.int64))

    @property
    def _inner(self) -> PurePath:
        return PurePath(self._source.base_folder)

    def _list_names(self) -> list[str]:
        source = self._source
        batches = [name for name, _ in source.train_list + source.test_list]
        return [*batches, source.meta["filename"]]

    def _find_missing(self, folder: Path) -> list[str]:
        return [name for name in self._list_names() if not (folder / name).is_file()]

    def _download(self) -> None:
        self._source(self.data_root, download=True)

    def _format_found(self) -> str:
        from torchvision.datasets.utils import check_integrity

        archive = self.data_root / self._source.filename
        if archive.is_file() and not check_integrity(archive, self._source.tgz_md5):
            megabytes = archive.stat().st_size / 1e6
            return (
                f"{archive} is there, and is not the whole archive ({megabytes:.1f} MB; its md5 "
                f"differs). {super()._format_found()}"
            )
        return super()._format_found()

    def _format_manual_download(self) -> str:
        *files, last = self._list_names()
        return (
            f"{self._format_found()}Download {self._source.url} on a machine with a network and "
            f"unpack it into {self.data_root}, so that {self._folder} holds {', '.join(files)} "
            f"and {last}."
        )


class Cifar100(Cifar10):
    """CIFAR-100 (Krizhevsky 2009): 50,000 + 10,000 colour photos of 32x32, 100 fine classes."""

    title = "CIFAR-100"
    facts = DatasetInfo(resolution=32, channels=3, classes=100, counts=CIFAR_COUNTS)


class Mnist(FilesInFolder):
    """MNIST (LeCun et al. 1998): 60,000 + 10,000 grey digits of 28x28, padded to 32x32."""

    title = "MNIST"
    facts = DatasetInfo(32, 1, 10, inside_border=28, counts=MNIST_COUNTS)
    class_names = tuple("0123456789")
    folder = "MNIST"  # torchvision's class and its folder have this name

    def read(self, split: Split) -> Images:
        """Return the official split in its official order, from IDX files (gzipped or not)."""
        self._require_files()
        stem = "train" if split == "train" else "t10k"
        pixels, labels = (self._read_array(stem, kind) for kind in ("images-idx3", "labels-idx1"))
        if pixels.ndim != 3 or pixels.shape[1:] != (28, 28) or labels.shape != pixels.shape[:1]:
            raise UserError(
                f"{self._folder} holds {stem} images of shape {pixels.shape} and labels of shape "
                f"{labels.shape}; {self.title} has (N, 28, 28) and (N,). Put its own files "
                "there, or use dataset=folder for other images."
            )
        return pad_to_32(pixels, labels)

    @property
    def _inner(self) -> PurePath:
        return PurePath(self.folder, "raw")

    def _read_array(self, stem: str, kind: str) -> np.ndarray:
        path = find_idx(self._folder, f"{stem}-{kind}-ubyte")
        assert path is not None  # _download_if_missing has checked it
        return read_idx(path)

    def _list_names(self) -> list[str]:
        kinds = ("images-idx3", "labels-idx1")
        return [f"{stem}-{kind}-ubyte" for stem in ("train", "t10k") for kind in kinds]

    def _find_missing(self, folder: Path) -> list[str]:
        return [name for name in self._list_names() if find_idx(folder, name) is None]

    def _download(self) -> None:
        from torchvision import datasets

        getattr(datasets, self.folder)(self.data_root, download=True)

    def _format_manual_download(self) -> str:
        return (
            f"{self._format_found()}Put the four IDX files of {self.title}, gzipped or not, into "
            f"{self._folder}: {', '.join(self._list_names())}."
        )


class FashionMnist(Mnist):
    """Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747): MNIST's shape, 10 kinds of garments."""

    title = "Fashion-MNIST"
    facts = DatasetInfo(32, 1, 10, inside_border=28, counts=MNIST_COUNTS)
    class_names = FASHION_NAMES
    folder = "FashionMNIST"
