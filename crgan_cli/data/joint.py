"""Several labelled data sets as one, for a model that learns all their labels.

Each image knows only the labels of its own part: the mask vector of Choi et al. 2018
(arXiv:1711.09020) section 3.3. `gan.labels.Labels` has the columns.
"""

import itertools
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crgan_cli.config.bounds import NamedGroups
from crgan_cli.config.build import build_group
from crgan_cli.data.cache import explain_disk_errors
from crgan_cli.data.dataset import Dataset, Split
from crgan_cli.data.images import Images
from crgan_cli.data.pixel_files import map_pixels
from crgan_cli.errors import UserError
from crgan_cli.gan.labels import Labels
from crgan_cli.system.cache import cache_folder

JOIN_IN_MEMORY = 2 * 1024**3
"""Bytes of pixels up to which the parts are joined in memory."""

log = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class Joint(Dataset):
    """Two or more data sets with classes or attributes, one after another.

    `parts` are their settings by name; their resolution and channels are this set's. y (N, planes)
    are the labels of all parts, then a column per part that says whether the image is of it. The
    flips are this set's; `fraction` is of what each part gives.
    """

    title = "dataset=joint"

    parts: NamedGroups

    def __post_init__(self) -> None:
        if self.classes:
            raise UserError(f"dataset.classes={self.classes}: each part has its own. Leave it out.")
        if len(self.parts) < 2:
            raise UserError(
                "dataset=joint joins two data sets or more. Type for example "
                "dataset@dataset.parts.first=celeba_attributes "
                "dataset@dataset.parts.second=folder dataset.parts.second.root=PATH "
                "dataset.parts.second.classes=8, or dataset=demo_joint."
            )
        self._sets = {name: self._build_part(name) for name in self.parts}

    def _build_part(self, name: str) -> Dataset:
        part = build_group(self.parts[name])
        key = f"dataset.parts.{name}"
        if not isinstance(part, Dataset):
            raise UserError(f"{key}._target_ must be a data set, not {type(part).__name__}.")
        if not part.classes and not getattr(part, "attributes", None):
            raise UserError(
                f"{key} has no labels, and joint data are joined by them. Type {key}.classes=N if "
                "its sub-folders are classes, or choose a set with attributes."
            )
        for what in ("resolution", "channels"):
            own, whole = getattr(part, what), getattr(self, what)
            if own != whole:
                raise UserError(
                    f"{key}.{what}={own}, but dataset.{what}={whole}: joined images are of one "
                    f"shape. Type {key}.{what}={whole}, or dataset.{what}={own} for all."
                )
        return part

    def keep_numbers(self, names: Sequence[str]) -> None:
        """Number the classes of each part as a run did; `names` are those of all parts."""
        sizes = [len(_label_names(part)) for part in self._sets.values()]
        if len(names) == sum(sizes):
            ends = itertools.accumulate(sizes)
            for part, size, end in zip(self._sets.values(), sizes, ends, strict=True):
                part.keep_numbers(names[end - size : end])

    def load(self, split: Split) -> Images:
        """Return the images of all parts, part after part.

        Above JOIN_IN_MEMORY bytes they are copied into a temporary file and memory-mapped. Raises
        what the parts raise, and UserError or RunFailed if the file cannot be written.
        """
        parts = self.load_views(split)
        y = torch.cat([each.y for each in parts.values()])
        return Images(join_pixels([each.x for each in parts.values()]), y)

    def load_views(self, split: Split) -> dict[str, Images]:
        """Return the images of each part by its name, with the labels of `load`."""
        loaded = {name: self._load_part(part, split) for name, part in self._sets.items()}
        # a folder's class names are known once it was read
        names = (_label_names(part) for part in self._sets.values())
        self.class_names = tuple(itertools.chain(*names))
        labels = Labels.from_settings({"parts": self.parts}, self.class_names)
        views: dict[str, Images] = {}
        start = 0
        for number, (name, images) in enumerate(loaded.items()):
            y = torch.zeros(len(images.x), labels.planes, dtype=torch.int64)
            size = labels.sizes[number]
            y[:, start : start + size] = Labels([labels.groups[number]]).encode(images.y).long()
            y[:, labels.size + number] = 1
            views[name] = Images(images.x, y)
            start += size
        return views

    def count_listed(self, split: Split) -> dict[str, int]:
        """Return the sum over the parts, if all are known."""
        counts = [part.known_counts(split).get("real") for part in self._sets.values()]
        known = [count for count in counts if count is not None]
        return {"real": sum(known)} if len(known) == len(counts) else {}

    def _load_part(self, part: Dataset, split: Split) -> Images:
        return self.take_fraction(part.load_whole(split), split)

    def set_sizes(self, images: Images) -> tuple[int, ...]:
        """Return how many of the images are of each part: the sums of their columns."""
        return tuple(images.y[:, -len(self.parts) :].sum(0).tolist())


def _label_names(part: Dataset) -> Sequence[str]:
    numbers = tuple(map(str, range(part.classes)))
    return tuple(getattr(part, "attributes", ())) or part.class_names or numbers


def join_pixels(parts: Sequence[Tensor], in_memory: int = JOIN_IN_MEMORY) -> Tensor:
    """Concatenate images (N, C, H, W) uint8: in memory up to `in_memory` bytes, else in a file.

    The file is in the cache folder, and gone when the process ends. Raises UserError or RunFailed
    if it cannot be written.
    """
    size = sum(part.nbytes for part in parts)
    if size <= in_memory:
        return torch.cat(list(parts))
    folder = cache_folder("datasets")
    log.info("the joined images take %.1f GB: they are copied to a file in %s", size / 1e9, folder)
    with explain_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            for part in parts:
                for chunk in part.split(1024):
                    file.write(chunk.numpy().tobytes())
            file.flush()
            shape = (sum(len(part) for part in parts), *parts[0].shape[1:])
            return map_pixels(file, shape)
