"""Which training images an epoch has, and in which order: `conf/sampler`."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from crgan_cli.errors import UserError


class ImageSampler(ABC):
    """An epoch's images. `docs/extending.md` shows a sampler of one's own.

    An order is a function of labels and generator alone: then a run resumes exactly without any
    state in its checkpoint, and all processes draw the same one.
    """

    needs_classes: ClassVar[bool] = False
    """Whether it needs `dataset.classes`. It is then refused for other data before these are read.
    """

    @abstractmethod
    def draw(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return the images of an epoch in their order: (N,) integers from 0 to N - 1.

        An image may come several times, or not at all. `labels`: (N,) int64 class ids, zeros
        without classes, or (N, planes) rows of attributes; do not write to them. They are of one
        set (a domain, or a part of a joint data set), at each call the same. `generator`, on the
        CPU, is the only source of random numbers; it is seeded anew for each epoch.
        """

    def describe(self, labels: Tensor) -> str:
        """Say what the sampler does to the images of a set, for the log; "" says nothing."""
        return ""


class Shuffle(ImageSampler):
    """Each image once in an epoch, in random order."""

    def draw(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randperm(len(labels), generator=generator)


SHUFFLE = Shuffle()


class Balanced(ImageSampler):
    """Each class equally often, whatever its share of the images.

    Class-aware sampling, Shen et al. 2016 (arXiv:1512.05830): a list of the classes, and one of the
    images of each class. The next image is the next one of the next class; a list is shuffled when
    its end is reached. Any K images in a row from a multiple of K on are one of each of K classes,
    and no image of a class comes again before all others of it came.

    Unlike in the paper an epoch begins with new lists, so that it is drawn from its seed only.
    """

    needs_classes = True

    def draw(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return what the base class says. Raises UserError for fewer than two classes."""
        size, counts = len(labels), count_classes(labels)
        rounds = -(-size // len(counts))
        classes = draw_rounds(len(counts), rounds, generator)[:size]

        # the places of each class in the epoch, and its images, class after class
        places = classes.argsort(stable=True).split(classes.bincount().tolist())
        members = labels.argsort(stable=True).split(counts)
        order = torch.empty(size, dtype=torch.int64)
        for mine, images in zip(places, members, strict=True):
            repeats = -(-len(mine) // len(images))
            order[mine] = images[draw_rounds(len(images), repeats, generator)[: len(mine)]]
        return order

    def describe(self, labels: Tensor) -> str:
        counts, size = count_classes(labels), len(labels)
        low, high = size // len(counts), -(-size // len(counts))
        each = format_span(min(counts), max(counts))
        repeats = -(-high // min(counts))
        small = f", an image of the smallest class up to {repeats} times" if repeats > 1 else ""
        return (
            f"{len(counts)} classes of {each} images; an epoch of {size} images shows each class "
            f"{format_span(low, high)} times{small}"
        )


def format_span(low: int, high: int) -> str:
    """(2, 5) -> "2 to 5", (2, 2) -> "2"."""
    return f"{low}" if low == high else f"{low} to {high}"


def count_classes(labels: Tensor) -> list[int]:
    """Return how many images each class has that has any, by number.

    Raises UserError unless `labels` are (N,), of two classes or more.
    """
    if labels.ndim != 1:
        raise UserError(
            f"sampler=balanced needs one class per image, and these have {labels.shape[1]} "
            "attributes each. Type sampler=shuffle."
        )
    counts = labels.unique(return_counts=True)[1].tolist()
    if len(counts) < 2:
        raise UserError(
            "sampler=balanced needs two classes or more, and all training images are of one. Type "
            "sampler=shuffle, or give images of more classes."
        )
    return counts


def draw_rounds(count: int, rounds: int, generator: torch.Generator) -> Tensor:
    """Return `rounds` random orders of 0 to `count` - 1, one after the other."""
    lots = torch.rand(rounds, count, dtype=torch.float64, generator=generator)
    return lots.argsort(dim=1, stable=True).flatten()


def draw_order(sampler: ImageSampler, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return the order of an epoch, (N,) int64. Raises UserError if it is none of N images."""
    order, size = sampler.draw(labels, generator), len(labels)
    expected = f"draw must return {size} positions from 0 to {size - 1}: shape ({size},), int64"
    if not isinstance(order, Tensor):
        raise wrong_order(sampler, expected, f"it returned a {type(order).__name__}")
    kind = str(order.dtype).removeprefix("torch.")
    if tuple(order.shape) != (size,) or order.dtype not in (torch.int64, torch.int32):
        raise wrong_order(sampler, expected, f"it returned {kind} of shape {tuple(order.shape)}")
    order = order.to("cpu", torch.int64)
    low, high = int(order.min()), int(order.max())
    if low < 0 or high >= size:
        raise wrong_order(sampler, expected, f"they are from {low} to {high}")
    return order


def require_repeatable(sampler: ImageSampler, labels: Tensor) -> None:
    """Raise UserError if two epochs of one seed differ, or are no epochs."""
    first, again = (draw_order(sampler, labels, torch.Generator().manual_seed(0)) for _ in range(2))
    if not torch.equal(first, again):
        expected = "draw must return the same order for the same labels and seed of its generator"
        raise wrong_order(
            sampler,
            expected,
            "it did not, so that a run could not be resumed. Keep no state, and draw all random "
            "numbers with generator=generator",
        )


def wrong_order(sampler: ImageSampler, expected: str, found: str) -> UserError:
    """sampler NAME: EXPECTED, and FOUND."""
    return UserError(f"The sampler {type(sampler).__name__}: {expected}, and {found}.")
