"""Aligned CelebA (Liu et al. 2015, arXiv:1411.7766): 202,599 photos of 178x218 pixels.

The files are in ROOT/celeba (torchvision's layout) or in ROOT: `img_align_celeba`, a folder or a
zip, and next to it `list_eval_partition.txt` (or Kaggle's .csv).
"""

import logging
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import ClassVar

import torch

from crgan_cli.config.bounds import PositiveInt
from crgan_cli.data.cache import decode_cached
from crgan_cli.data.dataset import Split
from crgan_cli.data.decode import check_channels
from crgan_cli.data.decoding import CentreDecoder, format_names
from crgan_cli.data.file_listing import Entry
from crgan_cli.data.files import ImageFiles
from crgan_cli.data.images import Images
from crgan_cli.data.standard import TorchvisionDataset
from crgan_cli.errors import UserError

IMAGES = "img_align_celeba"
PARTITIONS = ("list_eval_partition.txt", "list_eval_partition.csv")
PARTITION_NUMBERS = {"train": "0", "test": "2"}  # the official validation part, 1, is not used

log = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class CelebA(TorchvisionDataset):
    """Centre squares of `crop` pixels, resized to `resolution`; no classes.

    The official partition is used if its file exists. Otherwise the last tenth, by name, is the
    test split. After a `load`, `split_rule` says which of the two was used.
    """

    title = "CelebA"
    images: ClassVar[int] = 202_599

    crop: PositiveInt  # side of the centre square, in pixels

    split_rule: str = field(default="", init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_channels(self.channels)

    def read(self, split: Split) -> Images:
        """Return the images of a split in order of their names, memory-mapped from the cache."""
        if self.classes:
            raise UserError(
                f"dataset.classes={self.classes}: CelebA has attributes but no classes. Leave it "
                "out, use dataset=celeba_attributes, or sort the photos into sub-folders and use "
                "dataset=folder."
            )
        files = self._files
        if split == "train":
            files.log_left_out()
        entries = self._select_split(files, split)
        if not entries:
            raise UserError(
                f"{files.root} has {len(files.entries)} images, but none of them is in the {split} "
                f"split ({self.split_rule}). Put all of CelebA there."
            )
        x, _ = decode_cached(
            files, entries, CentreDecoder(self.resolution, self.channels, self.crop, False)
        )
        return Images(x, torch.zeros(len(x), dtype=torch.int64))

    def list_images(self) -> ImageFiles:
        """Return the photos; they are downloaded if they are missing. UserError for a part."""
        self._download_if_missing(lambda: self.find_images() is None, self._download)
        images = self.find_images()
        assert images is not None
        files = ImageFiles(str(images))
        self._require_all(files)
        return files

    def find_images(self) -> Path | None:
        """Return the folder or zip of the photos, if it is there."""
        bases = (self.data_root / "celeba", self.data_root)
        names = (IMAGES, f"{IMAGES}.zip")
        candidates = (base / name for base in bases for name in names)
        return next((path for path in candidates if path.exists()), None)

    @cached_property
    def _files(self) -> ImageFiles:
        return self.list_images()

    def count_listed(self, split: Split) -> dict[str, int]:
        """Count the files of both splits, if they are there."""
        return {"real": len(self._files.entries)} if self.find_images() else {}

    def _download(self) -> None:
        from torchvision.datasets import CelebA as Source

        Source(str(self.data_root), split="all", target_type=[], download=True)

    def _format_manual_download(self) -> str:
        folder = self.data_root / "celeba"
        return (
            "Its download from Google Drive also needs `pip install gdown`, and is often refused. "
            f"Put the aligned photos 000001.jpg to 202599.jpg into {folder / IMAGES} (or the zip "
            f"{IMAGES}.zip next to it), and {PARTITIONS[0]} into {folder}."
        )

    def _require_all(self, files: ImageFiles) -> None:
        """Raise UserError if photos are missing, as an interrupted unzip leaves it."""
        path, numbers = read_partition(files)
        missing = sorted(numbers.keys() - {PurePosixPath(e.name).name for e in files.entries})
        found, total = len(files.entries), len(numbers) if path else self.images
        if missing or found < total:
            lacks = (
                f"{path} also names {format_names(missing)}" if path else f"CelebA has {total:,}"
            )
            raise UserError(
                f"{files.root} holds {found:,} images; {lacks}. Unpack all of them there (if "
                f"{IMAGES}.zip lies beside it, it is enough to delete the folder: zips are read). "
                "Some of the photos are images of your own: dataset=folder dataset.root=PATH."
            )

    def _select_split(self, files: ImageFiles, split: Split) -> list[Entry]:
        path, numbers = read_partition(files)
        if path is None:
            cut = len(files.entries) - len(files.entries) // 10
            self.split_rule = "the last tenth by name is the test split"
            log.warning("no %s next to %s: %s", PARTITIONS[0], files.root, self.split_rule)
            return files.entries[:cut] if split == "train" else files.entries[cut:]
        self.split_rule = f"the official partition in {path.name}"
        known = [(numbers.get(PurePosixPath(e.name).name), e) for e in files.entries]
        unknown = [entry.name for number, entry in known if number is None]
        if unknown:
            raise UserError(
                f"{path} does not name {len(unknown)} of the {len(known)} images in {files.root}, "
                f"such as {unknown[0]}. Put the official file there, or remove it to hold out the "
                "last tenth of the images."
            )
        return [entry for number, entry in known if number == PARTITION_NUMBERS[split]]


def read_partition(files: ImageFiles) -> tuple[Path | None, dict[str, str]]:
    """Return the official partition beside the photos, and name -> number of the part."""
    path = next((p for name in PARTITIONS if (p := files.root.parent / name).is_file()), None)
    lines = path.read_text().splitlines() if path else []
    rows = (line.replace(",", " ").split() for line in lines)
    return path, {row[0]: row[1] for row in rows if len(row) == 2 and row[1].isdigit()}
