"""CelebA-HQ (Karras et al. 2018, arXiv:1710.10196): 30,000 square photos of faces.

Nothing of it can be downloaded by a program, and it goes around in many layouts. So any folder or
zip of its images is read, of any size and format, in any sub-folders: the order is that of the file
names.
"""

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

import torch

from crgan_cli.config.bounds import DataPath
from crgan_cli.data.cache import decode_cached
from crgan_cli.data.dataset import Dataset, DatasetInfo, Split
from crgan_cli.data.decoding import CentreDecoder
from crgan_cli.data.file_listing import Entry
from crgan_cli.data.files import EXTENSIONS, ImageFiles
from crgan_cli.data.folder_classes import sort_naturally
from crgan_cli.data.images import Images
from crgan_cli.errors import UserError

SIDE = 128
"""Of the papers' images, in pixels."""

OTHERWISE = (
    "Other images: dataset=folder dataset.root=PATH. Aligned CelebA as a stand-in, whose numbers "
    "are its own: dataset=celeba dataset.resolution=128 dataset.crop=178."
)


@dataclass(kw_only=True, eq=False)
class CelebAHQ(Dataset):
    """The photos at `resolution`: `images` - `test_images` for training, the others for testing.

    `root` is a folder or a zip of them, or holds `celeba_hq`, a folder or a zip. By number of their
    file names (2 before 10; sub-folders mean nothing), the last `test_images` are the test split:
    27,000 and 3,000, as compare_gan's v2, whose last 10 of 100 shards are its test split.
    """

    title = "CelebA-HQ"
    facts = DatasetInfo(resolution=SIDE, channels=3, classes=0, resizable=True)
    images: ClassVar[int] = 30_000
    test_images: ClassVar[int] = 3_000

    root: DataPath

    @property
    def name(self) -> str:
        return "celeba_hq"

    @property
    def described(self) -> str:
        side = self.resolution
        return self.name if side == SIDE else f"{self.name} ({side}x{side})"

    def read(self, split: Split) -> Images:
        """Return the images of a split in order of their names, memory-mapped from the cache."""
        files = ImageFiles(str(self._find_root()))
        if split == "train":
            files.log_left_out()
        entries = sort_by_file_name(files.entries)
        if len(entries) != self.images:
            raise UserError(
                f"{files.root} holds {len(entries):,} images; CelebA-HQ has {self.images:,}. Give "
                "the folder or zip that holds these alone, such as CelebA-HQ-img of "
                f"CelebAMask-HQ: dataset.root=PATH. {OTHERWISE}"
            )
        cut = self.images - self.test_images
        entries = entries[:cut] if split == "train" else entries[cut:]
        x, _ = decode_cached(
            files, entries, CentreDecoder(self.resolution, self.channels, None, False)
        )
        return Images(x, torch.zeros(len(x), dtype=torch.int64))

    def _find_root(self) -> Path:
        """Return the folder or zip of the photos. UserError if there is none."""
        root = Path(self.root).expanduser().absolute()
        inside = [root / "celeba_hq", root / "celeba_hq.zip"]
        candidates = [each for each in inside if each.exists()]
        if root.is_file() or (root.is_dir() and not candidates and holds_images(root)):
            candidates = [root]
        if not candidates:
            raise UserError(
                f"CelebA-HQ is not in {root}, and cannot be downloaded by a program. Put its "
                f"{self.images:,} images into {inside[0]}, or a zip of them at {inside[1]}, or "
                f"give the folder or zip that has them: dataset.root=PATH. {OTHERWISE}"
            )
        return candidates[0]


def holds_images(folder: Path) -> bool:
    """Whether a folder itself holds an image, by the endings of names."""
    with os.scandir(folder) as children:
        return any(child.name.lower().endswith(EXTENSIONS) for child in children)


def sort_by_file_name(entries: list[Entry]) -> list[Entry]:
    """Sort by the last part of the names, as a person counts, and then by the folders."""
    names = {entry: PurePosixPath(entry.name).name for entry in entries}
    ranks = {name: rank for rank, name in enumerate(sort_naturally(set(names.values())))}
    return sorted(entries, key=lambda entry: (ranks[names[entry]], entry.name))
