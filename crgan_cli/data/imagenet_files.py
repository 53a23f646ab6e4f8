"""Find ImageNet's files: folders of classes, or the two tar files as they were downloaded.

ILSVRC2012 (Russakovsky et al. 2015, arXiv:1409.0575): 1,281,167 training and 50,000 validation
photos. Classes are numbered as their names, such as n01440764, are sorted.
"""

import csv
import io
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, cast

from crgan_cli.data.dataset import Split
from crgan_cli.data.file_listing import unify_name
from crgan_cli.data.files import EXTENSIONS
from crgan_cli.errors import UserError

FOLDERS = {"train": "train", "test": "val"}
ARCHIVES = {"train": "ILSVRC2012_img_train.tar", "test": "ILSVRC2012_img_val.tar"}
DEVKIT = "ILSVRC2012_devkit_t12"
TRUTH, META = "data/ILSVRC2012_validation_ground_truth.txt", "data/meta.mat"
KAGGLE = "LOC_val_solution.csv"
CLASS = re.compile(r"n\d{8}")
"""A name of a class: a noun of WordNet."""


class Place(NamedTuple):
    """Where the bytes of an image are: a file, or a part of a tar."""

    name: str  # below the folder, or in the tar
    label: str  # the name of its class
    offset: int = 0  # bytes; of a tar
    size: int = -1  # bytes; -1: the whole file

    @property
    def stem(self) -> str:
        """The name of the file, without its ending."""
        return PurePosixPath(self.name).stem


class SplitSource:
    """The images of one split. `facts` tell at once whether they are as they were."""

    def __init__(self, path: Path, labels: Path | None) -> None:
        """`path` is a folder or a tar. `labels` are those of images in no folder of a class."""
        self.path = path
        self._labels = labels

    @property
    def facts(self) -> list[list[str | int]]:
        """Names, sizes and times of what holds the images; times are in ns.

        Of a folder, those of the folders in it: their times change when a file comes or goes, and
        no 1.3 million files have to be looked at.
        """
        inside = sorted(self.path.iterdir()) if self.path.is_dir() else []
        known = [self.path, *(each for each in inside if each.is_dir())]
        stats = [(each, each.stat()) for each in [*known, *filter(None, [self._labels])]]
        return [
            [each.name, 0 if each.is_dir() else stat.st_size, stat.st_mtime_ns]
            for each, stat in stats
        ]

    def list_classes(self) -> list[str]:
        """The names of the classes, sorted, found without a look at the images in them."""
        if self._labels:
            return sorted(set(read_val_labels(self._labels).values()))
        with explain_damage(self.path):
            if self.path.is_dir():
                inside = os.scandir(self.path)
                return sorted(each.name for each in inside if is_class_folder(each))
            with self.path.open("rb") as file:
                paths = [PurePosixPath(unify_name(each.name)) for each in walk_members(file, 0)]
        return sorted({each.stem if each.suffix == ".tar" else each.parent.name for each in paths})

    def find_images(self) -> list[Place]:
        """List all images: in order of class and name, or as they lie in the tar."""
        with explain_damage(self.path):
            places = list(self._walk_tar() if self.path.is_file() else self._walk_folder())
        if self._labels:
            known = read_val_labels(self._labels)
            unlabelled = (each for each in places if not each.label)
            unknown = [each.name for each in unlabelled if each.stem not in known]
            if unknown:
                raise UserError(
                    f"{self._labels} does not name {len(unknown)} of the {len(places)} images in "
                    f"{self.path}, such as {unknown[0]}. Put ILSVRC2012's own files there."
                )
            places = [each._replace(label=each.label or known[each.stem]) for each in places]
        if not places:
            raise UserError(
                f"{self.path} holds no image of ImageNet. Correct dataset.root, the folder of "
                f"{FOLDERS['train']} and {FOLDERS['test']}, or of the two tar files."
            )
        return places

    def read(self, place: Place) -> bytes:
        """Return the bytes of an image. Raises OSError. Any thread may call it."""
        path = self.path if place.size >= 0 else self.path / place.name
        with path.open("rb") as file:
            file.seek(place.offset)
            return file.read(place.size)

    def _walk_folder(self) -> Iterator[Place]:
        for child in sorted(os.scandir(self.path), key=lambda each: each.name):
            if is_class_folder(child):
                names = (each.name for each in os.scandir(child.path))
                for name in sorted(filter(is_image, names)):
                    yield Place(f"{child.name}/{name}", child.name)
            elif is_image(child.name):
                yield Place(child.name, "")

    def _walk_tar(self) -> Iterator[Place]:
        """Images in the tar, in folders of it, and in the tars in it, each of which is a class."""
        with self.path.open("rb") as file:
            for member in walk_members(file, 0):
                name = PurePosixPath(unify_name(member.name))
                if name.suffix == ".tar":
                    for inner in walk_members(file, member.offset_data):
                        if is_image(inner.name):
                            whole = f"{name}/{unify_name(inner.name)}"
                            yield Place(whole, name.stem, inner.offset_data, inner.size)
                elif is_image(member.name):
                    label = name.parent.name if CLASS.fullmatch(name.parent.name) else ""
                    yield Place(str(name), label, member.offset_data, member.size)


def has_source(root: Path, split: Split) -> bool:
    """Whether there is a folder or a tar of a split."""
    return (root / FOLDERS[split]).is_dir() or (root / ARCHIVES[split]).exists()


def find_source(root: Path, split: Split) -> SplitSource:
    """Return the source of a split below `root`. Raises UserError if there is none."""
    folder, archive = root / FOLDERS[split], root / ARCHIVES[split]
    path = folder if folder.is_dir() else archive
    if not has_source(root, split):
        raise UserError(
            f"ImageNet's {'training' if split == 'train' else 'validation'} images are not in "
            f"{root}: there is neither a folder {folder.name}/ of class folders such as "
            f"{folder.name}/n01440764/ nor {archive.name}. They cannot be downloaded without an "
            "account at image-net.org. Type dataset.root=FOLDER, the folder that holds them."
        )
    needs_labels = split == "test" and (path.is_file() or any(map(is_image, os.listdir(path))))
    return SplitSource(path, find_val_labels(root, path) if needs_labels else None)


def find_val_labels(root: Path, images: Path) -> Path:
    """Return the file or folder that tells the classes of the validation images in no folder."""
    names = (DEVKIT, f"{DEVKIT}.tar.gz", KAGGLE)
    found = next((path for name in names if (path := root / name).exists()), None)
    if found is None:
        raise UserError(
            f"The images in {images} are in no folders of their classes, and nothing in {root} "
            f"tells their classes. Put {DEVKIT}.tar.gz there (the development kit of tasks 1 and "
            f"2, from image-net.org), or {KAGGLE} of Kaggle's copy."
        )
    return found


def read_val_labels(path: Path) -> dict[str, str]:
    """Return stem of a validation image -> name of its class. Raises UserError for other files."""
    try:
        if path.suffix == ".csv":
            rows = csv.DictReader(io.StringIO(path.read_text("utf-8-sig")))
            return {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}
        if path.is_dir():
            return match_labels(lambda name: (path / name).read_bytes())
        with tarfile.open(path) as kit:
            members = {unify_name(name): name for name in kit.getnames()}

            def read_member(name: str) -> bytes:
                file = kit.extractfile(members[f"{DEVKIT}/{name}"])
                assert file is not None
                return file.read()

            return match_labels(read_member)
    except (OSError, KeyError, ValueError, IndexError, tarfile.TarError, EOFError) as error:
        raise UserError(
            f"{path} does not hold the labels of ImageNet's validation images as ILSVRC2012 has "
            f"them ({type(error).__name__}: {error}). Download it again."
        ) from error


def match_labels(read: Callable[[str], bytes]) -> dict[str, str]:
    """Return what `read_val_labels` does of the development kit, whose files `read` returns.

    The ground truth has a number per image, of ILSVRC2012_ID. That is not the number of the sorted
    names; meta.mat has the name of each.
    """
    from scipy.io import loadmat  # takes a fifth of a second

    synsets = cast(Any, loadmat(io.BytesIO(read(META)), squeeze_me=True)["synsets"])
    names = dict(zip(synsets["ILSVRC2012_ID"].tolist(), synsets["WNID"].tolist(), strict=True))
    numbers = read(TRUTH).split()
    return {
        f"ILSVRC2012_val_{image:08d}": str(names[int(number)])
        for image, number in enumerate(numbers, 1)
    }


def walk_members(file: IO[bytes], offset: int) -> Iterator[tarfile.TarInfo]:
    """The plain files of a tar that begins at `offset` of a file."""
    file.seek(offset)
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while (member := archive.next()) is not None:
            cast(Any, archive).members = []  # it would keep all 1.3 million
            if member.isfile():
                yield member


@contextmanager
def explain_damage(path: Path) -> Iterator[None]:
    """Raise UserError for a tar or a folder that cannot be read to its end."""
    try:
        yield
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(
            f"{path} cannot be read to its end ({error}). Correct its permissions, or download it "
            "again."
        ) from error


def is_class_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder that is not hidden."""
    return entry.is_dir() and not entry.name.startswith(".")


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image. Hidden files are none."""
    return name.lower().endswith(EXTENSIONS) and not PurePosixPath(name).name.startswith(".")
