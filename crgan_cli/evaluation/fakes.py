"""Images that are scored."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from crgan_cli.evaluation.metrics.features import Draw


class Fakes(NamedTuple):
    """Images to be scored, all sets of a protocol one after another."""

    draw: Draw  # (start, n) -> floats in [-1, 1]; the same images for the same indices
    y: Tensor | None = None  # (N,) class ids of the data set; None if unknown
    steps: tuple[Draw, ...] = ()  # of the images before and after a small step of the latents
    cycle: Callable[[int, Tensor], Tensor] | None = None
    """(start, translated images from there on) -> (n,) how far the way back is from the inputs."""
    identity: Callable[[int, int], Tensor] | None = None
    """(start, n) -> (n,) how far real images of the target are from their own translations."""
