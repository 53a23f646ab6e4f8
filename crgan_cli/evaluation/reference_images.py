"""Choose the real images that generated ones are compared with."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from crgan_cli.data.dataset import Dataset
from crgan_cli.data.images import Images
from crgan_cli.errors import UserError

SEED = 0  # of the choice of images if a split has more than requested

log = logging.getLogger(__name__)


class ReferenceImages:
    """`count` images of a split ("train", "test", or "all" for both), always the same.

    Raises UserError if the split has fewer.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        count: int,
        view: str = "real",
        choose: Callable[[Tensor], Tensor] | None = None,
        *,
        setting: str = "num_samples",
    ) -> None:
        """`view`: the part of each image that counts, see `Dataset.views`. `choose`: the labels of
        all images -> (N,) bool, those that are taken; None: all. `setting` of the metrics is what
        gave `count`."""
        self.dataset = dataset
        self.split = split
        self.view = view
        self.choose = choose
        images = resolve_split(dataset, split, view)
        rows = choose_rows(images, choose)
        available = len(rows)
        if available < count:
            raise too_many(setting, count, available, split)
        self.rows = random_subset(count, rows)
        self.images = select_rows(images, self.rows)

    def other_images(self, count: int) -> Images | None:
        """Return images outside of the selection, None if there are too few.

        From the training split if it has enough: a perfect generator would reproduce those.
        """
        for split in () if self.split == "all" else ("train", "test"):
            try:
                images = self.dataset.load_views(split)[self.view]
            except UserError:  # a folder may have no test split
                continue
            free = torch.zeros(len(images.x), dtype=torch.bool)
            free[choose_rows(images, self.choose)] = True
            if split == self.split:
                free[self.rows] = False
            if free.sum() >= count:
                return select_rows(images, random_subset(count, free.nonzero().flatten()))
        log.warning("No %d further real images: no real-vs-real distance is reported", count)
        return None


def too_many(setting: str, count: int, available: int, split: str) -> UserError:
    """Return the error for more images than a split has."""
    problem = f"metrics.{setting}={count} is more than the {available} images of the split {split}"
    if available < 2:  # which no distance compares
        return UserError(f"{problem}. {MORE_IMAGES}, or type metrics=none.")
    return UserError(
        f"{problem}. Give metrics.{setting}={available} or less, or another metrics.reference "
        "(train, test, all): the numbers then belong to another protocol."
    )


MORE_IMAGES = "Add images to it, or type a larger dataset.holdout where a share is held out"
"""How a split gets more images."""


def choose_rows(images: Images, choose: Callable[[Tensor], Tensor] | None) -> Tensor:
    """Return the indices of the images whose labels are wanted, all without `choose`."""
    if choose is None:
        return torch.arange(len(images.x))
    return choose(images.y).nonzero().flatten()


def random_subset(count: int, rows: Tensor) -> Tensor:
    """Return `count` of the indices `rows`, in ascending order, always the same.

    Random and not the first ones, since a folder of images is sorted by class.
    """
    generator = torch.Generator().manual_seed(SEED)  # torch's own stays untouched
    return rows[torch.randperm(len(rows), generator=generator)[:count]].sort().values


def resolve_split(dataset: Dataset, split: str, view: str = "real") -> Images:
    """Return the images of a split; for "all" of both, training images first."""
    parts = []
    for name in ("train", "test") if split == "all" else (split,):
        views = dataset.load_views("train" if name == "train" else "test")
        if view not in views:
            raise UserError(
                f"dataset={dataset.name} has no images of the kind {view!r}, only of the kinds "
                f"{', '.join(views)}: type metrics=domains for a run that translates between them, "
                "or metrics=none."
            )
        parts.append(views[view])
    if len(parts) == 1:
        return parts[0]
    return Images(torch.cat([each.x for each in parts]), torch.cat([each.y for each in parts]))


def select_rows(images: Images, rows: Tensor) -> Images:
    """Return the images at the indices `rows`: copies, unless they are all images in order."""
    whole = torch.equal(rows, torch.arange(len(images.x)))
    return images if whole else images.select(rows)
