"""Images as uint8 tensors, the base class of the data sets, and the numbers in between.

Pixels are stored as 0..255 and trained on as x / 127.5 - 1, so black is -1 and white is 1.
"""

import hashlib
from typing import Literal, NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from crgan_cli.config.bounds import NonNegativeInt, PositiveFraction, PositiveInt
from crgan_cli.config.build import build_group
from crgan_cli.errors import UserError

Split = Literal["train", "test"]


class Images(NamedTuple):
    """One split of a data set."""

    x: Tensor  # (N, C, H, W) uint8
    y: Tensor  # (N,) int64 class ids, zeros where there are no classes


class DatasetInfo(NamedTuple):
    """What a published data set is, whatever its YAML says."""

    resolution: int
    channels: int
    classes: int
    note: str = ""  # how the pixels come to that resolution, where they do not by themselves


def to_float(x: Tensor) -> Tensor:
    """0..255 -> float32 in [-1, 1], same shape. `to_uint8` gives back every value exactly."""
    return x.to(torch.float32).div_(127.5).sub_(1.0)


def to_uint8(x: Tensor) -> Tensor:
    """[-1, 1] -> the nearest of 0..255, same shape. What lies outside [-1, 1] is clamped."""
    # float32 first: bfloat16 cannot tell 254 from 255
    return x.to(torch.float32).add(1.0).mul_(127.5).round_().clamp_(0.0, 255.0).to(torch.uint8)


def fingerprint(images: Images) -> str:
    """sha256 (hex) over shape, pixels and labels, so that a reference file can name its data."""
    digest = hashlib.sha256(repr(tuple(images.x.shape)).encode())
    for chunk in images.x.split(4096):  # memory-mapped pixels are never copied as a whole
        digest.update(chunk.cpu().numpy().tobytes())
    digest.update(images.y.cpu().numpy().tobytes())
    return digest.hexdigest()


def stratified(y: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Sorted indices of a share of each class of `y` (N,): round(fraction * n), at least one.

    With the same seed a smaller fraction is a subset of a larger one.
    """
    # RandomState: its stream is frozen by NumPy's policy, so a subset means the same next year
    random = np.random.RandomState(seed)
    chosen: list[np.ndarray] = []
    for label in np.unique(y):
        members = random.permutation(np.flatnonzero(y == label))
        chosen.append(members[: max(1, round(fraction * len(members)))])
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, dtype=np.int64)


class Dataset:
    """A set of images in two splits. A subclass says how to read them, and its Facts if it has any.

    `classes: 0` leaves the labels out. `class_names` is complete once a split was loaded.
    """

    title = "The data set"
    facts: DatasetInfo | None = None
    class_names: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        resolution: PositiveInt,
        channels: PositiveInt,
        classes: NonNegativeInt,
        fraction: PositiveFraction = 1.0,
        fraction_seed: NonNegativeInt = 0,
        flip: bool = False,
    ) -> None:
        self.resolution = resolution
        self.channels = channels
        self.classes = classes
        self.fraction = fraction
        self.fraction_seed = fraction_seed
        self.flip = flip

    @property
    def name(self) -> str:
        """A short one, for the names of protocols and files."""
        return type(self).__name__.lower()

    def read(self, split: Split) -> Images:
        """All images of a split, in a fixed order, with their class ids where they have any."""
        raise NotImplementedError

    def load(self, split: Split) -> Images:
        """The images of a split; of the training split, only the fraction that is asked for.

        Raises UserError where the data are absent or damaged, or are not what the YAML says.
        """
        if self.facts is not None:
            self._compare_with(self.facts)
        images = self.read(split)
        self._check(images, split)
        if split == "train" and self.fraction < 1.0:
            picked = stratified(images.y.numpy(), self.fraction, self.fraction_seed)
            images = Images(*(part[torch.from_numpy(picked)] for part in images))
        return images if self.classes else Images(images.x, torch.zeros_like(images.y))

    def _compare_with(self, facts: DatasetInfo) -> None:
        wrong = [
            f"dataset.{key}={getattr(self, key)}"
            for key in ("resolution", "channels", "classes")
            # classes=0 is a wish (no labels), not a claim
            if getattr(self, key) != getattr(facts, key)
            and not (key == "classes" and self.classes == 0)
        ]
        if wrong:
            raise UserError(
                f"{self.title} is {facts.resolution}x{facts.resolution}{facts.note} with "
                f"{facts.channels} channel{'s' * (facts.channels > 1)} and {facts.classes} "
                f"classes, so {' and '.join(wrong)} cannot be true. Leave it out, or train on "
                "images of your own, resized as you like: dataset=folder dataset.root=PATH."
            )

    def _check(self, images: Images, split: Split) -> None:
        if len(images.x) == 0:
            raise UserError(f"{self.title} has no image in its {split} split.")
        expected = (self.channels, self.resolution, self.resolution)
        if tuple(images.x.shape[1:]) != expected or images.x.dtype != torch.uint8:
            raise UserError(
                f"{self.title} holds {images.x.dtype} images of shape {tuple(images.x.shape[1:])} "
                f"(channels, height, width), and its YAML says {expected}: correct "
                "dataset.channels and dataset.resolution, or replace the damaged files."
            )
        low, high = int(images.y.min()), int(images.y.max())
        if len(images.y) != len(images.x) or low < 0 or (self.classes and high >= self.classes):
            raise UserError(
                f"{self.title} has {len(images.x)} images and {len(images.y)} labels from {low} to "
                f"{high} in its {split} split, and its YAML says classes: {self.classes}. "
                "Correct dataset.classes, or replace the damaged files."
            )


def build_dataset(config: DictConfig) -> Dataset:
    """The data set, not read yet."""
    return build_group(config.dataset)


def format_shape(shape: tuple[int, ...]) -> str:
    """(1, 32, 32) -> 1 x 32 x 32."""
    return " x ".join(map(str, shape))
