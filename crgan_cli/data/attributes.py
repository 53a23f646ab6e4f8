"""A user's own images with attributes, and CelebA's: any number of them can hold of an image."""

import logging
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import torch

from crgan_cli.config.bounds import DataPath, PositiveFraction, PositiveInt
from crgan_cli.data.cache import decode_cached
from crgan_cli.data.celeba import CelebA
from crgan_cli.data.dataset import Dataset, Split
from crgan_cli.data.decode import DECODE_ERRORS, Frames, check_channels, make_reading
from crgan_cli.data.decoding import CentreDecoder, format_names
from crgan_cli.data.file_listing import Entry
from crgan_cli.data.files import ImageFiles
from crgan_cli.data.folder import hold_out, make_safe_name, shuffle
from crgan_cli.data.images import Images
from crgan_cli.data.label_files import LabelTable, read_labels
from crgan_cli.errors import UserError

LABELS = "list_attr_celeba.txt"

log = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class Attributes(Dataset):
    """Images below `root`, centre-cropped to squares and resized once, and a file of attributes.

    `label_files` has its formats. Each file of the images is named by its path below `root`, or by
    its last part. Of the images, shuffled always in the same order, a fraction `holdout` is the
    test split. y is (N, attributes) of 0 and 1, in the order of `attributes`.
    """

    title = "dataset=attributes"

    root: DataPath
    attributes: list[str]
    labels_file: DataPath | None = None  # None: found in `root`
    exclusive: list[list[str]]  # of each of these lists at most one holds, such as colours of hair
    crop: PositiveInt | None = None  # side of the centre square; None: the largest
    holdout: PositiveFraction = 0.1
    skip_unreadable: bool = False
    range: list[float] | None = None  # black and white of deep grey pixels
    frames: Frames = "first"

    def __post_init__(self) -> None:
        self.reading = make_reading(self.range, self.frames)
        check_channels(self.channels)
        if self.classes:
            raise UserError(
                f"dataset.classes={self.classes}: attributes are no classes. Leave it out. If each "
                "image is of one class, sort them into sub-folders and use dataset=folder."
            )
        if not self.attributes:
            raise UserError(
                "dataset.attributes=[] names none. Type for example dataset.attributes=[Male,Young]"
            )
        _require_once(self.attributes, "dataset.attributes")
        together = [name for group in self.exclusive for name in group]
        _require_once(together, "dataset.exclusive")
        if unknown := [name for name in together if name not in self.attributes]:
            raise UserError(
                f"dataset.exclusive names {', '.join(unknown)}, not among dataset.attributes="
                f"[{','.join(self.attributes)}]. Add it there, or type dataset.exclusive=[]."
            )

    @property
    def name(self) -> str:
        return make_safe_name(Path(self.root))

    def find_images(self) -> ImageFiles:
        """Return the image files."""
        return ImageFiles(self.root)

    @cached_property
    def _files(self) -> ImageFiles:
        return self.find_images()

    def count_listed(self, split: Split) -> dict[str, int]:
        """Count the files; some may have no row of attributes, and others several frames."""
        if self.frames != "first":
            return {}
        count = len(self._files.entries)
        test = max(1, round(self.holdout * count))
        return {"real": test if split == "test" else count - test}

    def read(self, split: Split) -> Images:
        """Return the images of a split: decoded once, then memory-mapped from the cache."""
        files = self._files
        content, source = self._read_labels_file(files)
        if split == "train":
            names = (each.name for each in files.others)
            files.log_left_out(used=[name for name in names if source == f"{files.root}/{name}"])
        table = read_labels(content, source, self.attributes)
        rows = self._match(files, table, source, quiet=split == "test")
        entries = hold_out(list(rows), [""] * len(rows), self.holdout, split, str(files.root))
        entries = shuffle(entries)
        options = (self.resolution, self.channels, self.crop, self.skip_unreadable, self.reading)
        decoder = CentreDecoder(*options)
        x, indices = decode_cached(files, entries, decoder)
        y = torch.from_numpy(table.y)[[rows[entries[index]] for index in indices]]
        return Images(x, y)

    def _read_labels_file(self, files: ImageFiles) -> tuple[bytes, str]:
        """Return the content of the label file and its name."""
        if self.labels_file is not None:
            return _read_file(Path(self.labels_file).expanduser().absolute())
        beside = files.root.parent / LABELS
        tables = [each for each in files.others if each.name.lower().endswith(".csv")]
        own = [each for each in files.others if PurePosixPath(each.name).name == LABELS]
        chosen = own or tables
        if not chosen and beside.is_file():
            return _read_file(beside)
        if len(chosen) != 1:
            found = f"{len(chosen)}: {format_names([e.name for e in chosen])}" if chosen else "none"
            raise UserError(
                f"{files.root} must hold one file of attributes, {LABELS} or a .csv, but holds "
                f"{found}. Type dataset.labels_file=PATH."
            )
        try:
            return files.read(chosen[0]), f"{files.root}/{chosen[0].name}"
        except DECODE_ERRORS as error:
            raise UserError(
                f"{chosen[0].name} in {files.root} cannot be read ({error})."
            ) from error

    def _match(
        self, files: ImageFiles, table: LabelTable, source: str, quiet: bool
    ) -> dict[Entry, int]:
        """Return entry -> row of the table, of the files that have a row, sorted by name."""
        counts = Counter(PurePosixPath(entry.name).name for entry in files.entries)
        numbers = {name: number for number, name in enumerate(table.names)}
        rows: dict[Entry, int] = {}
        without: list[str] = []
        for entry in files.entries:
            last = PurePosixPath(entry.name).name
            number = numbers.get(entry.name, numbers.get(last))
            if number is None:
                without.append(entry.name)
            elif entry.name not in numbers and counts[last] > 1:
                raise UserError(
                    f"{source} names {last}, but {counts[last]} files in {files.root} have that "
                    f"name, such as {entry.name}. Write paths below that folder into it."
                )
            else:
                rows[entry] = number
        used = set(rows.values())
        unused = [name for name, number in numbers.items() if number not in used]
        if not rows:
            raise UserError(
                f"No image of {files.root} has a row in {source}. That names "
                f"{format_names(list(numbers)[:3]) or 'none'}; the images are "
                f"{format_names(without[:3])}. Names must agree, with their endings."
            )
        for names, problem in (
            (without, f"images have no row in {source} and are left out"),
            (unused, f"rows of {source} are of no image"),
        ):
            if names and not quiet:
                log.warning("%s: %d %s: %s", self.name, len(names), problem, format_names(names))
        return rows


@dataclass(kw_only=True, eq=False)
class CelebAAttributes(Attributes):
    """CelebA with attributes: the photos as `CelebA` finds them, and beside them their attributes.

    The photos are split as `Attributes` says, not by the official partition: so StarGAN does.
    """

    title = "dataset=celeba_attributes"

    def find_images(self) -> ImageFiles:
        """Return the photos; they are downloaded if they are missing."""
        return self._photos.list_images()

    @property
    def _photos(self) -> CelebA:
        """What finds the files."""
        r, c = self.resolution, self.channels
        return CelebA(root=self.root, resolution=r, channels=c, classes=0, crop=r)

    def count_listed(self, split: Split) -> dict[str, int]:
        return super().count_listed(split) if self._photos.find_images() else {}

    @property
    def name(self) -> str:
        return type(self).__name__.lower()


def _read_file(path: Path) -> tuple[bytes, str]:
    try:
        return path.read_bytes(), str(path)
    except OSError as error:
        raise UserError(
            f"The file of attributes {path} cannot be read ({error.strerror or error}). Correct "
            "dataset.labels_file, or leave it out to find it beside the images."
        ) from error


def _require_once(names: list[str], key: str) -> None:
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise UserError(f"{key} names {', '.join(twice)} twice. Name each attribute once.")
