"""CIFAR-10, CIFAR-100, MNIST and Fashion-MNIST as torchvision stores and downloads them.

Files that are there already are used without touching the network. torchvision is imported only
where it is needed: for the download, and for CIFAR's checksums.
"""

import contextlib
import io
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from crgan_cli.config.bounds import NonNegativeInt, PositiveFraction, PositiveInt
from crgan_cli.data.idx import find_idx, read_idx
from crgan_cli.data.images import Dataset, DatasetInfo, Images, Split
from crgan_cli.errors import UserError

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
    """(N, 28, 28) uint8 and (N,) -> (N, 1, 32, 32) with a black border of 2, and int64 labels."""
    framed = np.pad(grey, ((0, 0), (2, 2), (2, 2)))[:, None]
    return Images(torch.from_numpy(framed), torch.from_numpy(labels.astype(np.int64)))


class TorchvisionDataset(Dataset):
    """A published data set below a data root, downloaded where its files are absent."""

    def __init__(
        self,
        *,
        root: str,
        resolution: PositiveInt,
        channels: PositiveInt,
        classes: NonNegativeInt,
        fraction: PositiveFraction = 1.0,
        fraction_seed: NonNegativeInt = 0,
        flip: bool = False,
    ) -> None:
        super().__init__(
            resolution=resolution,
            channels=channels,
            classes=classes,
            fraction=fraction,
            fraction_seed=fraction_seed,
            flip=flip,
        )
        self.root = Path(root).expanduser().absolute()

    def _fetch(self, absent: Callable[[], object], download: Callable[[], object]) -> None:
        """Download where files are absent; where that fails, say what to put where."""
        if not absent():
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            # one process of a run downloads, the others find the files
            with FileLock(self.root / f".{type(self).__name__}.lock"), _quiet_and_bounded():
                if absent():
                    download()
        except (OSError, RuntimeError, EOFError) as error:
            first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"{self.title} is not on this machine and could not be downloaded "
                f"({first_line}). {self._where_to_put_it()} Or say where else it lies with "
                "data_root=FOLDER, or train on the embedded images, which need no download: "
                "dataset=demo."
            ) from error

    def _where_to_put_it(self) -> str:
        raise NotImplementedError


@contextlib.contextmanager
def _quiet_and_bounded() -> Iterator[None]:
    """Keep a downloader's prints off stdout, and give up on a network that never answers."""
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

    def read(self, split: Split) -> Images:
        """The official split in its official order. Every file's md5 is checked before reading."""
        from torchvision.datasets import CIFAR10, CIFAR100

        source = CIFAR100 if isinstance(self, Cifar100) else CIFAR10
        folder = self.root / source.base_folder
        names = [name for name, _ in source.train_list + source.test_list]
        names.append(source.meta["filename"])
        self._fetch(
            lambda: [name for name in names if not (folder / name).is_file()],
            lambda: source(self.root, download=True),
        )
        try:
            data = source(self.root, train=split == "train")
        except RuntimeError as error:
            raise UserError(
                f"The files in {folder} are not the official ones of {self.title}: an md5 "
                "differs, so a file is damaged or changed. Delete that folder and run again to "
                "download it anew."
            ) from error
        self.class_names = tuple(data.classes)
        x = torch.from_numpy(np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)))
        return Images(x, torch.tensor(data.targets, dtype=torch.int64))

    def _where_to_put_it(self) -> str:
        from torchvision.datasets import CIFAR10, CIFAR100

        source = CIFAR100 if isinstance(self, Cifar100) else CIFAR10
        files = ", ".join(name for name, _ in source.train_list + source.test_list)
        return (
            f"Download {source.url} on a machine with a network and unpack it into {self.root}, "
            f"so that {self.root / source.base_folder} holds {files} and "
            f"{source.meta['filename']}."
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
    folder = "MNIST"  # torchvision's name of the class is that of the folder

    def read(self, split: Split) -> Images:
        """The official split in its official order, from IDX files that may be gzipped."""
        self._fetch(self._absent, self._download)
        stem = "train" if split == "train" else "t10k"
        pixels, labels = (self._array(stem, kind) for kind in ("images-idx3", "labels-idx1"))
        if pixels.ndim != 3 or pixels.shape[1:] != (28, 28) or labels.shape != pixels.shape[:1]:
            raise UserError(
                f"{self._raw} holds {stem} images of shape {pixels.shape} and labels of shape "
                f"{labels.shape}; {self.title} has (N, 28, 28) and (N,). Put its own files "
                "there, or use dataset=folder for other images."
            )
        return pad_to_32(pixels, labels)

    @property
    def _raw(self) -> Path:
        return self.root / self.folder / "raw"

    def _array(self, stem: str, kind: str) -> np.ndarray:
        path = find_idx(self._raw, f"{stem}-{kind}-ubyte")
        assert path is not None  # _fetch has seen to it
        return read_idx(path)

    def _absent(self) -> list[str]:
        stems = [
            f"{stem}-{kind}-ubyte"
            for stem in ("train", "t10k")
            for kind in ("images-idx3", "labels-idx1")
        ]
        return [stem for stem in stems if find_idx(self._raw, stem) is None]

    def _download(self) -> None:
        from torchvision import datasets

        getattr(datasets, self.folder)(self.root, download=True)

    def _where_to_put_it(self) -> str:
        return (
            f"Put the four IDX files of {self.title}, gzipped or not, into {self._raw}; "
            f"missing: {', '.join(self._absent())}."
        )


class FashionMnist(Mnist):
    """Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747): MNIST's shape, 10 kinds of garments."""

    title = "Fashion-MNIST"
    facts = DatasetInfo(32, 1, 10, note=" (28x28, padded)")
    class_names = FASHION_NAMES
    folder = "FashionMNIST"
