"""Which real images generated ones are compared with."""

import logging

import torch
from torch import Tensor

from crgan_cli.data.images import Dataset, Images
from crgan_cli.errors import UserError

SEED = 0  # which images are taken where a split has more than are asked for

log = logging.getLogger(__name__)


class ReferenceImages:
    """`count` images of a split ("train", "test", or "all" for both), the same at every call.

    Raises UserError where the split has fewer.
    """

    def __init__(self, dataset: Dataset, split: str, count: int) -> None:
        self.dataset = dataset
        self.split = split
        images = resolve_split(dataset, split)
        available = len(images.x)
        if available < count:
            raise UserError(
                f"metrics.num_real={count} (null: as many as metrics.num_samples) is more than the "
                f"{available} images of the split {split}. Give metrics.num_samples={available} or "
                "less, or another metrics.reference (train, test, all): the numbers are then of "
                "another protocol."
            )
        self.rows = random_subset(count, torch.arange(available))
        self.images = select_rows(images, self.rows)

    def other_images(self, count: int) -> Images | None:
        """Images outside of the selection, None where there are too few: from training if it has
        them, since those are what a perfect generator would reproduce."""
        for split in () if self.split == "all" else ("train", "test"):
            try:
                images = self.dataset.load(split)
            except UserError:  # a folder may have no test split
                continue
            free = torch.ones(len(images.x), dtype=torch.bool)
            if split == self.split:
                free[self.rows] = False
            if free.sum() >= count:
                return select_rows(images, random_subset(count, free.nonzero().flatten()))
        log.warning("No %d further real images: the floor is not reported", count)
        return None


def random_subset(count: int, rows: Tensor) -> Tensor:
    """`count` of the indices `rows`, in ascending order: the same at every call.

    Random and not the first, since a folder of images is sorted by class.
    """
    generator = torch.Generator().manual_seed(SEED)  # leaves torch's own untouched
    return rows[torch.randperm(len(rows), generator=generator)[:count]].sort().values


def resolve_split(dataset: Dataset, split: str) -> Images:
    """The images of a split, or of both, training images first, for "all"."""
    if split != "all":
        return dataset.load("train" if split == "train" else "test")
    train, test = dataset.load("train"), dataset.load("test")
    return Images(torch.cat([train.x, test.x]), torch.cat([train.y, test.y]))


def select_rows(images: Images, rows: Tensor) -> Images:
    """The images at the indices `rows`."""
    return Images(images.x[rows], images.y[rows])
