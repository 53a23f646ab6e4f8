"""Aligned CelebA (Liu et al. 2015, arXiv:1411.7766): 202,599 photos of 178x218 pixels.

Looked for in ROOT/celeba (torchvision's layout) and in ROOT itself: `img_align_celeba`, a folder
or a zip, and beside it `list_eval_partition.txt` (or Kaggle's .csv).
"""

import logging
from pathlib import Path, PurePosixPath

import torch

from crgan_cli.config.bounds import NonNegativeInt, PositiveFraction, PositiveInt
from crgan_cli.data.cache import SquareDecoder, decode_cached
from crgan_cli.data.decode import check_channels
from crgan_cli.data.files import Entry, ImageFiles
from crgan_cli.data.images import Images, Split
from crgan_cli.data.standard import TorchvisionDataset
from crgan_cli.errors import UserError

IMAGES = "img_align_celeba"
PARTITIONS = ("list_eval_partition.txt", "list_eval_partition.csv")
NUMBERS = {"train": "0", "test": "2"}  # the official validation part, 1, is not used

log = logging.getLogger(__name__)


class CelebA(TorchvisionDataset):
    """Centre squares of `crop` pixels, resized to `resolution`; no classes.

    The official partition is used where its file is there; otherwise the last tenth, by name, is
    the test split. `split_rule` says which it was, once a split was loaded.
    """

    title = "CelebA"
    split_rule = ""

    def __init__(
        self,
        *,
        root: str,
        resolution: PositiveInt,
        channels: PositiveInt,
        classes: NonNegativeInt,
        crop: PositiveInt,
        fraction: PositiveFraction = 1.0,
        fraction_seed: NonNegativeInt = 0,
        flip: bool = False,
    ) -> None:
        super().__init__(
            root=root,
            resolution=resolution,
            channels=channels,
            classes=classes,
            fraction=fraction,
            fraction_seed=fraction_seed,
            flip=flip,
        )
        check_channels(channels)
        self.crop = crop

    def read(self, split: Split) -> Images:
        """The images of a split in order of their names, memory-mapped from the cache."""
        if self.classes:
            raise UserError(
                f"dataset.classes={self.classes}: CelebA has attributes and no classes. Leave it "
                "out, or sort the photos into sub-folders and use dataset=folder."
            )
        self._fetch(lambda: self._images() is None, self._download)
        images = self._images()
        assert images is not None
        files = ImageFiles(str(images))
        entries = self._split(files, split)
        if not entries:
            raise UserError(
                f"{files.root} has {len(files.entries)} images and none of them is in the {split} "
                f"split ({self.split_rule}). Put all of CelebA there."
            )
        x, _ = decode_cached(
            files, entries, SquareDecoder(self.resolution, self.channels, self.crop, False)
        )
        return Images(x, torch.zeros(len(x), dtype=torch.int64))

    def _images(self) -> Path | None:
        bases = (self.root / "celeba", self.root)
        names = (IMAGES, f"{IMAGES}.zip")
        candidates = (base / name for base in bases for name in names)
        return next((path for path in candidates if path.exists()), None)

    def _download(self) -> None:
        from torchvision.datasets import CelebA as Source

        Source(str(self.root), split="all", target_type=[], download=True)

    def _where_to_put_it(self) -> str:
        return (
            "Its download from Google Drive also needs `pip install gdown`, and is often refused. "
            f"Put the aligned photos 000001.jpg to 202599.jpg into {self.root / 'celeba' / IMAGES} "
            f"(or the zip {IMAGES}.zip beside it), and {PARTITIONS[0]} into "
            f"{self.root / 'celeba'}."
        )

    def _split(self, files: ImageFiles, split: Split) -> list[Entry]:
        path = next((p for name in PARTITIONS if (p := files.root.parent / name).is_file()), None)
        if path is None:
            cut = len(files.entries) - len(files.entries) // 10
            self.split_rule = "the last tenth by name is the test split"
            log.warning("no %s beside %s: %s", PARTITIONS[0], files.root, self.split_rule)
            return files.entries[:cut] if split == "train" else files.entries[cut:]
        self.split_rule = f"the official partition in {path.name}"
        rows = (line.replace(",", " ").split() for line in path.read_text().splitlines())
        numbers = {row[0]: row[1] for row in rows if len(row) == 2}
        known = [(numbers.get(PurePosixPath(e.name).name), e) for e in files.entries]
        unknown = [entry.name for number, entry in known if number is None]
        if unknown:
            raise UserError(
                f"{path} does not name {len(unknown)} of the {len(known)} images in {files.root}, "
                f"such as {unknown[0]}. Put the official file there, or remove it to hold out the "
                "last tenth of the images."
            )
        return [entry for number, entry in known if number == NUMBERS[split]]
