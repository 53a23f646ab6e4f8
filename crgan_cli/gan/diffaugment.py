"""DiffAugment: what D sees in both turns is augmented, and G learns through it."""

import torch
from torch import Tensor

from crgan_cli.config.bounds import Probability
from crgan_cli.gan.augment import Augment, gather_pixels, mark_outside
from crgan_cli.system import rng


class DiffAugment(Augment):
    """Zhao et al. 2020 (arXiv:2006.10738) section 4: colour, translation and cutout, in this order.

    colour: brightness + U[-0.5, 0.5], then saturation * U[0, 2] about the mean of each pixel's
    channels, then contrast * U[0.5, 1.5] about the image's mean; on the scale of [-1, 1].
    translation: whole pixels up to this share of the side; zeros come in. cutout: a square with
    this share of the side is set to 0; its centre is uniform. Ranges as in the authors' code
    (mit-han-lab/data-efficient-gans). A share of 0 leaves the step out.
    """

    def __init__(self, colour: bool, translation: Probability, cutout: Probability) -> None:
        super().__init__()
        self.colour = colour
        self.translation = translation
        self.cutout = cutout

    def transform(self, x: Tensor) -> Tensor:
        if self.colour:
            x = change_colours(x)
        if self.translation:
            x = translate(x, self.translation)
        return cut_out(x, self.cutout) if self.cutout else x


def change_colours(x: Tensor) -> Tensor:
    """Random brightness, saturation and contrast."""

    def draw() -> Tensor:
        return rng.rand(len(x), 1, 1, 1, device=x.device, dtype=x.dtype)

    x = x + (draw() - 0.5)
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * (2 * draw()) + grey
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (draw() + 0.5) + mean


def translate(x: Tensor, share: float) -> Tensor:
    """Shift by up to `share` of each side, whole pixels; zeros come in."""
    n, _, h, w = x.shape

    def sources(size: int) -> Tensor:
        most = int(size * share + 0.5)
        shift = rng.randint(-most, most + 1, n, 1, device=x.device)
        return mark_outside(torch.arange(size, device=x.device) + shift, size)

    offsets = torch.arange(0, n * h * w, h * w, device=x.device)
    rows = sources(h)
    return gather_pixels(x, rows * w, sources(w), offsets, zeros=True)


def cut_out(x: Tensor, share: float) -> Tensor:
    """Set a square of `share` of each side to 0."""
    n, _, h, w = x.shape

    def hidden(size: int) -> Tensor:
        length = int(size * share + 0.5)
        centre = rng.randint(0, size + 1 - length % 2, n, 1, device=x.device)
        position = torch.arange(size, device=x.device) - (centre - length // 2)
        return (position >= 0) & (position < length)

    rows = hidden(h)
    return x * ~(rows[:, None, :, None] & hidden(w)[:, None, None, :])
