"""The base class of the data sets."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import torch
from omegaconf import DictConfig

from crgan_cli.config.bounds import DataSide, NonNegativeInt, PositiveFraction, PositiveInt
from crgan_cli.config.build import build_group
from crgan_cli.config.sides import Sides
from crgan_cli.data.batch_sampler import BlockShuffle
from crgan_cli.data.images import Images
from crgan_cli.data.strata import choose_stratified
from crgan_cli.errors import UserError

Split = Literal["train", "test"]

log = logging.getLogger(__name__)


class DatasetInfo(NamedTuple):
    """The facts of a published data set. Its YAML can change `resolution` if `resizable`."""

    resolution: int
    channels: int
    classes: int
    inside_border: int | None = None  # side of the images within a black border, if they have one
    resizable: bool = False
    counts: Mapping[str, int] = {}  # split -> its images


@dataclass(kw_only=True, eq=False)
class Dataset:
    """Images in two splits. A subclass implements `read`, and sets `facts` for published data.

    The fields are the keys of its YAML file. A subclass with more keys is a dataclass too.
    """

    title: ClassVar[str] = "The data set"
    facts: ClassVar[DatasetInfo | None] = None

    resolution: DataSide
    channels: PositiveInt
    classes: NonNegativeInt  # 0 ignores the labels
    fraction: PositiveFraction = 1.0  # of the training images
    fraction_seed: NonNegativeInt = 0
    flip: bool = False

    class_names: tuple[str, ...] = field(default=(), init=False)  # complete after a `load`
    known_names: tuple[str, ...] = field(default=(), init=False)  # those of a run, if any

    @property
    def name(self) -> str:
        """A short name, for protocols and files."""
        return type(self).__name__.lower()

    @property
    def described(self) -> str:
        """The name, and what is used of it, for protocols."""
        return self.name

    @property
    def sides(self) -> Sides:
        """Height and width of the images that networks see."""
        return Sides.read(self.resolution)

    @property
    def stored_resolution(self) -> int:
        """The side of the stored training images; `Batches` cuts them down to `resolution`."""
        return self.resolution

    def stored_side(self, split: Split) -> int:
        """Return the side of the stored images of a split."""
        return self.stored_resolution if split == "train" else self.resolution

    @property
    def block_shuffle(self) -> BlockShuffle | None:
        """The order of an epoch, of sets that are read from a file; None: any order."""
        return None

    def keep_numbers(self, names: Sequence[str]) -> None:
        """Number the classes as a run did, whose classes have these `names`. Call it first."""
        self.known_names = tuple(names)

    def renumber(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names of classes in the order that a run knows them in, if there is a run.

        Classes that it does not know leave the order as it is, with a warning.
        """
        if not self.known_names or not names:
            return names
        if set(names) == set(self.known_names):
            return self.known_names
        log.warning(
            "%s: its classes %s are not those of the run, %s",
            self.name,
            ", ".join(names[:10]),
            ", ".join(self.known_names[:10]),
        )
        return names

    def read(self, split: Split) -> Images:
        """Return all images of a split in a fixed order, with their labels, if any."""
        raise NotImplementedError

    def read_used(self, split: Split) -> Images:
        """Return what `read` does of the classes that are used."""
        return self.read(split)

    def load(self, split: Split) -> Images:
        """Return the images of a split; of the training split, only `fraction` of each class.

        Raises UserError if the data are missing, damaged, or not as the YAML says.
        """
        self.require_facts()
        return self.finish(self.read_used(split), split, self.channels)

    def finish(self, images: Images, split: Split, channels: int) -> Images:
        """Return what `load` does of images that were read: checked, and a part of them.

        Without classes the labels become zeros; rows of attributes stay.
        """
        self._check(images, split, channels)
        images = self.take_fraction(images, split)
        labelled = self.classes or images.y.ndim == 2
        return images if labelled else images.with_labels(torch.zeros_like(images.y))

    def take_fraction(self, images: Images, split: Split) -> Images:
        """Return `fraction` of each class of the training split; the other split as it is."""
        if split == "test" or self.fraction == 1.0:
            return images
        indices = choose_stratified(images.y.numpy(), self.fraction, self.fraction_seed)
        return images.select(torch.from_numpy(indices))

    def load_whole(self, split: Split) -> Images:
        """Return what `load` does with all images at `sides`, as those of the test split are.

        For whoever compares images. Sets whose stored training images are larger (`Batches` cuts
        squares out of them) make them anew.
        """
        return self.load(split)

    def load_views(self, split: Split) -> dict[str, Images]:
        """Return what `load_whole` does, by view. "real" are whole images."""
        return self.views(self.load_whole(split))

    def load_sets(self, split: Split) -> dict[str, Images]:
        """Return the sets that a turn's real images are drawn from, each in an order of its own.

        Most data sets are one set, named "real".
        """
        return {"real": self.load(split)}

    def set_sizes(self, images: Images) -> tuple[int, ...]:
        """Return the sizes of consecutive parts of a set; a batch is drawn from one part at a time.

        Most sets are one part.
        """
        return (len(images.x),)

    def known_counts(self, split: Split) -> dict[str, int]:
        """Return how many images each of `load_sets` has at most; empty if that is not known yet.

        Decodes and downloads nothing. Raises UserError for files that cannot be listed.
        """
        counts = self.count_listed(split)
        return counts if split == "test" or self.fraction == 1.0 else {}

    def count_listed(self, split: Split) -> dict[str, int]:
        """Return what `known_counts` does, of the whole split."""
        return {"real": self.facts.counts[split]} if self.facts and self.facts.counts else {}

    def views(self, images: Images) -> dict[str, Images]:
        """Return the views of images. A data set of pairs also has "input" and "target"."""
        return {"real": images}

    def get_facts(self) -> DatasetInfo | None:
        """Return the facts of a published data set, of the part that is used."""
        return self.facts

    def require_facts(self) -> None:
        """Raise UserError if the YAML of a published data set contradicts its facts."""
        facts = self.get_facts()
        if facts is None:
            return
        keys = ("channels", "classes") if facts.resizable else ("resolution", "channels", "classes")
        wrong = [
            f"dataset.{key}={getattr(self, key)}"
            for key in keys
            # classes=0 ignores the labels; it does not claim that there are none
            if getattr(self, key) != getattr(facts, key)
            and not (key == "classes" and self.classes == 0)
        ]
        if wrong:
            size = "" if facts.resizable else f"is {facts.resolution}x{facts.resolution} and "
            raise UserError(
                f"{self.title} {size}has {facts.channels} channel{'s' * (facts.channels > 1)} and "
                f"{facts.classes} classes, so {' and '.join(wrong)} cannot be true. Leave it out, "
                "or train on your own images, resized as you like: dataset=folder "
                "dataset.root=PATH."
            )

    def _check(self, images: Images, split: Split, channels: int) -> None:
        if len(images.x) == 0:
            raise UserError(f"{self.title} has no image in its {split} split.")
        expected = (channels, *Sides.read(self.stored_side(split)))
        if tuple(images.x.shape[1:]) != expected or images.x.dtype != torch.uint8:
            raise UserError(
                f"{self.title} has {images.x.dtype} images of shape {tuple(images.x.shape[1:])} "
                f"(channels, height, width), but its YAML says {expected}. Correct "
                "dataset.channels and dataset.resolution, or replace the damaged files."
            )
        low, high = int(images.y.min()), int(images.y.max())
        known = 2 if images.y.ndim == 2 else self.classes  # attributes are 0 or 1
        if len(images.y) != len(images.x) or low < 0 or (known and high >= known):
            raise UserError(
                f"{self.title} has {len(images.x)} images and {len(images.y)} labels from {low} to "
                f"{high} in its {split} split, but its YAML says classes: {self.classes}. "
                "Correct dataset.classes, or replace the damaged files."
            )
        if self.classes and images.y.ndim == 1 and split == "train":
            counts = images.y.bincount(minlength=self.classes).tolist()
            if unseen := [str(label) for label, count in enumerate(counts) if not count]:
                text = "%s: no training image is of class %s (of 0 to %d): networks never see it"
                log.warning(text, self.name, ", ".join(unseen[:10]), self.classes - 1)


def build_dataset(config: DictConfig, class_names: Sequence[str] = ()) -> Dataset:
    """Build the data set. It reads its images only in `load`.

    `class_names` are those of a run, which keep their numbers.
    """
    dataset: Dataset = build_group(config.dataset)
    dataset.keep_numbers(class_names)
    return dataset
